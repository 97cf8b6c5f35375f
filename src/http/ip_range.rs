//! Ranges of addresses as they are written in a configuration.

use std::net::IpAddr;

use ipnet::IpNet;

/// What `private_ranges` stands for, as Caddy writes it.
pub const PRIVATE_RANGES: [&str; 6] =
    ["192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8", "127.0.0.1/8", "fd00::/8", "::1"];

/// An address (`192.0.2.1`) or a network (`10.0.0.0/8`); `None` for anything else.
#[must_use]
pub fn parse(text: &str) -> Option<IpNet> {
    if text.contains('/') { text.parse().ok() } else { text.parse::<IpAddr>().ok().map(IpNet::from) }
}
