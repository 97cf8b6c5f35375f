//! Waiting until a record can be seen: at the servers of its zone, or at the resolvers that the configuration names.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::Record;
use crate::client::dns::Dns;

/// How often to look. Also the wait before the first look: a resolver that is asked too early remembers that there was
/// nothing.
const INTERVAL: Duration = Duration::from_secs(2);
/// Where a zone's servers answer.
const PORT: u16 = 53;
/// Aliases (CNAME) that are followed from one to the next, at most.
const MAX_ALIASES: usize = 8;
/// Servers of a zone that are asked, at most, and addresses of each.
const MAX_SERVERS: usize = 16;
const MAX_ADDRESSES: usize = 4;

/// A DNS server as configuration names it: `1.1.1.1`, `[::1]:53`, `dns.example.com:5353`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    host: String,
    port: u16,
}

impl FromStr for Server {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(Self { host: ip.to_string(), port: 53 });
        }
        let (host, port) = text.split_once(':').map_or((text, Ok(53)), |(host, port)| (host, port.parse()));
        let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        let port = port.ok().filter(|port| *port != 0).ok_or(())?;
        if is_name { Ok(Self { host: host.to_owned(), port }) } else { Err(()) }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Server {
    async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        found.map(|found| found.take(MAX_ADDRESSES).collect()).map_err(|e| format!("{self}: {e}"))
    }
}

/// Returns once every server that counts has the record.
///
/// # Errors
/// The time is over; says who had not got it.
pub async fn wait(record: &Record, resolvers: &[String], timeout: Duration) -> Result<(), String> {
    let deadline = Instant::now() + timeout;
    let mut missing = "it was not looked for".to_owned();
    loop {
        sleep(INTERVAL.min(deadline.saturating_duration_since(Instant::now()))).await;
        // One look is always taken, however short the time.
        let end = deadline.max(Instant::now() + INTERVAL);
        match timeout_at(end, look(record, resolvers)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => missing = why,
            Err(_) => {}
        }
        tracing::debug!(record = record.name, missing, "DNS record looked for");
        if Instant::now() >= deadline {
            let told = "resolvers that see the zone can be named with `resolvers`; `propagation_timeout -1` turns the check off";
            return Err(format!(
                "the record {} was not seen within {} s: {missing} ({told})",
                record.name,
                timeout.as_secs_f32()
            ));
        }
    }
}

/// `Err` says who has not got the record.
async fn look(record: &Record, resolvers: &[String]) -> Result<(), String> {
    if resolvers.is_empty() {
        let system = Dns::system().map_err(|e| e.to_string())?;
        return look_at_zone(record, &system, PORT).await;
    }
    for text in resolvers {
        let server: Server = text.parse().map_err(|()| format!("`{text}` is not a DNS server"))?;
        ask(record, &record.name, &server.to_string(), &server.addresses().await?).await?;
    }
    Ok(())
}

/// Asks the servers of the zone themselves: what they have, everybody will see.
async fn look_at_zone(record: &Record, system: &Dns, port: u16) -> Result<(), String> {
    let mut name = record.name.clone();
    for _ in 0..MAX_ALIASES {
        match system.alias(&name).await.map_err(|e| e.to_string())? {
            Some(target) => name = target,
            None => break,
        }
    }
    let servers = servers_of_zone(system, &name).await?;
    for server in servers.iter().take(MAX_SERVERS) {
        let addresses = system.addresses(server).await.map_err(|e| e.to_string())?;
        let addresses: Vec<SocketAddr> =
            addresses.into_iter().take(MAX_ADDRESSES).map(|ip| SocketAddr::new(ip, port)).collect();
        ask(record, &name, server, &addresses).await?;
    }
    Ok(())
}

