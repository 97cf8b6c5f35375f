//! A circuit breaker, from its options to one for each upstream.

use std::sync::Arc;
use std::time::Duration;

use super::config::CircuitBreaker;
use super::parse_breaker::TYPE;
use crate::config::compile_cx::{CompileError, read};
use crate::config::nanos::Nanos;
use crate::config::types::{Module, module_id};
use crate::proxy::breaker::Settings;

pub fn breaker(module: &Module) -> Result<Arc<Settings>, CompileError> {
    match module_id(module, "type") {
        TYPE => {}
        "" => return Err(CompileError::new("missing-module-id", "a circuit breaker needs its `type`")),
        other => return Err(CompileError::not_supported(format_args!("circuit breaker `{other}`"))),
    }
    let config: CircuitBreaker = read(module, "type")?;
    if !(0.0..=1.0).contains(&config.ratio) {
        return Err(CompileError::new("invalid-value", "a ratio is from 0 to 1").within("ratio"));
    }
    // Without a word on it, a row of failures opens it; with a ratio, only that does.
    let failures = config.failures.unwrap_or(if config.ratio > 0.0 { 0 } else { 5 });
    let number = |n: i64, default: u32| u32::try_from(n).ok().filter(|n| *n > 0).unwrap_or(default);
    let time = |nanos: Nanos, default: u64| nanos.positive().unwrap_or(Duration::from_secs(default));
    Ok(Arc::new(Settings {
        failures: number(failures, 0),
        ratio: config.ratio,
        min_requests: number(config.min_requests, 10),
        window: time(config.window, 10),
        open: time(config.open, 30),
        probes: number(config.probes, 1),
        statuses: if config.status.is_empty() { [5].into() } else { config.status.into() },
    }))
}
