//! Room 2: outbound connections. Owns: DNS records, dialling (TCP, unix, TLS, through proxies), connection pools, HTTP/1.1 and
//! HTTP/2 towards upstreams, their timeouts and the classing of their failures. Must not know: configuration, routes,
//! which upstream was chosen or why.
//!
//! Data flow: a [`Target`] is made once, when a configuration is compiled; [`send`] takes a request and a target, takes
//! an idle connection of this worker or dials one, and gives back a response whose body holds the connection. At the
//! end of the body the connection goes back to the pool; dropped earlier, the connection (or HTTP/2 stream) closes at
//! once, which is how a client that leaves cancels the upstream.
//!
//! Everything but [`simple`] and [`dns`] needs a tokio `LocalRuntime` (or `LocalSet`): pools belong to one thread.

mod clock;
mod dial;
pub mod dns;
mod fault;
pub mod h1;
mod h2;
mod identity;
mod out_body;
mod pool;
mod proxy_env;
mod proxy_protocol;
mod roots;
mod send;
pub mod simple;
mod spare_request;
mod stream;
mod target;
mod ticker;
mod tls;
mod total;
mod tunnel;
mod upgraded;
mod url;
mod verify;

pub use identity::PoolId;
pub use pool::{close_idle, idle_count};
pub use proxy_env::{ProxyChoice, ProxyEnv, ProxyUrl};
pub use proxy_protocol::{Ends, ProxyProtocol, SIGNATURE as PROXY_V2_SIGNATURE};
pub use roots::system_roots;
pub use send::{SendError, SendOptions, Sent, Timings, send};
pub use spare_request::spare_request;
pub use target::{Address, KeepAlive, Scheme, Target, TargetOptions, Timeouts, Versions};
pub use ticker::Deadline;
pub use tls::{ClientIdentity, Curve, LookedUp, RootSource, TlsClient, TlsClientOptions, Trust};
pub use upgraded::Upgraded;
pub use url::ServiceUrl;

/// A target or TLS option that cannot be used. The text is for the admin: it names files, never their contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
