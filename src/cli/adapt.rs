//! `adapt`: the configuration as Caddy's JSON.

use std::io::Write;
use std::process::ExitCode;

use super::args::AdaptArgs;
use super::fail;
use crate::base::diagnostic;
use crate::compile::load;
use crate::modules::REGISTRY;

pub fn adapt(args: &AdaptArgs) -> ExitCode {
    let source = match args.config.source() {
        Ok(source) => source,
        Err(message) => return fail(message),
    };
    let loaded =
        if args.validate { load::load_runtime(&source, &REGISTRY).1 } else { load::load_config(&source, &REGISTRY) };
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
    eprint!("{}", diagnostic::render(&loaded.diagnostics, &loaded.sources, color));
    let Some(config) = loaded.config.filter(|_| !loaded.diagnostics.iter().any(diagnostic::Diagnostic::is_error))
    else {
        return ExitCode::FAILURE;
    };
    let text = if args.pretty { pretty(&config) } else { serde_json::to_string(&config) };
    match text {
        // A closed pipe (`| head`) is not a failure worth a message.
        Ok(text) => {
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}

/// Tabs, as Caddy indents.
fn pretty(config: &crate::config::types::Config) -> serde_json::Result<String> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    serde::Serialize::serialize(config, &mut serializer)?;
    Ok(String::from_utf8(out).unwrap_or_default())
}