/// The servers of the zone that a name is in: those of the nearest name upwards that has any.
async fn servers_of_zone(system: &Dns, name: &str) -> Result<Vec<String>, String> {
    let mut zone = name.trim_end_matches('.');
    loop {
        let servers = system.servers(zone).await.map_err(|e| e.to_string())?;
        if !servers.is_empty() {
            return Ok(servers);
        }
        zone = zone.split_once('.').map(|(_, parent)| parent).ok_or_else(|| format!("no zone of {name} is known"))?;
    }
}

/// Whether one server has the record, asked at the first of its addresses that answers.
async fn ask(record: &Record, name: &str, server: &str, addresses: &[SocketAddr]) -> Result<(), String> {
    let mut why = format!("{server} has no address");
    for address in addresses {
        let dns = Dns::at(&[*address]).map_err(|e| e.to_string())?;
        match dns.texts(name).await {
            Ok(texts) if texts.iter().any(|text| text == record.value.as_bytes()) => return Ok(()),
            Ok(_) => return Err(format!("{server} has not got it")),
            Err(error) => why = format!("{server}: {error}"),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::dns::testing::{A, CNAME, NO_SUCH_NAME, NS, Said, TXT, serve};
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// One server knows everything; the other is a second server of the zone, which may be late.
    #[tokio::test]
    async fn every_server_of_the_zone_must_have_it() {
        let late = Arc::new(AtomicBool::new(true));
        let (second, port) = ([127, 0, 0, 2].into(), {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.local_addr().unwrap().port()
        });
        let first = serve((Ipv4Addr::LOCALHOST, port), |name, kind| match (name, kind) {
            // The system's part.
            ("_acme-challenge.a.test", CNAME) => Ok(vec![Said::Alias("proof.b.test")]),
            ("b.test", NS) => Ok(vec![Said::Server("ns1.b.test"), Said::Server("ns2.b.test")]),
            ("ns1.b.test", A) => Ok(vec![Said::Address(Ipv4Addr::LOCALHOST)]),
            ("ns2.b.test", A) => Ok(vec![Said::Address([127, 0, 0, 2].into())]),
            // The zone's part.
            ("proof.b.test", TXT) => Ok(vec![Said::Text("another".into()), Said::Text("value".into())]),
            ("proof.b.test" | "ns1.b.test" | "ns2.b.test", _) => Ok(Vec::new()),
            _ => Err(NO_SUCH_NAME),
        });
        let is_late = Arc::clone(&late);
        serve((second, port), move |name, kind| match (name, kind) {
            ("proof.b.test", TXT) if !is_late.load(Ordering::Relaxed) => Ok(vec![Said::Text("value".into())]),
            _ => Ok(Vec::new()),
        });
        let system = Dns::at(&[first]).unwrap();
        let record = |name: &str| Record { name: name.into(), value: "value".into(), ttl: None };
        let error = look_at_zone(&record("_acme-challenge.a.test"), &system, port).await.unwrap_err();
        assert_eq!(error, "ns2.b.test. has not got it");
        late.store(false, Ordering::Relaxed);
        look_at_zone(&record("_acme-challenge.a.test"), &system, port).await.unwrap();
        let error = look_at_zone(&record("_acme-challenge.nowhere.test"), &system, port).await.unwrap_err();
        assert!(error.contains("no zone of _acme-challenge.nowhere.test is known"), "{error}");
    }

    #[test]
    fn servers_are_addresses_or_names_with_or_without_a_port() {
        for (text, read) in [
            ("1.1.1.1", "1.1.1.1:53"),
            ("127.0.0.1:8053", "127.0.0.1:8053"),
            ("::1", "::1:53"),
            ("[::1]", "::1:53"),
            ("[::1]:54", "::1:54"),
            ("dns.example.com", "dns.example.com:53"),
            ("dns.example.com:54", "dns.example.com:54"),
        ] {
            assert_eq!(text.parse::<Server>().map(|s| s.to_string()).as_deref(), Ok(read), "{text}");
        }
        for text in ["", ":53", "a:b", "a:0", "https://dns.example", "a b", "1.1.1.1:99999"] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }
}
