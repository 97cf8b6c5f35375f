//! The control socket: how `llmproxy reload`, `stop` and `status` speak with a running proxy.
//!
//! A unix socket of mode 0600, always there, independent of any HTTP admin API. One JSON object a line each way.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::proxy::status::UpstreamStatus;
use crate::storage::ledger::LedgerStatus;
use crate::tls::maintenance::CertificateState;

/// Longest request line: a path and a flag.
const MAX_REQUEST: u64 = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Load the configuration anew; `path` switches to another file.
    Reload {
        #[serde(default)]
        path: Option<PathBuf>,
        /// Also when nothing changed.
        #[serde(default)]
        force: bool,
    },
    Stop,
    Status,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub ok: bool,
    /// For a person: diagnostics of a reload, or what went wrong.
    #[serde(default)]
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// What `llmproxy status` shows. Holds no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub config: String,
    pub listening: Vec<String>,
    /// By worker.
    pub open_connections: Vec<usize>,
    pub uptime_seconds: u64,
    pub reloads: u64,
    /// Certificates that are looked after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateState>,
    /// Where requests go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<UpstreamStatus>,
    /// Where calls are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ledgers: Vec<LedgerStatus>,
    /// Why the file on disk is not what runs, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reload_error: Option<String>,
}

/// A command with the way to answer it.
pub struct Request {
    pub command: Command,
    pub answer: oneshot::Sender<Answer>,
}

/// The listening end; its file is removed when it is dropped.
pub struct ControlSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ControlSocket {
    /// Binds `path`. A socket that a dead process left behind is replaced; one that answers is not.
    pub fn bind(path: &Path) -> std::io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        if path.exists() {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(std::io::Error::from(std::io::ErrorKind::AddrInUse));
            }
            std::fs::remove_file(path)?;
        }
        // Between bind and chmod the socket has the umask's mode: narrow that for the moment of the bind.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(before);
        let listener = bound?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { path: path.to_path_buf(), listener })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Accepts for ever, passing commands on. Runs on a local runtime.
    pub async fn serve(&self, commands: mpsc::Sender<Request>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let commands = commands.clone();
                    tokio::task::spawn_local(async move {
                        if let Err(error) = converse(stream, commands).await {
                            tracing::debug!(%error, "control connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket cannot accept");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn converse(stream: UnixStream, commands: mpsc::Sender<Request>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(MAX_REQUEST)).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match serde_json::from_str(&line) {
            Ok(command) => {
                let (answer, answered) = oneshot::channel();
                let sent = commands.send(Request { command, answer }).await;
                match (sent, answered.await) {
                    (Ok(()), Ok(answer)) => answer,
                    _ => Answer { message: "the proxy is ending".into(), ..Answer::default() },
                }
            }
            Err(error) => Answer { message: format!("not a command: {error}"), ..Answer::default() },
        };
        let mut bytes = serde_json::to_vec(&answer)?;
        bytes.push(b'\n');
        write.write_all(&bytes).await?;
    }
    Ok(())
}

/// Sends one command to the proxy behind `path` and waits for the answer (blocking).
pub fn call(path: &Path, command: &Command) -> std::io::Result<Answer> {
    use std::io::{BufRead, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    std::io::BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

/// Where the control socket is unless told otherwise: the service manager's runtime directory, else the user's own.
#[must_use]
pub fn default_path(env: &crate::base::env::Env) -> PathBuf {
    if let Some(path) = env.get("LLMPROXY_CONTROL") {
        return path.into();
    }
    let uid = rustix::process::getuid().as_raw();
    let directory = match (env.get("RUNTIME_DIRECTORY"), env.get("XDG_RUNTIME_DIR")) {
        (Some(directory), _) => PathBuf::from(directory),
        (None, Some(directory)) if uid != 0 => Path::new(directory).join("llmproxy"),
        _ if uid == 0 => PathBuf::from("/run/llmproxy"),
        _ => std::env::temp_dir().join(format!("llmproxy-{uid}")),
    };
    directory.join("control.sock")
}
