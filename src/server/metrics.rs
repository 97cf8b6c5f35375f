//! What is counted, for Prometheus (text exposition format 0.0.4): upstreams, budgets, alerts, ledgers. Counts begin when
//! the process does. Nothing in a label comes from a request.

use std::fmt::Write as _;

use crate::proxy::status;
use crate::state::tally;
use crate::storage::ledger;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of this moment.
#[must_use]
pub fn all() -> String {
    let mut text = Text::default();
    let upstreams = status::all();
    let each = |value: fn(&status::UpstreamStatus) -> u64| {
        upstreams
            .iter()
            .map(move |up| (vec![("upstream", up.address.as_str()), ("scheme", up.scheme.as_str())], value(up)))
    };
    text.family(
        "llmproxy_upstream_requests_total",
        Kind::Counter,
        "Attempts to send a request.",
        each(|u| u.counts.requests),
    );
    text.family(
        "llmproxy_upstream_retries_total",
        Kind::Counter,
        "Attempts after a failed one.",
        each(|u| u.counts.retries),
    );
    let failures = upstreams.iter().flat_map(|up| {
        let f = up.counts.failures;
        [
            ("connect", f.connect),
            ("tls", f.tls),
            ("timeout", f.timeout),
            ("broken", f.broken),
            ("rate_limited", f.rate_limited),
            ("server_error", f.server_error),
        ]
        .map(|(kind, count)| {
            (vec![("upstream", up.address.as_str()), ("scheme", up.scheme.as_str()), ("kind", kind)], count)
        })
    });
    text.family(
        "llmproxy_upstream_failures_total",
        Kind::Counter,
        "Attempts without an answer, or with one that says no.",
        failures,
    );
    let under_way = |u: &status::UpstreamStatus| u.num_requests as u64;
    text.family(
        "llmproxy_upstream_requests_in_flight",
        Kind::Gauge,
        "Requests under way, streams included.",
        each(under_way),
    );
    text.family(
        "llmproxy_upstream_healthy",
        Kind::Gauge,
        "1 unless active checks say that it is down.",
        each(|u| u64::from(u.healthy)),
    );

    let budgets = tally::budgets();
    let each = |value: fn(&tally::BudgetTally) -> u64| {
        budgets.iter().map(move |(name, tally)| (vec![("budget", &**name)], value(tally)))
    };
    text.family(
        "llmproxy_budget_refused_total",
        Kind::Counter,
        "Calls refused for want of room.",
        each(|t| t.refused.get()),
    );
    text.family(
        "llmproxy_budget_unpriced_total",
        Kind::Counter,
        "Calls refused for want of a price.",
        each(|t| t.without_price.get()),
    );
    text.family("llmproxy_budget_soft_total", Kind::Counter, "Times that `soft` was reached.", each(|t| t.soft.get()));
    text.family(
        "llmproxy_budget_spent_total",
        Kind::Counter,
        "Times that a limit was reached.",
        each(|t| t.spent.get()),
    );
    text.family(
        "llmproxy_budget_cut_off_total",
        Kind::Counter,
        "Streams that were cut off.",
        each(|t| t.cut_off.get()),
    );

    let alerts = tally::alerts();
    let each = |value: fn(&tally::AlertTally) -> u64| {
        alerts.iter().map(move |(name, tally)| (vec![("alert", &**name)], value(tally)))
    };
    text.family("llmproxy_alerts_total", Kind::Counter, "Alerts that were told.", each(|t| t.told.get()));
    text.family(
        "llmproxy_alerts_held_off_total",
        Kind::Counter,
        "Alerts that `hold_off` kept back.",
        each(|t| t.held_off.get()),
    );

    let ledgers = ledger::status();
    let each = |value: fn(&ledger::LedgerStatus) -> u64| {
        ledgers.iter().map(move |one| (vec![("ledger", one.path.as_str())], value(one)))
    };
    text.family("llmproxy_ledger_lost_calls_total", Kind::Counter, "Calls that were not kept.", each(|l| l.lost));
    text.family(
        "llmproxy_ledger_failing",
        Kind::Gauge,
        "1 while nothing can be written.",
        each(|l| u64::from(l.error.is_some())),
    );
    text.0
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

#[derive(Default)]
struct Text(String);

impl Text {
    /// All samples of one name; nothing when there are none.
    fn family<'l>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl Iterator<Item = (Vec<(&'static str, &'l str)>, u64)>,
    ) {
        let mut samples = samples.peekable();
        if samples.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            self.0.push_str(name);
            for (at, (label, text)) in labels.into_iter().enumerate() {
                let _ = write!(self.0, "{}{label}=\"", if at == 0 { '{' } else { ',' });
                self.label(text);
                self.0.push('"');
            }
            let _ = writeln!(self.0, "}} {value}");
        }
    }

    fn label(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                c => self.0.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_told_with_its_kind_and_escaped_labels() {
        let mut text = Text::default();
        text.family("none_total", Kind::Counter, "Nothing.", std::iter::empty());
        let samples = [(vec![("budget", "a\"b\\c\nd"), ("per", "day")], 3), (vec![("budget", "x")], 0)];
        text.family("some_total", Kind::Counter, "Some.", samples.into_iter());
        assert_eq!(
            text.0,
            "# HELP some_total Some.\n# TYPE some_total counter\nsome_total{budget=\"a\\\"b\\\\c\\nd\",per=\"day\"} 3\nsome_total{budget=\"x\"} 0\n"
        );
    }

    #[test]
    fn budgets_and_alerts_are_told() {
        tally::budget("metrics-test").refused.add();
        tally::alert("metrics-test").told.add();
        let all = all();
        assert!(all.contains("llmproxy_budget_refused_total{budget=\"metrics-test\"} 1\n"), "{all}");
        assert!(all.contains("llmproxy_alerts_total{alert=\"metrics-test\"} 1\n"), "{all}");
    }
}
