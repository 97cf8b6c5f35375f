//! What the `filter` format does to fields before they are written.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::query;

use crate::base::hex::hex;

/// Filters of one `filter` layer, by field path: `>` between the levels (`request>headers>Cookie`).
pub type FieldFilters = HashMap<Box<str>, Filter>;

/// One field's filter.
#[derive(Clone)]
pub enum Filter {
    Delete,
    Rename(Box<str>),
    Replace(Box<str>),
    /// Texts and each text of a list are put through a function; other values stay.
    Map(Arc<dyn Fn(&str) -> String + Send + Sync>),
    /// Cookies of a list of `Cookie` values.
    Cookie(Box<[Action]>),
}

/// An action on a query parameter or cookie.
#[derive(Debug, Clone)]
pub struct Action {
    pub name: Box<str>,
    pub kind: ActionKind,
}

#[derive(Debug, Clone)]
pub enum ActionKind {
    Replace(Box<str>),
    Hash,
    Delete,
}

impl ActionKind {
    /// The new value; `None` when it goes.
    fn apply(&self, value: &str) -> Option<String> {
        match self {
            Self::Replace(with) => Some(with.to_string()),
            Self::Hash => Some(hash(value)),
            Self::Delete => None,
        }
    }
}

impl Filter {
    #[must_use]
    pub fn map(f: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::Map(Arc::new(f))
    }

    #[must_use]
    pub fn hash() -> Self {
        Self::map(hash)
    }

    /// Keeps so many leading bits of addresses; 0 keeps none. Lists in a text are split at commas; what is not an
    /// address stays.
    #[must_use]
    pub fn ip_mask(v4: u8, v6: u8) -> Self {
        Self::map(move |text| mask_list(text, v4, v6))
    }

    /// Every value of a named query parameter; the query is written anew, sorted by name, as Go does.
    #[must_use]
    pub fn query(actions: Box<[Action]>) -> Self {
        Self::map(move |uri| filter_query(uri, &actions))
    }
}

/// The first four bytes of SHA-256 in hexadecimal.
fn hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes())[..4])
}

fn mask_list(text: &str, v4: u8, v6: u8) -> String {
    let masked: Vec<String> = text.split(',').map(|part| mask(part.trim(), v4, v6)).collect();
    masked.join(", ")
}

fn mask(text: &str, v4: u8, v6: u8) -> String {
    let masked = |ip: IpAddr| {
        let (bits, most) = if ip.is_ipv4() { (v4, 32) } else { (v6, 128) };
        ipnet::IpNet::new(ip, bits.min(most)).map_or_else(|_| String::new(), |net| net.network().to_string())
    };
    if let Ok(ip) = text.parse::<IpAddr>() {
        return masked(ip.to_canonical());
    }
    match text.parse::<std::net::SocketAddr>() {
        Ok(addr) if addr.is_ipv6() => format!("[{}]:{}", masked(addr.ip()), addr.port()),
        Ok(addr) => format!("{}:{}", masked(addr.ip()), addr.port()),
        Err(_) => text.to_owned(),
    }
}

fn filter_query(uri: &str, actions: &[Action]) -> String {
    let Some((path, text)) = uri.split_once('?') else { return uri.to_owned() };
    let mut pairs = query::parse(text);
    for action in actions {
        pairs.retain_mut(|(name, value)| {
            if **name != *action.name {
                return true;
            }
            match action.kind.apply(value) {
                Some(new) => *value = new,
                None => return false,
            }
            true
        });
    }
    // A stable sort: values of one name keep their order.
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let written = query::write(&pairs);
    if written.is_empty() { path.to_owned() } else { format!("{path}?{written}") }
}

/// The cookies of all values as one value; of several actions for one name the first counts.
pub(super) fn filter_cookies(values: &[String], actions: &[Action]) -> Vec<String> {
    let mut out = String::new();
    for cookie in values.iter().flat_map(|v| v.split(';')) {
        let cookie = cookie.trim();
        if cookie.is_empty() {
            continue;
        }
        let (name, value) = cookie.split_once('=').unwrap_or((cookie, ""));
        let value = match actions.iter().find(|a| *a.name == *name) {
            Some(action) => match action.kind.apply(value) {
                Some(new) => new,
                None => continue,
            },
            None => value.to_owned(),
        };
        if !out.is_empty() {
            out.push_str("; ");
        }
        out.push_str(name);
        out.push('=');
        out.push_str(&value);
    }
    if out.is_empty() { Vec::new() } else { vec![out] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(filter: &Filter, text: &str) -> String {
        match filter {
            Filter::Map(f) => f(text),
            _ => panic!("not a text filter"),
        }
    }

    fn action(name: &str, kind: ActionKind) -> Action {
        Action { name: name.into(), kind }
    }

    #[test]
    fn addresses_keep_their_prefix() {
        let filter = Filter::ip_mask(16, 32);
        assert_eq!(apply(&filter, "10.1.2.3"), "10.1.0.0");
        assert_eq!(apply(&filter, "10.1.2.3:99"), "10.1.0.0:99");
        assert_eq!(apply(&filter, "2001:db8:1::1"), "2001:db8::");
        assert_eq!(apply(&filter, "[2001:db8:1::1]:5"), "[2001:db8::]:5");
        assert_eq!(apply(&filter, "10.1.2.3, unknown,10.9.8.7"), "10.1.0.0, unknown, 10.9.0.0");
        assert_eq!(apply(&Filter::ip_mask(0, 0), "10.1.2.3"), "0.0.0.0");
    }

    #[test]
    fn a_hash_is_four_bytes() {
        assert_eq!(apply(&Filter::hash(), "3"), "4e074085");
    }

    #[test]
    fn query_parameters_are_replaced_hashed_and_deleted() {
        // As the real Caddy logs it.
        let filter = Filter::query(Box::new([
            action("a", ActionKind::Replace("X".into())),
            action("b", ActionKind::Delete),
            action("c", ActionKind::Hash),
        ]));
        assert_eq!(apply(&filter, "/p?a=1&b=2&c=3&key=9"), "/p?a=X&c=4e074085&key=9");
        assert_eq!(apply(&filter, "/p?z=%20&%61=1&a=2"), "/p?a=X&a=X&z=+");
        assert_eq!(apply(&filter, "/p?b=1"), "/p");
        assert_eq!(apply(&filter, "/p"), "/p");
    }

    #[test]
    fn cookies() {
        let actions = [action("a", ActionKind::Replace("X".into())), action("b", ActionKind::Delete)];
        let of =
            |values: &[&str]| filter_cookies(&values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>(), &actions);
        assert_eq!(of(&["a=1; b=2", "c=3"]), ["a=X; c=3"]);
        assert!(of(&["b=2"]).is_empty());
    }
}
