//! The options about streams to the rules that the engine follows.

use std::time::Duration;

use super::config::Config;
use crate::config::compile_cx::CompileError;
use crate::proxy::StreamRules;

/// More often than this says nothing more, and costs every client its bytes.
const SHORTEST: Duration = Duration::from_secs(1);

pub fn rules(config: &Config) -> Result<StreamRules, CompileError> {
    let keepalive = config.sse_keepalive.positive();
    if keepalive.is_some_and(|after| after < SHORTEST) {
        return Err(CompileError::new("invalid-value", "`sse_keepalive` is at least a second")
            .help("`15s` keeps a stream open through any load balancer")
            .within("sse_keepalive"));
    }
    Ok(StreamRules { keepalive, errors: config.sse_errors.unwrap_or(true) })
}
