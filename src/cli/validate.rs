//! `validate`: everything that `run` would refuse, without running.

use std::process::ExitCode;

use super::args::ValidateArgs;
use super::fail;
use crate::base::diagnostic;
use crate::compile::load;
use crate::modules::REGISTRY;

pub fn validate(args: &ValidateArgs) -> ExitCode {
    let source = match args.config.source() {
        Ok(source) => source,
        Err(message) => return fail(message),
    };
    let (runtime, loaded) = load::load_runtime(&source, &REGISTRY);
    if args.json {
        println!("{}", diagnostic::to_json(&loaded.diagnostics, &loaded.sources));
    } else {
        let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
        eprint!("{}", diagnostic::render(&loaded.diagnostics, &loaded.sources, color));
    }
    match runtime {
        Some(_) => {
            if !args.json {
                println!("{} is valid", source.path.display());
            }
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    }
}
