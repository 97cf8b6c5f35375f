//! A log: which entries it takes, how it shows them, where it writes them. And all logs of a configuration.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::buffer;
use super::encoder::{Encoder, Entry, Keys};
use super::level::Level;
use super::line::Line;
use super::sink::{Sink, Target};

/// The log that takes everything nothing else is said about.
pub const DEFAULT: &str = "default";

pub struct Log {
    pub name: String,
    /// Least level it takes.
    pub level: Level,
    pub encoder: Encoder,
    keys: Keys,
    /// Namespaces it takes; all when empty.
    pub include: Vec<String>,
    /// Namespaces it leaves out. The longer of an included and an excluded namespace counts.
    pub exclude: Vec<String>,
    pub sampler: Option<Sampler>,
    /// `None` = nothing is written (`discard`).
    pub target: Option<Target>,
    sink: OnceLock<Arc<Sink>>,
}

impl Log {
    #[must_use]
    pub fn new(name: impl Into<String>, target: Option<Target>, encoder: Encoder) -> Self {
        Self {
            name: name.into(),
            level: Level::Info,
            keys: encoder.keys(),
            encoder,
            include: Vec::new(),
            exclude: Vec::new(),
            sampler: None,
            target,
            sink: OnceLock::new(),
        }
    }

    /// Whether entries of this logger are taken (Caddy's `loggerAllowed`).
    #[must_use]
    pub fn takes_logger(&self, logger: &str) -> bool {
        let within = |namespace: &str| {
            let after = logger.strip_prefix(namespace);
            after.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let longest = |list: &[String]| list.iter().filter(|n| within(n)).map(String::len).max();
        let accepted = longest(&self.include);
        if !self.include.is_empty() && accepted.is_none() {
            return false;
        }
        // `*` is every named logger, `.` the nameless one.
        if self.exclude.iter().any(|n| n == "*" && !logger.is_empty() || n == "." && logger.is_empty()) {
            return false;
        }
        longest(&self.exclude).is_none_or(|rejected| accepted.is_some_and(|accepted| accepted > rejected))
    }

    /// Whether an entry of this level would be written, if its logger is one that the log takes.
    #[must_use]
    pub fn takes(&self, level: Level) -> bool {
        level >= self.level && self.sink.get().is_some()
    }

    /// Writes through this thread's buffer.
    pub fn write(&self, entry: &Entry<'_>, fields: impl FnOnce(&mut Line<'_>)) {
        let Some(sink) = self.sink.get() else { return };
        if entry.level < self.level || self.sampler.as_ref().is_some_and(|s| !s.keeps(entry)) {
            return;
        }
        buffer::write(sink, |out| self.encoder.encode(&self.keys, entry, fields, out));
    }

    /// Writes at once, for the few lines about the program itself.
    pub fn write_now(&self, entry: &Entry<'_>, fields: impl FnOnce(&mut Line<'_>)) {
        let Some(sink) = self.sink.get() else { return };
        if entry.level < self.level || self.sampler.as_ref().is_some_and(|s| !s.keeps(entry)) {
            return;
        }
        let mut out = Vec::with_capacity(256);
        self.encoder.encode(&self.keys, entry, fields, &mut out);
        sink.send(out, 1);
    }
}

/// All logs of a configuration; the default log is always among them.
#[derive(Clone, Default)]
pub struct Logs(pub Vec<Arc<Log>>);

impl Logs {
    /// Opens every log's sink. Nothing is written before. On failure, the log's name and why.
    pub fn open(&self) -> Result<(), String> {
        for log in &self.0 {
            let Some(target) = &log.target else { continue };
            let sink = Sink::open(target).map_err(|error| match target {
                Target::File(file) => {
                    format!("cannot open log file {} of log `{}`: {error}", file.path.display(), log.name)
                }
                _ => format!("cannot write log `{}`: {error}", log.name),
            })?;
            let _ = log.sink.set(sink);
        }
        Ok(())
    }

