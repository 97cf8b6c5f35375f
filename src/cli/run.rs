//! `run` and `start`.

use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::args::{RunArgs, control_path};
use super::fail;
use crate::compile::logs::default_log;
use crate::modules::REGISTRY;
use crate::server::control;
use crate::server::supervisor::{self, Options};
use crate::telemetry::log::Logs;
use crate::telemetry::process;

pub fn run(args: &RunArgs) -> ExitCode {
    let source = match args.config.source() {
        Ok(source) => source,
        Err(message) => return fail(message),
    };
    init_log();
    let exit = supervisor::run(Options {
        source,
        registry: &REGISTRY,
        watch: !args.no_watch,
        workers: args.workers,
        control: control_path(args.control.as_ref()),
        pid_file: args.pidfile.clone(),
    });
    ExitCode::from(exit as u8)
}

/// Runs `run` with the same arguments in a process of its own and returns once it answers on its control socket.
pub fn start(args: &RunArgs) -> ExitCode {
    let control = control_path(args.control.as_ref());
    if control::call(&control, &control::Command::Status).is_ok() {
        return fail(format_args!("an llmproxy is running already (control socket {})", control.display()));
    }
    let exe = match std::env::current_exe() {
        Ok(exe) => exe,
        Err(error) => return fail(error),
    };
    let rest = std::env::args_os().skip(1).map(|a| if a == "start" { "run".into() } else { a });
    let child =
        Command::new(exe).args(rest).stdin(Stdio::null()).stdout(Stdio::null()).process_group_detached().spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return fail(format_args!("cannot start: {error}")),
    };
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let code = status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1);
                return ExitCode::from(code.max(1));
            }
            Ok(None) => {}
            Err(error) => return fail(error),
        }
        if let Ok(answer) = control::call(&control, &control::Command::Status)
            && answer.status.is_some_and(|s| s.pid == child.id())
        {
            println!("llmproxy runs in the background (pid {})", child.id());
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

trait Detached {
    fn process_group_detached(&mut self) -> &mut Self;
}

impl Detached for Command {
    /// A group of its own, so that a Ctrl-C in the terminal does not reach it.
    fn process_group_detached(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}

/// The process log before a configuration says otherwise: life-cycle messages and warnings on standard error.
pub fn init_log() {
    process::init(&Logs(vec![Arc::new(default_log())]));
}
