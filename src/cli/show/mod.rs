//! `show`: a record of `record`, readably; or a list of those in a folder.

mod load;
mod print;
pub(super) mod safe;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use super::args::ShowArgs;
use super::fail;
use load::Record;

pub fn show(args: &ShowArgs) -> ExitCode {
    if args.path.is_dir() {
        return list(&args.path, args.json);
    }
    match Record::load(&args.path) {
        Ok(record) => put(&if args.json { print::json(&record) } else { print::text(&record, args.raw) }),
        Err(why) => fail(format_args!("{}: {why}", args.path.display())),
    }
}

fn list(folder: &Path, json: bool) -> ExitCode {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return fail(format_args!("{}: {error}", folder.display())),
    };
    let mut paths: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "jsonl" || e == "part"))
        .collect();
    // The time is in front.
    paths.sort();
    let mut out = String::new();
    for path in &paths {
        // What is no record, or was removed meanwhile, is no part of the list.
        let Ok(record) = Record::load(path) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        out += &if json { print::json_entry(&record, &name) } else { print::entry(&record, &name) };
    }
    if out.is_empty() {
        return fail(format_args!("{}: no records here", folder.display()));
    }
    put(&out)
}

/// A closed pipe (`| head`) is not a failure worth a message.
fn put(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
