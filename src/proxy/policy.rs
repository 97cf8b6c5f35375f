//! Which upstream gets a request. Pure: what is available and how busy it is comes from the caller, chance from a seed.

use std::cmp::Ordering;
use std::sync::Arc;

use fastrand::Rng;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue, header};
use sha2::Sha256;
use smallvec::SmallVec;

use super::state::Turn;
use super::sticky::Sticky;
use super::{ewma, rendezvous};
use crate::base::hex::hex;
use crate::http::exchange::Exchange;
use crate::http::path::query_pairs;

/// What a policy sees of the upstreams.
pub trait Candidates {
    fn count(&self) -> usize;
    fn available(&self, index: usize) -> bool;
    /// Requests under way.
    fn requests(&self, index: usize) -> usize;
    /// The configured address, the upstream's part in hashing.
    fn name(&self, index: usize) -> &str;
    /// Its share beside the others.
    fn weight(&self, _: usize) -> u32 {
        1
    }
    /// What one more request costs there by the times it took to answer ([`super::ewma`]).
    fn cost(&self, _: usize) -> f32 {
        0.0
    }
    /// The key of the request's prompt, for [`Policy::Sticky`].
    fn prompt(&self) -> Option<u64> {
        None
    }
}

pub enum Policy {
    Random,
    /// The least busy of this many drawn at random.
    RandomChoose(usize),
    First,
    RoundRobin(Arc<Turn>),
    WeightedRoundRobin {
        weights: Box<[u32]>,
        turn: Arc<Turn>,
    },
    LeastConn,
    /// Of two drawn at random the one that answers sooner.
    PeakEwma,
    /// By the beginning of the prompt.
    Sticky(Box<Sticky>),
    /// Rendezvous hashing of the peer's address.
    IpHash,
    /// Of the client's address.
    ClientIpHash,
    /// Of the URI as the client sent it.
    UriHash,
    /// Of a query parameter.
    Query {
        key: Box<str>,
        fallback: Box<Self>,
    },
    /// Of a header field.
    Header {
        field: HeaderName,
        fallback: Box<Self>,
    },
    /// A cookie that names the upstream; set when it is missing.
    Cookie(Box<Cookie>),
}

pub struct Cookie {
    pub name: String,
    pub secret: String,
    /// Seconds; `None` = for the session.
    pub max_age: Option<u64>,
    pub fallback: Policy,
}

/// The choice, and the cookie to set with the response.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pub index: usize,
    pub set_cookie: Option<HeaderValue>,
}

impl Policy {
    /// `None` when no upstream is available.
    pub fn select(&self, of: &impl Candidates, ex: &Exchange, rng: &mut Rng) -> Option<Choice> {
        if let Self::Cookie(cookie) = self {
            return cookie.select(of, ex, rng);
        }
        let index = match self {
            Self::Random => random(of, rng),
            Self::RandomChoose(k) => random_choose(of, *k, rng),
            Self::First => (0..of.count()).find(|i| of.available(*i)),
            Self::RoundRobin(turn) => round_robin(of, turn),
            Self::WeightedRoundRobin { weights, turn } => weighted_round_robin(of, weights, turn),
            Self::LeastConn => least_conn(of, rng),
            Self::PeakEwma => ewma::cheaper_of_two(of, rng),
            Self::Sticky(sticky) => match of.prompt() {
                Some(key) => sticky.home(of, key),
                None => return sticky.fallback.select(of, ex, rng),
            },
            Self::IpHash => match ex.peer_ip() {
                Some(ip) => rendezvous::home(of, ip.to_string().as_bytes()),
                None => rendezvous::home(of, b"@"),
            },
            Self::ClientIpHash => match ex.client_ip() {
                Some(ip) => rendezvous::home(of, ip.to_string().as_bytes()),
                None => rendezvous::home(of, b"@"),
            },
            Self::UriHash => {
                rendezvous::home(of, ex.original.uri.path_and_query().map_or("", |p| p.as_str()).as_bytes())
            }
            Self::Query { key, fallback } => {
                // All values of the key: a client cannot choose the upstream by a value that is not looked at.
                let raw = ex.uri.query().unwrap_or("");
                let values: SmallVec<[_; 1]> = query_pairs(raw).filter(|(k, _)| k == &**key).map(|(_, v)| v).collect();
                match values.as_slice() {
                    [] => return fallback.select(of, ex, rng),
                    [one] if one.is_empty() => return fallback.select(of, ex, rng),
                    [one] => rendezvous::home(of, one.as_bytes()),
                    many => rendezvous::home(of, many.join(",").as_bytes()),
                }
            }
            Self::Header { field, fallback } => match ex.headers.get(field).filter(|v| !v.is_empty()) {
                Some(value) => rendezvous::home(of, value.as_bytes()),
                None => return fallback.select(of, ex, rng),
            },
            Self::Cookie(_) => None,
        };
        index.map(|index| Choice { index, set_cookie: None })
    }

