//! What becomes of a request: each zone that it matches is asked, and the first that refuses is told.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use smallvec::SmallVec;

use super::HANDLER;
use super::answer::{self, Told};
use super::open::{self, Open};
use super::reserved::Reserved;
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::handler::{AsyncHandler, Flow, LocalFuture, Step};
use crate::http::hold::hold_body;
use crate::http::matcher::{MatcherSets, Verdict as Match};
use crate::http::metering::forecast;
use crate::http::placeholder::{Template, Unknown};
use crate::http::requested_model::{DEFAULT_LIMIT, ModelOf};
use crate::state::Answer;
use crate::state::key::Key;
use crate::state::limit::{Admission, Ask, Limits, Verdict, Zone};
use crate::state::moment::Moment;

/// Tokens of an answer whose request sets no bound.
const USUAL_OUTPUT: u64 = 1000;

pub struct Gate {
    /// In the order in which they are asked.
    pub zones: Box<[ZoneGate]>,
    pub jitter: f64,
    pub log_key: bool,
}

pub struct ZoneGate {
    pub name: Arc<str>,
    pub matchers: MatcherSets,
    pub key: Template,
    /// Where the key is the same for all.
    pub fixed_key: Option<Key>,
    /// Bits of IPv4 and IPv6 addresses that count.
    pub prefixes: [Option<u8>; 2],
    /// The key names the model, which may stand in the body.
    pub looks_at_model: bool,
    pub limits: Arc<Limits>,
    /// Callers are told how much is left.
    pub tells: bool,
    pub zone: Arc<dyn Zone>,
}

/// What passing the zones has brought.
#[derive(Default)]
struct Passed {
    delay: Duration,
    told: Told,
    open: SmallVec<[Rc<Open>; 1]>,
    reserved: SmallVec<[Reserved; 1]>,
}

impl Step for Gate {
    fn run(&self, ex: &mut Exchange) -> Flow {
        let mut passed = Passed::default();
        for zone in &self.zones {
            let key = zone.key(ex);
            let answer = zone.zone.admit(key, &zone.limits, Ask::default(), Moment::of(Instant::now()));
            let Answer::Now(verdict) = answer else {
                return Flow::Fail(HandlerError::internal(HANDLER.id, "the store of limits does not answer at once"));
            };
            if let Err(error) = self.note(zone, verdict, &mut passed, ex) {
                return Flow::Fail(error);
            }
        }
        passed.into_exchange(ex);
        Flow::Next
    }
}

impl AsyncHandler for Gate {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
        Box::pin(async move {
            match self.pass(ex).await {
                Ok(()) => Flow::Next,
                Err(error) => Flow::Fail(error),
            }
        })
    }
}

impl Gate {
    /// Whether a request may have to wait here: for its body, for its turn.
    pub fn waits(&self) -> bool {
        self.zones.iter().any(|zone| {
            let delays = zone.limits.rate.is_some_and(|rate| rate.at_once < rate.burst);
            delays || zone.looks_at_model || zone.limits.tokens.is_some() || !zone.matchers.0.is_empty()
        })
    }

    async fn pass(&self, ex: &mut Exchange) -> Result<(), HandlerError> {
        // Dropped on the way, it gives back what was taken.
        let mut passed = Passed::default();
        for zone in &self.zones {
            if !zone.matches(ex).await? {
                continue;
            }
            if zone.looks_at_model {
                look_at_model(ex).await?;
            }
            let tokens = match zone.limits.tokens {
                Some(limit) => tokens_asked(ex, limit).await?,
                None => 0,
            };
            let key = zone.key(ex);
            let answer = zone.zone.admit(key, &zone.limits, Ask { tokens }, Moment::of(Instant::now()));
            self.note(zone, answer.get().await, &mut passed, ex)?;
        }
        if !passed.delay.is_zero() {
            tokio::time::sleep(passed.delay).await;
        }
        passed.into_exchange(ex);
        Ok(())
    }

    fn note(
        &self,
        zone: &ZoneGate,
        verdict: Verdict,
        passed: &mut Passed,
        ex: &mut Exchange,
    ) -> Result<(), HandlerError> {
        match verdict {
            Verdict::Admitted(admission) => {
                passed.take(zone, admission);
                Ok(())
            }
            Verdict::Refused(refusal) => Err(answer::refuse(self, zone, &refusal, ex)),
        }
    }
}

impl ZoneGate {
    /// Requests per nanosecond, as the plugin sorts by.
    #[allow(clippy::cast_precision_loss)] // as in the plugin
    pub fn permissiveness(&self) -> f64 {
        self.limits.events.map_or(0.0, |events| events as f64 / self.limits.window.max(1) as f64)
    }

    async fn matches(&self, ex: &mut Exchange) -> Result<bool, HandlerError> {
        loop {
            match self.matchers.matches(ex) {
                Match::Yes => return Ok(true),
                Match::No => return Ok(false),
                Match::Error(error) => return Err(error),
                Match::NeedBody(limit) => hold_body(ex, limit).await?,
            }
        }
    }

    fn key(&self, ex: &Exchange) -> Key {
        if let Some(key) = self.fixed_key {
            return key;
        }
        Key::of(&self.key_text(ex))
    }

    pub fn key_text<'a>(&'a self, ex: &'a Exchange) -> Cow<'a, str> {
        let text = self.key.render(ex, Unknown::Empty);
        self.network(&text).map_or(text, |network| Cow::Owned(network.to_string()))
    }

    /// The network that stands for an address.
    fn network(&self, text: &str) -> Option<IpNet> {
        if self.prefixes == [None; 2] {
            return None;
        }
        let address: IpAddr = text.parse().ok()?;
        let bits = self.prefixes[usize::from(address.is_ipv6())]?;
        IpNet::new(address, bits).ok().map(|network| network.trunc())
    }
}

impl Passed {
    fn take(&mut self, zone: &ZoneGate, admission: Admission) {
        self.delay = self.delay.max(admission.delay);
        if zone.tells {
            self.told.add(&admission.standing);
        }
        if zone.limits.concurrent.is_some() {
            self.open.push(Rc::new(Open::new(zone, admission.ticket)));
        }
        if zone.limits.tokens.is_some() {
            self.reserved.push(Reserved::new(zone, admission.ticket));
        }
    }

    fn into_exchange(self, ex: &mut Exchange) {
        self.told.attach(ex);
        if !self.open.is_empty() {
            open::attach(self.open, ex);
        }
        for reserved in self.reserved {
            ex.meter().reserve(Box::new(reserved));
        }
    }
}

/// Has the body read if the model may stand in it, so that `{llm.model}` is known.
async fn look_at_model(ex: &mut Exchange) -> Result<(), HandlerError> {
    loop {
        match ex.requested_model(DEFAULT_LIMIT) {
            ModelOf::Named(_) | ModelOf::NotTold => return Ok(()),
            ModelOf::NeedBody(limit) => hold_body(ex, limit).await?,
            ModelOf::Bad(error) => return Err(error),
        }
    }
}

/// What the call may take. Never more than the limit by the length of its answer alone: it is let through when nothing else
/// is in the window.
async fn tokens_asked(ex: &mut Exchange, limit: u64) -> Result<u64, HandlerError> {
    let forecast = forecast(ex).await?;
    if !forecast.endpoint.is_metered() {
        return Ok(0);
    }
    let output = forecast.output_limit.unwrap_or(USUAL_OUTPUT);
    Ok(forecast.input.saturating_add(output).min(limit.max(forecast.input)))
}
