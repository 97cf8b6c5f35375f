//! Retry rules and cooldown: from JSON to what the engine runs.

use std::time::Duration;

use super::config::{LoadBalancing, Upstream};
use crate::config::compile_cx::{CompileCx, CompileError};
use crate::config::types::MatcherSet;
use crate::http::matcher::MatcherSets;
use crate::proxy::cooldown::DEFAULT_LONGEST;
use crate::proxy::{Cooldown, RetryRules};

/// Attempts after the first under `retry_on` where the number of upstreams is not known beforehand.
const WITHOUT_A_LIST: u32 = 2;

pub fn rules(
    config: &LoadBalancing,
    upstreams: &[Upstream],
    cx: &mut CompileCx<'_>,
) -> Result<RetryRules, CompileError> {
    let try_duration = config.try_duration.positive().unwrap_or_default();
    let default_interval = if try_duration.is_zero() { 0 } else { 250 };
    let try_interval = config.try_interval.positive().unwrap_or(Duration::from_millis(default_interval));
    let mut retries = u32::try_from(config.retries).unwrap_or(0);
    if let Some(wrong) = config.retry_on.iter().position(|status| !(400..600).contains(status)) {
        return Err(CompileError::new("invalid-value", "`retry_on` takes statuses from 400 to 599")
            .within(wrong)
            .within("retry_on")
            .within("load_balancing"));
    }
    if !config.retry_on.is_empty() && retries == 0 && try_duration.is_zero() {
        // Every other upstream once; a single one is asked a second time.
        retries = match u32::try_from(upstreams.len()) {
            Ok(0) => WITHOUT_A_LIST,
            Ok(n) => n.saturating_sub(1).max(1),
            Err(_) => u32::MAX,
        };
    }
    let (answers, requests): (Vec<_>, Vec<_>) =
        config.retry_match.iter().enumerate().partition(|(_, set)| looks_at_answers(set));
    Ok(RetryRules {
        retries,
        try_duration,
        try_interval,
        matchers: sets(&requests, cx),
        answer_matchers: sets(&answers, cx),
        statuses: config.retry_on.as_slice().into(),
        exclude_failed: config.retry_exclude_failed.unwrap_or(is_pool(config)),
    })
}

/// Where upstreams are told apart, or statuses tried again: a plain Caddyfile knows no cooldown.
pub fn cooldown(config: &LoadBalancing) -> Option<Cooldown> {
    match config.cooldown {
        Some(longest) => longest.positive().map(|longest| Cooldown { longest }),
        None => is_pool(config).then_some(Cooldown { longest: DEFAULT_LONGEST }),
    }
}

fn is_pool(config: &LoadBalancing) -> bool {
    !config.retry_on.is_empty() || config.retry_exclude_failed == Some(true)
}

/// Caddy's rule: a set with an `expression` is asked about answers too.
fn looks_at_answers(set: &MatcherSet) -> bool {
    set.iter().any(|(id, _)| id == "expression")
}

/// `None` when there are no sets.
fn sets(sets: &[(usize, &MatcherSet)], cx: &mut CompileCx<'_>) -> Option<MatcherSets> {
    let compiled = sets.iter().map(|(i, set)| {
        cx.at("load_balancing", |cx| cx.at("retry_match", |cx| cx.at(*i, |cx| cx.compile_matcher_set(set))))
    });
    let compiled: Box<[_]> = compiled.collect();
    (!compiled.is_empty()).then_some(MatcherSets(compiled))
}
