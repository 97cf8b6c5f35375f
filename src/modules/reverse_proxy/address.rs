//! Upstream addresses as they stand in a Proxyfile: `host`, `host:port`, `:port`, `scheme://host[:port]`,
//! `unix//path`, `unix+h2c//path`, `network/host:port`, with port ranges and placeholders, read as Caddy reads them.

/// What one word stands for: a scheme (empty when none was said) and one dial address per port.
#[derive(Debug, PartialEq, Eq)]
pub struct ParsedAddress {
    pub scheme: String,
    pub dials: Vec<String>,
}

/// More ports than this in one range is a mistake, not a pool.
const MAX_RANGE: u32 = 10_000;

/// Reads one upstream word. The message never repeats the word: it may come from the environment.
pub fn parse(text: &str) -> Result<ParsedAddress, String> {
    let parts = if text.contains("://") { from_url(text)? } else { from_network_address(text) };
    match parts.scheme.as_str() {
        "" | "http" | "https" | "h2c" => {}
        "ws" => return Err("`ws://` is for browsers; write `http://`".into()),
        "wss" => return Err("`wss://` is for browsers; write `https://`".into()),
        _ => return Err("upstreams have the scheme http, https or h2c".into()),
    }
    let dial = parts.dial();
    if parts.port.contains('{') && parts.port.contains('}') {
        return Ok(ParsedAddress { scheme: parts.scheme, dials: vec![dial] });
    }
    // A unix address has no port; a placeholder host without one is resolved per request.
    if is_unix(&parts.network) || parts.network.starts_with("fd") || parts.port.is_empty() {
        return Ok(ParsedAddress { scheme: parts.scheme, dials: vec![dial] });
    }
    let (first, last) = port_range(&parts.port)?;
    let dials = if parts.port.contains('-') {
        (first..=last).map(|port| join(&parts.host, &port.to_string())).collect()
    } else {
        vec![dial]
    };
    Ok(ParsedAddress { scheme: parts.scheme, dials })
}

struct Parts {
    network: String,
    scheme: String,
    host: String,
    port: String,
}

impl Parts {
    fn dial(&self) -> String {
        if !self.network.is_empty() {
            let address = if is_unix(&self.network) || self.port.is_empty() {
                self.host.clone()
            } else {
                join(&self.host, &self.port)
            };
            return format!("{}/{address}", self.network);
        }
        if self.port.is_empty() && self.host.contains('{') {
            return self.host.clone();
        }
        join(&self.host, &self.port)
    }
}

fn is_unix(network: &str) -> bool {
    matches!(network, "unix" | "unixgram" | "unixpacket" | "unix+h2c")
}

fn from_url(text: &str) -> Result<Parts, String> {
    if text.contains('{') {
        return Err("placeholders are not possible in an upstream with a scheme; write `host:port` and `transport http { tls }`".into());
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let scheme = scheme.to_ascii_lowercase();
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    {
        return Err("the scheme is not valid".into());
    }
    if rest.contains(['/', '?', '#']) {
        return Err("an upstream has a scheme, a host and a port, but no path or query".into());
    }
    // User information is dropped, as in Caddy.
    let authority = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if authority.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("the host is not valid".into());
    }
    // An address's zone is the only thing that may be written with a percent sign: `[fe80::1%25eth0]`.
    let bracketed = authority.starts_with('[');
    if authority.contains('%') && !bracketed {
        return Err("the host is not valid".into());
    }
    let authority = &*authority.replace("%25", "%");
    let (host, mut port) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (host, tail) = inner.split_once(']').ok_or("an IPv6 address needs its closing bracket")?;
            match tail.strip_prefix(':') {
                Some(port) => (host, port.to_owned()),
                None if tail.is_empty() => (host, String::new()),
                None => return Err("after an IPv6 address only a port may follow".into()),
            }
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.to_owned()),
            None => (authority, String::new()),
        },
    };
    match (scheme.as_str(), port.as_str()) {
        ("http", "443") => return Err("`http://` and port 443 (the HTTPS port) contradict each other".into()),
        ("https", "80") => return Err("`https://` and port 80 (the HTTP port) contradict each other".into()),
        ("h2c", "443") => return Err("`h2c://` and port 443 (the HTTPS port) contradict each other".into()),
        _ => {}
    }
    if port.is_empty() {
        match scheme.as_str() {
            "http" | "h2c" => port = "80".into(),
            "https" => port = "443".into(),
            _ => {}
        }
    }
    Ok(Parts { network: String::new(), scheme, host: host.to_owned(), port })
}

