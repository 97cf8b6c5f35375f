//! `migrate caddy`: what becomes of each line of an existing Caddyfile, its certificates taken over, and the steps to switch.
//!
//! ```text
//! survey    every line: same, a note, unsupported, error        advice   what to know of it, the nearest way
//! output    the Proxyfile, byte for byte where it can be
//! storage   where Caddy keeps certificates, what lies there     takeover   copies them
//! steps     how to switch the service, and back
//! ```

mod advice;
mod output;
mod steps;
mod storage;
mod survey;
mod takeover;

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use time::OffsetDateTime;

use crate::base::env::Env;
use crate::cli::args::MigrateCaddyArgs;
use crate::cli::fail;
use crate::compile::automation::default_folder;
use crate::compile::load::{self, Format, Source};
use crate::modules::REGISTRY;
use crate::storage::FileStorage;
use steps::Certificates;
use survey::{Survey, Verdict};
use takeover::Outcome;

/// Looked for in this order when no file is named.
const DEFAULT_FILES: [&str; 2] = ["/etc/caddy/Caddyfile", "Caddyfile"];

/// Where the systemd unit keeps what llmproxy keeps.
const SERVICE_STORAGE: &str = "/var/lib/llmproxy";

pub fn migrate(args: &MigrateCaddyArgs) -> ExitCode {
    let Some(path) = args.file.clone().or_else(default_file) else {
        return fail(format_args!("no Caddyfile: neither of {} exists; name one", DEFAULT_FILES.join(" and ")));
    };
    if !path.is_file() {
        return fail(format_args!("{}: there is no such file", path.display()));
    }
    let source = Source { format: Format::of(&path), path: path.clone(), text: None, env_files: args.envfile.clone() };
    let survey = if source.format == Format::Json { survey_json(&source) } else { survey::survey(&source) };
    let mut out = report(&survey, args.brief);
    let mut runs = survey.runs;
    let mut failure = None;
    let mut written = None;
    if let Some(output) = &args.output {
        match output::write(&survey, output) {
            Ok(made) => {
                let source = Source { path: made.main.clone(), ..source };
                runs = load::load_runtime(&source, &REGISTRY).0.is_some();
                told_written(&mut out, &made, runs);
                written = Some(made);
            }
            Err(why) => failure = Some(why),
        }
    }
    verdict(&mut out, &survey, written.is_some());
    let certificates = certificates(&mut out, &survey, args, &mut failure);
    let proxyfile = written.as_ref().map_or(path.as_path(), |made| &made.main);
    let closed = written.as_ref().is_some_and(|made| made.closed);
    out.push_str(&steps::steps(&path, proxyfile, closed, &certificates));
    // A closed pipe (`| head`) is not a failure worth a message.
    let _ = std::io::stdout().write_all(out.as_bytes());
    match failure {
        Some(why) => fail(why),
        None if runs => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

fn default_file() -> Option<PathBuf> {
    DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// Caddy's JSON has no lines: what is refused names the place in it.
fn survey_json(source: &Source) -> Survey {
    let adapted = load::load_config(source, &REGISTRY);
    let storage = adapted.config.as_ref().and_then(survey::storage);
    let (runtime, loaded) = load::compile(adapted, &REGISTRY);
    let elsewhere = loaded.diagnostics.iter().map(|d| match &d.help {
        Some(help) => format!("{}: {help}", d.message),
        None => d.message.clone(),
    });
    Survey {
        lines: Vec::new(),
        elsewhere: elsewhere.collect(),
        runs: runtime.is_some(),
        storage,
        sources: loaded.sources,
    }
}

/// One line for each line of the file, what there is to say below it.
fn report(survey: &Survey, brief: bool) -> String {
    let place = |line: &survey::Line| {
        let name = survey.sources.get(line.span.file).map_or("", |file| file.name.as_str());
        format!("{}:{}", storage::printable(name), survey.sources.line_col(line.span).0)
    };
    let lines: Vec<_> =
        survey.lines.iter().filter(|l| !brief || l.verdict != Verdict::Same).map(|line| (place(line), line)).collect();
    let width = lines.iter().map(|(place, _)| place.len()).max().unwrap_or_default();
    let mut out = String::new();
    for (place, line) in lines {
        let _ = writeln!(out, "{place:width$}  {:11}  {}", line.verdict.word(), line.names.join(" / "));
        for text in &line.told {
            let _ = writeln!(out, "    - {text}");
        }
    }
    for text in &survey.elsewhere {
        let _ = writeln!(out, "- {text}");
    }
    out
}

fn verdict(out: &mut String, survey: &Survey, written: bool) {
    let count = |verdict| survey.count(verdict);
    if !survey.lines.is_empty() {
        let _ = write!(out, "\n{} lines the same, {} with a note", count(Verdict::Same), count(Verdict::Note));
        let _ = write!(out, ", {} not supported", count(Verdict::Unsupported));
        let broken = count(Verdict::Broken);
        let _ = if broken > 0 { writeln!(out, ", {broken} wrong") } else { writeln!(out) };
    }
    if survey.runs {
        out.push_str("The file runs as it is.\n");
    } else if !written {
        out.push_str("The file does not run as it is: see the lines above");
        let dispensable = output::dispensable(survey).count();
        if dispensable > 0 {
            let _ = write!(out, "; {dispensable} of them can go, and --output leaves them out");
        }
        out.push_str(".\n");
    }
    out.push_str("What is done otherwise on purpose, for every site: docs/reference/differences.md\n");
}

fn told_written(out: &mut String, made: &output::Written, runs: bool) {
    out.push('\n');
    for file in &made.files {
        let _ = writeln!(out, "written: {}", file.display());
    }
    for file in &made.elsewhere {
        let _ = writeln!(out, "still read from where it is: {}", file.display());
    }
    if made.left_out > 0 {
        let _ = writeln!(out, "{} lines are comments now, each with the reason above it", made.left_out);
    }
    let _ = writeln!(out, "What is written {}.", if runs { "runs" } else { "does not run yet: see the lines above" });
}

/// Tells of what Caddy keeps, and takes it over when asked to.
fn certificates(
    out: &mut String,
    survey: &Survey,
    args: &MigrateCaddyArgs,
    failure: &mut Option<String>,
) -> Certificates {
    let found = match (&args.storage, &survey.storage) {
        (Some(given), _) => vec![given.clone()],
        (None, Some(named)) => {
            let _ =
                writeln!(out, "\nCertificates: the file names {}, which llmproxy uses as it stands", named.display());
            tell_kept(out, &storage::read(&FileStorage::new(named)));
            return Certificates::Shared(named.clone());
        }
        (None, None) => storage::find(&Env::from_process()),
    };
    let target = args.copy_storage.as_ref().map(|to| to.clone().unwrap_or_else(own_storage));
    let mut chosen = None;
    for folder in found {
        if args.storage.is_some() && !folder.is_dir() {
            *failure = Some(format!("--storage {}: no such folder", folder.display()));
            return Certificates::None;
        }
        let from = FileStorage::new(&folder);
        let kept = storage::read(&from);
        if kept.is_empty() && kept.unreadable.is_empty() && args.storage.is_none() {
            continue;
        }
        let _ = writeln!(out, "\nCertificates in {}", storage::printable(&folder.display().to_string()));
        tell_kept(out, &kept);
        if let Some(to) = &target {
            take_over(out, &kept, &from, to, failure);
        }
        chosen.get_or_insert(folder);
    }
    match (chosen, target) {
        (None, target) => {
            if target.is_some() && failure.is_none() {
                *failure = Some("no storage of Caddy is found: name its folder with --storage".into());
            }
            Certificates::None
        }
        (Some(_), Some(_)) => Certificates::Copied,
        (Some(folder), None) => Certificates::Found(folder),
    }
}

fn tell_kept(out: &mut String, kept: &storage::Kept) {
    let now = OffsetDateTime::now_utc();
    for found in &kept.certificates {
        let over = if found.not_after <= now { ", expired" } else { "" };
        let (issuer, until) = (storage::printable(&found.issuer), found.not_after.date());
        let _ = writeln!(out, "  {}  {issuer}  until {until}{over}", found.names.join(", "));
    }
    for account in &kept.accounts {
        let (issuer, who) = (storage::printable(&account.issuer), storage::printable(&account.who));
        let _ = writeln!(out, "  account {who}  {issuer}");
    }
    for authority in &kept.authorities {
        let _ =
            writeln!(out, "  internal CA {}  until {}", storage::printable(&authority.id), authority.not_after.date());
    }
    for text in &kept.unreadable {
        let _ = writeln!(out, "  cannot be read: {text}");
    }
}

fn take_over(out: &mut String, kept: &storage::Kept, from: &FileStorage, to: &Path, failure: &mut Option<String>) {
    let _ = writeln!(out, "  to {}:", to.display());
    let outcomes = takeover::copy(kept, from, &FileStorage::new(to), OffsetDateTime::now_utc());
    for (what, outcome) in outcomes {
        let _ = match outcome {
            Outcome::Copied => writeln!(out, "    {what}: copied"),
            Outcome::Kept => writeln!(out, "    {what}: what is there is kept"),
            Outcome::Expired => writeln!(out, "    {what}: expired, left"),
            Outcome::Failed(why) => {
                failure.get_or_insert(format!("not everything could be copied to {}", to.display()));
                writeln!(out, "    {what}: {why}")
            }
        };
    }
    if !kept.unreadable.is_empty() {
        failure.get_or_insert("not everything could be read: see above (another user's folder needs `sudo`)".into());
    }
}

/// Where llmproxy looks: as a service when root asks, else in this user's folder.
fn own_storage() -> PathBuf {
    let root = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    let told = Env::from_process().get("STATE_DIRECTORY").is_some_and(|folder| !folder.is_empty());
    if root && !told { PathBuf::from(SERVICE_STORAGE) } else { default_folder() }
}