    /// Whether the time that answers take matters to it.
    #[must_use]
    pub fn watches_latency(&self) -> bool {
        matches!(self, Self::PeakEwma) || self.fallback().is_some_and(Self::watches_latency)
    }

    /// The one in it that looks at prompts.
    #[must_use]
    pub fn sticky(&self) -> Option<&Sticky> {
        match self {
            Self::Sticky(sticky) => Some(sticky),
            _ => self.fallback().and_then(Self::sticky),
        }
    }

    fn fallback(&self) -> Option<&Self> {
        match self {
            Self::Query { fallback, .. } | Self::Header { fallback, .. } => Some(fallback),
            Self::Cookie(cookie) => Some(&cookie.fallback),
            Self::Sticky(sticky) => Some(&sticky.fallback),
            _ => None,
        }
    }
}

impl Cookie {
    fn select(&self, of: &impl Candidates, ex: &Exchange, rng: &mut Rng) -> Option<Choice> {
        if let Some(sent) = cookie_of(ex, &self.name) {
            let known = (0..of.count()).find(|i| of.available(*i) && self.value(of.name(*i)) == sent);
            if let Some(index) = known {
                return Some(Choice { index, set_cookie: None });
            }
        }
        let Choice { index, .. } = self.fallback.select(of, ex, rng)?;
        let mut text = format!("{}={}; Path=/", self.name, self.value(of.name(index)));
        if let Some(seconds) = self.max_age {
            text.push_str(&format!("; Max-Age={seconds}"));
        }
        let https = ex.is_tls()
            || (ex.peer_is_trusted()
                && ex.headers.get_all("x-forwarded-proto").iter().next_back().is_some_and(|v| v == "https"));
        text.push_str(if https { "; HttpOnly; Secure; SameSite=None" } else { "; HttpOnly; SameSite=Lax" });
        Some(Choice { index, set_cookie: HeaderValue::try_from(text).ok() })
    }

    /// What names an upstream without telling its address.
    fn value(&self, upstream: &str) -> String {
        // HMAC takes a key of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()) else { return String::new() };
        mac.update(upstream.as_bytes());
        hex(&mac.finalize().into_bytes())
    }
}

fn cookie_of<'e>(ex: &'e Exchange, name: &str) -> Option<&'e str> {
    ex.headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(k, _)| *k == name)
        .map(|(_, v)| v)
}

fn random(of: &impl Candidates, rng: &mut Rng) -> Option<usize> {
    let mut chosen = None;
    let mut weights = 0;
    for index in (0..of.count()).filter(|i| of.available(*i)) {
        let weight = of.weight(index);
        weights += weight;
        // Each replaces those before it by its share of all so far.
        if weights > 0 && rng.u32(..weights) < weight {
            chosen = Some(index);
        }
    }
    chosen
}

fn least_conn(of: &impl Candidates, rng: &mut Rng) -> Option<usize> {
    least(of, (0..of.count()).filter(|i| of.available(*i)), rng)
}

