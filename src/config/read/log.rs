//! A log: the `log` option and the `log` directive, which differ in little.

use serde_json::{Value, json};

use super::line::Line;
use super::{log_encoder, log_writer};
use crate::base::diagnostic::Diagnostic;
use crate::config::directive_cx::{AccessLog, Parsed};
use crate::config::log_types::Sampling;
use crate::config::nanos::Nanos;
use crate::config::types::{Log, Module};

/// Where the line stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Options,
    Site,
}

const SITE: &[&str] = &["hostnames", "no_hostname", "output", "format", "level", "sampling", "core"];
const OPTIONS: &[&str] = &["output", "format", "level", "sampling", "core", "include", "exclude"];

/// Reads the line and its block. The name is empty when none is written; wrong lines of the block are reported and
/// left out.
pub fn read(line: &Line<'_>, place: Place, diagnostics: &mut Vec<Diagnostic>) -> Parsed<AccessLog> {
    let name = line.none_or_one()?.map(|token| token.text().to_owned()).unwrap_or_default();
    let mut out = AccessLog { name, ..AccessLog::default() };
    let mut log = Log::default();
    line.each(diagnostics, |option, diagnostics| {
        match (option.name(), place) {
            ("hostnames", Place::Site) => out.hostnames.extend(option.some()?),
            ("no_hostname", Place::Site) => {
                option.none()?;
                out.no_hostname = true;
            }
            ("include", Place::Options) => log.include.extend(option.words()),
            ("exclude", Place::Options) => log.exclude.extend(option.words()),
            ("no_hostname", Place::Options) => option.warn_ignored(0, true, diagnostics),
            ("hostnames", Place::Options) => {
                let message = format!("`{}` belongs to the `log` directive of a site", option.name());
                return Err(option.error("option-not-allowed-here", message));
            }
            ("include" | "exclude", Place::Site) => {
                let message = format!("`{}` belongs to the `log` option at the top of the file", option.name());
                return Err(option.error("option-not-allowed-here", message));
            }
            ("output", _) => log.writer = Some(module(&log_writer::read(&option.module()?, diagnostics)?)),
            ("format", _) => log.encoder = Some(module(&log_encoder::read(&option.module()?, diagnostics)?)),
            ("level", _) => log.level = option.text()?,
            ("sampling", _) => log.sampling = Some(sampling(&option, diagnostics)),
            ("core", _) => log.core = Some(core(&option.module()?)?),
            (_, Place::Site) => return Err(option.unknown("log", SITE)),
            (_, Place::Options) => return Err(option.unknown("log", OPTIONS)),
        }
        Ok(())
    });
    out.log = (log != Log::default()).then_some(log);
    Ok(out)
}

fn sampling(line: &Line<'_>, diagnostics: &mut Vec<Diagnostic>) -> Value {
    let mut out = Sampling::default();
    line.warn_ignored(0, false, diagnostics);
    line.each(diagnostics, |option, _| {
        match option.name() {
            "interval" => out.interval = Nanos(option.duration()?),
            "first" => out.first = option.integer()?,
            "thereafter" => out.thereafter = option.integer()?,
            _ => return Err(option.unknown("sampling", &["interval", "first", "thereafter"])),
        }
        Ok(())
    });
    serde_json::to_value(out).unwrap_or_else(|_| json!({}))
}

/// `mock`, which logs nothing, is the only one that Caddy has.
fn core(line: &Line<'_>) -> Parsed<Module> {
    match line.name() {
        "mock" => Ok(Module::from_iter([("module".to_owned(), Value::from("mock"))])),
        _ => Err(line.unknown_module("log core", &["mock"])),
    }
}

fn module(typed: &impl serde::Serialize) -> Module {
    match serde_json::to_value(typed) {
        Ok(Value::Object(module)) => module,
        _ => Module::new(),
    }
}
