//! Room 9: the command line. Owns: arguments, what is printed for a person, exit codes. Everything else is below.

mod adapt;
mod args;
mod doctor;
mod explain;
mod fmt;
mod migrate;
mod remote;
mod run;
mod sample_llm;
mod show;
mod token;
mod trust;
mod usage;
mod validate;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are not failures.
            let code = u8::from(error.use_stderr());
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match args.command {
        Command::Run(args) => run::run(&args),
        Command::Start(args) => run::start(&args),
        Command::Stop(args) => remote::stop(&args),
        Command::Reload(args) => remote::reload(&args),
        Command::Status(args) => remote::status(&args),
        Command::Validate(args) => validate::validate(&args),
        Command::Adapt(args) => adapt::adapt(&args),
        Command::Fmt(args) => fmt::fmt(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::NewToken(args) => token::new_token(&args),
        Command::Trust(args) => trust::trust(&args),
        Command::Untrust(args) => trust::untrust(&args),
        Command::HashToken(args) => token::hash_token(&args),
        Command::Completion { shell } => {
            use clap::CommandFactory;
            clap_complete::generate(shell, &mut Args::command(), "llmproxy", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Migrate(args) => migrate::migrate(&args),
        Command::Show(args) => show::show(&args),
        Command::Usage(args) => usage::usage(&args),
        Command::SampleLlm(args) => sample_llm::sample_llm(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Version => {
            println!("llmproxy {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

/// A failure that is told in one line.
fn fail(message: impl std::fmt::Display) -> ExitCode {
    eprintln!("llmproxy: {message}");
    ExitCode::FAILURE
}