/// The least busy for its weight; among equals each has the same chance.
fn least(of: &impl Candidates, among: impl Iterator<Item = usize>, rng: &mut Rng) -> Option<usize> {
    let mut best: Option<usize> = None;
    let mut equals = 0;
    for index in among {
        // requests / weight, without a division.
        let load = |a: usize, b: usize| of.requests(a) as u64 * u64::from(of.weight(b));
        let order = best.map(|best| load(index, best).cmp(&load(best, index)));
        match order {
            Some(Ordering::Greater) => {}
            Some(Ordering::Equal) => {
                equals += 1;
                if rng.usize(..equals) == 0 {
                    best = Some(index);
                }
            }
            Some(Ordering::Less) | None => {
                equals = 1;
                best = Some(index);
            }
        }
    }
    best
}

fn random_choose(of: &impl Candidates, k: usize, rng: &mut Rng) -> Option<usize> {
    let mut sample: SmallVec<[usize; 8]> = SmallVec::new();
    for (before, index) in (0..of.count()).filter(|i| of.available(*i)).enumerate() {
        if sample.len() < k {
            sample.push(index);
        } else {
            let at = rng.usize(..=before);
            if let Some(slot) = sample.get_mut(at) {
                *slot = index;
            }
        }
    }
    least(of, sample.into_iter(), rng)
}

fn round_robin(of: &impl Candidates, turn: &Turn) -> Option<usize> {
    let count = of.count();
    (0..count).map(|_| turn.next() as usize % count).find(|i| of.available(*i))
}

