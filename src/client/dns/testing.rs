//! A DNS server for tests: says over UDP what a function tells it to.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

/// A record of the name that was asked for.
pub enum Said {
    Address(Ipv4Addr),
    Alias(&'static str),
    Server(&'static str),
    Text(String),
    /// Priority, weight, port, target.
    Service(u16, u16, u16, &'static str),
}

/// Numbers of record types, as they stand in a question.
pub const A: u16 = 1;
pub const NS: u16 = 2;
pub const CNAME: u16 = 5;
pub const TXT: u16 = 16;
pub const SRV: u16 = 33;

/// Response codes.
pub const NO_SUCH_NAME: u8 = 3;
pub const SERVER_FAILED: u8 = 2;

/// Serves until the process ends. `answer` gets the name in lower case without the final dot, and the type; `Err` is a
/// response code.
pub fn serve(at: (Ipv4Addr, u16), answer: impl Fn(&str, u16) -> Result<Vec<Said>, u8> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind(at).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let (name, kind, end) = question(&packet[..length]);
            let reply = reply(&packet[..end], &answer(&name, kind));
            let _ = socket.send_to(&reply, from);
        }
    });
    address
}

/// The name, the type and where the question ends.
fn question(packet: &[u8]) -> (String, u16, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while packet[at] != 0 {
        let end = at + 1 + usize::from(packet[at]);
        labels.push(String::from_utf8_lossy(&packet[at + 1..end]).to_lowercase());
        at = end;
    }
    (labels.join("."), u16::from_be_bytes([packet[at + 1], packet[at + 2]]), at + 5)
}

fn reply(asked: &[u8], answer: &Result<Vec<Said>, u8>) -> Vec<u8> {
    let (code, records) = match answer {
        Ok(records) => (0, records.as_slice()),
        Err(code) => (*code, &[][..]),
    };
    let count = u8::try_from(records.len()).unwrap();
    let mut out = vec![asked[0], asked[1], 0x85, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0];
    out.extend(&asked[12..]);
    for record in records {
        let (kind, data) = match record {
            Said::Address(ip) => (A, ip.octets().to_vec()),
            Said::Alias(name) => (CNAME, wire(name)),
            Said::Server(name) => (NS, wire(name)),
            Said::Text(text) => (TXT, piece(text)),
            Said::Service(priority, weight, port, target) => {
                let numbers = [priority, weight, port].into_iter().flat_map(|n| n.to_be_bytes());
                (SRV, numbers.chain(wire(target)).collect())
            }
        };
        // The name of the question, class IN, five seconds.
        out.extend([0xC0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 5]);
        out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(data);
    }
    out
}

fn wire(name: &str) -> Vec<u8> {
    name.split('.').filter(|label| !label.is_empty()).flat_map(piece).chain([0]).collect()
}

fn piece(text: &str) -> Vec<u8> {
    let mut out = vec![u8::try_from(text.len()).unwrap()];
    out.extend(text.as_bytes());
    out
}
