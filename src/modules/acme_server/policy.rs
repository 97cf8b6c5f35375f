//! Which names a CA may sign: the `allow` and `deny` blocks.

use ipnet::IpNet;

use super::identifier::Identifier;
use crate::tls::subject;

#[derive(Debug, Default)]
pub struct Policy {
    pub allow_wildcards: bool,
    /// Nothing but this; `None` = anything.
    pub allow: Option<Names>,
    /// Not this, whatever `allow` says.
    pub deny: Option<Names>,
}

#[derive(Debug, Default)]
pub struct Names {
    /// Lower case; `*.name` stands for one label.
    pub domains: Vec<String>,
    pub ranges: Vec<IpNet>,
}

impl Policy {
    /// # Errors
    /// Why the CA does not sign the name.
    pub fn check(&self, identifier: &Identifier) -> Result<(), &'static str> {
        if identifier.wildcard().is_some() && !self.allow_wildcards {
            return Err("this CA does not sign wildcard names");
        }
        if self.deny.as_ref().is_some_and(|deny| deny.touches(identifier)) {
            return Err("the policy of this CA denies the name");
        }
        if self.allow.as_ref().is_some_and(|allow| !allow.holds(identifier)) {
            return Err("the policy of this CA does not allow the name");
        }
        Ok(())
    }
}

impl Names {
    fn holds(&self, identifier: &Identifier) -> bool {
        match identifier.address() {
            Some(address) => self.ranges.iter().any(|range| range.contains(&address)),
            None => self.domains.iter().any(|domain| subject::matches(domain, &identifier.value)),
        }
    }

    /// As `holds`; a wildcard also touches each name that it is good for.
    fn touches(&self, identifier: &Identifier) -> bool {
        self.holds(identifier)
            || (identifier.wildcard().is_some()
                && self.domains.iter().any(|domain| subject::matches(&identifier.value, domain)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(domains: &[&str], ranges: &[&str]) -> Option<Names> {
        let domains = domains.iter().map(|d| (*d).to_owned()).collect();
        Some(Names { domains, ranges: ranges.iter().map(|r| r.parse().unwrap()).collect() })
    }

    fn passes(policy: &Policy, name: &str) -> bool {
        policy.check(&Identifier::of_text(name).unwrap()).is_ok()
    }

    #[test]
    fn all_but_wildcards_unless_told() {
        let policy = Policy::default();
        assert!(passes(&policy, "a.test") && passes(&policy, "10.0.0.1") && !passes(&policy, "*.a.test"));
        assert!(passes(&Policy { allow_wildcards: true, ..policy }, "*.a.test"));
    }

    #[test]
    fn allowed_alone_and_denied_first() {
        let policy = Policy {
            allow_wildcards: true,
            allow: names(&["*.a.test", "b.test"], &["10.0.0.0/8"]),
            deny: names(&["bad.a.test"], &["10.1.0.0/16"]),
        };
        for (name, passes) in [
            ("x.a.test", true),
            ("X.A.test", true),
            ("b.test", true),
            ("10.2.0.1", true),
            ("a.test", false),
            ("x.y.a.test", false),
            ("c.b.test", false),
            ("bad.a.test", false),
            ("10.1.0.1", false),
            ("192.168.0.1", false),
            ("::1", false),
            // IPv4 in the form of IPv6 is the same address.
            ("::ffff:10.2.0.1", true),
            ("::ffff:10.1.0.1", false),
            // It would be good for the denied one too.
            ("*.a.test", false),
        ] {
            assert_eq!(self::passes(&policy, name), passes, "{name}");
        }
        // Rules for names alone allow no address.
        assert!(!self::passes(&Policy { allow: names(&["b.test"], &[]), ..Policy::default() }, "10.0.0.1"));
    }
}
