//! The PROXY protocol: what a load balancer in front says of the client, before the first byte of TLS or HTTP.
//!
//! Versions 1 (text) and 2 (binary) of haproxy's `doc/proxy-protocol.txt`. TLVs are skipped. Reading is pure ([`parse`]);
//! [`receive`] feeds it from a connection and does what the policy for its peer says.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::client::PROXY_V2_SIGNATURE as V2;
use crate::compile::wrappers::{Policy, ProxyProtocol};

/// Longest line of version 1, its end included (section 2.1).
const MAX_V1: usize = 107;
/// Longest header of version 2 that is taken: addresses and what balancers add as TLVs fit many times over.
const MAX_V2: usize = 8 << 10;
const V1: &[u8] = b"PROXY ";

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Something else than a header.
    Absent,
    /// So far it may be a header; more bytes are needed.
    Partial,
    /// A whole header, so many bytes long.
    Header(usize, Origin),
    /// Begins as a header and is none.
    Malformed,
}

/// Whom the connection is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The balancer itself (a health check), or it does not know: the connection's own addresses stand.
    Connection,
    Addresses {
        source: SocketAddr,
        destination: SocketAddr,
    },
    Unix,
}

/// Why a connection is closed instead of served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Malformed,
    /// The policy for this peer allows no header.
    NotAllowed,
    /// The policy for this peer asks for a header.
    Missing,
    TooSlow,
    Closed,
}

/// Reads a header off the front of `seen`. Never looks at more than a header may be long.
#[must_use]
pub fn parse(seen: &[u8]) -> Parsed {
    if begins(seen, V2) {
        return if seen.len() < V2.len() { Parsed::Partial } else { version_2(seen) };
    }
    if begins(seen, V1) {
        return if seen.len() < V1.len() { Parsed::Partial } else { version_1(seen) };
    }
    Parsed::Absent
}

/// Takes the header, if there is one, off the front of the connection, and says whom it is from: `None` when nobody says
/// or what was said is not believed. `seen` holds what was read before; afterwards, what was read beyond the header.
///
/// # Errors
/// When the connection must not be served.
pub async fn receive<S: AsyncRead + Unpin>(
    settings: &ProxyProtocol,
    peer: Option<IpAddr>,
    stream: &mut S,
    seen: &mut Vec<u8>,
) -> Result<Option<Origin>, Refused> {
    let policy = settings.policy(peer);
    if policy == Policy::Skip {
        return Ok(None);
    }
    let parsed = match settings.timeout {
        None => fill(stream, seen).await,
        Some(limit) => match tokio::time::timeout(limit, fill(stream, seen)).await {
            Ok(parsed) => parsed,
            // A client that says nothing yet sent no header either; half a header is no header and no request.
            Err(_) if seen.is_empty() => Ok(Parsed::Absent),
            Err(_) => return Err(Refused::TooSlow),
        },
    };
    match (parsed.map_err(|_| Refused::Closed)?, policy) {
        (Parsed::Header(..), Policy::Reject) => Err(Refused::NotAllowed),
        (Parsed::Header(length, origin), _) => {
            seen.drain(..length);
            let believed = matches!(policy, Policy::Use | Policy::Require);
            Ok(Some(origin).filter(|_| believed))
        }
        (Parsed::Absent, Policy::Require) => Err(Refused::Missing),
        (Parsed::Absent, _) => Ok(None),
        (Parsed::Malformed | Parsed::Partial, _) => Err(Refused::Malformed),
    }
}

