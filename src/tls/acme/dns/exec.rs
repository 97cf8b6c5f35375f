//! `dns exec PROGRAM [ARGS…]`: a program of the admin's sets and clears the record.
//!
//! It is run as `PROGRAM ARGS… set NAME VALUE` and `PROGRAM ARGS… clear NAME VALUE`. Output is read up to a bound and told
//! only when the program fails; at the end of its time it is killed with all that it started.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::masked::masked;
use super::{Record, filled};
use crate::base::env::{self, Env};
use crate::config::dns_provider::ExecProvider;

/// How long one run may take unless told otherwise.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Output kept of each of the two streams.
const MAX_OUTPUT: usize = 4096;
/// How long output is waited for once the program has ended: something that it left running may hold the stream.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Variables that tell of the machine, so they may be seen in a message.
const HARMLESS: [&str; 11] =
    ["PATH", "HOME", "PWD", "OLDPWD", "SHELL", "USER", "LOGNAME", "LANG", "TERM", "HOSTNAME", "SHLVL"];
/// The service manager's, meant for this process alone.
const NOT_PASSED_ON: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

pub struct Exec {
    program: PathBuf,
    args: Vec<String>,
    timeout: Duration,
}

impl Exec {
    pub fn of(config: &ExecProvider) -> Result<Self, String> {
        Ok(Self {
            program: find_program(&config.command)?,
            args: config.args.iter().map(|arg| filled(arg)).collect::<Result<_, _>>()?,
            timeout: config.timeout.positive().unwrap_or(TIMEOUT),
        })
    }

    pub async fn set(&self, record: &Record) -> Result<(), String> {
        self.run("set", record).await
    }

    pub async fn clear(&self, record: &Record) -> Result<(), String> {
        self.run("clear", record).await
    }

    async fn run(&self, action: &str, record: &Record) -> Result<(), String> {
        let program = self.program.display();
        let env = env::current();
        let mut command = Command::new(&self.program);
        command.args(&self.args).args([action, &record.name, &record.value]);
        command.envs(env.iter());
        if let Some(ttl) = record.ttl {
            command.env("LLMPROXY_DNS_TTL", ttl.as_secs().to_string());
        }
        for name in NOT_PASSED_ON {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A group of its own, so that what it starts ends with it.
        command.process_group(0);
        let mut child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
        let _group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let output = (child.stdout.take(), child.stderr.take());
        let running = async {
            let said = async { tokio::join!(read(output.0), read(output.1)) };
            tokio::pin!(said);
            let status = tokio::select! {
                status = child.wait() => status,
                said = &mut said => return (child.wait().await, said),
            };
            (status, tokio::time::timeout(LAST_WORDS, said).await.unwrap_or_default())
        };
        let Ok((status, said)) = tokio::time::timeout(self.timeout, running).await else {
            return Err(format!("{program} did not end within {} s and was killed", self.timeout.as_secs_f32()));
        };
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{program}: {status}{}", self.told(&said, &env))),
            Err(error) => Err(format!("{program}: {error}")),
        }
    }

    /// What it wrote to standard error, else to standard output, without secrets.
    fn told(&self, (stdout, stderr): &(Vec<u8>, Vec<u8>), env: &Env) -> String {
        let text = String::from_utf8_lossy(if stderr.trim_ascii().is_empty() { stdout } else { stderr });
        let of_environment = env.iter().filter(|(name, _)| is_secret(name)).map(|(_, value)| value);
        let text = masked(&text, of_environment.chain(self.args.iter().map(String::as_str)));
        if text.is_empty() { text } else { format!(": {text}") }
    }
}

fn is_secret(variable: &str) -> bool {
    !HARMLESS.contains(&variable) && !variable.starts_with("XDG_") && !variable.starts_with("LC_")
}

