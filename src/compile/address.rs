//! Network addresses as Caddy writes them: `[network/]host:port[-end]`, `unix//path[|mode]`, `fd/N`.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// One thing to listen on. Its identity over reloads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddr {
    /// `None` host = all addresses, IPv6 and IPv4.
    Tcp { ip: Option<IpAddr>, port: u16 },
    /// `mode` is the file mode of the socket, such as `0o200`.
    Unix { path: PathBuf, mode: Option<u32> },
    /// An inherited descriptor.
    Fd(i32),
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { ip: None, port } => write!(f, ":{port}"),
            Self::Tcp { ip: Some(ip), port } => write!(f, "{}", SocketAddr::new(*ip, *port)),
            Self::Unix { path, .. } => write!(f, "unix/{}", path.display()),
            Self::Fd(n) => write!(f, "fd/{n}"),
        }
    }
}

impl ListenAddr {
    /// All addresses that one listen string stands for (a port range stands for several). The message says what is
    /// wrong with it.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        let (network, rest) = text.split_once('/').unwrap_or(("tcp", text));
        match network {
            "tcp" | "tcp4" | "tcp6" => Self::parse_tcp(network, rest),
            "unix" => {
                let (path, mode) = match rest.split_once('|') {
                    Some((path, mode)) => {
                        let mode =
                            u32::from_str_radix(mode, 8).map_err(|_| format!("`{mode}` is not an octal file mode"))?;
                        (path, Some(mode))
                    }
                    None => (rest, None),
                };
                if path.is_empty() {
                    return Err("a unix socket address needs a path".into());
                }
                Ok(vec![Self::Unix { path: path.into(), mode }])
            }
            "fd" => rest.parse().map(|n| vec![Self::Fd(n)]).map_err(|_| format!("`{rest}` is not a descriptor number")),
            "udp" | "udp4" | "udp6" | "unixgram" | "unixpacket" | "unix+h2c" | "fdgram" | "ip" | "ip4" | "ip6" => {
                Err(format!("network `{network}` is not supported for listening"))
            }
            other => Err(format!("unknown network `{other}`")),
        }
    }

    fn parse_tcp(network: &str, rest: &str) -> Result<Vec<Self>, String> {
        let (host, ports) = crate::http::exchange::split_host_port(rest);
        if ports.is_empty() {
            return Err(format!("`{rest}` has no port"));
        }
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |s: &str| s.parse::<u16>().map_err(|_| format!("`{s}` is not a port"));
        let (first, last) = (port(first)?, port(last)?);
        if last < first {
            return Err(format!("port range `{ports}` ends before it starts"));
        }
        let ip = match host {
            "" if network == "tcp4" => Some(IpAddr::from([0, 0, 0, 0])),
            "" => None,
            host => Some(resolve(network, host)?),
        };
        Ok((first..=last).map(|port| Self::Tcp { ip, port }).collect())
    }
}

/// A name to bind resolves to its first IPv4 address, else its first IPv6 address, as Go's listener does.
fn resolve(network: &str, host: &str) -> Result<IpAddr, String> {
    if let Ok(ip) = host.parse() {
        return Ok(ip);
    }
    let all: Vec<IpAddr> = (host, 0_u16)
        .to_socket_addrs()
        .map_err(|e| format!("`{host}` does not resolve: {e}"))?
        .map(|a| a.ip())
        .filter(|ip| match network {
            "tcp4" => ip.is_ipv4(),
            "tcp6" => ip.is_ipv6(),
            _ => true,
        })
        .collect();
    all.iter()
        .find(|ip| ip.is_ipv4())
        .or_else(|| all.first())
        .copied()
        .ok_or_else(|| format!("`{host}` has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_caddy_writes_them() {
        let tcp = |ip: Option<&str>, port| ListenAddr::Tcp { ip: ip.and_then(|i| i.parse().ok()), port };
        assert_eq!(ListenAddr::parse(":80"), Ok(vec![tcp(None, 80)]));
        assert_eq!(ListenAddr::parse("tcp/127.0.0.1:8080"), Ok(vec![tcp(Some("127.0.0.1"), 8080)]));
        assert_eq!(ListenAddr::parse("[::1]:1-2"), Ok(vec![tcp(Some("::1"), 1), tcp(Some("::1"), 2)]));
        assert_eq!(
            ListenAddr::parse("unix//run/x.sock|0222"),
            Ok(vec![ListenAddr::Unix { path: "/run/x.sock".into(), mode: Some(0o222) }])
        );
        assert_eq!(ListenAddr::parse("fd/3"), Ok(vec![ListenAddr::Fd(3)]));
        assert!(ListenAddr::parse("udp/:80").is_err());
        assert!(ListenAddr::parse("localhost").is_err());
        assert!(ListenAddr::parse(":9-2").is_err());
    }
}
