//! `migrate`: a Proxyfile that does what another proxy's settings did.

mod caddy;
mod dotenv;
mod gpt_reverse_proxy;

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::{MigrateArgs, MigrateEnvArgs, MigrateFrom};
use super::fail;
use crate::base::diagnostic;
use crate::base::env::Env;
use crate::compile::load::{self, Format, Source};
use crate::modules::REGISTRY;
use gpt_reverse_proxy::Settings;

pub fn migrate(args: &MigrateArgs) -> ExitCode {
    match &args.from {
        MigrateFrom::Caddy(args) => caddy::migrate(args),
        MigrateFrom::GptReverseProxy(args) => from_gpt_reverse_proxy(args),
    }
}

/// What a migration makes: the file, and what its owner should know before using it.
struct Migrated {
    text: String,
    notes: Vec<String>,
}

fn from_gpt_reverse_proxy(args: &MigrateEnvArgs) -> ExitCode {
    let shown = args.env_file.display();
    let text = match std::fs::read_to_string(&args.env_file) {
        Ok(text) => text,
        Err(error) => return fail(format_args!("{shown}: {error}")),
    };
    let vars = dotenv::parse(&text);
    let settings = match Settings::read(&vars) {
        Ok(settings) => settings,
        Err(why) => return fail(format_args!("{shown}: {why}")),
    };
    let name = args.output.as_ref().map_or("Proxyfile".into(), |path| path.display().to_string());
    let mut made = settings.proxyfile(&name, &shown.to_string());
    made.notes.extend(env_file_notes(&text, &settings, &shown.to_string()));
    deliver(&made, args.output.as_deref(), &args.env_file)
}

/// llmproxy reads env files as Caddy does, gpt-reverse-proxy as Node's dotenv: a value that is not the same in both would
/// be a wrong key at the first request.
fn env_file_notes(text: &str, settings: &Settings, shown: &str) -> Vec<String> {
    let mut env = Env::empty();
    if let Err(error) = env.add_file(text) {
        return vec![format!(
            "llmproxy cannot read {shown} with --envfile ({error}): write its lines as KEY=value, without blanks around `=`"
        )];
    }
    let differs = |(name, value): &(&str, &str)| env.get(name) != Some(value);
    let differing = settings.secrets().into_iter().filter(differs);
    differing
        .map(|(name, _)| {
            format!(
                "{name} in {shown} is read differently by --envfile: write it as {name}=value on one line, without `#`, \
                 escapes or quotes within quotes"
            )
        })
        .collect()
}

/// Writes the file, tells the notes, and checks that what was written can run.
fn deliver(made: &Migrated, output: Option<&Path>, env_file: &Path) -> ExitCode {
    match output {
        None => {
            let _ = std::io::stdout().write_all(made.text.as_bytes());
        }
        Some(path) => {
            // Whatever is there already may be somebody's work.
            let written = OpenOptions::new().write(true).create_new(true).open(path);
            if let Err(error) = written.and_then(|mut file| file.write_all(made.text.as_bytes())) {
                if error.kind() == ErrorKind::AlreadyExists {
                    return fail(format_args!("{} exists already and is kept; name another --output", path.display()));
                }
                return fail(format_args!("{}: {error}", path.display()));
            }
            println!("{} is written", path.display());
        }
    }
    for note in &made.notes {
        eprintln!("! {note}");
    }
    let source = Source {
        path: output.map_or_else(|| PathBuf::from("Proxyfile"), Path::to_path_buf),
        format: Format::Proxyfile,
        text: Some(made.text.clone()),
        env_files: vec![env_file.to_path_buf()],
    };
    let (runtime, loaded) = load::load_runtime(&source, &REGISTRY);
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
    eprint!("{}", diagnostic::render(&loaded.diagnostics, &loaded.sources, color));
    if runtime.is_some() { ExitCode::SUCCESS } else { fail("the file needs the changes above before it runs") }
}
