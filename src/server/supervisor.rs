//! The life of the program: start, reload on change, signal or command, stop.
//!
//! Runs on the main thread's own small runtime; requests are served by the workers and never wait for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::Server;
use super::admin::Endpoint;
use super::background::Runner;
use super::control::{Answer, Command, ControlSocket, Request, Status};
use super::watch::FileWatch;
use crate::base::diagnostic::{self, Diagnostic};
use crate::compile::load::{self, Format, Loaded, Source};
use crate::config::registry::Registry;
use crate::telemetry::process;
use crate::tls::ManagedStore;
use crate::tls::maintenance::Maintenance;

/// How long the end of the program waits for logs to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// How a run is to be.
pub struct Options {
    pub source: Source,
    pub registry: &'static Registry,
    /// Reload when a file of the configuration changes.
    pub watch: bool,
    /// Worker threads; 0 = one per core.
    pub workers: usize,
    pub control: PathBuf,
    pub pid_file: Option<PathBuf>,
}

/// How a run ended, as an exit code of Caddy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Ok = 0,
    /// The configuration or a socket is not usable.
    StartFailed = 1,
    /// Told to end at once while requests were open.
    Forced = 2,
}

/// Runs until told to stop. Diagnostics of the first load go to standard error.
pub fn run(options: Options) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(tokio::runtime::LocalOptions::default());
    let exit = match runtime {
        Ok(runtime) => runtime.block_on(Supervisor::run(options)),
        Err(error) => {
            eprintln!("llmproxy: cannot start: {error}");
            Exit::StartFailed
        }
    };
    crate::storage::ledger::close_all(FLUSH_LIMIT);
    crate::telemetry::transcript::flush_all(FLUSH_LIMIT);
    crate::telemetry::sink::flush_all(FLUSH_LIMIT);
    exit
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hangup: Signal,
    usr1: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
        })
    }
}

struct Supervisor {
    source: Source,
    registry: &'static Registry,
    server: Server,
    certificates: Maintenance,
    background: Runner,
    admin: Endpoint,
    watch: Option<FileWatch>,
    started: Instant,
    reloads: u64,
    last_error: Option<String>,
}

