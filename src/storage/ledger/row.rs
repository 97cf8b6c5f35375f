//! What is kept of one call.

use std::sync::Arc;
use std::time::Duration;

use crate::llm::price::Nano;
use crate::llm::usage::{Certainty, Tokens};

/// One call that has ended. Texts beyond [`TEXT`] bytes are cut.
#[derive(Debug, Clone)]
pub struct Row {
    /// When the request came.
    pub unix_ms: i64,
    pub request_id: String,
    pub user: Option<String>,
    pub team: Option<String>,
    pub app: Option<String>,
    /// All other labels.
    pub tags: Vec<(String, String)>,
    /// The model asked for.
    pub model: Option<String>,
    /// The model that the answer names.
    pub served: Option<String>,
    pub endpoint: &'static str,
    pub route: String,
    pub upstream: Arc<str>,
    pub status: u16,
    pub stream: bool,
    pub tokens: Tokens,
    pub certainty: Certainty,
    pub service_tier: Option<String>,
    /// `None` when no price is known.
    pub cost: Option<Nano>,
    pub first_byte: Option<Duration>,
    pub duration: Duration,
    pub retries: u32,
    pub charges: Vec<Charge>,
}

/// What a budget was charged for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub budget: Arc<str>,
    pub key: String,
    /// `day`, `week`, `month` or `total`.
    pub per: &'static str,
    /// When the period began, unix seconds.
    pub period: i64,
    pub cost: Nano,
    pub tokens: u64,
}

/// What a budget has been charged in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    pub key: String,
    pub per: String,
    pub period: i64,
    pub cost: Nano,
    pub tokens: u64,
}

/// Longest text of a column.
pub const TEXT: usize = 512;

/// A text cut to what a column takes, between characters.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT)]
}

/// Counts as SQLite has them. No call takes more than this; a wrong count cannot spoil the sums.
pub(super) fn count(n: u64) -> i64 {
    const MOST: i64 = 1_000_000_000_000;
    i64::try_from(n).unwrap_or(MOST).min(MOST)
}

/// Milliseconds.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub fn row(user: &str, model: &str, cost: Option<i64>) -> Row {
        Row {
            unix_ms: 1_795_219_200_000,
            request_id: "req".into(),
            user: (!user.is_empty()).then(|| user.into()),
            team: None,
            app: None,
            tags: Vec::new(),
            model: Some(model.into()),
            served: None,
            endpoint: "chat",
            route: "api.test".into(),
            upstream: "up.test:443".into(),
            status: 200,
            stream: false,
            tokens: Tokens { input: 100, cached: 40, output: 10, ..Tokens::default() },
            certainty: Certainty::Exact,
            service_tier: None,
            cost: cost.map(Nano),
            first_byte: Some(Duration::from_millis(120)),
            duration: Duration::from_millis(900),
            retries: 0,
            charges: Vec::new(),
        }
    }

    pub fn charge(key: &str, cost: i64) -> Charge {
        Charge {
            budget: "team".into(),
            key: key.into(),
            per: "day",
            period: 1_795_219_200,
            cost: Nano(cost),
            tokens: 110,
        }
    }
}
