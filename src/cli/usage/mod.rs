//! `usage`: sums of what was used and what it cost, from the ledger; `usage export`: every call.

mod cells;
mod print;
mod when;

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use time::OffsetDateTime;

use super::args::{ConfigArgs, UsageArgs, UsageCommand, UsageOf, control_path};
use super::fail;
use crate::compile::load;
use crate::config::types::HttpApp;
use crate::config::usage_ledger::default_path;
use crate::modules::REGISTRY;
use crate::server::control;
use crate::storage::ledger::report::{By, Question, Reader};

pub fn usage(args: &UsageArgs) -> ExitCode {
    let done = match &args.command {
        Some(UsageCommand::Export(of)) => export(of),
        None => sums(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(why),
    }
}

fn sums(args: &UsageArgs) -> Result<(), String> {
    let by: Vec<By> = args
        .by
        .iter()
        .map(|name| By::named(name).ok_or_else(|| format!("`{name}` is none of: {}", By::NAMES.join(", "))))
        .collect::<Result<_, _>>()?;
    let question = question(&args.of, by)?;
    let reader = open(&args.of)?;
    let sums = reader.sums(&question).map_err(|fault| fault.to_string())?;
    let text = if args.of.json {
        print::json(&question.by, &sums)
    } else if args.of.csv {
        print::csv(&question.by, &sums)
    } else {
        let unpriced = reader.unpriced(&question).map_err(|fault| fault.to_string())?;
        print::table(&question.by, &sums, &unpriced, reader.lost())
    };
    // A closed pipe (`| head`) is not a failure worth a message.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn export(of: &UsageOf) -> Result<(), String> {
    let question = question(of, Vec::new())?;
    let reader = open(of)?;
    let columns = reader.call_columns().map_err(|fault| fault.to_string())?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    if !of.json {
        let _ = writeln!(out, "{}", columns.join(","));
    }
    let read = reader.calls(&question, |call| {
        let line = if of.json { cells::json(&columns, call) } else { cells::csv(call) };
        writeln!(out, "{line}").is_ok()
    });
    let _ = out.flush();
    read.map_err(|fault| fault.to_string())
}

fn question(of: &UsageOf, by: Vec<By>) -> Result<Question, String> {
    let now = OffsetDateTime::now_utc();
    let time = |text: &Option<String>| text.as_deref().map(|text| when::millis(text, now)).transpose();
    let (since, until) = (time(&of.since)?, time(&of.until)?);
    if let (Some(since), Some(until)) = (since, until)
        && until <= since
    {
        return Err("--until is not behind --since".to_owned());
    }
    Ok(Question { by, since, until })
}

fn open(of: &UsageOf) -> Result<Reader, String> {
    let path = path(of)?;
    if !path.exists() {
        return Err(format!(
            "there is no ledger {}; `usage` in the configuration makes one, and --ledger names another",
            path.display()
        ));
    }
    Reader::open(&path).map_err(|fault| fault.to_string())
}

/// The ledger that is meant.
fn path(of: &UsageOf) -> Result<PathBuf, String> {
    if let Some(path) = &of.ledger {
        return Ok(path.clone());
    }
    if of.config.is_some() {
        return configured(of);
    }
    // Whoever runs here knows best where its calls are.
    let running = control::call(&control_path(of.control.as_ref()), &control::Command::Status);
    if let Some(ledger) = running.ok().and_then(|answer| answer.status?.ledgers.into_iter().next()) {
        return Ok(PathBuf::from(ledger.path));
    }
    // A file that cannot be read is no reason to refuse where nobody asked for it.
    Ok(configured(of).unwrap_or_else(|_| default_path()))
}

fn configured(of: &UsageOf) -> Result<PathBuf, String> {
    let source = ConfigArgs { config: of.config.clone(), adapter: None, envfile: of.envfile.clone() }.source()?;
    let loaded = load::load_config(&source, &REGISTRY);
    let Some(config) = loaded.config else {
        return Err(format!("{} cannot be used; `llmproxy validate` says why", source.path.display()));
    };
    let named = |http: &HttpApp| http.usage.as_ref()?.get("ledger")?.as_str().map(PathBuf::from);
    Ok(config.apps.http.as_ref().and_then(named).unwrap_or_else(default_path))
}
