//! What kind of name a certificate is wanted for (certmagic's rules).

use std::net::IpAddr;

/// Whether a certificate can be made for the name at all.
#[must_use]
pub fn qualifies(name: &str) -> bool {
    !name.trim().is_empty()
        && !name.starts_with('.')
        && !name.ends_with('.')
        && (!name.contains('*') || name.starts_with("*.") || name == "*")
        && !name.contains(|c: char| "()[]{}<> \t\n\"\\!@#$%^&|;'+=".contains(c))
}

/// Whether a public CA may be asked for the name.
#[must_use]
pub fn qualifies_for_public(name: &str) -> bool {
    let wildcard_fits = !name.contains('*')
        || (name.matches('*').count() == 1 && name.matches('.').count() > 1 && name.starts_with("*."));
    qualifies(name) && wildcard_fits && !is_internal(name) && parse_ip(name).is_none() && name.contains('.')
}

/// Whether this is the name of one host, as clients may write it: letters, digits and hyphens in labels of their
/// allowed lengths; or an IP address.
#[must_use]
pub fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    parse_ip(name).is_some() || (name.len() <= 253 && name.split('.').all(is_label))
}

/// Names that mean this machine or this network.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let under = [".localhost", ".local", ".internal", ".home.arpa"];
    name == "localhost" || under.iter().any(|end| name.ends_with(end)) || parse_ip(&name).is_some_and(is_internal_ip)
}

/// An IP address, perhaps in brackets.
#[must_use]
pub fn parse_ip(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_internal_ip(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

/// Whether a name is that of a subject, which may be a wildcard for its leftmost label (RFC 6125).
#[must_use]
pub fn matches(subject: &str, name: &str) -> bool {
    if subject.eq_ignore_ascii_case(name) {
        return true;
    }
    let (mut wanted, mut given) = (subject.split('.'), name.split('.'));
    if wanted.next() != Some("*") || given.next().is_none_or(str::is_empty) {
        return false;
    }
    wanted.clone().next().is_some()
        && wanted.clone().count() == given.clone().count()
        && wanted.zip(given).all(|(a, b)| a.eq_ignore_ascii_case(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_internal_and_impossible_names() {
        for (name, possible, public) in [
            ("example.com", true, true),
            ("*.example.com", true, true),
            ("*.com", true, false),
            ("a.*.com", false, false),
            ("*", true, false),
            ("localhost", true, false),
            ("x.localhost", true, false),
            ("printer.local", true, false),
            ("a.home.arpa", true, false),
            ("a.internal", true, false),
            ("intranet", true, false),
            ("10.0.0.1", true, false),
            ("203.0.113.7", true, false),
            ("::1", true, false),
            ("", false, false),
            (".a.com", false, false),
            ("a.com.", false, false),
            ("{env.HOST}", false, false),
            ("a b.com", false, false),
        ] {
            assert_eq!((qualifies(name), qualifies_for_public(name)), (possible, public), "{name}");
        }
    }

    #[test]
    fn names_of_one_host() {
        let (longest, too_long) = (vec!["a".repeat(49); 5].join("."), vec!["a".repeat(50); 5].join("."));
        for name in ["a", "a.test", "xn--4ca.test", "1-2.test", "127.0.0.1", "::1", &longest] {
            assert!(is_host(name), "{name}");
        }
        let label = "a".repeat(64);
        for name in ["", ".", "a.", ".a", "a..b", "-a.b", "a-.b", "a_b.test", "*.a", "a/b", "ä.test", &label, &too_long]
        {
            assert!(!is_host(name), "{name}");
        }
    }

    #[test]
    fn a_wildcard_is_one_label() {
        assert!(matches("*.a.test", "X.a.test"));
        assert!(matches("*.a.test", "*.a.test"));
        assert!(!matches("*.a.test", "a.test"));
        assert!(!matches("*.a.test", "x.y.a.test"));
        assert!(!matches("*.a.test", ".a.test"));
        assert!(!matches("*", "localhost"));
    }
}
