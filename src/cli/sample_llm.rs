//! `sample-llm`: the sample upstream on a port of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::args::SampleArgs;
use super::fail;
use super::run::init_log;
use crate::base::units::parse_duration;
use crate::compile::load::{Format, Source};
use crate::modules::REGISTRY;
use crate::server::supervisor::{self, Options};

pub fn sample_llm(args: &SampleArgs) -> ExitCode {
    let Some(delay) = parse_duration(&args.delay).filter(|d| *d >= 0) else {
        return fail(format_args!("`{}` is not a duration such as `30ms`", args.delay));
    };
    let config = json!({
        "admin": {"disabled": true},
        "apps": {"http": {"servers": {"sample": {
            "listen": [args.listen],
            "protocols": ["h1", "h2c"],
            "routes": [{"handle": [{"handler": "sample_llm", "delay": delay, "require_key": args.require_key}]}],
        }}}},
    });
    init_log();
    let control = std::env::temp_dir().join(format!("llmproxy-sample-{}.sock", std::process::id()));
    let exit = supervisor::run(Options {
        source: Source {
            path: PathBuf::from("sample-llm"),
            format: Format::Json,
            text: Some(config.to_string()),
            env_files: Vec::new(),
        },
        registry: &REGISTRY,
        watch: false,
        workers: 1,
        control,
        pid_file: None,
    });
    ExitCode::from(exit as u8)
}