/// Reads until it is known whether there is a header, and whole.
async fn fill<S: AsyncRead + Unpin>(stream: &mut S, seen: &mut Vec<u8>) -> io::Result<Parsed> {
    loop {
        // Nothing yet may become anything.
        let parsed = if seen.is_empty() { Parsed::Partial } else { parse(seen) };
        if parsed != Parsed::Partial {
            return Ok(parsed);
        }
        if stream.read_buf(seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Whether `seen` is, as far as it goes, what begins with `prefix`.
fn begins(seen: &[u8], prefix: &[u8]) -> bool {
    seen.iter().zip(prefix).all(|(a, b)| a == b)
}

/// `PROXY TCP4 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT\r\n` or `PROXY UNKNOWN …\r\n`.
fn version_1(seen: &[u8]) -> Parsed {
    let head = &seen[..seen.len().min(MAX_V1)];
    let Some(end) = memchr::memmem::find(head, b"\r\n") else {
        return if seen.len() < MAX_V1 { Parsed::Partial } else { Parsed::Malformed };
    };
    let line = head.get(V1.len()..end).and_then(|line| std::str::from_utf8(line).ok());
    match line.and_then(line_1) {
        Some(origin) => Parsed::Header(end + 2, origin),
        None => Parsed::Malformed,
    }
}

fn line_1(line: &str) -> Option<Origin> {
    let mut words = line.split(' ');
    let is_v6 = match words.next()? {
        // What follows is to be ignored.
        "UNKNOWN" => return Some(Origin::Connection),
        "TCP4" => false,
        "TCP6" => true,
        _ => return None,
    };
    let mut ip = || words.next()?.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv6() == is_v6);
    let (source, destination) = (ip()?, ip()?);
    let mut port = || {
        let word = words.next()?;
        word.bytes().all(|b| b.is_ascii_digit()).then(|| word.parse::<u16>().ok()).flatten()
    };
    let (from, to) = (port()?, port()?);
    words.next().is_none().then(|| addresses(source, from, destination, to))
}

/// Signature, version and command, family and transport, length of the rest; then addresses and TLVs.
fn version_2(seen: &[u8]) -> Parsed {
    let Some(&[version_command, family, high, low]) = seen.get(V2.len()..V2.len() + 4) else { return Parsed::Partial };
    let length = V2.len() + 4 + usize::from(u16::from_be_bytes([high, low]));
    let local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Parsed::Malformed,
    };
    if length > MAX_V2 {
        return Parsed::Malformed;
    }
    let Some(body) = seen.get(V2.len() + 4..length) else { return Parsed::Partial };
    let origin = match family {
        // "The receiver must use the real connection endpoints", whatever else is said.
        _ if local => Some(Origin::Connection),
        // The lower half says stream or datagram: a balancer may have taken HTTP/3.
        0x00 => Some(Origin::Connection),
        0x11 | 0x12 => addresses_4(body),
        0x21 | 0x22 => addresses_6(body),
        0x31 | 0x32 => (body.len() >= 216).then_some(Origin::Unix),
        _ => None,
    };
    origin.map_or(Parsed::Malformed, |origin| Parsed::Header(length, origin))
}

fn addresses_4(body: &[u8]) -> Option<Origin> {
    let ip = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(body.get(at..at + 4)?).ok()?));
    Some(addresses(ip(0)?.into(), port(body, 8)?, ip(4)?.into(), port(body, 10)?))
}

fn addresses_6(body: &[u8]) -> Option<Origin> {
    let ip = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(body.get(at..at + 16)?).ok()?));
    Some(addresses(ip(0)?.into(), port(body, 32)?, ip(16)?.into(), port(body, 34)?))
}

fn port(body: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?))
}