/// The program that would be run: the path as it stands, or a name looked for in `PATH`.
///
/// # Errors
/// It is missing, or this user may not execute it.
pub fn find_program(command: &str) -> Result<PathBuf, String> {
    if command.contains('/') {
        return usable(Path::new(command)).map(|()| command.into());
    }
    if command.is_empty() {
        return Err("no program is named".into());
    }
    let env = env::current();
    let folders = env.get("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin");
    std::env::split_paths(folders)
        .map(|folder| folder.join(command))
        .find(|file| usable(file).is_ok())
        .ok_or_else(|| format!("{command}: no such program in PATH"))
}

fn usable(file: &Path) -> Result<(), String> {
    let told = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
    let kind = std::fs::metadata(file).map_err(|e| told(&e))?;
    if !kind.is_file() {
        return Err(told(&"not a file"));
    }
    rustix::fs::access(file, rustix::fs::Access::EXEC_OK).map_err(|_| told(&"not executable by this user (`chmod +x`)"))
}

/// All processes of a run; ended on drop, should any be left.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // None left is the usual case.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Reads to the end, so that the program never blocks, and keeps the last words. That is far more than is shown, so that a
/// secret at the cut is not shown in half.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return kept };
    let mut chunk = [0; 1024];
    while let Ok(n @ 1..) = stream.read(&mut chunk).await {
        kept.extend(chunk.iter().take(n));
        kept.drain(..kept.len().saturating_sub(MAX_OUTPUT));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    fn exec(folder: &tempfile::TempDir, script: &str) -> Exec {
        let program = folder.path().join("dns");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = ExecProvider {
            command: program.to_str().unwrap().into(),
            args: vec!["--zone".into(), "opensesame".into()],
            timeout: crate::config::nanos::Nanos(1_000_000_000),
        };
        Exec::of(&config).unwrap()
    }

    fn record() -> Record {
        Record { name: "_acme-challenge.a.test".into(), value: "v".into(), ttl: Some(Duration::from_mins(1)) }
    }

    fn run(exec: &Exec) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(exec.set(&record()))
    }

    #[test]
    fn the_program_is_told_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("said");
        let exec = exec(&folder, &format!("echo \"$@ $LLMPROXY_DNS_TTL\" > {}", file.display()));
        run(&exec).unwrap();
        let said = std::fs::read_to_string(file).unwrap();
        assert_eq!(said, "--zone opensesame set _acme-challenge.a.test v 60\n");
    }

    #[test]
    fn its_complaint_is_told_without_secrets_and_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(&exec(&folder, "echo out; echo \"wrong key $2\" >&2; exit 3")).unwrap_err();
        assert!(error.ends_with("exit status: 3: wrong key …"), "{error}");
        let error =
            run(&exec(&folder, "head -c 1000000 /dev/zero | tr '\\0' x; echo ' last words'; exit 1")).unwrap_err();
        assert!(
            error.contains("exit status: 1: …xxx") && error.ends_with("last words") && error.len() < 500,
            "{error}"
        );
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let began = Instant::now();
        let error = run(&exec(&folder, &format!("sleep 600 & echo $! > {}; wait", file.display()))).unwrap_err();
        assert!(error.contains("did not end within 1 s"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20));
        let child: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        // Dead, or dead and not yet collected by whoever inherited it.
        let gone = || std::fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "));
        while !gone() {
            assert!(began.elapsed() < Duration::from_secs(20), "{child} still runs");
            std::thread::sleep(Duration::from_millis(5));
        }
        // One that ends and leaves something behind does not hold us up.
        run(&exec(&folder, "sleep 600 & exit 0")).unwrap();
    }

    #[test]
    fn what_cannot_be_run_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plain");
        std::fs::write(&file, "").unwrap();
        for (command, part) in [
            ("", "no program"),
            ("/nonexistent/dns", "/nonexistent/dns: No such file"),
            ("surely-no-such-program", "no such program in PATH"),
            (folder.path().to_str().unwrap(), "not a file"),
            (file.to_str().unwrap(), "not executable"),
        ] {
            let error = find_program(command).unwrap_err();
            assert!(error.contains(part), "{command}: {error}");
        }
        assert_eq!(find_program("sh").unwrap().file_name().unwrap(), "sh");
    }
}