    /// The logs that take entries of this logger.
    #[must_use]
    pub fn of(&self, logger: &str) -> Box<[Arc<Log>]> {
        self.0.iter().filter(|log| log.target.is_some() && log.takes_logger(logger)).cloned().collect()
    }

    /// The least level that any log takes.
    #[must_use]
    pub fn least_level(&self) -> Level {
        self.0.iter().filter(|log| log.target.is_some()).map(|log| log.level).min().unwrap_or(Level::Fatal)
    }
}

/// Keeps the first entries of an interval and then every n-th, counted by level and message.
pub struct Sampler {
    interval: i64,
    first: u64,
    thereafter: u64,
    counters: Box<[Counter]>,
}

#[derive(Default)]
struct Counter {
    ends: AtomicI64,
    count: AtomicU64,
}

/// Messages share counters by hash; there are few of them.
const COUNTERS: usize = 256;

impl Sampler {
    #[must_use]
    pub fn new(interval: Duration, first: u64, thereafter: u64) -> Self {
        Self {
            interval: i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX),
            first,
            thereafter,
            counters: std::iter::repeat_with(Counter::default).take(COUNTERS).collect(),
        }
    }

    fn keeps(&self, entry: &Entry<'_>) -> bool {
        // FNV-1a.
        let hash = entry.message.bytes().fold(0xcbf2_9ce4_8422_2325_u64 ^ entry.level as u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let index = usize::try_from(hash % COUNTERS as u64).unwrap_or(0);
        let Some(counter) = self.counters.get(index) else { return true };
        let count = if entry.unix_nanos >= counter.ends.load(Ordering::Relaxed) {
            counter.ends.store(entry.unix_nanos.saturating_add(self.interval), Ordering::Relaxed);
            counter.count.store(1, Ordering::Relaxed);
            1
        } else {
            counter.count.fetch_add(1, Ordering::Relaxed) + 1
        };
        count <= self.first || self.thereafter > 0 && (count - self.first).is_multiple_of(self.thereafter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(include: &[&str], exclude: &[&str]) -> Log {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let mut log = Log::new("x", None, Encoder::default());
        log.include = list(include);
        log.exclude = list(exclude);
        log
    }

    #[test]
    fn the_longer_namespace_counts() {
        let takes = |include: &[&str], exclude: &[&str], name: &str| log(include, exclude).takes_logger(name);
        assert!(takes(&[], &[], ""));
        assert!(takes(&["http.log"], &[], "http.log.access"));
        assert!(!takes(&["http.log"], &[], "http.logs"));
        assert!(!takes(&["http.log"], &[], ""));
        assert!(!takes(&[], &["http.log.access.log0"], "http.log.access.log0"));
        assert!(takes(&[], &["http.log.access.log0"], "http.log.access.log00"));
        assert!(takes(&[], &["http.log.access.log0"], "http.log.access"));
        assert!(!takes(&["http"], &["http.log"], "http.log.access"));
        assert!(takes(&["http.log.access"], &["http.log"], "http.log.access.x"));
        assert!(!takes(&[], &["*"], "http") && takes(&[], &["*"], ""));
        assert!(!takes(&[], &["."], "") && takes(&[], &["."], "http"));
    }

    #[test]
    fn sampling_keeps_the_first_and_then_every_nth() {
        let sampler = Sampler::new(Duration::from_secs(1), 2, 3);
        let entry = |unix_nanos, message| Entry { level: Level::Info, unix_nanos, logger: "", message };
        let kept: Vec<bool> = (0..9).map(|n| sampler.keeps(&entry(n, "m"))).collect();
        assert_eq!(kept, [true, true, false, false, true, false, false, true, false]);
        assert!(sampler.keeps(&entry(5, "another")));
        assert!(sampler.keeps(&entry(1_000_000_000, "m")), "a new interval");
    }
}
