//! Addresses of DNS servers as they stand in `resolvers`.

use std::net::{IpAddr, SocketAddr};

use super::compile_cx::CompileError;

/// `ADDRESS`, `ADDRESS:PORT`, `udp/ADDRESS` and the like; without a port, 53.
///
/// # Errors
/// When one is not an IP address.
pub fn parse(told: &[String]) -> Result<Vec<SocketAddr>, CompileError> {
    let address = |(at, text): (usize, &String)| {
        // Caddy writes networks before addresses; UDP is asked first and TCP where an answer does not fit.
        let plain = text.strip_prefix("udp/").or_else(|| text.strip_prefix("tcp/")).unwrap_or(text);
        let port_53 = || plain.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
        plain.parse::<SocketAddr>().or_else(|_| port_53()).map_err(|_| {
            CompileError::new("invalid-value", format!("`{text}` is not the IP address of a DNS server"))
                .help("for example `10.0.0.53` or `[fd00::53]:5353`")
                .within(at)
        })
    };
    told.iter().enumerate().map(address).collect()
}
