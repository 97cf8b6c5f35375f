//! Which names can get a certificate, and from whom (certmagic's rules).

use std::net::IpAddr;

/// Whether any CA, our own included, can make a certificate for the name.
#[must_use]
pub fn can_have_certificate(name: &str) -> bool {
    let name = name.trim();
    !name.is_empty()
        && !name.starts_with('.')
        && !name.ends_with('.')
        && (!name.contains('*') || name.starts_with("*.") || name == "*")
        && !name.contains(['(', ')', '[', ']', '{', '}', '<', '>', ' ', '\t', '\n', '"', '\\'])
        && !name.contains(['!', '@', '#', '$', '%', '^', '&', '|', ';', '\'', '+', '='])
}

/// Whether a public CA could, as far as the name tells.
#[must_use]
pub fn is_public(name: &str) -> bool {
    let wildcard_fits =
        name.matches('*').count() == 1 && name.matches('.').count() > 1 && name.len() > 2 && name.starts_with("*.");
    can_have_certificate(name) && !is_internal(name) && (!name.contains('*') || wildcard_fits)
}

/// The same for a name that an automation policy is for: addresses are not public, as no CA gives them certificates
/// unasked; several wildcard labels are fine when certificates are made on demand.
#[must_use]
pub fn is_public_for_policy(name: &str, on_demand: bool) -> bool {
    name.parse::<IpAddr>().is_err() && !is_internal(name) && (name.matches("*.").count() < 2 || on_demand)
}

#[must_use]
pub fn is_tailscale(name: &str) -> bool {
    name.to_lowercase().ends_with(".ts.net")
}

/// Whether a policy for `wildcard` is for the name as well: each `*` stands for one label, the leftmost ones first.
#[must_use]
pub fn matches_wildcard(name: &str, wildcard: &str) -> bool {
    let (name, wildcard) = (name.to_lowercase(), wildcard.to_lowercase());
    if name == wildcard {
        return true;
    }
    let labels: Vec<&str> = name.split('.').collect();
    let pattern: Vec<&str> = wildcard.split('.').collect();
    if labels.len() != pattern.len() || !wildcard.contains('*') {
        return false;
    }
    let stars = pattern.iter().take_while(|label| **label == "*").count();
    let is_star = |(i, label): (usize, &str)| if i < stars { !label.is_empty() } else { label == pattern[i] };
    labels.iter().enumerate().all(|(i, label)| is_star((i, label)))
}

fn is_internal(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_lowercase();
    name == "localhost"
        || [".localhost", ".local", ".internal", ".home.arpa"].iter().any(|suffix| name.ends_with(suffix))
        || name.parse::<IpAddr>().is_ok_and(is_internal_ip)
}

fn is_internal_ip(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_and_internal_names() {
        for name in ["a.com", "*.a.com", "8.8.8.8", "xn--bcher-kva.example"] {
            assert!(is_public(name), "{name}");
        }
        for name in ["localhost", "x.LOCAL", "a.internal", "10.0.0.1", "::1", "*.com", "*.*.a.com", "a*b.com", "", "."]
        {
            assert!(!is_public(name), "{name}");
        }
        assert!(!is_public_for_policy("8.8.8.8", false));
        assert!(!is_public_for_policy("*.*.a.com", false));
        assert!(is_public_for_policy("*.*.a.com", true));
        assert!(can_have_certificate("*") && !can_have_certificate("a b") && !can_have_certificate("a*.com"));
    }

    #[test]
    fn wildcards_stand_for_leading_labels() {
        assert!(matches_wildcard("a.B.com", "*.b.com"));
        assert!(matches_wildcard("a.b.com", "*.*.com"));
        assert!(matches_wildcard("a.com", "a.com"));
        assert!(!matches_wildcard("a.b.c.com", "*.c.com"));
        assert!(!matches_wildcard("a.b.com", "a.*.com"));
    }
}
