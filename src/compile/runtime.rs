//! What workers execute: immutable, made whole before it goes live, shared by all of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::address::ListenAddr;
use super::admin::Admin;
use super::keep_alive::KeepAlive;
use super::wrappers::Wrappers;
use crate::config::background::Background;
use crate::config::compile_cx::CompileError;
use crate::config::go_live::GoLive;
use crate::http::exchange::ServerFacts;
use crate::http::route::RouteList;
use crate::telemetry::access::AccessLogs;
use crate::telemetry::log::Logs;
use crate::tls::ServerTls;
use crate::tls::automation::Plan;

/// A whole configuration, ready to run.
#[derive(Default)]
pub struct Runtime {
    pub servers: Vec<ServerRuntime>,
    /// Which server answers on which address; an address belongs to one server.
    pub listeners: BTreeMap<ListenAddr, ListenerSpec>,
    /// All logs, the default one among them; opened when the runtime goes live.
    pub logs: Logs,
    /// Files that compiling read (certificates, keys): watched beside the configuration itself.
    pub watched: Vec<PathBuf>,
    /// Work beside requests, such as checks of upstreams.
    pub background: Vec<Arc<dyn Background>>,
    /// What is opened or read before it goes live, in this order.
    pub go_live: Vec<Arc<dyn GoLive>>,
    /// The admin endpoint, if there is to be one.
    pub admin: Option<Admin>,
    /// Certificates to look after.
    pub certificates: Arc<Plan>,
    /// What compiling found that is probably not meant.
    pub advice: Vec<CompileError>,
    /// How long to wait for open requests at shutdown; `None` = as long as they take.
    pub grace_period: Option<Duration>,
    /// How long to go on serving after a shutdown was asked for.
    pub shutdown_delay: Option<Duration>,
}

impl Runtime {
    /// Opens and reads what requests need. Blocks.
    ///
    /// # Errors
    /// Why it cannot go live, for a person.
    pub fn prepare(&self) -> Result<(), String> {
        self.logs.open()?;
        self.go_live.iter().try_for_each(|part| part.go_live())
    }
}

#[derive(Debug, Clone)]
pub struct ListenerSpec {
    /// Index into [`Runtime::servers`].
    pub server: usize,
    /// Whether connections begin with a TLS handshake.
    pub tls: bool,
    pub protocols: Protocols,
    /// `None`: off.
    pub keep_alive: Option<KeepAlive>,
}

/// HTTP versions that a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    pub h1: bool,
    pub h2: bool,
    /// HTTP/2 with prior knowledge on a plain connection.
    pub h2c: bool,
}

pub struct ServerRuntime {
    pub facts: ServerFacts,
    pub routes: RouteList,
    pub errors: Option<RouteList>,
    pub tls: Option<ServerTls>,
    /// A request's host must be the name its TLS handshake was for, else 421.
    pub strict_sni_host: bool,
    pub limits: Limits,
    pub wrappers: Wrappers,
    pub logs: AccessLogs,
}

/// Bounds on what a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the first byte of a head to its last.
    pub read_header: Option<Duration>,
    /// From one request to the next on a connection.
    pub idle: Option<Duration>,
    /// Largest request head in bytes.
    pub max_head: usize,
}
