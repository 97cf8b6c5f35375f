//! The process log: what `tracing` events say about the life of the program, written to the logs of the configuration.
//!
//! An event of `llmproxy::server::worker` has the logger `server.worker`. Other crates are heard only when they warn:
//! what they say in detail may hold what a client sent.

use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{PoisonError, RwLock};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use super::encoder::{Entry, now};
use super::level::Level;
use super::line::Line;
use super::log::Logs;

/// Overrides level and form, for developers: a filter such as `debug` or `llmproxy::server=trace`.
const OVERRIDE: &str = "LLMPROXY_LOG";

static LOGS: RwLock<Logs> = RwLock::new(Logs(Vec::new()));
/// The least level that any log takes, as a number.
static LEAST: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Begins to listen, with the logs that hold until a configuration is there.
pub fn init(logs: &Logs) {
    // Standard error cannot fail to open; if it did there would be nowhere to say so.
    let _ = logs.open();
    // A second initialisation is possible only in tests, and then the first one stands.
    match EnvFilter::try_from_env(OVERRIDE) {
        Ok(filter) => {
            let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let plain = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color);
            let _ = plain.try_init();
        }
        Err(_) => {
            let _ = Registry::default().with(ProcessLog).try_init();
        }
    }
    use_logs(logs);
}

/// Writes to these logs from now on; they are open.
pub fn use_logs(logs: &Logs) {
    *LOGS.write().unwrap_or_else(PoisonError::into_inner) = logs.clone();
    LEAST.store(logs.least_level() as u8, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

struct ProcessLog;

impl<S: Subscriber> Layer<S> for ProcessLog {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_wanted(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if LEAST.load(Ordering::Relaxed) == Level::Debug as u8 { LevelFilter::DEBUG } else { LevelFilter::INFO })
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let level = level_of(*metadata.level());
        let logger = logger_of(metadata.target());
        let mut message = Message::default();
        event.record(&mut message);
        let entry = Entry { level, unix_nanos: now(), logger: &logger, message: &message.0 };
        let logs = LOGS.read().unwrap_or_else(PoisonError::into_inner).clone();
        for log in logs.0.iter().filter(|log| log.takes_logger(&logger)) {
            log.write_now(&entry, |line| event.record(&mut Fields(line)));
        }
    }
}

fn is_wanted(metadata: &Metadata<'_>) -> bool {
    let level = level_of(*metadata.level());
    // Spans say nothing by themselves; TRACE is for developers' own filters.
    metadata.is_event()
        && *metadata.level() != tracing::Level::TRACE
        && level as u8 >= LEAST.load(Ordering::Relaxed)
        && (level >= Level::Warn || metadata.target().starts_with("llmproxy"))
}

fn level_of(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        _ => Level::Debug,
    }
}

/// `llmproxy::server::worker` → `server.worker`.
fn logger_of(target: &str) -> String {
    let own = target.strip_prefix("llmproxy").map(|rest| rest.strip_prefix("::").unwrap_or(rest));
    own.unwrap_or(target).replace("::", ".")
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

struct Fields<'a, 'l>(&'a mut Line<'l>);

impl Visit for Fields<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() != "message" {
            self.0.text(field.name(), &format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            self.0.text(field.name(), value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.number(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.0.number(field.name(), value),
            Err(_) => self.0.text(field.name(), &value.to_string()),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.bool(field.name(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loggers_are_named_after_modules() {
        assert_eq!(logger_of("llmproxy::server::worker"), "server.worker");
        assert_eq!(logger_of("llmproxy"), "");
        assert_eq!(logger_of("h2::proto"), "h2.proto");
    }
}
