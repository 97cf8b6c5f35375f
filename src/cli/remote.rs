//! `reload`, `stop`, `status`: commands to a running proxy.

use std::process::ExitCode;

use super::args::{ReloadArgs, RemoteArgs, StatusArgs, control_path};
use super::fail;
use crate::server::control::{self, Answer, Command};

pub fn reload(args: &ReloadArgs) -> ExitCode {
    let path = args.config.as_ref().map(|p| std::path::absolute(p).unwrap_or_else(|_| p.clone()));
    match send(&args.remote, &Command::Reload { path, force: args.force }) {
        Ok(answer) => {
            eprint!("{}", answer.message);
            if answer.ok {
                println!("reloaded");
                ExitCode::SUCCESS
            } else {
                fail("not reloaded; the configuration before it goes on unchanged")
            }
        }
        Err(code) => code,
    }
}

pub fn stop(args: &RemoteArgs) -> ExitCode {
    match send(args, &Command::Stop) {
        Ok(answer) if answer.ok => {
            println!("{}", answer.message);
            ExitCode::SUCCESS
        }
        Ok(answer) => fail(answer.message),
        Err(code) => code,
    }
}

pub fn status(args: &StatusArgs) -> ExitCode {
    let status = match send(&args.remote, &Command::Status) {
        Ok(answer) => match answer.status {
            Some(status) => status,
            None => return fail(answer.message),
        },
        Err(code) => return code,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    println!("llmproxy {} (pid {}), up {} s", status.version, status.pid, status.uptime_seconds);
    println!("config       {}", status.config);
    println!("listening    {}", status.listening.join(", "));
    let total: usize = status.open_connections.iter().sum();
    println!("connections  {total} on {} workers", status.open_connections.len());
    println!("reloads      {}", status.reloads);
    for certificate in &status.certificates {
        let until = if certificate.not_after.is_empty() { "none yet" } else { &certificate.not_after };
        println!("certificate  {} ({}) until {until}", certificate.name, certificate.issuer);
        if !certificate.error.is_empty() {
            println!("             {}", certificate.error);
        }
    }
    for upstream in &status.upstreams {
        println!("upstream     {}", upstream.in_words());
    }
    for ledger in &status.ledgers {
        let error = ledger.error.as_ref().map(|error| format!(", cannot be written: {error}")).unwrap_or_default();
        let lost = if ledger.lost > 0 { format!(", {} calls are missing from it", ledger.lost) } else { String::new() };
        println!("ledger       {}{error}{lost}", ledger.path);
    }
    if let Some(error) = status.last_reload_error {
        println!("\nThe file on disk does not run; the configuration before it does:\n{error}");
    }
    ExitCode::SUCCESS
}

fn send(args: &RemoteArgs, command: &Command) -> Result<Answer, ExitCode> {
    let path = control_path(args.control.as_ref());
    control::call(&path, command).map_err(|error| {
        fail(format_args!(
            "no llmproxy answers on {} ({error}); name its control socket with --control if it runs elsewhere",
            path.display()
        ))
    })
}
