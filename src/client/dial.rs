//! Making a connection: name resolution, both address families side by side, unix sockets, proxies, TLS.
//!
//! Every failure here is safe to retry elsewhere: no byte of the request has left.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::dns::Dns;
use super::stream::Stream;
use super::target::{Address, Scheme, Target, TargetOptions};
use super::{tls, tunnel};
use crate::base::error::{Kind, ProxyError, Retry};

pub(super) struct Dialed {
    pub stream: Stream,
    /// The address connected to: the upstream's, or the proxy's.
    pub remote: Option<SocketAddr>,
    /// HTTP/2, by ALPN or prior knowledge.
    pub h2: bool,
    pub took: Duration,
}

#[derive(Copy, Clone, Default)]
pub(super) struct Wanted<'a> {
    /// A PROXY protocol header: written before anything else, TLS included.
    pub first_bytes: Option<&'a [u8]>,
    /// HTTP/1.1 although the target allows HTTP/2: for upgrades, which HTTP/2 does not have.
    pub h1_only: bool,
}

pub(super) async fn dial(target: &Target, wanted: Wanted<'_>) -> Result<Dialed, ProxyError> {
    let started = Instant::now();
    let (mut stream, remote) = connect(target).await?;
    if let Some(bytes) = wanted.first_bytes {
        stream.write_all(bytes).await.map_err(|e| failed(Kind::ConnectFailed, &target.label, &e))?;
    }
    let handshake = async {
        let stream = match &target.proxy {
            Some(proxy) => tunnel::through(proxy, target, stream).await?,
            None => stream,
        };
        secure(target, stream, wanted.h1_only).await
    };
    let (stream, h2) = match target.options.timeouts.handshake {
        None => handshake.await?,
        Some(limit) => {
            tokio::time::timeout(limit, handshake).await.map_err(|_| handshake_timed_out(&target.label))??
        }
    };
    Ok(Dialed { stream, remote, h2, took: started.elapsed() })
}

async fn connect(target: &Target) -> Result<(Stream, Option<SocketAddr>), ProxyError> {
    let options = &target.options;
    let deadline = options.timeouts.dial.and_then(|limit| Instant::now().checked_add(limit));
    let connecting = async {
        match (&target.proxy, &options.address) {
            (Some(proxy), _) => connect_tcp(&proxy.host, proxy.port, options, deadline).await,
            (None, Address::Tcp { host, port }) => connect_tcp(host, *port, options, deadline).await,
            (None, Address::Unix(path)) => Ok((Stream::Unix(connect_unix(path).await?), None)),
        }
    };
    let result = match deadline {
        None => connecting.await,
        Some(deadline) => {
            timeout_at(deadline, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
    };
    result.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => timed_out(&target.label, "connecting took too long"),
        _ => failed(Kind::ConnectFailed, &target.label, &error),
    })
}

async fn secure(target: &Target, stream: Stream, h1_only: bool) -> Result<(Stream, bool), ProxyError> {
    let Some((client, name)) = &target.tls else { return Ok((stream, target.prior_knowledge_h2())) };
    let config = if h1_only { client.h1_config() } else { client.config() };
    let connector = TlsConnector::from(Arc::clone(config));
    let tls_failed = |e: io::Error| failed(Kind::TlsFailed, &target.label, &e);
    let (stream, alpn) = match stream {
        Stream::Tcp(tcp) => {
            let tls = connector.connect(name.clone(), tcp).await.map_err(tls_failed)?;
            let alpn = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            (Stream::Tls(Box::new(tls)), alpn)
        }
        other => {
            let tls = connector.connect(name.clone(), other).await.map_err(tls_failed)?;
            let alpn = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            (Stream::TlsOver(Box::new(tls)), alpn)
        }
    };
    if !alpn && !target.options.versions.h1 {
        return Err(ProxyError::new(
            Kind::TlsFailed,
            Retry::Safe,
            format!("{}: the upstream does not speak HTTP/2, and HTTP/1.1 is not allowed", target.label),
        ));
    }
    Ok((stream, alpn))
}

/// TLS to an `https://` proxy itself.
pub(super) async fn secure_proxy(host: &str, stream: Stream) -> Result<Stream, io::Error> {
    let client = tls::for_proxy().map_err(io::Error::other)?;
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let tls = TlsConnector::from(client.config().clone()).connect(name, stream).await?;
    Ok(Stream::TlsOver(Box::new(tls)))
}

async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    match path.to_str().and_then(|path| path.strip_prefix('@')) {
        Some(name) => UnixStream::connect(format!("\0{name}")).await,
        None => UnixStream::connect(path).await,
    }
}

async fn connect_tcp(
    host: &str,
    port: u16,
    options: &TargetOptions,
    deadline: Option<Instant>,
) -> io::Result<(Stream, Option<SocketAddr>)> {
    let stream = if let Ok(ip) = host.parse::<IpAddr>() {
        connect_one(SocketAddr::new(ip, port), options).await?
    } else {
        let found = addresses_of(host, port, options).await?;
        connect_any(&found, options, deadline).await?
    };
    let remote = stream.peer_addr().ok();
    Ok((Stream::Tcp(stream), remote))
}

