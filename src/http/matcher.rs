//! What a compiled request matcher is.

use super::error::HandlerError;
use super::exchange::Exchange;

/// A matcher's answer.
pub enum Verdict {
    Yes,
    No,
    /// Could not be decided: goes to the error routes.
    Error(HandlerError),
    /// Needs the body first: read at most this many bytes, keep them, ask again.
    NeedBody(usize),
}

impl From<bool> for Verdict {
    fn from(b: bool) -> Self {
        if b { Self::Yes } else { Self::No }
    }
}

pub trait Matcher: Send + Sync {
    /// May set captures and placeholders; must not change the request.
    fn matches(&self, ex: &mut Exchange) -> Verdict;
}

/// All must say yes. An empty set matches everything.
pub type MatcherSet = Box<[Box<dyn Matcher>]>;

/// One set must match. No sets match everything.
#[derive(Default)]
pub struct MatcherSets(pub Box<[MatcherSet]>);

impl MatcherSets {
    pub fn matches(&self, ex: &mut Exchange) -> Verdict {
        if self.0.is_empty() {
            return Verdict::Yes;
        }
        'sets: for set in &self.0 {
            for matcher in set {
                match matcher.matches(ex) {
                    Verdict::Yes => {}
                    Verdict::No => continue 'sets,
                    other => return other,
                }
            }
            return Verdict::Yes;
        }
        Verdict::No
    }
}
