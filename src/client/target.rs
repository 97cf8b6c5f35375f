//! What a request is sent to: an address, a scheme, and every option of the way there. Immutable, shared by all workers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::ConfigError;
use super::identity::{PoolId, PoolKey};
use super::proxy_env::{ProxyChoice, ProxyEnv, ProxyUrl};
use super::proxy_protocol::ProxyProtocol;
use super::tls::{TlsClient, TlsClientOptions};

#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `host` is a name or an IP address without brackets.
    Tcp { host: Box<str>, port: u16 },
    /// A path, or `@name` for an abstract socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix/{}", path.display()),
        }
    }
}

/// HTTP versions allowed towards the upstream. With both, TLS picks by ALPN and plain `http` stays on 1.1.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Versions {
    pub h1: bool,
    pub h2: bool,
}

impl Default for Versions {
    fn default() -> Self {
        Self { h1: true, h2: true }
    }
}

/// `None` means no limit.
#[derive(Copy, Clone, Debug)]
pub struct Timeouts {
    /// Name resolution and connecting, per connection. Default 3 s, as Caddy.
    pub dial: Option<Duration>,
    /// TLS handshake, and the dialogue with a proxy. Default 10 s.
    pub handshake: Option<Duration>,
    /// From the request's last byte to the response head.
    pub response_header: Option<Duration>,
    /// Between two reads, before and within the body.
    pub read: Option<Duration>,
    /// How long one write may find the socket full.
    pub write: Option<Duration>,
    /// From the call to the last byte of the response, dialling included.
    pub total: Option<Duration>,
    /// Head start of the preferred address family. Default 300 ms; `None` tries one address after the other.
    pub dial_fallback_delay: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            dial: Some(Duration::from_secs(3)),
            handshake: Some(Duration::from_secs(10)),
            response_header: None,
            read: None,
            write: None,
            total: None,
            dial_fallback_delay: Some(Duration::from_millis(300)),
        }
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// False: one request per connection.
    pub enabled: bool,
    /// How long an unused connection is kept. Default 2 min.
    pub idle: Duration,
    /// Idle connections kept per worker. Default 1024: as many as were needed at once a moment ago; Caddy's 32 make a
    /// site with 64 callers open one connection in seven requests.
    pub max_idle_per_host: usize,
    /// TCP keep-alive probes. Default 30 s; `None` turns them off.
    pub probe_interval: Option<Duration>,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            enabled: true,
            idle: Duration::from_mins(2),
            max_idle_per_host: 1024,
            probe_interval: Some(Duration::from_secs(30)),
        }
    }
}

#[derive(Clone, Debug)]
pub struct TargetOptions {
    pub scheme: Scheme,
    pub address: Address,
    /// For [`Scheme::Https`]; `None` takes the system's roots and no client certificate.
    pub tls: Option<TlsClient>,
    /// The name asked for and verified; `None` takes the address's host.
    pub server_name: Option<String>,
    pub versions: Versions,
    pub timeouts: Timeouts,
    pub keepalive: KeepAlive,
    /// Open connections to this target over all workers; a request waits for its turn. `None`: no limit.
    pub max_conns: Option<usize>,
    /// Largest response head in bytes. `None`: about 400 KiB.
    pub max_response_header: Option<usize>,
    /// Where connections come from; port 0 takes any.
    pub local_address: Option<SocketAddr>,
    /// DNS servers that are asked for the address; none = as the system does.
    pub resolvers: Arc<[SocketAddr]>,
    pub proxy: ProxyChoice,
    /// Tells the upstream whom each connection is for; a connection then serves one request.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl TargetOptions {
    pub fn new(scheme: Scheme, address: Address) -> Self {
        Self {
            scheme,
            address,
            tls: None,
            server_name: None,
            versions: Versions::default(),
            timeouts: Timeouts::default(),
            keepalive: KeepAlive::default(),
            max_conns: None,
            max_response_header: None,
            local_address: None,
            resolvers: Arc::default(),
            proxy: ProxyChoice::Environment,
            proxy_protocol: None,
        }
    }
}

