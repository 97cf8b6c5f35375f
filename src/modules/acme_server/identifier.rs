//! What certificates are asked for: DNS names (RFC 8555 section 7.1.4) and IP addresses (RFC 8738).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identifier {
    /// `dns` or `ip`.
    pub r#type: String,
    /// Lower case; a wildcard as `*.name`.
    pub value: String,
}

impl Identifier {
    pub fn dns(name: &str) -> Result<Self, &'static str> {
        let value = name.to_ascii_lowercase();
        let plain = value.strip_prefix("*.");
        if !is_host_name(plain.unwrap_or(&value)) || (plain.is_some() && !value[2..].contains('.')) {
            return Err("it is not a DNS name that a certificate can be made for");
        }
        Ok(Self { r#type: "dns".into(), value })
    }

    pub fn ip(address: &str) -> Result<Self, &'static str> {
        let address: IpAddr = address.parse().map_err(|_| "it is not an IP address")?;
        // An IPv4 address written as IPv6 is the IPv4 address, to clients too: rules for ranges must not be evaded by it.
        let address = address.to_canonical();
        if address.is_unspecified() || address.is_multicast() {
            return Err("it is not the address of one machine");
        }
        Ok(Self { r#type: "ip".into(), value: address.to_string() })
    }

    /// What a certificate or a signing request names without its kind.
    pub fn of_text(text: &str) -> Result<Self, &'static str> {
        if text.parse::<IpAddr>().is_ok() { Self::ip(text) } else { Self::dns(text) }
    }

    /// As a client wrote it; `None` when the kind is none of ours.
    pub fn checked(&self) -> Option<Result<Self, &'static str>> {
        match self.r#type.as_str() {
            "dns" => Some(Self::dns(&self.value)),
            "ip" => Some(Self::ip(&self.value)),
            _ => None,
        }
    }

    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        if self.r#type == "ip" { self.value.parse().ok() } else { None }
    }

    /// The name below a wildcard.
    #[must_use]
    pub fn wildcard(&self) -> Option<&str> {
        if self.r#type == "dns" { self.value.strip_prefix("*.") } else { None }
    }
}

/// Letters, digits, hyphens, and the underscores of container networks (RFC 1123 section 2.1, RFC 1035 section 2.3.4).
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name that ends in digits could be taken for an address.
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        for (text, value) in [
            ("A.Test", Some("a.test")),
            ("localhost", Some("localhost")),
            ("*.a.test", Some("*.a.test")),
            ("my_service", Some("my_service")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("0:0::1", Some("::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("::ffff:224.0.0.1", None),
            ("xn--bcher-kva.test", Some("xn--bcher-kva.test")),
            ("*", None),
            ("*.test", None),
            ("a.*.test", None),
            ("*.*.test", None),
            ("a.test.", None),
            (".a.test", None),
            ("a..test", None),
            ("", None),
            ("-a.test", None),
            ("bücher.test", None),
            ("a b.test", None),
            ("a\0.test", None),
            ("1.2.3", None),
            ("0.0.0.0", None),
            ("224.0.0.1", None),
        ] {
            let made = Identifier::of_text(text).ok();
            assert_eq!(made.map(|i| i.value).as_deref(), value, "{text}");
        }
        assert!(Identifier::dns(&"a".repeat(64)).is_err());
        assert!(Identifier::dns(&["a"; 128].join(".")).is_err());
        assert!(Identifier::dns("127.0.0.1").is_err());
        assert!(Identifier { r#type: "email".into(), value: "a@b.test".into() }.checked().is_none());
    }
}
