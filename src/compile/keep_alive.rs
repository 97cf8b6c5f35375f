//! TCP keep-alive of a server's connections: how the kernel finds out that a client is gone without a word.

use std::time::Duration;

use crate::config::compile_cx::{CompileCx, read_value};
use crate::config::nanos::Nanos;
use crate::config::types::Server;

/// Go's, and so Caddy's.
const PERIOD: Duration = Duration::from_secs(15);
const COUNT: u32 = 9;

/// What is not told is left to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Without a byte for so long, a connection is probed.
    pub idle: Option<Duration>,
    /// From one probe to the next.
    pub interval: Option<Duration>,
    /// Probes without an answer after which the connection is given up.
    pub count: Option<u32>,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { idle: Some(PERIOD), interval: Some(PERIOD), count: Some(COUNT) }
    }
}

/// `None` where the server has it off: with a negative `keepalive_interval`. Another option that is negative is left to
/// the system, as in Caddy.
pub fn keep_alive(server: &Server, cx: &mut CompileCx<'_>) -> Option<KeepAlive> {
    let mut nanos = |field: &str, value: Option<&serde_json::Value>| {
        value.map_or(Nanos::default(), |value| {
            read_value(value).unwrap_or_else(|error| {
                cx.at(field, |cx| cx.report(error));
                Nanos::default()
            })
        })
    };
    let interval = nanos("keepalive_interval", server.keepalive_interval.as_ref());
    let idle = nanos("keepalive_idle", server.keepalive_idle.as_ref());
    let period = |told: Nanos| if told.is_zero() { Some(PERIOD) } else { told.positive() };
    let count = match server.keepalive_count {
        0 => Some(COUNT),
        // More than the kernel takes means as many as it takes.
        n => (n > 0).then(|| u32::try_from(n).unwrap_or(u32::MAX)),
    };
    (interval >= Nanos::default()).then(|| KeepAlive { idle: period(idle), interval: period(interval), count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::registry::Registry;
    use serde_json::{Value, json};

    static EMPTY: Registry = Registry { directives: &[], handlers: &[], matchers: &[] };

    fn read(server: Value) -> (Option<KeepAlive>, usize) {
        let server: Server = serde_json::from_value(server).unwrap();
        let mut cx = CompileCx::new(&EMPTY);
        (keep_alive(&server, &mut cx), cx.errors.len())
    }

    #[test]
    fn what_is_told_and_what_is_not() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(read(json!({})), (Some(KeepAlive::default()), 0));
        let told = json!({"keepalive_interval": 7_000_000_000_i64, "keepalive_idle": "9s", "keepalive_count": 4});
        assert_eq!(read(told), (Some(KeepAlive { idle: seconds(9), interval: seconds(7), count: Some(4) }), 0));
        assert_eq!(read(json!({"keepalive_interval": -1})), (None, 0));
        let left = KeepAlive { idle: None, interval: seconds(15), count: None };
        assert_eq!(read(json!({"keepalive_idle": -1, "keepalive_count": -1})), (Some(left), 0));
        assert_eq!(read(json!({"keepalive_idle": "soon"})).1, 1);
    }
}
