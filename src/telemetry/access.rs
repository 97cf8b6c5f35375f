//! The access log of a server: which requests go to which loggers, and from there to which logs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::log::{Log, Logs};

/// The namespaces that loggers of requests have in front of their names.
const ACCESS: &str = "http.log.access";
const ERROR: &str = "http.log.error";

/// Which requests are logged where.
#[derive(Default)]
pub struct AccessLogs {
    /// The server has an access log.
    enabled: bool,
    /// By host, exact or with `*` labels, in lower case and sorted: there are few, and each request asks.
    hosts: Box<[(Box<str>, Box<[Arc<Logger>]>)]>,
    has_wildcards: bool,
    /// For hosts that have none of their own.
    default: Box<[Arc<Logger>]>,
    /// Loggers that requests may name, beside those of the hosts.
    named: HashMap<Box<str>, Arc<Logger>>,
    skip_hosts: Vec<Box<str>>,
    skip_unmapped: bool,
    plain: bool,
    logs: Logs,
}

/// A logger of requests with the logs that take its entries.
pub struct Logger {
    /// `http.log.access.NAME`.
    pub access_name: Box<str>,
    pub access: Box<[Arc<Log>]>,
    /// `http.log.error.NAME`.
    pub error_name: Box<str>,
    pub errors: Box<[Arc<Log>]>,
}

impl Logger {
    fn new(name: &str, logs: &Logs) -> Self {
        let full = |namespace: &str| if name.is_empty() { namespace.to_owned() } else { format!("{namespace}.{name}") };
        let (access_name, error_name) = (full(ACCESS), full(ERROR));
        Self {
            access: logs.of(&access_name),
            errors: logs.of(&error_name),
            access_name: access_name.into(),
            error_name: error_name.into(),
        }
    }
}

/// What the configuration says about a server's access log.
#[derive(Debug, Clone, Default)]
pub struct AccessOptions {
    pub default_logger: String,
    /// Loggers by host.
    pub hosts: Vec<(String, Vec<String>)>,
    pub skip_hosts: Vec<String>,
    /// Hosts without a logger of their own are not logged.
    pub skip_unmapped: bool,
}

impl AccessLogs {
    /// `options` is `None` for a server without access log, whose errors are logged all the same.
    #[must_use]
    pub fn new(options: Option<&AccessOptions>, logs: &Logs) -> Self {
        let none = AccessOptions::default();
        let given = options.unwrap_or(&none);
        let mut loggers: HashMap<&str, Arc<Logger>> = HashMap::new();
        let mut logger = |name| Arc::clone(loggers.entry(name).or_insert_with(|| Arc::new(Logger::new(name, logs))));
        let default = Box::from([logger(&given.default_logger)]);
        let hosts: BTreeMap<_, _> = given
            .hosts
            .iter()
            .map(|(host, names)| (host.to_ascii_lowercase().into(), names.iter().map(|n| logger(n)).collect()))
            .collect();
        // `log_name` may name any log that was declared for the sites.
        for name in logs.0.iter().flat_map(|log| &log.include).filter_map(|n| n.strip_prefix("http.log.access.")) {
            logger(name);
        }
        Self {
            enabled: options.is_some(),
            has_wildcards: given.hosts.iter().any(|(host, _)| host.contains('*')),
            hosts: hosts.into_iter().collect(),
            default,
            named: loggers.into_iter().map(|(name, logger)| (name.into(), logger)).collect(),
            skip_hosts: given.skip_hosts.iter().map(|h| h.to_ascii_lowercase().into()).collect(),
            skip_unmapped: given.skip_unmapped,
            plain: logs.0.iter().all(|log| log.encoder.is_plain()),
            logs: logs.clone(),
        }
    }

