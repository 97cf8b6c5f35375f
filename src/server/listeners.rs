//! Listening sockets: one per address, bound before a swap, kept over reloads, inherited from the service manager.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::sys;
use crate::compile::address::ListenAddr;

/// Connections the kernel holds for us while all workers are busy.
const BACKLOG: i32 = 4096;

/// The open sockets by address.
pub type Listening = Arc<BTreeMap<ListenAddr, Arc<ListenSocket>>>;

/// A bound, listening socket. Removes its path when a unix socket is closed.
#[derive(Debug)]
pub struct ListenSocket {
    pub socket: Socket,
    pub address: ListenAddr,
}

impl Drop for ListenSocket {
    fn drop(&mut self) {
        if let ListenAddr::Unix { path, .. } = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    pub address: ListenAddr,
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error.kind() {
            io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "{} is already in use: another process (perhaps another llmproxy) listens there",
                    self.address
                )
            }
            io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "not allowed to listen on {}: ports below 1024 need CAP_NET_BIND_SERVICE or root",
                    self.address
                )
            }
            _ => write!(f, "cannot listen on {}: {}", self.address, self.error),
        }
    }
}

impl std::error::Error for BindError {}

#[derive(Default)]
pub struct Listeners {
    open: Listening,
}

impl Listeners {
    /// The sockets for `wanted`: those open already, and new ones. On failure the new ones are closed again.
    pub fn prepare<'a>(&self, wanted: impl Iterator<Item = &'a ListenAddr>) -> Result<Listening, BindError> {
        let mut next = BTreeMap::new();
        for address in wanted {
            let socket = match self.open.get(address) {
                Some(open) => Arc::clone(open),
                None => open(address)?,
            };
            next.insert(address.clone(), socket);
        }
        Ok(Arc::new(next))
    }

    pub fn keep(&mut self, listening: Listening) {
        self.open = listening;
    }

    pub fn addresses(&self) -> impl Iterator<Item = String> + '_ {
        self.open.keys().map(ToString::to_string)
    }

    pub fn close(&mut self) {
        self.open = Arc::default();
    }
}

/// Binds and listens.
pub fn open(address: &ListenAddr) -> Result<Arc<ListenSocket>, BindError> {
    let socket = bind(address).map_err(|error| BindError { address: address.clone(), error })?;
    Ok(Arc::new(ListenSocket { socket, address: address.clone() }))
}

fn bind(address: &ListenAddr) -> io::Result<Socket> {
    let socket = match address {
        ListenAddr::Tcp { ip, port } => bind_tcp(*ip, *port)?,
        ListenAddr::Unix { path, mode } => bind_unix(path, *mode)?,
        ListenAddr::Fd(fd) => Socket::from(sys::inherited(*fd)?),
    };
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind_tcp(ip: Option<std::net::IpAddr>, port: u16) -> io::Result<Socket> {
    let Some(ip) = ip else {
        // All addresses: one IPv6 socket that takes IPv4 too; plain IPv4 where the host has no IPv6.
        return match bind_ip(SocketAddr::from(([0_u16; 8], port)), true) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
                bind_ip(SocketAddr::from(([0, 0, 0, 0], port)), false)
            }
            other => other,
        };
    };
    bind_ip(SocketAddr::new(ip, port), false)
}

fn bind_ip(addr: SocketAddr, dual: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!dual)?;
    }
    // Lets a restart bind while old connections linger in TIME_WAIT; it does not let two processes listen.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn bind_unix(path: &std::path::Path, mode: Option<u32>) -> io::Result<Socket> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    if let Ok(meta) = std::fs::symlink_metadata(path)
        && meta.file_type().is_socket()
    {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::from(io::ErrorKind::AddrInUse));
        }
        // Left behind by a process that did not end cleanly.
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    // Caddy's default for a unix listener: write permission for the owner only.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode.unwrap_or(0o200)))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
