//! An upstream: where it is, how it is reached, what is known about it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::HeaderValue;

use super::breaker::{self, Breaker};
use super::health::ActiveHealth;
use super::state::HostState;
use crate::client::{Address, Scheme, Target, TargetOptions};
use crate::http::exchange::Exchange;
use crate::http::headers::CompiledHeaderOps;
use crate::http::placeholder::{Template, Unknown};
use crate::llm::model_glob::ModelGlobs;

/// Addresses made from placeholders that are remembered per upstream; a stranger can choose how many there are.
const MAX_RENDERED: usize = 256;

pub struct Upstream {
    /// The address as configured.
    pub name: Box<str>,
    /// Its part in hashing and, after the scheme, in the table of states: the address, and which account is used there.
    pub identity: Box<str>,
    pub transport: Arc<TransportTemplate>,
    place: Place,
    pub state: Arc<HostState>,
    pub own: Settings,
    /// What active checks say of it; `None` = it is not checked.
    pub active: Option<Arc<ActiveHealth>>,
    /// `None` = it has none.
    pub breaker: Option<Breaker>,
}

/// What an upstream has of its own.
#[derive(Default)]
pub struct Settings {
    /// Requests at once beyond which it is full; `None` = no limit.
    pub max_requests: Option<usize>,
    /// Its share beside the others; 0 = 1.
    pub weight: u32,
    /// Operations on the request's headers after those of the handler.
    pub header_up: Option<CompiledHeaderOps>,
    /// `Host` names it, not what the client asked for.
    pub names_host: bool,
    /// The models it is there for; empty = any request.
    pub models: ModelGlobs,
    /// It must not be asked for the counts of a stream.
    pub tells_no_usage: bool,
    /// Tells apart several accounts at one address; empty = none. Nothing that must be kept secret.
    pub account: String,
}

enum Place {
    Fixed(Arc<Reachable>),
    Rendered { template: Template, transport: Arc<TransportTemplate>, seen: Mutex<Seen> },
}

/// By address and, where it is rendered too, TLS server name.
type Seen = HashMap<(Box<str>, Option<Box<str>>), Arc<Reachable>>;

/// One dial address with all that is needed to send there.
#[derive(Debug)]
pub struct Reachable {
    pub target: Target,
    /// `network/host:port`.
    pub address: Arc<str>,
    pub hostport: Arc<str>,
    pub host: Arc<str>,
    pub port: Arc<str>,
    /// The `Host` that names this upstream: without the port where it is the scheme's own.
    pub host_value: HeaderValue,
}

/// How the upstreams of one handler are reached: all options but the address.
pub struct TransportTemplate {
    /// `address` and `scheme` are replaced per upstream.
    pub options: TargetOptions,
    /// The scheme of upstreams; those on one of `except_ports` get plain HTTP.
    pub scheme: Scheme,
    pub except_ports: Vec<String>,
    /// The TLS server name, where it is made for each request; else `options` has it.
    pub server_name: Option<Template>,
}

