//! Site addresses: `[scheme://]host[:port][/path]`, read and normalised as Caddy does (httpcaddyfile `Address`).

use super::listen::{join_host_port, split_host_port};

/// A site address. Parts that were not written are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// As written, trimmed.
    pub original: String,
    pub scheme: String,
    /// Lower case except inside placeholders; IPv6 without brackets in its canonical form.
    pub host: String,
    pub port: String,
    pub path: String,
}

/// Longer keys are cut, so that no later step works on a huge word.
const MAX_LEN: usize = 4096;

impl Address {
    /// Reads and normalises an address. `Err` is the sentence for the diagnostic.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = cut(text, MAX_LEN).trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (host, port) = match split_host_port(authority) {
            Some(parts) => parts,
            // No port: read again with an empty one, which also takes the brackets off an IPv6 host.
            None => match split_host_port_of_portless(authority) {
                Some(host) => (host, ""),
                None => (authority, ""),
            },
        };
        if !port.is_empty() {
            check_port(port)?;
        }
        Ok(Self {
            original: text.to_owned(),
            scheme: lower_outside_placeholders(scheme),
            host: lower_outside_placeholders(&canonical_host(host.trim())),
            port: port.to_owned(),
            path: path.to_owned(),
        })
    }

    /// As a URL, for messages.
    #[must_use]
    pub fn url(&self) -> String {
        if self.host.is_empty() && self.port.is_empty() {
            return String::new();
        }
        let scheme = match self.scheme.as_str() {
            "" if self.port == "443" => "https",
            "" => "http",
            given => given,
        };
        let default_port = matches!((scheme, self.port.as_str()), (_, "") | ("https", "443") | ("http", "80"));
        let known = scheme == "http" || scheme == "https";
        let host = if default_port || !known { self.host.clone() } else { join_host_port(&self.host, &self.port) };
        format!("{scheme}://{host}{}", self.path)
    }
}

/// Length of a host or path without wildcards and placeholders: how much it says about what it matches.
#[must_use]
pub fn specificity(text: &str) -> usize {
    let mut length = text.len() - text.bytes().filter(|b| *b == b'*').count();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let Some(close) = rest[start..].find('}') else { break };
        length = length.saturating_sub(close + 1);
        rest = &rest[start + close + 1..];
    }
    length
}

fn cut(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn split_host_port_of_portless(authority: &str) -> Option<&str> {
    if let Some(inner) = authority.strip_prefix('[').and_then(|a| a.strip_suffix(']')) {
        return (!inner.contains(['[', ']'])).then_some(inner);
    }
    (!authority.contains([':', '[', ']'])).then_some(authority)
}

fn check_port(port: &str) -> Result<(), String> {
    match port.parse::<i64>() {
        Ok(0..=65535) => Ok(()),
        Ok(number) => Err(format!("port {number} is out of range")),
        Err(_) => Err(format!("`{port}` is not a port")),
    }
}

/// Canonical text of an IPv6 address that is not an IPv4 one in disguise; anything else is unchanged.
fn canonical_host(host: &str) -> String {
    let (ip, zone) = host.split_once('%').map_or((host, None), |(ip, zone)| (ip, Some(zone)));
    match ip.parse::<std::net::Ipv6Addr>() {
        Ok(v6) if v6.to_ipv4_mapped().is_none() => match zone {
            Some(zone) => format!("{v6}%{zone}"),
            None => v6.to_string(),
        },
        _ => host.to_owned(),
    }
}

fn lower_outside_placeholders(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut escaped, mut inside) = (false, false);
    for ch in text.chars() {
        if ch == '\\' && !escaped {
            escaped = true;
            out.push(ch);
            continue;
        }
        if !escaped {
            match ch {
                '{' => inside = true,
                '}' => inside = false,
                _ => {}
            }
        }
        if inside {
            out.push(ch);
        } else {
            out.extend(ch.to_lowercase());
        }
        escaped = false;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String, String) {
        let a = Address::parse(text).unwrap();
        (a.scheme, a.host, a.port, a.path)
    }

    fn expect(text: &str, scheme: &str, host: &str, port: &str, path: &str) {
        assert_eq!(parts(text), (scheme.into(), host.into(), port.into(), path.into()), "{text}");
    }

    #[test]
    fn reads_every_form() {
        expect("localhost", "", "localhost", "", "");
        expect("localhost:1234", "", "localhost", "1234", "");
        expect(":1234", "", "", "1234", "");
        expect("[::1]", "", "::1", "", "");
        expect("[::1]:1234", "", "::1", "1234", "");
        expect("2001:DB8::0001", "", "2001:db8::1", "", "");
        expect("http://Example.com/Path", "http", "example.com", "", "/Path");
        expect("HTTPS://{env.Host}.Example.com", "https", "{env.Host}.example.com", "", "");
        expect("/path", "", "", "", "/path");
    }

    #[test]
    fn refuses_bad_ports() {
        assert!(Address::parse("host:99999").unwrap_err().contains("out of range"));
        assert!(Address::parse("host:https").unwrap_err().contains("not a port"));
    }

    #[test]
    fn specificity_ignores_wildcards_and_placeholders() {
        assert_eq!(specificity("example.com"), 11);
        assert_eq!(specificity("*.example.com"), 12);
        assert_eq!(specificity("{env.X}.com"), 4);
        assert_eq!(specificity(""), 0);
    }
}
