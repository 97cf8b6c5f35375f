//! Rendezvous hashing: each upstream has a score for a key, and the highest has the key. A key moves only when its own
//! upstream goes, or a new one scores higher.

use smallvec::SmallVec;

use super::hash::xxh64;
use super::policy::Candidates;

/// The upstream of this key among those available: the same as Caddy chooses where no weights are given.
pub(super) fn home(of: &impl Candidates, key: &[u8]) -> Option<usize> {
    home_among(of, key, |_| true)
}

/// As [`home`], among those that `may` have it.
pub(super) fn home_among(of: &impl Candidates, key: &[u8], may: impl Fn(usize) -> bool) -> Option<usize> {
    let mut text: SmallVec<[u8; 128]> = SmallVec::new();
    let weighted = (0..of.count()).any(|i| of.weight(i) != 1);
    let mut best: Option<(usize, Score)> = None;
    for index in (0..of.count()).filter(|i| of.available(*i) && may(*i)) {
        text.clear();
        text.extend_from_slice(of.name(index).as_bytes());
        text.extend_from_slice(key);
        let score = Score::of(xxh64(&text), weighted.then(|| of.weight(index)));
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((index, score));
        }
    }
    best.map(|(index, _)| index)
}

#[derive(Copy, Clone, PartialEq, PartialOrd)]
enum Score {
    Plain(u64),
    /// Each upstream has keys in proportion to its weight (Mosharaf and others, logarithmic method).
    Weighted(f64),
}

impl Score {
    fn of(hash: u64, weight: Option<u32>) -> Self {
        match weight {
            None => Self::Plain(hash),
            #[expect(clippy::cast_precision_loss, reason = "53 bits, as a fraction above 0 and below 1")]
            Some(weight) => {
                let fraction = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
                Self::Weighted(-f64::from(weight) / fraction.ln())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        names: Vec<String>,
        weights: Vec<u32>,
        gone: Option<usize>,
    }

    impl Candidates for Fake {
        fn count(&self) -> usize {
            self.names.len()
        }
        fn available(&self, index: usize) -> bool {
            self.gone != Some(index)
        }
        fn requests(&self, _: usize) -> usize {
            0
        }
        fn name(&self, index: usize) -> &str {
            &self.names[index]
        }
        fn weight(&self, index: usize) -> u32 {
            self.weights[index]
        }
    }

    fn fake(names: &[&str], weights: &[u32]) -> Fake {
        Fake { names: names.iter().map(ToString::to_string).collect(), weights: weights.to_vec(), gone: None }
    }

    /// Seen from Caddy 2.11.7 with these four upstreams: the last digit of the port that answered.
    #[test]
    fn the_choice_is_caddys() {
        let of = fake(&["127.0.0.1:18101", "127.0.0.1:18102", "127.0.0.1:18103", "localhost:18104"], &[1; 4]);
        let ports = |keys: Vec<String>| -> String {
            keys.iter().map(|key| (home(&of, key.as_bytes()).unwrap() + 1).to_string()).collect()
        };
        let each = |n: usize, key: fn(usize) -> String| (0..n).map(key).collect();
        assert_eq!(ports(each(20, |i| format!("key-{i}"))), "22311442431313421422");
        assert_eq!(ports(each(20, |i| format!("/v1/{i}?x={i}"))), "42213421214434123234");
        assert_eq!(ports(each(10, |i| format!("u{i}"))), "4444221243");
        assert_eq!(ports(each(10, |i| format!("u{i},z"))), "1134233133");
        assert_eq!(ports(each(8, |i| format!("127.0.0.{}", i + 1))), "32114214");
    }

    #[test]
    fn keys_are_spread_by_weight_and_move_only_from_one_that_goes() {
        for (weights, shares) in [([1, 1, 1], [3333, 3333, 3333]), ([1, 2, 5], [1250, 2500, 6250])] {
            let mut of = fake(&["a:1", "b:1", "c:1"], &weights);
            let homes: Vec<usize> = (0..10_000).map(|k: u32| home(&of, &k.to_le_bytes()).unwrap()).collect();
            for (index, share) in shares.into_iter().enumerate() {
                let got = homes.iter().filter(|h| **h == index).count();
                assert!(got.abs_diff(share) < 250, "{weights:?} {index}: {got}");
            }
            of.gone = Some(1);
            for (k, before) in homes.iter().enumerate() {
                let after = home(&of, &u32::try_from(k).unwrap().to_le_bytes()).unwrap();
                assert!(after == *before || *before == 1, "{k} moved from {before} to {after}");
            }
        }
    }
}
