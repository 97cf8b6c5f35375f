//! Names looked up with their records, at the system's servers or at chosen ones: what `getaddrinfo` does not tell.
//!
//! The library is named here alone. Answers are not kept: who asks wants to know what is there now, and is told for how long
//! it holds.

mod service;
#[cfg(test)]
pub mod testing;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
pub use service::{Service, in_order};

/// Longest that one server may take to answer; it is asked twice, then over TCP.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asked when the system names no server (Caddy's list).
const PUBLIC: [IpAddr; 4] = [
    IpAddr::V4(std::net::Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V4(std::net::Ipv4Addr::new(8, 8, 4, 4)),
    IpAddr::V4(std::net::Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V4(std::net::Ipv4Addr::new(1, 0, 0, 1)),
];

/// Asks for records. Names are absolute, with or without the final dot, unless a method says otherwise.
pub struct Dns {
    resolver: TokioResolver,
}

/// Records, and how long they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    pub records: Vec<T>,
    pub ttl: Duration,
}

/// Why there is no answer; that there are no such records is an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsError(String);

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DnsError {}

impl Dns {
    /// The servers of `/etc/resolv.conf`, which resolve any name.
    ///
    /// # Errors
    /// When the library cannot be set up.
    pub fn system() -> Result<Self, DnsError> {
        match read_system_conf() {
            Ok((config, options)) if !config.name_servers().is_empty() => {
                let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
                Self::build(builder.with_options(options))
            }
            _ => {
                tracing::debug!("no DNS server in /etc/resolv.conf: public ones are asked");
                Self::at(&PUBLIC.map(|ip| SocketAddr::new(ip, 53)))
            }
        }
    }

    /// Exactly these servers.
    ///
    /// # Errors
    /// When the library cannot be set up.
    pub fn at(servers: &[SocketAddr]) -> Result<Self, DnsError> {
        let config = ResolverConfig::from_name_servers(name_servers(servers));
        Self::build(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
    }

    /// For names of upstreams, which are looked up as the system does: in the hosts file first, then with its search
    /// domains where the name is short. `servers`: who is asked, the system's if empty. `timeout`: for one server.
    ///
    /// # Errors
    /// When the library cannot be set up.
    pub fn for_upstreams(servers: &[SocketAddr], timeout: Option<Duration>) -> Result<Self, DnsError> {
        let system = read_system_conf().ok();
        let public = PUBLIC.map(|ip| SocketAddr::new(ip, 53));
        let named = if servers.is_empty() { &public[..] } else { servers };
        let mut builder = match system {
            Some((config, options)) => {
                let keep = servers.is_empty() && !config.name_servers().is_empty();
                let asked = if keep { config.name_servers().to_vec() } else { name_servers(named) };
                let config = ResolverConfig::from_parts(config.domain().cloned(), config.search().to_vec(), asked);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options)
            }
            None => {
                let config = ResolverConfig::from_name_servers(name_servers(named));
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        options.timeout = timeout.unwrap_or(TIMEOUT);
        options.attempts = 1;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Always;
        options.try_tcp_on_error = true;
        builder.build().map(|resolver| Self { resolver }).map_err(|e| DnsError(e.to_string()))
    }

    fn build(mut builder: hickory_resolver::ResolverBuilder<TokioRuntimeProvider>) -> Result<Self, DnsError> {
        let options = builder.options_mut();
        options.timeout = TIMEOUT;
        options.attempts = 1;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.try_tcp_on_error = true;
        builder.build().map(|resolver| Self { resolver }).map_err(|e| DnsError(e.to_string()))
    }

    /// The texts of a name's TXT records, each with its pieces joined. An alias is followed.
    pub async fn texts(&self, name: &str) -> Result<Vec<Vec<u8>>, DnsError> {
        let of = |data: &RData| match data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        };
        self.records(name, RecordType::TXT, of).await
    }

    /// The name that this one is an alias of (CNAME).
    pub async fn alias(&self, name: &str) -> Result<Option<String>, DnsError> {
        let of = |data: &RData| match data {
            RData::CNAME(target) => Some(target.0.to_ascii()),
            _ => None,
        };
        Ok(self.records(name, RecordType::CNAME, of).await?.into_iter().next())
    }

    /// The servers of a zone; empty when the name is not the apex of one.
    pub async fn servers(&self, zone: &str) -> Result<Vec<String>, DnsError> {
        let of = |data: &RData| match data {
            RData::NS(server) => Some(server.0.to_ascii()),
            _ => None,
        };
        self.records(zone, RecordType::NS, of).await
    }

    /// Addresses of both families, IPv4 first.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, DnsError> {
        let of = |data: &RData| match data {
            RData::A(ip) => Some(IpAddr::V4(ip.0)),
            RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
            _ => None,
        };
        let (v4, v6) = tokio::join!(self.records(name, RecordType::A, of), self.records(name, RecordType::AAAA, of));
        match (v4, v6) {
            (Err(error), Err(_)) => Err(error),
            (v4, v6) => Ok(v4.into_iter().chain(v6).flatten().collect()),
        }
    }

    /// The addresses of an upstream's name, IPv4 first; that there is none is an error.
    pub async fn hosts(&self, name: &str, v4: bool, v6: bool) -> Result<Found<IpAddr>, DnsError> {
        if let Ok(ip) = name.parse::<IpAddr>() {
            let records = if (ip.is_ipv4() && v4) || (ip.is_ipv6() && v6) { vec![ip] } else { Vec::new() };
            return some(Found { records, ttl: Duration::MAX }, name);
        }
        let of = |data: &RData| match data {
            RData::A(ip) => Some(IpAddr::V4(ip.0)),
            RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
            _ => None,
        };
        let family = async |wanted: bool, kind: RecordType| {
            if wanted {
                self.found(name, kind, of).await
            } else {
                Ok(Found { records: Vec::new(), ttl: Duration::MAX })
            }
        };
        let (four, six) = tokio::join!(family(v4, RecordType::A), family(v6, RecordType::AAAA));
        match (four, six) {
            (Ok(mut four), Ok(six)) => {
                four.ttl = four.ttl.min(six.ttl);
                four.records.extend(six.records);
                some(four, name)
            }
            // One family that cannot be told is no reason to lose the other.
            (Ok(one), Err(error)) | (Err(error), Ok(one)) if one.records.is_empty() => Err(error),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// Where an upstream's service is served, in no order; that there is no place is an error.
    pub async fn services(&self, name: &str) -> Result<Found<Service>, DnsError> {
        let of = |data: &RData| match data {
            RData::SRV(srv) => Some(Service {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_ascii(),
            }),
            _ => None,
        };
        let mut found = self.found(name, RecordType::SRV, of).await?;
        // A target of "." says that the service is decidedly not there (RFC 2782).
        found.records.retain(|service| service.target != ".");
        some(found, name)
    }

    /// With the search domains of the system, where the name has no final dot.
    async fn found<T>(
        &self,
        name: &str,
        kind: RecordType,
        of: impl Fn(&RData) -> Option<T>,
    ) -> Result<Found<T>, DnsError> {
        match self.resolver.lookup(name, kind).await {
            Ok(answer) => {
                let ttl = answer.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
                let records = answer.answers().iter().filter_map(|record| of(&record.data)).collect();
                Ok(Found { records, ttl: Duration::from_secs(u64::from(ttl)) })
            }
            // How long that holds is the other family's to say.
            Err(error) if is_answer(&error) => Ok(Found { records: Vec::new(), ttl: Duration::MAX }),
            Err(error) => Err(DnsError(format!("{kind} of {name} {error}"))),
        }
    }

    async fn records<T>(
        &self,
        name: &str,
        kind: RecordType,
        of: impl Fn(&RData) -> Option<T>,
    ) -> Result<Vec<T>, DnsError> {
        // With the dot, no search domain of the system is tried.
        let name = format!("{}.", name.trim_end_matches('.'));
        match self.resolver.lookup(name.as_str(), kind).await {
            Ok(found) => Ok(found.answers().iter().filter_map(|record| of(&record.data)).collect()),
            Err(error) if is_answer(&error) => Ok(Vec::new()),
            Err(error) => Err(DnsError(format!("{kind} of {name} {error}"))),
        }
    }
}

fn name_servers(servers: &[SocketAddr]) -> Vec<NameServerConfig> {
    let one = |address: &SocketAddr| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = address.port();
            connection
        });
        NameServerConfig::new(address.ip(), true, connections.into())
    };
    servers.iter().map(one).collect()
}