/// An IPv4 address written as IPv6 is the IPv4 address: rules for ranges must not be evaded by it.
fn addresses(source: IpAddr, from: u16, destination: IpAddr, to: u16) -> Origin {
    Origin::Addresses {
        source: SocketAddr::new(source.to_canonical(), from),
        destination: SocketAddr::new(destination.to_canonical(), to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn from(source: &str, destination: &str) -> Origin {
        Origin::Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2, &[version_command, family], &length, body].concat()
    }

    fn v2_tcp4(tlvs: &[u8]) -> Vec<u8> {
        v2(0x21, 0x11, &[&[192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 1, 0xbb][..], tlvs].concat())
    }

    #[test]
    fn headers_of_both_versions_are_read() {
        let four = from("192.0.2.1:12345", "198.51.100.2:443");
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n";
        assert_eq!(parse(line), Parsed::Header(line.len(), four));
        let line = b"PROXY TCP6 2001:db8::1 ::1 1 2\r\nGET /";
        assert_eq!(parse(line), Parsed::Header(line.len() - 5, from("[2001:db8::1]:1", "[::1]:2")));
        for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n"] {
            assert_eq!(parse(line.as_bytes()), Parsed::Header(line.len(), Origin::Connection));
        }
        assert_eq!(parse(&v2_tcp4(b"")), Parsed::Header(28, four));
        // TLVs are skipped, with what they hold.
        assert_eq!(parse(&v2_tcp4(b"\x04\x00\x03abc")), Parsed::Header(34, four));
        let six = [&[0; 15][..], &[1], &[0; 15], &[2], &[0, 1, 0, 2]].concat();
        assert_eq!(parse(&v2(0x21, 0x21, &six)), Parsed::Header(52, from("[::1]:1", "[::2]:2")));
        assert_eq!(parse(&v2(0x21, 0x31, &[0; 216])), Parsed::Header(232, Origin::Unix));
        for (command, family) in [(0x20, 0x00), (0x20, 0x11), (0x21, 0x00)] {
            assert_eq!(parse(&v2(command, family, b"")), Parsed::Header(16, Origin::Connection));
        }
    }

    #[test]
    fn an_address_in_disguise_is_shown_as_it_is() {
        let mapped = b"PROXY TCP6 ::ffff:10.0.0.1 ::1 1 2\r\n";
        assert_eq!(parse(mapped), Parsed::Header(mapped.len(), from("10.0.0.1:1", "[::1]:2")));
    }

    #[test]
    fn what_is_no_header_is_told_from_a_broken_one() {
        for absent in ["G", "GET / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n", "\x16\x03\x01", "\r\nGET", "PROXIED"] {
            assert_eq!(parse(absent.as_bytes()), Parsed::Absent, "{absent:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for broken in [
            "PROXY \r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            "PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
            &long,
        ] {
            assert_eq!(parse(broken.as_bytes()), Parsed::Malformed, "{broken:?}");
        }
        let broken = [v2(0x11, 0x11, &[0; 12]), v2(0x22, 0, b""), v2(0x21, 0x11, &[0; 11]), v2(0x21, 0x41, &[0; 300])];
        for broken in broken {
            assert_eq!(parse(&broken), Parsed::Malformed, "{broken:?}");
        }
        // Its length alone says that it will not be waited for.
        assert_eq!(parse(&v2(0x21, 0x11, &[0; MAX_V2])[..16]), Parsed::Malformed);
    }

    proptest! {
        /// However the bytes arrive, the verdict is the same, and it is known within the bound.
        #[test]
        fn more_bytes_never_change_a_verdict(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..4) {
            match kind {
                0 => bytes.splice(0..0, V1.iter().copied()).for_each(drop),
                1 => bytes.splice(0..0, V2.iter().copied()).for_each(drop),
                2 => bytes.splice(0..0, v2_tcp4(b"tlv")).for_each(drop),
                _ => {}
            }
            let whole = parse(&bytes);
            for end in 1..bytes.len() {
                let verdict = parse(&bytes[..end]);
                prop_assert!(verdict == Parsed::Partial || verdict == whole, "{end}: {verdict:?}, {whole:?}");
            }
            if let Parsed::Header(length, _) = whole {
                prop_assert!(length <= bytes.len() && parse(&bytes[..length]) == whole);
            }
        }
    }

    fn received(policy: Policy, bytes: &'static [u8]) -> Result<(Option<Origin>, Vec<u8>), Refused> {
        let settings =
            ProxyProtocol { timeout: Some(Duration::from_millis(5)), fallback: policy, ..ProxyProtocol::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut near, mut far) = tokio::io::duplex(64);
            tokio::io::AsyncWriteExt::write_all(&mut far, bytes).await.unwrap();
            let mut seen = Vec::new();
            let peer = Some(IpAddr::from([192, 0, 2, 9]));
            receive(&settings, peer, &mut near, &mut seen).await.map(|origin| (origin, seen))
        })
    }

    #[test]
    fn each_policy_does_what_its_name_says() {
        const WITH: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET";
        let told = Some(from("192.0.2.1:1", "192.0.2.2:2"));
        let get = b"GET".to_vec();
        assert_eq!(received(Policy::Use, WITH), Ok((told, get.clone())));
        assert_eq!(received(Policy::Require, WITH), Ok((told, get.clone())));
        assert_eq!(received(Policy::Ignore, WITH), Ok((None, get.clone())));
        assert_eq!(received(Policy::Reject, WITH), Err(Refused::NotAllowed));
        assert_eq!(received(Policy::Skip, WITH), Ok((None, Vec::new())), "nothing is read");
        for policy in [Policy::Use, Policy::Ignore, Policy::Reject] {
            assert_eq!(received(policy, b"GET"), Ok((None, get.clone())), "{policy:?}");
            assert_eq!(received(policy, b""), Ok((None, Vec::new())), "{policy:?}: a client that waits");
            assert_eq!(received(policy, b"PROXY TCP"), Err(Refused::TooSlow), "{policy:?}");
            assert_eq!(received(policy, b"PROXY TCP9\r\n"), Err(Refused::Malformed), "{policy:?}");
        }
        assert_eq!(received(Policy::Require, b"GET"), Err(Refused::Missing));
        assert_eq!(received(Policy::Require, b""), Err(Refused::Missing));
    }
}
