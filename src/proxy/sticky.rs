//! `sticky`: a conversation stays with one upstream, so that the provider's or the inference server's prompt cache has
//! its beginning already.
//!
//! The key is what the whole conversation has in common: the system prompt and the messages up to the first one of the
//! user, or what the caller names itself (`prompt_cache_key`, or a placeholder). It is hashed to an upstream by
//! rendezvous; where that one has much more than its share of the load, the next by score has the request.

use http::header;

use super::hash::xxh64;
use super::policy::{Candidates, Policy};
use super::rendezvous;
use super::replay::RequestBody;
use crate::base::error::ProxyError;
use crate::http::exchange::Exchange;
use crate::http::placeholder::{Template, Unknown};
use crate::llm::opening::opening;

/// Bytes of the prompt that make the key, unless something else is said: system prompt and first question of nearly all
/// requests.
pub const DEFAULT_BYTES: usize = 64 << 10;

/// Load above the mean that an upstream may have, unless something else is said.
pub const DEFAULT_MAX_LOAD: f64 = 1.25;

/// Requests that any upstream may have at once, whatever the mean: below it balance is worth less than the cache.
const FEW: f64 = 4.0;

/// Bytes of a body that are read to find the prompt. Also what is kept for retries.
const LOOK: usize = 1 << 20;

pub struct Sticky {
    pub bytes: usize,
    /// Names the conversation, where it is not empty.
    pub key: Option<Template>,
    /// Times the mean load.
    pub max_load: f64,
    /// For requests without a prompt.
    pub fallback: Policy,
}

impl Sticky {
    /// The key of this request; reads of the body what it takes. `None` = it has no prompt.
    pub(super) async fn key(&self, ex: &Exchange, body: &mut RequestBody) -> Result<Option<u64>, ProxyError> {
        if let Some(named) = self.key.as_ref().map(|key| key.render(ex, Unknown::Empty)).filter(|n| !n.is_empty()) {
            return Ok(Some(xxh64(named.as_bytes())));
        }
        if ex.headers.get(header::CONTENT_ENCODING).is_some_and(|v| v != "identity") {
            return Ok(None);
        }
        let text = body.read_ahead(LOOK).await?;
        Ok(opening(&text, self.bytes).map(|prompt| xxh64(&prompt)))
    }

    /// The upstream that has the key, unless it has more than its share.
    pub(super) fn home(&self, of: &impl Candidates, key: u64) -> Option<usize> {
        let (mut requests, mut weights) = (0, 0);
        for index in (0..of.count()).filter(|i| of.available(*i)) {
            requests += of.requests(index);
            weights += of.weight(index);
        }
        let key = key.to_le_bytes();
        #[expect(clippy::cast_precision_loss, reason = "counts of requests are small")]
        let within = |index: usize| {
            let share = f64::from(of.weight(index)) / f64::from(weights.max(1));
            (of.requests(index) as f64) < (self.max_load * (requests + 1) as f64 * share).ceil().max(FEW)
        };
        rendezvous::home_among(of, &key, within).or_else(|| rendezvous::home(of, &key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::body::Body;
    use crate::proxy::testing::{block_on, exchange};

    fn sticky() -> Sticky {
        Sticky { bytes: DEFAULT_BYTES, key: None, max_load: DEFAULT_MAX_LOAD, fallback: Policy::Random }
    }

    fn key(sticky: &Sticky, body: &str) -> Option<u64> {
        let mut body = RequestBody::new(Body::from(body.to_owned()), 0);
        block_on(sticky.key(&exchange("POST", "/v1/chat/completions?s=id"), &mut body)).unwrap()
    }

    #[test]
    fn what_the_caller_names_comes_first() {
        let mut named = sticky();
        named.key = Some(Template::parse("{http.request.uri.query.s}"));
        assert_eq!(key(&named, "{}"), key(&named, "anything"));
        named.key = Some(Template::parse("{http.request.uri.query.none}"));
        assert_eq!(key(&named, r#"{"input":"a"}"#), key(&sticky(), r#"{"input":"a"}"#));
    }

    #[test]
    fn only_the_first_bytes_count() {
        let mut short = sticky();
        short.bytes = 20;
        let body = |end: &str| format!(r#"{{"system":"{}{end}","messages":[]}}"#, "s".repeat(30));
        assert_eq!(key(&short, &body("a")), key(&short, &body("b")));
        assert_ne!(key(&sticky(), &body("a")), key(&sticky(), &body("b")));
    }

    #[test]
    fn a_body_too_long_to_be_held_is_known_by_its_beginning() {
        let body = |filler: usize| {
            let ask = r#"{"role":"user","content":"q"},{"role":"assistant","content":""#;
            format!(r#"{{"model":"m","messages":[{ask}{}"}}]}}"#, "z".repeat(filler))
        };
        let sent = |text: String| {
            let pieces = text.as_bytes().chunks(50_000).map(bytes::Bytes::copy_from_slice).collect();
            let mut body = RequestBody::new(crate::http::body_filter::testing::byte_chunks(pieces), 0);
            block_on(sticky().key(&exchange("POST", "/"), &mut body)).unwrap()
        };
        assert_eq!(sent(body(2 * LOOK)), key(&sticky(), &body(5)));
        assert!(key(&sticky(), &body(5)).is_some());
    }

    #[test]
    fn what_is_packed_or_has_no_prompt_has_no_key() {
        assert_eq!(key(&sticky(), "{}"), None);
        let mut ex = exchange("POST", "/");
        ex.headers.insert(header::CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
        let mut body = RequestBody::new(Body::from(r#"{"input":"a"}"#), 0);
        assert_eq!(block_on(sticky().key(&ex, &mut body)).unwrap(), None);
    }

    struct Loaded(Vec<usize>);

    impl Candidates for Loaded {
        fn count(&self) -> usize {
            self.0.len()
        }
        fn available(&self, _: usize) -> bool {
            true
        }
        fn requests(&self, index: usize) -> usize {
            self.0[index]
        }
        fn name(&self, index: usize) -> &str {
            ["a:1", "b:1", "c:1", "d:1"][index]
        }
    }

    #[test]
    fn load_stays_bounded_where_all_ask_the_same() {
        let mut of = Loaded(vec![0; 4]);
        for _ in 0..400 {
            let home = sticky().home(&of, 7).unwrap();
            of.0[home] += 1;
        }
        let most = of.0.iter().max().unwrap();
        assert!((100..=126).contains(most), "{:?}", of.0);
    }

    #[test]
    fn conversations_stay_where_the_load_is_even() {
        let mut rng = fastrand::Rng::with_seed(2);
        let (mut of, mut moved, mut under_way) = (Loaded(vec![0; 4]), 0, std::collections::VecDeque::new());
        let mut homes = std::collections::HashMap::new();
        for _ in 0..20_000 {
            let conversation = rng.u64(..500);
            let home = sticky().home(&of, conversation).unwrap();
            moved += usize::from(*homes.entry(conversation).or_insert(home) != home);
            of.0[home] += 1;
            under_way.push_back(home);
            if under_way.len() > 200 {
                of.0[under_way.pop_front().unwrap()] -= 1;
            }
        }
        assert!(moved < 3000, "{moved} of 20000 left their upstream");
    }
}