fn some<T>(found: Found<T>, name: &str) -> Result<Found<T>, DnsError> {
    if found.records.is_empty() { Err(DnsError(format!("{name} has no such record"))) } else { Ok(found) }
}

/// "There is none" in one of its forms.
fn is_answer(error: &NetError) -> bool {
    error.is_no_records_found() || error.is_nx_domain()
}

#[cfg(test)]
mod tests {
    use super::testing::{A, CNAME, NO_SUCH_NAME, SERVER_FAILED, SRV, Said, TXT, serve};
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn records_none_and_failures_are_told_apart() {
        let at = serve((Ipv4Addr::LOCALHOST, 0), |name, kind| match (name, kind) {
            ("a.test", A) => Ok(vec![Said::Address(Ipv4Addr::new(192, 0, 2, 1))]),
            ("a.test", TXT) => Ok(vec![Said::Text("one".into()), Said::Text("two".into())]),
            ("a.test", CNAME) => Ok(vec![Said::Alias("b.test")]),
            ("a.test" | "empty.test", _) => Ok(Vec::new()),
            ("broken.test", _) => Err(SERVER_FAILED),
            _ => Err(NO_SUCH_NAME),
        });
        let dns = Dns::at(&[at]).unwrap();
        assert_eq!(dns.addresses("a.test").await.unwrap(), [IpAddr::from([192, 0, 2, 1])]);
        assert_eq!(dns.texts("a.test.").await.unwrap(), [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(dns.alias("a.test").await.unwrap().as_deref(), Some("b.test."));
        for name in ["empty.test", "nobody.test"] {
            assert!(dns.texts(name).await.unwrap().is_empty(), "{name}");
            assert!(dns.servers(name).await.unwrap().is_empty(), "{name}");
            assert_eq!(dns.alias(name).await.unwrap(), None);
        }
        assert!(dns.texts("broken.test").await.is_err());
        assert!(dns.texts("not a name").await.is_err());
    }

    #[tokio::test]
    async fn what_upstreams_ask_for_holds_for_a_time() {
        let at = serve((Ipv4Addr::LOCALHOST, 0), |name, kind| match (name, kind) {
            ("up.test", A) => Ok(vec![Said::Address(Ipv4Addr::new(192, 0, 2, 1))]),
            ("_http._tcp.up.test", SRV) => Ok(vec![Said::Service(1, 2, 80, "up.test"), Said::Service(0, 0, 0, "")]),
            ("up.test", _) => Ok(Vec::new()),
            ("half.test", A) => Ok(vec![Said::Address(Ipv4Addr::new(192, 0, 2, 2))]),
            ("half.test", _) => Err(SERVER_FAILED),
            _ => Err(NO_SUCH_NAME),
        });
        let dns = Dns::for_upstreams(&[at], Some(Duration::from_secs(2))).unwrap();
        let found = dns.hosts("up.test.", true, true).await.unwrap();
        assert_eq!((found.records, found.ttl), (vec![IpAddr::from([192, 0, 2, 1])], Duration::from_secs(5)));
        assert_eq!(dns.hosts("half.test.", true, true).await.unwrap().records, [IpAddr::from([192, 0, 2, 2])]);
        for none in ["up.test.", "half.test."] {
            assert!(dns.hosts(none, false, true).await.is_err(), "{none}");
        }
        assert!(dns.hosts("nobody.test.", true, true).await.is_err());
        assert_eq!(dns.hosts("::1", true, true).await.unwrap().records, ["::1".parse::<IpAddr>().unwrap()]);
        let services = dns.services("_http._tcp.up.test.").await.unwrap().records;
        assert_eq!(services, [Service { priority: 1, weight: 2, port: 80, target: "up.test.".into() }]);
    }
}