fn weighted_round_robin(of: &impl Candidates, weights: &[u32], turn: &Turn) -> Option<usize> {
    if weights.len() < 2 {
        return (of.count() > 0).then_some(0);
    }
    let total: u32 = weights.iter().fold(0, |a, w| a.saturating_add(*w));
    if total == 0 {
        return None;
    }
    let place = turn.next() % total;
    let mut sum = 0;
    let at = weights.iter().filter(|w| **w > 0).position(|w| {
        sum += w;
        place < sum
    })?;
    let able: SmallVec<[usize; 8]> =
        (0..of.count()).filter(|i| weights.get(*i).is_some_and(|w| *w > 0) && of.available(*i)).collect();
    (!able.is_empty()).then(|| able[at % able.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::testing::exchange;

    /// Upstreams as pairs of available and requests under way.
    struct Fake(Vec<(bool, usize)>);

    impl Candidates for Fake {
        fn count(&self) -> usize {
            self.0.len()
        }
        fn available(&self, index: usize) -> bool {
            self.0[index].0
        }
        fn requests(&self, index: usize) -> usize {
            self.0[index].1
        }
        fn name(&self, index: usize) -> &str {
            ["a:1", "b:2", "c:3", "d:4"][index]
        }
    }

    fn pick(policy: &Policy, of: &Fake, seed: u64) -> Option<usize> {
        policy.select(of, &exchange("GET", "/x?user=u1"), &mut Rng::with_seed(seed)).map(|c| c.index)
    }

    #[test]
    fn only_available_upstreams_are_chosen() {
        let of = Fake(vec![(false, 0), (true, 5), (false, 0)]);
        let turn = Arc::new(Turn::default());
        let weights = Box::new([1, 2, 3]);
        for policy in [
            Policy::Random,
            Policy::RandomChoose(2),
            Policy::First,
            Policy::RoundRobin(Arc::clone(&turn)),
            Policy::WeightedRoundRobin { weights, turn },
            Policy::LeastConn,
            Policy::IpHash,
            Policy::UriHash,
        ] {
            for seed in 0..20 {
                assert_eq!(pick(&policy, &of, seed), Some(1));
            }
            assert_eq!(pick(&policy, &Fake(vec![(false, 0), (false, 0), (false, 0)]), 1), None);
        }
    }

    #[test]
    fn random_reaches_all_about_equally() {
        let of = Fake(vec![(true, 0); 4]);
        let mut rng = Rng::with_seed(7);
        let mut counts = [0; 4];
        for _ in 0..4000 {
            counts[random(&of, &mut rng).unwrap()] += 1;
        }
        assert!(counts.iter().all(|c| (800..1200).contains(c)), "{counts:?}");
    }

    #[test]
    fn shares_follow_the_weights() {
        struct Weighted(Vec<usize>);
        impl Candidates for Weighted {
            fn count(&self) -> usize {
                3
            }
            fn available(&self, _: usize) -> bool {
                true
            }
            fn requests(&self, index: usize) -> usize {
                self.0[index]
            }
            fn name(&self, _: usize) -> &'static str {
                ""
            }
            fn weight(&self, index: usize) -> u32 {
                [1, 2, 5][index]
            }
        }
        let mut rng = Rng::with_seed(3);
        let (mut drawn, mut busy) = ([0; 3], Weighted(vec![0; 3]));
        for _ in 0..8000 {
            drawn[random(&busy, &mut rng).unwrap()] += 1;
            let least = least_conn(&busy, &mut rng).unwrap();
            busy.0[least] += 1;
        }
        for (index, share) in [1000, 2000, 5000].into_iter().enumerate() {
            assert!(i32::abs(drawn[index] - share) < 200, "{drawn:?}");
            assert!(busy.0[index].abs_diff(usize::try_from(share).unwrap()) < 3, "{:?}", busy.0);
        }
    }

    #[test]
    fn round_robin_begins_with_the_second() {
        let policy = Policy::RoundRobin(Arc::default());
        let of = Fake(vec![(true, 0); 3]);
        let order: Vec<_> = (0..4).filter_map(|_| pick(&policy, &of, 0)).collect();
        assert_eq!(order, [1, 2, 0, 1]);
    }

    #[test]
    fn weights_are_kept() {
        let policy = Policy::WeightedRoundRobin { weights: Box::new([3, 0, 1]), turn: Arc::default() };
        let of = Fake(vec![(true, 0); 3]);
        let mut counts = [0; 3];
        for _ in 0..400 {
            counts[pick(&policy, &of, 0).unwrap()] += 1;
        }
        assert_eq!(counts, [300, 0, 100]);
    }

    #[test]
    fn least_conn_takes_the_least_busy() {
        let of = Fake(vec![(true, 3), (true, 1), (true, 1), (false, 0)]);
        let chosen: std::collections::BTreeSet<_> = (0..50).filter_map(|s| pick(&Policy::LeastConn, &of, s)).collect();
        assert_eq!(chosen.into_iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(pick(&Policy::RandomChoose(4), &of, 3).map(|i| i == 1 || i == 2), Some(true));
    }

    #[test]
    fn a_key_moves_only_when_its_upstream_goes() {
        let all = Fake(vec![(true, 0); 4]);
        let policy = Policy::Query { key: "user".into(), fallback: Box::new(Policy::First) };
        let home = pick(&policy, &all, 0).unwrap();
        assert_eq!(pick(&policy, &all, 9), Some(home));
        let mut less = Fake(vec![(true, 0); 4]);
        let other = (home + 1) % 4;
        less.0[other].0 = false;
        assert_eq!(pick(&policy, &less, 0), Some(home));
        less.0[home].0 = false;
        assert_ne!(pick(&policy, &less, 0), Some(home));
    }

    #[test]
    fn keyed_policies_fall_back_without_a_key() {
        let of = Fake(vec![(true, 0); 2]);
        let policy = Policy::Header { field: HeaderName::from_static("x-key"), fallback: Box::new(Policy::First) };
        assert_eq!(pick(&policy, &of, 4), Some(0));
    }

    #[test]
    fn a_cookie_is_set_once_and_then_followed() {
        let of = Fake(vec![(true, 0); 4]);
        let cookie = Cookie { name: "lb".into(), secret: "s".into(), max_age: Some(60), fallback: Policy::Random };
        let policy = Policy::Cookie(Box::new(cookie));
        let mut ex = exchange("GET", "/");
        let first = policy.select(&of, &ex, &mut Rng::with_seed(1)).unwrap();
        let line = first.set_cookie.unwrap();
        let line = line.to_str().unwrap();
        assert!(line.ends_with("; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"), "{line}");
        let pair = line.split(';').next().unwrap();
        ex.headers.insert(header::COOKIE, HeaderValue::try_from(format!("a=b; {pair}")).unwrap());
        for seed in 0..20 {
            let again = policy.select(&of, &ex, &mut Rng::with_seed(seed)).unwrap();
            assert_eq!(again, Choice { index: first.index, set_cookie: None });
        }
    }
}
