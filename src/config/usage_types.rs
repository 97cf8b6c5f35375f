//! What is said of counting calls, in a site or for all of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::compile_cx::CompileError;
use super::nanos::Nanos;
use super::types::is_false;
use crate::llm::price::Line;
use crate::storage::ledger;

/// `{"handler": "usage", …}`, in a site and under `apps.http.usage`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    #[serde(skip_serializing_if = "is_false")]
    pub off: bool,
    /// File; the default one when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ledger: String,
    /// How long single calls are kept; below zero: for ever.
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub retention: Nanos,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub flush: Nanos,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_usage: Option<bool>,
    /// Name of the route in the ledger; the site's host when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// In the words of the option `price`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prices: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    pub name: String,
    pub value: String,
}

/// Shortest and longest time between two transactions.
pub const FLUSH_RANGE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_hours(1));
/// Shortest time for which calls are kept.
pub const RETENTION_AT_LEAST: Duration = Duration::from_hours(1);

impl Usage {
    /// How its ledger is kept.
    ///
    /// # Errors
    /// When a time makes no sense.
    pub fn settings(&self) -> Result<ledger::Settings, CompileError> {
        let mut settings = ledger::Settings::default();
        if !self.flush.is_zero() {
            let (least, most) = FLUSH_RANGE;
            settings.flush = self.flush.positive().filter(|flush| (least..=most).contains(flush)).ok_or_else(|| {
                CompileError::new("invalid-duration", "`flush` is a time from 10ms to 1h").within("flush")
            })?;
        }
        if self.retention.0 < 0 {
            settings.retention = None;
        } else if let Some(retention) = self.retention.positive() {
            if retention < RETENTION_AT_LEAST {
                let message = "`retention` is a time of 1h or more, or `forever`";
                return Err(CompileError::new("invalid-duration", message).within("retention"));
            }
            settings.retention = Some(retention);
        }
        Ok(settings)
    }
}

/// Lines of prices as the JSON has them.
///
/// # Errors
/// At the first that makes no sense.
pub fn prices(texts: &[String]) -> Result<Vec<Line>, CompileError> {
    let line = |(i, text): (usize, &String)| {
        let words: Vec<&str> = text.split_whitespace().collect();
        Line::parse(&words).map_err(|error| CompileError::new("invalid-price", error.message).within(i))
    };
    texts.iter().enumerate().map(line).collect()
}
