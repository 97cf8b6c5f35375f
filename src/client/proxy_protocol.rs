//! The PROXY protocol towards an upstream (haproxy's `doc/proxy-protocol.txt`): whom a connection is for, told before its
//! first byte of TLS or HTTP.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 with its commands, and TCP over both families (section 2.2).
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Who is connected to the proxy, and where: the client's address and the listener's.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    pub client: SocketAddr,
    pub listener: Option<SocketAddr>,
}

impl ProxyProtocol {
    /// The header; without `ends` one that says nothing of a client: a connection of the proxy's own, or a client over a
    /// unix socket.
    #[must_use]
    pub fn header(self, ends: Option<Ends>) -> Vec<u8> {
        let ends = ends.map(one_family);
        match self {
            Self::V1 => text(ends),
            Self::V2 => binary(ends),
        }
    }
}

type Pair = (SocketAddr, SocketAddr);

/// Both addresses must be of one family: where the listener's is not, it is unknown, which is all zeros.
fn one_family(ends: Ends) -> Pair {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let client = canonical(ends.client);
    let listener = ends.listener.map(canonical).filter(|listener| listener.is_ipv4() == client.is_ipv4());
    let unknown = match client.ip() {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    (client, listener.unwrap_or(SocketAddr::new(unknown, 0)))
}

fn text(ends: Option<Pair>) -> Vec<u8> {
    let Some((client, listener)) = ends else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let mut line = Vec::with_capacity(64);
    let (from, to) = (client.ip(), listener.ip());
    // Writing to memory does not fail.
    let _ = write!(line, "PROXY {family} {from} {to} {} {}\r\n", client.port(), listener.port());
    line
}

fn binary(ends: Option<Pair>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    match ends {
        None => header.extend_from_slice(&[LOCAL, UNSPECIFIED, 0, 0]),
        Some((client, listener)) => {
            let (family, length) = if client.is_ipv4() { (TCP4, 12) } else { (TCP6, 36) };
            header.extend_from_slice(&[PROXY, family, 0, length]);
            for address in [client, listener] {
                match address.ip() {
                    IpAddr::V4(ip) => header.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => header.extend_from_slice(&ip.octets()),
                }
            }
            header.extend_from_slice(&client.port().to_be_bytes());
            header.extend_from_slice(&listener.port().to_be_bytes());
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, listener: Option<&str>) -> Option<Ends> {
        Some(Ends { client: client.parse().unwrap(), listener: listener.map(|l| l.parse().unwrap()) })
    }

    fn line(ends: Option<Ends>) -> String {
        String::from_utf8(ProxyProtocol::V1.header(ends)).unwrap()
    }

    #[test]
    fn a_line_of_text() {
        assert_eq!(line(ends("1.2.3.4:5", Some("6.7.8.9:443"))), "PROXY TCP4 1.2.3.4 6.7.8.9 5 443\r\n");
        assert_eq!(line(ends("[::ffff:1.2.3.4]:5", Some("6.7.8.9:443"))), "PROXY TCP4 1.2.3.4 6.7.8.9 5 443\r\n");
        assert_eq!(line(ends("[2001:db8::1]:5", Some("6.7.8.9:443"))), "PROXY TCP6 2001:db8::1 :: 5 0\r\n");
        assert_eq!(line(ends("1.2.3.4:5", None)), "PROXY TCP4 1.2.3.4 0.0.0.0 5 0\r\n");
        assert_eq!(line(None), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn a_binary_header() {
        let header = ProxyProtocol::V2.header(ends("1.2.3.4:258", Some("6.7.8.9:443")));
        assert_eq!(header, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x06\x07\x08\x09\x01\x02\x01\xbb");
        let long = ProxyProtocol::V2.header(ends("[2001:db8::1]:5", None));
        assert_eq!((long.len(), &long[12..16]), (16 + 36, &[PROXY, TCP6, 0, 36][..]));
        assert_eq!(ProxyProtocol::V2.header(None), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    }
}