/// One upstream as the client sees it.
#[derive(Debug)]
pub struct Target {
    pub(super) options: TargetOptions,
    pub(super) pool: PoolId,
    /// TLS configuration and name, for `https`.
    pub(super) tls: Option<(TlsClient, ServerName<'static>)>,
    pub(super) proxy: Option<Arc<ProxyUrl>>,
    /// `host:port`, for proxies and logs.
    pub(super) label: Arc<str>,
}

impl Target {
    pub fn new(options: TargetOptions) -> Result<Self, ConfigError> {
        let label: Arc<str> = options.address.to_string().into();
        let tls = match options.scheme {
            Scheme::Https => Some(tls_of(&options)?),
            Scheme::Http | Scheme::H2c => None,
        };
        let proxy = proxy_of(&options)?;
        let key = PoolKey {
            scheme: options.scheme,
            address: options.address.clone(),
            server_name: options.server_name.clone(),
            tls: tls.as_ref().map(|(tls, _)| tls.digest()),
            versions: options.versions,
            proxy: proxy.as_deref().map(ProxyUrl::digest),
            local_address: options.local_address,
            resolvers: Arc::clone(&options.resolvers),
            max_conns: options.max_conns,
            max_response_header: options.max_response_header,
            keepalive: options.keepalive.enabled,
        };
        Ok(Self { pool: PoolId::intern(key), tls, proxy, label, options })
    }

    pub fn options(&self) -> &TargetOptions {
        &self.options
    }

    /// The identity of its pools: equal for two targets that may share connections, also across reloads.
    pub fn pool_id(&self) -> &PoolId {
        &self.pool
    }

    /// `host:port` or `unix/path`, for logs.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// True when every connection speaks HTTP/2 without asking.
    pub(super) fn prior_knowledge_h2(&self) -> bool {
        self.options.scheme == Scheme::H2c || (self.options.scheme == Scheme::Http && !self.options.versions.h1)
    }

    /// True when each new connection settles on HTTP/1.1 or HTTP/2.
    pub(super) fn chooses_by_alpn(&self) -> bool {
        self.options.scheme == Scheme::Https && self.options.versions.h1 && self.options.versions.h2
    }

    /// True when a new connection may turn out to be HTTP/2.
    pub(super) fn may_be_h2(&self) -> bool {
        self.prior_knowledge_h2() || (self.options.scheme == Scheme::Https && self.options.versions.h2)
    }
}

fn tls_of(options: &TargetOptions) -> Result<(TlsClient, ServerName<'static>), ConfigError> {
    let tls = match &options.tls {
        Some(tls) => tls.clone(),
        None => TlsClientOptions::default().build(options.versions)?,
    };
    let name = match (&options.server_name, &options.address) {
        (Some(name), _) => name.as_str(),
        (None, Address::Tcp { host, .. }) => host,
        (None, Address::Unix(_)) => "localhost",
    };
    let name = ServerName::try_from(name.trim_end_matches('.').to_owned())
        .map_err(|_| ConfigError(format!("`{name}` is not a valid TLS server name")))?;
    Ok((tls, name))
}

fn proxy_of(options: &TargetOptions) -> Result<Option<Arc<ProxyUrl>>, ConfigError> {
    let Address::Tcp { host, port } = &options.address else { return Ok(None) };
    match &options.proxy {
        ProxyChoice::None => Ok(None),
        ProxyChoice::Url(url) => Ok(Some(Arc::clone(url))),
        ProxyChoice::Environment => ProxyEnv::process().choose(options.scheme, host, *port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str) -> Address {
        Address::Tcp { host: host.into(), port: 8080 }
    }

    #[test]
    fn equal_targets_share_a_pool_and_differing_ones_do_not() {
        let one = Target::new(TargetOptions::new(Scheme::Http, tcp("one.test"))).unwrap();
        let same = Target::new(TargetOptions::new(Scheme::Http, tcp("one.test"))).unwrap();
        let h2c = Target::new(TargetOptions::new(Scheme::H2c, tcp("one.test"))).unwrap();
        assert_eq!(one.pool_id(), same.pool_id());
        assert_ne!(one.pool_id(), h2c.pool_id());
    }

    #[test]
    fn labels_bracket_ipv6() {
        assert_eq!(tcp("::1").to_string(), "[::1]:8080");
        assert_eq!(tcp("h").to_string(), "h:8080");
    }

    #[test]
    fn refuses_a_server_name_that_is_none() {
        let mut options = TargetOptions::new(Scheme::Https, tcp("ok.test"));
        options.server_name = Some("not a name".into());
        assert!(Target::new(options).unwrap_err().0.contains("not a name"));
    }
}