impl Supervisor {
    async fn run(options: Options) -> Exit {
        // Before anything is read or served: a file that changes while it is read is seen, and a signal that comes as
        // soon as we listen does what it means.
        let signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => {
                eprintln!("llmproxy: cannot watch signals: {error}");
                return Exit::StartFailed;
            }
        };
        let mut watch = options.watch.then(FileWatch::new);
        if let Some(watch) = &mut watch {
            let own = [options.source.path.clone()];
            watch.set(own.into_iter().chain(options.source.env_files.iter().cloned()));
        }
        let (runtime, loaded) = load::load_runtime(&options.source, options.registry);
        print(&loaded.diagnostics, &loaded);
        let Some(runtime) = runtime else {
            eprintln!("llmproxy: {} cannot be used; nothing was started", options.source.path.display());
            return Exit::StartFailed;
        };
        if let Some(watch) = &mut watch {
            watch.set(loaded.watched.iter().cloned());
        }
        let workers = match options.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            n => n,
        };
        let mut server = match Server::start(workers) {
            Ok(server) => server,
            Err(error) => {
                eprintln!("llmproxy: cannot start workers: {error}");
                return Exit::StartFailed;
            }
        };
        if let Err(error) = runtime.prepare() {
            eprintln!("llmproxy: {error}");
            return Exit::StartFailed;
        }
        process::use_logs(&runtime.logs);
        let certificates = match Maintenance::start(Arc::clone(ManagedStore::shared())) {
            Ok(started) => started,
            Err(error) => {
                eprintln!("llmproxy: cannot start looking after certificates: {error}");
                return Exit::StartFailed;
            }
        };
        let plan = Arc::clone(&runtime.certificates);
        certificates.prepare(&plan).await;
        let mut admin = Endpoint::default();
        let opened = match admin.prepare(runtime.admin.as_ref()) {
            Ok(opened) => opened,
            Err(error) => {
                eprintln!("llmproxy: {error}");
                return Exit::StartFailed;
            }
        };
        if let Err(error) = server.swap(Arc::new(runtime)).await {
            eprintln!("llmproxy: {error}");
            return Exit::StartFailed;
        }
        certificates.apply(&plan);
        admin.apply(server.runtime().admin.as_ref(), opened);
        let mut background = Runner::default();
        background.apply(&server.runtime().background);
        let (send, commands) = mpsc::channel(16);
        let control = bind_control(&options.control);
        if let Some(control) = &control {
            tracing::debug!(path = %control.path().display(), "control socket");
        }
        let control_task = control.map(|control| tokio::task::spawn_local(async move { control.serve(send).await }));
        let _pid_file = options.pid_file.as_deref().map(PidFile::write);
        for address in server.addresses() {
            tracing::info!(%address, "listening");
        }
        notify_ready();
        let supervisor = Self {
            source: options.source,
            registry: options.registry,
            server,
            certificates,
            background,
            admin,
            watch,
            started: Instant::now(),
            reloads: 0,
            last_error: None,
        };
        let exit = supervisor.serve(commands, signals).await;
        if let Some(task) = control_task {
            // Dropping the socket removes its file.
            task.abort();
            let _ = task.await;
        }
        exit
    }

    async fn serve(mut self, mut commands: mpsc::Receiver<Request>, signals: Signals) -> Exit {
        let Signals { mut interrupt, mut terminate, mut quit, mut hangup, mut usr1 } = signals;
        loop {
            let reason = tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = quit.recv() => return Exit::Forced,
                _ = hangup.recv() => "signal",
                _ = usr1.recv() => "signal",
                () = changed(&mut self.watch) => "file change",
                Some(request) = commands.recv() => match self.answer(request.command).await {
                    (answer, false) => {
                        let _ = request.answer.send(answer);
                        continue;
                    }
                    (answer, true) => {
                        let _ = request.answer.send(answer);
                        // Let the answer leave before the sockets close.
                        tokio::task::yield_now().await;
                        break;
                    }
                },
            };
            let answer = self.reload(None, reason).await;
            if !answer.ok {
                eprint!("{}", answer.message);
            }
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        tracing::info!("stopping");
        let runtime = Arc::clone(self.server.runtime());
        let drained = async {
            if let Some(delay) = runtime.shutdown_delay {
                tokio::time::sleep(delay).await;
            }
            self.server.shutdown(runtime.grace_period).await;
        };
        tokio::select! {
            () = drained => Exit::Ok,
            _ = interrupt.recv() => Exit::Forced,
            _ = terminate.recv() => Exit::Forced,
            _ = quit.recv() => Exit::Forced,
        }
    }

    /// The answer to a command, and whether to stop.
    async fn answer(&mut self, command: Command) -> (Answer, bool) {
        match command {
            // Every reload is done, also of a file that says the same: `force` asks for what happens anyway.
            Command::Reload { path, force: _ } => (self.reload(path, "command").await, false),
            Command::Stop => (Answer { ok: true, message: "stopping".into(), status: None }, true),
            Command::Status => (Answer { ok: true, message: String::new(), status: Some(self.status()) }, false),
        }
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            config: std::path::absolute(&self.source.path)
                .unwrap_or_else(|_| self.source.path.clone())
                .display()
                .to_string(),
            listening: self.server.addresses().collect(),
            open_connections: self.server.open_connections(),
            uptime_seconds: self.started.elapsed().as_secs(),
            reloads: self.reloads,
            certificates: self.certificates.states(),
            upstreams: crate::proxy::status::all(),
            ledgers: crate::storage::ledger::status(),
            last_reload_error: self.last_error.clone(),
        }
    }

    /// Loads anew and, if that works, swaps. On any error the old runtime goes on untouched.
    async fn reload(&mut self, path: Option<PathBuf>, reason: &'static str) -> Answer {
        let began = Instant::now();
        let _ = sd_notify::notify(&[
            sd_notify::NotifyState::Reloading,
            sd_notify::NotifyState::monotonic_usec_now().unwrap_or(sd_notify::NotifyState::Status("reloading")),
        ]);
        if let Some(watch) = &mut self.watch {
            watch.look();
        }
        let tried = self.try_reload(path).await;
        notify_ready();
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match tried {
            Ok(message) => {
                self.reloads += 1;
                self.last_error = None;
                tracing::info!(reason, millis, "configuration reloaded");
                Answer { ok: true, message, status: None }
            }
            Err(Refused { message, cause }) => {
                self.last_error = Some(message.clone());
                // With its cause: who reads a log file does not see standard error.
                tracing::error!(reason, cause, "reload failed: the configuration before it goes on unchanged");
                Answer { ok: false, message, status: None }
            }
        }
    }

    /// What there is to say about the new configuration, which runs.
    async fn try_reload(&mut self, path: Option<PathBuf>) -> Result<String, Refused> {
        let mut source = self.source.clone();
        if let Some(path) = path {
            source.format = Format::of(&path);
            source.path = path;
        }
        // Compiling reads files and hashes nothing small: not on the thread that answers commands.
        let (done, result) = oneshot::channel();
        let (load_source, registry) = (source.clone(), self.registry);
        std::thread::spawn(move || {
            let _ = done.send(load::load_runtime(&load_source, registry));
        });
        let Ok((runtime, loaded)) = result.await else {
            let cause = "loading the configuration failed unexpectedly".to_owned();
            return Err(Refused { message: format!("{cause}\n"), cause });
        };
        if let Some(watch) = &mut self.watch {
            // Also after a failure: the next save of whatever it read may mend it.
            watch.set(loaded.watched.iter().cloned());
        }
        let mut message = diagnostic::render(&loaded.diagnostics, &loaded.sources, false);
        let Some(runtime) = runtime else {
            let cause = diagnostic::brief(&loaded.diagnostics, &loaded.sources);
            return Err(Refused { message, cause });
        };
        if let Err(error) = runtime.prepare() {
            message.push_str(&format!("{error}\n"));
            return Err(Refused { message, cause: error.clone() });
        }
        let logs = runtime.logs.clone();
        let plan = Arc::clone(&runtime.certificates);
        self.certificates.prepare(&plan).await;
        let opened = match self.admin.prepare(runtime.admin.as_ref()) {
            Ok(opened) => opened,
            Err(error) => {
                message.push_str(&format!("{error}\n"));
                return Err(Refused { message, cause: error.to_string() });
            }
        };
        if let Err(error) = self.server.swap(Arc::new(runtime)).await {
            message.push_str(&format!("{error}\n"));
            return Err(Refused { message, cause: error.to_string() });
        }
        self.certificates.apply(&plan);
        self.admin.apply(self.server.runtime().admin.as_ref(), opened);
        self.background.apply(&self.server.runtime().background);
        process::use_logs(&logs);
        self.source = source;
        Ok(message)
    }
}

/// Why a configuration was not taken over.
struct Refused {
    /// For a person, with the places in the files.
    message: String,
    /// In one line, for the log.
    cause: String,
}

async fn changed(watch: &mut Option<FileWatch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// Binds the control socket; when another llmproxy has the path, one of our own beside it.
fn bind_control(path: &Path) -> Option<ControlSocket> {
    match ControlSocket::bind(path) {
        Ok(socket) => Some(socket),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let own = path.with_file_name(format!("control-{}.sock", std::process::id()));
            tracing::warn!(
                "another llmproxy has {}; this one is reached with --control {}",
                path.display(),
                own.display()
            );
            ControlSocket::bind(&own).ok()
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no control socket: reload with a signal or by saving the file");
            None
        }
    }
}

fn notify_ready() {
    // Fails where there is no service manager, which is not a fault.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

fn print(diagnostics: &[Diagnostic], loaded: &Loaded) {
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
    eprint!("{}", diagnostic::render(diagnostics, &loaded.sources, color));
}

/// Written at start, removed at the end.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> Self {
        if let Err(error) = std::fs::write(path, format!("{}\n", std::process::id())) {
            tracing::warn!(path = %path.display(), %error, "cannot write pid file");
        }
        Self(path.to_path_buf())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
