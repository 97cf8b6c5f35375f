//! From which networks somebody has come before.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

/// Users whose networks are known.
const MOST_USERS: usize = 10_000;

/// Networks of one user; the one that was not seen for longest is forgotten.
const MOST_NETWORKS: usize = 32;

/// What one provider or site commonly has.
const V4_PREFIX: u8 = 24;
const V6_PREFIX: u8 = 48;

/// The networks of many users, latest last.
#[derive(Debug, Default)]
pub struct Networks(HashMap<Box<str>, SmallVec<[IpNet; 2]>>);

impl Networks {
    /// The network of an address when the user is known from others and not from this one; it is known from now on. A
    /// user's first network is nothing new. When there are too many users, of some is told nothing.
    pub fn note(&mut self, user: &str, ip: IpAddr) -> Option<IpNet> {
        let prefix = if ip.is_ipv4() { V4_PREFIX } else { V6_PREFIX };
        let network = IpNet::new(ip, prefix).ok()?.trunc();
        let Some(known) = self.0.get_mut(user) else {
            if self.0.len() < MOST_USERS {
                self.0.insert(user.into(), SmallVec::from_iter([network]));
            }
            return None;
        };
        let place = known.iter().position(|other| *other == network);
        match place {
            Some(at) => known[at..].rotate_left(1),
            None => {
                if known.len() >= MOST_NETWORKS {
                    known.remove(0);
                }
                known.push(network);
            }
        }
        place.is_none().then_some(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_for_somebody_known_is_told() {
        let mut networks = Networks::default();
        let mut note = |user: &str, ip: &str| networks.note(user, ip.parse().unwrap()).map(|n| n.to_string());
        assert_eq!(note("a", "192.0.2.1"), None, "the first");
        assert_eq!(note("a", "192.0.2.200"), None, "the same network");
        assert_eq!(note("a", "198.51.100.7").as_deref(), Some("198.51.100.0/24"));
        assert_eq!(note("a", "192.0.2.3"), None, "known since long");
        assert_eq!(note("b", "198.51.100.7"), None, "somebody else's first");
        assert_eq!(note("a", "2001:db8:1:2::3").as_deref(), Some("2001:db8:1::/48"));
    }

    #[test]
    fn memory_is_bounded_and_the_latest_are_known() {
        let mut networks = Networks::default();
        let ip = |n: u32| IpAddr::from([10, 0, u8::try_from(n % 256).unwrap(), 1]);
        for n in 0..200 {
            networks.note("a", ip(n));
            networks.note("a", ip(0));
        }
        assert_eq!(networks.0["a"].len(), MOST_NETWORKS);
        assert_eq!(networks.note("a", ip(0)), None);
        assert!(networks.note("a", ip(5)).is_some());
        for n in 0..MOST_USERS * 2 {
            networks.note(&n.to_string(), ip(1));
        }
        assert_eq!(networks.0.len(), MOST_USERS);
    }
}