async fn addresses_of(host: &str, port: u16, options: &TargetOptions) -> io::Result<Vec<SocketAddr>> {
    if options.resolvers.is_empty() {
        return Ok(tokio::net::lookup_host((host, port)).await?.collect());
    }
    let found = async { Dns::for_upstreams(&options.resolvers, None)?.hosts(host, true, true).await };
    let found = found.await.map_err(io::Error::other)?;
    Ok(found.records.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

/// Go's way: the family of the first address leads, the other one starts after the fallback delay or the leader's
/// failure; the first connection wins.
async fn connect_any(
    found: &[SocketAddr],
    options: &TargetOptions,
    deadline: Option<Instant>,
) -> io::Result<TcpStream> {
    let Some(first) = found.first() else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    };
    let (lead, rest): (VecDeque<SocketAddr>, VecDeque<SocketAddr>) =
        found.iter().partition(|a| a.is_ipv4() == first.is_ipv4());
    let Some(delay) = options.timeouts.dial_fallback_delay.filter(|_| !rest.is_empty()) else {
        return connect_in_turn(found.iter().copied().collect(), options, deadline).await;
    };
    let mut lead = pin!(connect_in_turn(lead, options, deadline));
    let lead_error = tokio::select! {
        result = &mut lead => match result {
            Ok(stream) => return Ok(stream),
            Err(error) => Some(error),
        },
        () = tokio::time::sleep(delay) => None,
    };
    let rest = pin!(connect_in_turn(rest, options, deadline));
    match lead_error {
        Some(error) => rest.await.map_err(|_| error),
        None => race(lead, rest).await,
    }
}

/// The first success of two, or the leader's error.
async fn race<T>(
    mut lead: impl Future<Output = io::Result<T>> + Unpin,
    mut rest: impl Future<Output = io::Result<T>> + Unpin,
) -> io::Result<T> {
    tokio::select! {
        result = &mut lead => match result {
            Ok(stream) => Ok(stream),
            Err(error) => rest.await.map_err(|_| error),
        },
        result = &mut rest => match result {
            Ok(stream) => Ok(stream),
            Err(_) => lead.await,
        },
    }
}

/// One address after the other. Each gets its share of the time left, so that one dead address cannot use it up, but
/// no less than 2 s (as Go).
async fn connect_in_turn(
    addresses: VecDeque<SocketAddr>,
    options: &TargetOptions,
    deadline: Option<Instant>,
) -> io::Result<TcpStream> {
    let mut first_error = None;
    let mut left = addresses.len();
    for address in addresses {
        let share = deadline.map(|deadline| {
            let now = Instant::now();
            let rest = deadline.saturating_duration_since(now);
            let fair = rest / u32::try_from(left).unwrap_or(u32::MAX).max(1);
            now + fair.max(Duration::from_secs(2)).min(rest)
        });
        left -= 1;
        let attempt = connect_one(address, options);
        let result = match share {
            None => attempt.await,
            Some(share) => timeout_at(share, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        };
        match result {
            Ok(stream) => return Ok(stream),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

async fn connect_one(address: SocketAddr, options: &TargetOptions) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    if let Some(interval) = options.keepalive.probe_interval {
        // Linux takes whole seconds up to this.
        let interval = interval.clamp(Duration::from_secs(1), Duration::from_secs(32767));
        let probes = TcpKeepalive::new().with_time(interval).with_interval(interval);
        SockRef::from(&socket).set_tcp_keepalive(&probes)?;
    }
    if let Some(local) = options.local_address {
        if local.port() != 0 {
            // One address, connection after connection: also while an earlier one is remembered by the system.
            socket.set_reuseaddr(true)?;
        }
        socket.bind(local)?;
    }
    socket.connect(address).await
}

fn failed(kind: Kind, label: &str, error: &dyn std::fmt::Display) -> ProxyError {
    ProxyError::new(kind, Retry::Safe, format!("{label}: {error}"))
}

fn timed_out(label: &str, what: &str) -> ProxyError {
    ProxyError::new(Kind::ConnectTimeout, Retry::Safe, format!("{label}: {what}"))
}

/// Not a failure to connect: Caddy answers 504 here, and 502 there.
fn handshake_timed_out(label: &str) -> ProxyError {
    let detail = format!("{label}: the TLS or proxy handshake took too long");
    ProxyError::new(Kind::ResponseTimeout, Retry::Safe, detail)
}

/// True when requests to this target go to the proxy in absolute form instead of through a tunnel.
pub(super) fn speaks_to_proxy(target: &Target) -> bool {
    target.options.scheme == Scheme::Http && target.proxy.as_ref().is_some_and(|p| p.is_http())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn local<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::LocalRuntime::new().unwrap().block_on(test)
    }

    fn options() -> TargetOptions {
        TargetOptions::new(Scheme::Http, Address::Tcp { host: "unused".into(), port: 1 })
    }

    #[test]
    fn the_next_address_serves_when_the_first_is_dead() {
        local(async {
            let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            let found = [dead, live.local_addr().unwrap()];
            let stream = connect_any(&found, &options(), None).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), found[1]);
            let error = connect_any(&found[..1], &options(), None).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        });
    }

    #[test]
    fn the_other_family_serves_when_the_leader_fails() {
        local(async {
            let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let dead_v6 = SocketAddr::new("::1".parse().unwrap(), 1);
            let stream = connect_any(&[dead_v6, live.local_addr().unwrap()], &options(), None).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), live.local_addr().unwrap());
        });
    }

    #[test]
    fn the_race_takes_the_first_success() {
        local(async {
            let never = Box::pin(std::future::pending::<io::Result<u8>>());
            assert_eq!(race(never, Box::pin(async { Ok(1) })).await.unwrap(), 1);
            let bad = Box::pin(async { Err::<u8, _>(io::ErrorKind::ConnectionRefused.into()) });
            let worse = Box::pin(async { Err::<u8, _>(io::ErrorKind::TimedOut.into()) });
            assert_eq!(race(bad, worse).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        });
    }

    #[test]
    fn a_local_address_is_bound() {
        local(async {
            let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut options = options();
            options.local_address = Some("127.0.0.9:0".parse().unwrap());
            let stream = connect_one(live.local_addr().unwrap(), &options).await.unwrap();
            assert_eq!(stream.local_addr().unwrap().ip(), options.local_address.unwrap().ip());
        });
    }
}
