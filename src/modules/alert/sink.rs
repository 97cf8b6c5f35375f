//! Watches the calls that end, and says when a condition is met.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use serde_json::{Map, Value};

use super::condition::{Condition, What, in_dollars};
use super::deliver::Webhook;
use crate::base::units::format_duration;
use crate::http::exchange::Exchange;
use crate::http::handler::{Flow, Step};
use crate::http::metering::{Call, Sink};
use crate::http::placeholder::{Template, Unknown};
use crate::llm::price::Nano;
use crate::state::alarm::Alarm;
use crate::state::baseline::Bar;
use crate::state::tally::AlertTally;

pub struct Alert {
    pub name: Box<str>,
    pub rules: Vec<Rule>,
    pub webhooks: Vec<Arc<Webhook>>,
    /// Seconds.
    pub hold_off: u64,
    pub tally: Arc<AlertTally>,
}

pub struct Rule {
    /// As it is written.
    pub text: Box<str>,
    pub condition: Condition,
    pub alarm: Arc<Alarm>,
}

/// Looks at who comes, and has the calls told.
pub struct Watcher {
    alert: Arc<Alert>,
    by: Option<Template>,
    /// For all together.
    sink: Arc<dyn Sink>,
    watches_networks: bool,
}

impl Watcher {
    pub fn new(alert: Arc<Alert>, by: Option<Template>) -> Self {
        let sink = Arc::new(Told { alert: Arc::clone(&alert), key: Box::default() });
        let watches_networks = alert.rules.iter().any(|rule| rule.condition == Condition::NewNetwork);
        Self { alert, by, sink, watches_networks }
    }

    fn note_network(&self, ex: &Exchange) {
        let (Some(user), Some(ip)) = (&ex.user, ex.client_ip()) else { return };
        for rule in self.alert.rules.iter().filter(|rule| rule.condition == Condition::NewNetwork) {
            if let Some(network) = rule.alarm.new_network(&user.id, ip) {
                let network = network.to_string();
                let text = format!("used from {network} for the first time");
                self.alert.tell(rule, &user.id, &text, vec![("network", network.into())]);
            }
        }
    }
}

impl Step for Watcher {
    fn run(&self, ex: &mut Exchange) -> Flow {
        if self.watches_networks {
            self.note_network(ex);
        }
        match &self.by {
            None => ex.meter().tell(&self.sink),
            Some(by) => {
                let key = by.render(ex, Unknown::Empty).as_ref().into();
                let sink: Arc<dyn Sink> = Arc::new(Told { alert: Arc::clone(&self.alert), key });
                ex.meter().tell(&sink);
            }
        }
        Flow::Next
    }
}

/// Is told of the calls of one key.
struct Told {
    alert: Arc<Alert>,
    key: Box<str>,
}

impl Sink for Told {
    fn record(&self, call: &Call) {
        let now = now();
        for rule in &self.alert.rules {
            match &rule.condition {
                Condition::Much { what, window, bar } => self.count(rule, *what, *window, *bar, call, now),
                Condition::Budget { name, per_mille } => self.look_at_charges(rule, name, *per_mille, call),
                Condition::NewNetwork => {}
            }
        }
    }
}

impl Told {
    fn count(&self, rule: &Rule, what: What, window: u64, bar: Bar, call: &Call, now: u64) {
        let Some(above) = rule.alarm.count(window, bar, &self.key, amount(what, call), now) else { return };
        let within = format_duration(i64::try_from(window).unwrap_or(i64::MAX).saturating_mul(1_000_000_000));
        let more = match bar {
            Bar::Usual { .. } => format!("where {} is usual", rounded(above.against)),
            Bar::Sum(_) | Bar::Share { .. } => format!("more than {}", rounded(above.against)),
        };
        let text = format!("{} within {within}, {more}", rounded(above.value));
        let data = vec![("value", rounded(above.value).into()), ("against", rounded(above.against).into())];
        self.alert.tell(rule, &self.key, &text, data);
    }

    fn look_at_charges(&self, rule: &Rule, name: &str, per_mille: u32, call: &Call) {
        for charge in call.charges.iter().filter(|charge| *charge.budget == *name) {
            let [before, after] = charge.share;
            if before < per_mille && after >= per_mille {
                let percent = f64::from(after) / 10.0;
                let text = format!("{percent}% of the budget `{name}` for the {} is used", charge.per);
                let data = vec![("value", percent.into()), ("against", (f64::from(per_mille) / 10.0).into())];
                self.alert.tell(rule, &charge.key, &text, data);
            }
        }
    }
}

/// What one call adds.
#[allow(clippy::cast_precision_loss)] // tokens of a call
fn amount(what: What, call: &Call) -> f64 {
    let one_if = |yes: bool| f64::from(u8::from(yes));
    match what {
        What::Spend => call.cost.map_or(0.0, |Nano(nano)| in_dollars(Nano(nano))),
        What::Tokens => call.tokens.total() as f64,
        What::Errors => one_if(call.status >= 500),
        What::RateLimited => one_if(call.status == 429),
    }
}

/// To what a person reads.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Seconds since the program began: a clock that only goes forward.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_secs()
}

impl Alert {
    fn tell(&self, rule: &Rule, key: &str, what: &str, more: Vec<(&'static str, Value)>) {
        if !rule.alarm.may_tell(key, self.hold_off, now()) {
            self.tally.held_off.add();
            return;
        }
        self.tally.told.add();
        tracing::warn!(target: "alert", alert = %self.name, condition = %rule.text, key, "{what}");
        if self.webhooks.is_empty() {
            return;
        }
        let whose = if key.is_empty() { String::new() } else { format!("{key}: ") };
        let text = format!("{}: {whose}{what} ({})", self.name, rule.text);
        let mut data = Map::new();
        data.insert("alert".to_owned(), (&*self.name).into());
        data.insert("condition".to_owned(), (&*rule.text).into());
        data.insert("key".to_owned(), key.into());
        data.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
        for webhook in &self.webhooks {
            webhook.send(&text, &data);
        }
    }
}