    /// Whether any request of this server may be logged.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.enabled
    }

    /// Whether requests are logged whatever their host.
    #[must_use]
    pub fn logs_every_host(&self) -> bool {
        self.enabled && self.skip_hosts.is_empty() && !self.skip_unmapped
    }

    /// Whether requests for this host (without port) are logged.
    #[must_use]
    pub fn logs_host(&self, host: &str) -> bool {
        if !self.enabled {
            return false;
        }
        if self.logs_every_host() {
            return true;
        }
        let host = host.to_ascii_lowercase();
        self.of_host(&host).is_some()
            || !self.skip_unmapped
                && !self
                    .skip_hosts
                    .iter()
                    .any(|skip| **skip == *host || wildcards(&host, |w| (w == &**skip).then_some(())))
    }

    /// The loggers of a host (without port).
    #[must_use]
    pub fn loggers(&self, host: &str) -> &[Arc<Logger>] {
        if self.hosts.is_empty() {
            return &self.default;
        }
        let lower;
        let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            &lower
        } else {
            host
        };
        if let Some(found) = self.of_host(host) {
            return found;
        }
        if self.has_wildcards {
            let mut found = None;
            wildcards(host, |wildcard| {
                found = self.of_host(wildcard);
                found.map(|_| ())
            });
            if let Some(found) = found {
                return found;
            }
        }
        &self.default
    }

    fn of_host(&self, host: &str) -> Option<&[Arc<Logger>]> {
        let found = self.hosts.binary_search_by(|(known, _)| (**known).cmp(host)).ok()?;
        self.hosts.get(found).map(|(_, loggers)| &**loggers)
    }

    /// Whether objects may be written before their lines are: whichever log takes an entry, it is JSON past no filter.
    #[must_use]
    pub fn are_plain(&self) -> bool {
        self.plain
    }

    /// The logger of this name, which a request asked for.
    #[must_use]
    pub fn named(&self, name: &str) -> Arc<Logger> {
        self.named.get(name).map_or_else(|| Arc::new(Logger::new(name, &self.logs)), Arc::clone)
    }
}

/// Tries `host` with its labels replaced by `*` one after the other from the left, as Caddy does, until `try_one` is
/// content.
fn wildcards(host: &str, mut try_one: impl FnMut(&str) -> Option<()>) -> bool {
    let mut labels: Vec<&str> = host.split('.').collect();
    for i in 0..labels.len().min(32) {
        match labels.get_mut(i) {
            Some(label) if !label.is_empty() => *label = "*",
            _ => continue,
        }
        if try_one(&labels.join(".")).is_some() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::encoder::Encoder;
    use super::super::sink::Target;
    use super::*;

    fn logs() -> Logs {
        let mut site = Log::new("log0", Some(Target::Stdout), Encoder::default());
        site.include = vec!["http.log.access.log0".into()];
        let mut default = Log::new("default", Some(Target::Stderr), Encoder::default());
        default.exclude = site.include.clone();
        Logs(vec![Arc::new(default), Arc::new(site)])
    }

    fn names(loggers: &[Arc<Logger>]) -> Vec<(&str, Vec<&str>)> {
        loggers.iter().map(|l| (&*l.access_name, l.access.iter().map(|log| log.name.as_str()).collect())).collect()
    }

    #[test]
    fn a_host_has_its_loggers_and_a_logger_its_logs() {
        let options = AccessOptions {
            default_logger: String::new(),
            hosts: vec![
                ("a.test".into(), vec!["log0".into(), String::new()]),
                ("*.w.test".into(), vec!["log0".into()]),
            ],
            ..AccessOptions::default()
        };
        let access = AccessLogs::new(Some(&options), &logs());
        let site = ("http.log.access.log0", vec!["log0"]);
        let rest = ("http.log.access", vec!["default"]);
        assert_eq!(names(access.loggers("A.Test")), [site.clone(), rest.clone()]);
        assert_eq!(names(access.loggers("x.w.test")), [site]);
        assert_eq!(names(access.loggers("other")), [rest]);
        assert_eq!(access.loggers("a.test")[0].errors[0].name, "default");
        assert_eq!(&*access.named("log0").access_name, "http.log.access.log0");
        assert_eq!(access.named("unknown").access[0].name, "default");
        assert!(access.logs_host("other"));
    }

    #[test]
    fn hosts_are_left_out() {
        let options = AccessOptions {
            hosts: vec![("a.test".into(), vec!["log0".into()])],
            skip_hosts: vec!["b.test".into(), "*.c.test".into(), "a.test".into()],
            ..AccessOptions::default()
        };
        let access = AccessLogs::new(Some(&options), &logs());
        assert!(access.logs_host("A.test") && access.logs_host("x.test"));
        assert!(!access.logs_host("B.test") && !access.logs_host("x.c.test"));
        let access = AccessLogs::new(Some(&AccessOptions { skip_unmapped: true, ..options }), &logs());
        assert!(access.logs_host("a.test") && !access.logs_host("x.test"));
        assert!(!AccessLogs::new(None, &logs()).logs_host("a.test"));
    }
}
