//! Network addresses of listeners: `[network/]host:port[-range]`, `unix//path`, `fd/3`.

/// A parsed network address. Unix and fd networks have only a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkAddress {
    pub network: String,
    pub host: String,
    pub first_port: u16,
    pub last_port: u16,
}

impl NetworkAddress {
    /// `Err` is the sentence for the diagnostic.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (network, host, port) = split_network(text)?;
        let network = if network.is_empty() { "tcp".to_owned() } else { network };
        if is_unix(&network) || is_fd(&network) {
            return Ok(Self { network, host: host.to_owned(), first_port: 0, last_port: 0 });
        }
        let (first, last) = port.split_once('-').unwrap_or((port, port));
        let number = |word: &str| match word {
            "" => Ok(0),
            word => word.parse::<u16>().map_err(|_| format!("`{word}` is not a port")),
        };
        let (first_port, last_port) = (number(first)?, number(last)?);
        if last_port < first_port {
            return Err(format!("the end of the port range `{port}` lies before its start"));
        }
        Ok(Self { network, host: host.to_owned(), first_port, last_port })
    }

    /// The text that Caddy's JSON uses: `tcp/` is left out.
    #[must_use]
    pub fn text(&self) -> String {
        let network = if self.network == "tcp" { "" } else { &self.network };
        let port = if self.first_port == self.last_port {
            self.first_port.to_string()
        } else {
            format!("{}-{}", self.first_port, self.last_port)
        };
        join_network(network, &self.host, &port)
    }

    #[must_use]
    pub fn has_port(&self, port: u16) -> bool {
        (self.first_port..=self.last_port).contains(&port)
    }
}

/// Network (empty when not written), host and port of an address.
pub fn split_network(text: &str) -> Result<(String, &str, &str), String> {
    let (network, rest) = match text.split_once('/') {
        Some((network, rest)) => (network.trim().to_ascii_lowercase(), rest),
        None => (String::new(), text),
    };
    if is_unix(&network) || is_fd(&network) {
        return Ok((network, rest, ""));
    }
    if let Some((host, port)) = split_host_port(rest) {
        return Ok((network, host, port));
    }
    let host = rest.trim_matches(['[', ']']);
    if host.contains(['[', ']']) {
        return Err(format!("`{rest}` is not a host and port"));
    }
    Ok((network, host, ""))
}

#[must_use]
pub fn join_network(network: &str, host: &str, port: &str) -> String {
    let mut out = String::with_capacity(network.len() + host.len() + port.len() + 4);
    if !network.is_empty() {
        out.push_str(network);
        out.push('/');
    }
    if is_unix(network) || is_fd(network) || port.is_empty() {
        out.push_str(host);
    } else {
        out.push_str(&join_host_port(host, port));
    }
    out
}

/// Go's `net.SplitHostPort`: `None` when there is no port or the colons and brackets do not add up.
#[must_use]
pub fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let colon = text.rfind(':')?;
    let (host, port) = (&text[..colon], &text[colon + 1..]);
    let host = if let Some(bracketed) = text.strip_prefix('[') {
        let end = bracketed.find(']')?;
        if end + 2 != colon {
            return None;
        }
        &bracketed[..end]
    } else if host.contains(':') {
        return None;
    } else {
        host
    };
    if host.contains(['[', ']']) || port.contains(['[', ']']) {
        return None;
    }
    Some((host, port))
}

/// Brackets around a host that holds colons.
#[must_use]
pub fn join_host_port(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn is_unix(network: &str) -> bool {
    network.starts_with("unix")
}

fn is_fd(network: &str) -> bool {
    network.starts_with("fd")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_in_canonical_form() {
        for (given, expected) in [
            (":80", ":80"),
            ("tcp/localhost:80", "localhost:80"),
            ("udp/:53", "udp/:53"),
            ("[::1]:8080", "[::1]:8080"),
            ("localhost:8000-8010", "localhost:8000-8010"),
            ("unix//run/x.sock", "unix//run/x.sock"),
            ("unix//run/x.sock|0220", "unix//run/x.sock|0220"),
            ("fd/3", "fd/3"),
        ] {
            assert_eq!(NetworkAddress::parse(given).unwrap().text(), expected);
        }
    }

    #[test]
    fn refuses_nonsense() {
        for bad in [":99999", ":x", ":9-8", "a[b:1"] {
            assert!(NetworkAddress::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_and_port_as_go_splits_them() {
        assert_eq!(split_host_port("a:1"), Some(("a", "1")));
        assert_eq!(split_host_port("[::1]:1"), Some(("::1", "1")));
        assert_eq!(split_host_port("::1:1"), None);
        assert_eq!(split_host_port("a"), None);
        assert_eq!(split_host_port("[a]b:1"), None);
    }
}