impl Upstream {
    /// `dial` is `host:port`, `network/host:port` or `unix/path`, perhaps with placeholders.
    pub fn new(dial: &str, transport: &Arc<TransportTemplate>, own: Settings) -> Result<Self, String> {
        let template = Template::parse(dial);
        let place = match template.as_static() {
            Some(fixed) if transport.server_name.is_none() => Place::Fixed(Arc::new(transport.reach(fixed)?)),
            _ => Place::Rendered { template, transport: Arc::clone(transport), seen: Mutex::default() },
        };
        let scheme = match transport.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::H2c => "h2c",
        };
        let identity = if own.account.is_empty() { dial.to_owned() } else { format!("{dial}#{}", own.account) };
        let state = HostState::adopt(&format!("{scheme}://{identity}"));
        let transport = Arc::clone(transport);
        Ok(Self {
            name: dial.into(),
            identity: identity.into(),
            transport,
            place,
            state,
            own,
            active: None,
            breaker: None,
        })
    }

    /// Gives it a circuit breaker.
    pub fn protect(&mut self, settings: &Arc<breaker::Settings>) {
        let identity = format!("{:?}://{}", self.transport.scheme, self.identity);
        let breaker = Breaker::adopt(&identity, settings);
        self.state.tell_of_circuit(breaker.circuit());
        self.breaker = Some(breaker);
    }

    /// Where this request goes.
    pub fn reach(&self, ex: &Exchange) -> Result<Arc<Reachable>, String> {
        match &self.place {
            Place::Fixed(reachable) => Ok(Arc::clone(reachable)),
            Place::Rendered { template, transport, seen } => {
                let dial: Box<str> = template.render(ex, Unknown::Empty).into();
                let name = transport.server_name.as_ref().map(|name| name.render(ex, Unknown::Empty).into());
                let key = (dial, name);
                if let Some(known) = lock(seen).get(&key) {
                    return Ok(Arc::clone(known));
                }
                let made = Arc::new(transport.reach_as(&key.0, key.1.as_deref())?);
                let mut seen = lock(seen);
                if seen.len() >= MAX_RENDERED {
                    // Any will do: those in use are asked for again.
                    if let Some(old) = seen.keys().next().cloned() {
                        seen.remove(&old);
                    }
                }
                seen.insert(key, Arc::clone(&made));
                Ok(made)
            }
        }
    }

    /// Healthy, given how many recent failures are too many, and not full.
    pub fn available(&self, now: Instant, max_fails: Option<usize>) -> bool {
        self.active.as_ref().is_none_or(|active| active.is_healthy())
            && max_fails.is_none_or(|max| self.state.fails(now) < max)
            && self.breaker.as_ref().is_none_or(|breaker| breaker.admits(now))
            && self.own.max_requests.is_none_or(|max| self.state.requests() < max)
    }

    /// Whether it is there for requests for this model; `None` = a request that names none.
    pub fn takes(&self, model: Option<&str>) -> bool {
        self.own.models.is_empty() || model.is_some_and(|model| self.own.models.allows(model))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TransportTemplate {
    /// The message says what is wrong with the address; it may be shown to an admin, not to a client.
    pub fn reach(&self, dial: &str) -> Result<Reachable, String> {
        self.reach_as(dial, None)
    }

    /// As [`reach`](Self::reach), with a TLS server name of its own; an empty one is none.
    fn reach_as(&self, dial: &str, server_name: Option<&str>) -> Result<Reachable, String> {
        let (network, rest) = dial.split_once('/').unwrap_or(("tcp", dial));
        let (address, host, port) = match network {
            "unix" => {
                // File permissions are for sockets that are listened on.
                let path = rest.split('|').next().unwrap_or(rest);
                if path.is_empty() {
                    return Err("a unix socket address needs a path".into());
                }
                (Address::Unix(path.into()), path, "")
            }
            "tcp" => {
                let (host, port) = crate::http::exchange::split_host_port(rest);
                let number: u16 = port.parse().map_err(|_| "an upstream address needs a port number".to_owned())?;
                if host.chars().any(|c| c.is_whitespace() || c.is_control() || "/?#@".contains(c)) {
                    return Err("the host of an upstream address is not valid".into());
                }
                // No host means this machine, as in Go.
                let place = if host.is_empty() { "127.0.0.1" } else { host };
                (Address::Tcp { host: place.into(), port: number }, host, port)
            }
            other => return Err(format!("upstreams on network `{other}` are not supported")),
        };
        let mut options = self.options.clone();
        options.scheme = match self.scheme {
            Scheme::Https if self.except_ports.iter().any(|p| p == port) => Scheme::Http,
            scheme => scheme,
        };
        let scheme = options.scheme;
        if let Some(name) = server_name.filter(|name| !name.is_empty()) {
            options.server_name = Some(name.to_owned());
        }
        options.address = address;
        let target = Target::new(options).map_err(|e| e.0)?;
        let hostport = match network {
            "unix" => host.to_owned(),
            _ if host.contains(':') => format!("[{host}]:{port}"),
            _ => format!("{host}:{port}"),
        };
        let own_port = matches!((scheme, port), (Scheme::Https, "443") | (Scheme::Http | Scheme::H2c, "80"));
        let named = if own_port { hostport.rsplit_once(':').map_or(&*hostport, |(h, _)| h) } else { &hostport };
        // An absolute name, as SRV records have them, is the same name without its final dot.
        let named = match named.split_once(".:") {
            Some((host, port)) => &format!("{host}:{port}"),
            None => named.trim_end_matches('.'),
        };
        let host_value = HeaderValue::from_str(named).map_err(|_| "the host is not valid in a header".to_owned())?;
        Ok(Reachable {
            target,
            address: format!("{network}/{hostport}").into(),
            hostport: hostport.into(),
            host: host.into(),
            port: port.into(),
            host_value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::testing::exchange;
    use std::time::Duration;

    fn transport(scheme: Scheme) -> Arc<TransportTemplate> {
        let options = TargetOptions::new(scheme, Address::Tcp { host: "".into(), port: 0 });
        Arc::new(TransportTemplate { options, scheme, except_ports: vec!["8080".into()], server_name: None })
    }

    #[test]
    fn addresses_name_the_upstream() {
        let https = transport(Scheme::Https);
        let r = https.reach("api.test:443").unwrap();
        assert_eq!(
            (&*r.address, &*r.hostport, r.host_value.as_bytes()),
            ("tcp/api.test:443", "api.test:443", &b"api.test"[..])
        );
        assert_eq!(https.reach("[::1]:8443").unwrap().host_value, "[::1]:8443");
        assert_eq!(https.reach("a:8080").unwrap().target.options().scheme, Scheme::Http);
        assert_eq!(https.reach(":9").unwrap().target.label(), "127.0.0.1:9");
        assert_eq!(&*transport(Scheme::Http).reach("unix//run/x|0222").unwrap().address, "unix//run/x");
        assert_eq!(https.reach("srv.test.:8443").unwrap().host_value, "srv.test:8443");
        assert_eq!(https.reach("srv.test.:443").unwrap().host_value, "srv.test");
        for bad in ["a", "a:x", "udp/a:1", "unix/", "a b:1", "a/b:1"] {
            assert!(https.reach(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rendered_addresses_are_remembered_within_a_bound() {
        let up = Upstream::new("{http.request.uri.query.h}:80", &transport(Scheme::Http), Settings::default()).unwrap();
        let first = up.reach(&exchange("GET", "/?h=one")).unwrap();
        assert!(Arc::ptr_eq(&first, &up.reach(&exchange("GET", "/?h=one")).unwrap()));
        for n in 0..2 * MAX_RENDERED {
            up.reach(&exchange("GET", &format!("/?h=h{n}"))).unwrap();
        }
        let Place::Rendered { seen, .. } = &up.place else { panic!() };
        assert_eq!(lock(seen).len(), MAX_RENDERED);
        assert!(up.reach(&exchange("GET", "/?h=a%20b")).is_err());
    }

    #[test]
    fn failures_and_load_make_it_unavailable() {
        let own = Settings { max_requests: Some(1), ..Settings::default() };
        let up = Upstream::new("availability.test:80", &transport(Scheme::Http), own).unwrap();
        let now = Instant::now();
        assert!(up.available(now, Some(1)));
        let guard = up.state.begin();
        assert!(!up.available(now, Some(1)));
        drop(guard);
        up.state.fail(now, Duration::from_secs(1));
        assert!(!up.available(now, Some(1)));
        assert!(up.available(now, Some(2)));
        assert!(up.available(now, None));
        assert!(up.available(now + Duration::from_secs(1), Some(1)));
    }

    #[test]
    fn two_accounts_at_one_address_are_two_upstreams() {
        let of = |account: &str| {
            let own = Settings { account: account.into(), ..Settings::default() };
            Upstream::new("accounts.test:80", &transport(Scheme::Http), own).unwrap()
        };
        let (one, other, plain) = (of("a"), of("b"), of(""));
        let guard = one.state.begin();
        assert_eq!((other.state.requests(), plain.state.requests(), of("a").state.requests()), (0, 0, 1));
        drop(guard);
        assert_ne!(one.identity, other.identity);
        assert_eq!(plain.identity, plain.name);
    }
}