fn from_network_address(text: &str) -> Parts {
    let parts = |network: &str, scheme: &str, host: &str, port: &str| Parts {
        network: network.to_owned(),
        scheme: scheme.to_owned(),
        host: host.to_owned(),
        port: port.to_owned(),
    };
    let (network, rest) = match text.split_once('/') {
        // Only a plain word before the slash is a network.
        Some((network, rest)) if is_network(network) => (network.trim().to_ascii_lowercase(), rest),
        _ => (String::new(), text),
    };
    if network == "unix+h2c" {
        return parts("unix", "h2c", rest, "");
    }
    if is_unix(&network) || network.starts_with("fd") {
        return parts(&network, "", rest, "");
    }
    let (host, port) = split_host_port(rest).unwrap_or((rest, ""));
    // A placeholder without a port is expected to bring its own.
    let port = if port.is_empty() && !host.contains('{') { "80" } else { port };
    parts(&network, "", host, port)
}

fn is_network(word: &str) -> bool {
    let word = word.trim();
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '+')
}

/// Go's `net.SplitHostPort`, brackets removed; `None` when there is no port to split off.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    if let Some(inner) = text.strip_prefix('[') {
        let (host, tail) = inner.split_once(']')?;
        return Some((host, tail.strip_prefix(':').unwrap_or("")));
    }
    let (host, port) = text.rsplit_once(':')?;
    (!host.contains(':')).then_some((host, port))
}

fn join(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn port_range(text: &str) -> Result<(u32, u32), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number =
        |s: &str| s.parse::<u16>().map(u32::from).map_err(|_| "the port is not a number below 65536".to_owned());
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err("the port range ends before it starts".into());
    }
    if last - first >= MAX_RANGE {
        return Err(format!("the port range holds more than {MAX_RANGE} ports"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> (String, String) {
        let p = parse(text).unwrap();
        (p.scheme, p.dials.join(" "))
    }

    #[test]
    fn forms_dial_what_caddy_dials() {
        for (text, scheme, dials) in [
            ("a", "", "a:80"),
            ("a:9001", "", "a:9001"),
            ("a:", "", "a:80"),
            (":80", "", ":80"),
            ("[::1]", "", "[::1]:80"),
            ("::1", "", "[::1]:80"),
            ("[::1]:9", "", "[::1]:9"),
            ("a:1-3", "", "a:1 a:2 a:3"),
            ("http://a:1-2", "http", "a:1 a:2"),
            ("http://a", "http", "a:80"),
            ("HTTP://A.b", "http", "A.b:80"),
            ("http://[::1]", "http", "[::1]:80"),
            ("https://a", "https", "a:443"),
            ("https://a:8443", "https", "a:8443"),
            ("h2c://a", "h2c", "a:80"),
            ("https://[fe80::1%25eth0]", "https", "[fe80::1%eth0]:443"),
            ("http://user@a", "http", "a:80"),
            ("{x}", "", "{x}"),
            ("{x}:80", "", "{x}:80"),
            ("a:{p}", "", "a:{p}"),
            ("unix//run/x.sock", "", "unix//run/x.sock"),
            ("unix/x.sock", "", "unix/x.sock"),
            ("UNIX//x", "", "unix//x"),
            ("unix+h2c//x", "h2c", "unix//x"),
            ("tcp/a:80", "", "tcp/a:80"),
            ("tcp4/a:80-82", "", "a:80 a:81 a:82"),
        ] {
            assert_eq!(ok(text), (scheme.to_owned(), dials.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_caddy_refuses_is_refused() {
        for text in [
            "http://a:443",
            "https://a:80",
            "h2c://a:443",
            "a:99999",
            "a:http",
            "ws://a",
            "wss://a",
            "ftp://a",
            "http://a/",
            "http://a?x",
            "http://a%41",
            "a:3-1",
            "http://a:1-3-4",
            "a:1-3-4",
            "a:1-",
            "https://{x}",
            "http://[::1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
