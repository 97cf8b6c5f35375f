//! Sets a call's worst case aside before it is made, and charges what it took.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use http::{HeaderValue, Method, header};
use smallvec::SmallVec;

use super::refusal;
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::handler::{AsyncHandler, Flow, LocalFuture};
use crate::http::metering::{Call, Charge, Forecast, Reservation, Running, Sink, forecast};
use crate::http::placeholder::{Template, Unknown};
use crate::llm::model_table::{ModelTable, UNKNOWN_OUTPUT};
use crate::llm::price::{Nano, Prices, Terms};
use crate::llm::usage::Tokens;
use crate::state::Answer;
use crate::state::purse::Purse;
use crate::state::spend::{Amount, Hold, Limit, Moved, Unit};
use crate::state::tally::BudgetTally;
use crate::telemetry::encoder;

pub struct Gate {
    pub key: Template,
    pub purse: Arc<dyn Purse>,
    pub rules: Arc<Rules>,
    /// Where the charges are kept.
    pub ledger: Arc<dyn Sink>,
    /// Where no `usage` says other prices.
    pub prices: Arc<Prices>,
}

pub struct Rules {
    pub name: Arc<str>,
    pub limits: SmallVec<[Limit; 2]>,
    /// Per mille of each limit.
    pub soft: Option<u32>,
    pub cut_off: bool,
    /// Output tokens of a call that sets no maximum; `None` = as many as the model can make.
    pub reserve: Option<u64>,
    /// Calls whose price is not known pass.
    pub unknown_price: bool,
    pub tally: Arc<BudgetTally>,
}

impl Rules {
    fn counts_money(&self) -> bool {
        self.limits.iter().any(|limit| limit.unit == Unit::Money)
    }
}

impl AsyncHandler for Gate {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
        Box::pin(async move { self.admit(ex).await.map_or_else(Flow::Fail, |()| Flow::Next) })
    }
}

impl Gate {
    async fn admit(&self, ex: &mut Exchange) -> Result<(), HandlerError> {
        let upgrades = upgrades(ex);
        if !upgrades && is_safe(&ex.method) {
            return Ok(());
        }
        let rules = &self.rules;
        self.have_it_kept(ex);
        let forecast = forecast(ex).await?;
        let model = forecast.model.as_deref();
        let price = Price::of(&ex.meter().prices, &forecast, rules);
        let without_price = forecast.endpoint.is_metered() && price.nanos.is_none() && rules.counts_money();
        if (upgrades || without_price) && !rules.unknown_price {
            if let Some(model) = model {
                tracing::warn!(budget = %rules.name, model, "a call is refused: no price of its model is known");
            }
            rules.tally.without_price.add();
            return Err(refusal::no_price(&rules.name, model));
        }
        let key = self.key.render(ex, Unknown::Empty).into_owned();
        let (least, most) = price.range();
        let hold = self.purse.reserve(&rules.limits, &key, unix_now(), least, most).get().await;
        let hold = hold.map_err(|refused| {
            rules.tally.refused.add();
            tracing::debug!(budget = %rules.name, key = %key, held = refused.held, "no room in a budget");
            refusal::no_room(&rules.name, &refused)
        })?;
        let claim = Claim {
            purse: Arc::clone(&self.purse),
            rules: Arc::clone(rules),
            prices: Arc::clone(&ex.meter().prices),
            // Of nothing, where no API that is known is called: then it had to be seen that something is left, and is charged
            // what the answer tells, if it tells anything.
            hold: Some(hold),
            price,
        };
        ex.meter().reserve(Box::new(claim));
        Ok(())
    }

    /// What is spent must be in the ledger that is read at the start, whatever else is counted where.
    fn have_it_kept(&self, ex: &mut Exchange) {
        let meter = ex.meter();
        match &meter.ledger {
            None => {
                meter.ledger = Some(Arc::clone(&self.ledger));
                meter.prices = Arc::clone(&self.prices);
            }
            Some(ledger) if Arc::ptr_eq(ledger, &self.ledger) => {}
            Some(_) => meter.tell(&self.ledger),
        }
    }
}

/// Whether it becomes a connection whose traffic is not seen here.
fn upgrades(ex: &Exchange) -> bool {
    let to_websocket = |value: &HeaderValue| value.as_bytes().to_ascii_lowercase().starts_with(b"websocket");
    ex.method == Method::CONNECT || ex.headers.get_all(header::UPGRADE).iter().any(to_websocket)
}

/// Methods that ask for nothing to be done (RFC 9110, section 9.2.1).
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

fn unix_now() -> i64 {
    encoder::now() / 1_000_000_000
}

/// What a call may cost, before it is made.
#[derive(Debug, Clone, Copy)]
struct Price {
    input: u64,
    /// The most tokens it may make.
    output: u64,
    nanos: Option<Nanos>,
}

/// Of the money.
#[derive(Debug, Clone, Copy)]
struct Nanos {
    /// The input, were all of it cached.
    least: u64,
    /// The input, were none of it cached, or all of it written to the cache where that costs more.
    most: u64,
    /// A million tokens of output.
    output: u64,
}

/// Tokens of output that a price is asked for.
const MILLION: u64 = 1_000_000;

impl Price {
    fn of(prices: &Prices, forecast: &Forecast, rules: &Rules) -> Self {
        if !forecast.endpoint.is_metered() {
            return Self { input: 0, output: 0, nanos: None };
        }
        let model = forecast.model.as_deref().unwrap_or_default();
        let output = if forecast.endpoint.generates() {
            forecast.output_limit.or(rules.reserve).unwrap_or_else(|| longest_answer(model))
        } else {
            0
        };
        let input = forecast.input;
        let cost =
            |tokens: Tokens| prices.cost(model, &tokens, Terms::default()).and_then(|cost| u64::try_from(cost.0).ok());
        let fresh = Tokens { input, ..Tokens::default() };
        let nanos = cost(fresh).and_then(|plain| {
            Some(Nanos {
                least: cost(Tokens { cached: input, ..fresh })?.min(plain),
                most: cost(Tokens { cache_write: input, ..fresh })?.max(plain),
                output: cost(Tokens { output: MILLION, ..fresh })?.saturating_sub(plain),
            })
        });
        Self { input, output, nanos }
    }

    /// What it costs for certain, and what it may cost.
    fn range(&self) -> (Amount, Amount) {
        let most = Amount {
            nano: self.nanos.map_or(0, |nanos| nanos.most.saturating_add(nanos.of_output(self.output))),
            tokens: self.input.saturating_add(self.output),
        };
        (self.so_far(0), most)
    }

    /// What it has cost for certain when so much output has been made.
    fn so_far(&self, output: u64) -> Amount {
        Amount {
            nano: self.nanos.map_or(0, |nanos| nanos.least.saturating_add(nanos.of_output(output))),
            tokens: self.input.saturating_add(output),
        }
    }
}

impl Nanos {
    fn of_output(&self, tokens: u64) -> u64 {
        let nanos = u128::from(self.output) * u128::from(tokens) / u128::from(MILLION);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

/// As many tokens as the model can make. Looked up once a model and worker: the table is read line by line.
fn longest_answer(model: &str) -> u64 {
    const MOST: usize = 256;
    static TABLE: LazyLock<ModelTable> = LazyLock::new(ModelTable::default);
    thread_local! {
        static KNOWN: RefCell<HashMap<Box<str>, u64>> = RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| {
        if let Some(longest) = known.get(model) {
            return *longest;
        }
        let longest = match TABLE.get(model).output {
            0 => UNKNOWN_OUTPUT,
            output => output,
        };
        // Names come from strangers.
        if known.len() < MOST && model.len() < MOST {
            known.insert(model.into(), longest);
        }
        longest
    })
}

/// What is set aside for one call.
struct Claim {
    purse: Arc<dyn Purse>,
    rules: Arc<Rules>,
    prices: Arc<Prices>,
    /// `None` once it has been given back.
    hold: Option<Hold>,
    price: Price,
}

impl Claim {
    /// What the call took, and the money of it.
    fn took(&self, call: &Call) -> Amount {
        // An upstream may name its model otherwise than the one that was asked for and has a price.
        let asked = || call.model.as_deref().and_then(|m| self.prices.cost(m, &call.tokens, Terms::default()));
        let cost = call.cost.or_else(asked).unwrap_or_default();
        Amount { nano: u64::try_from(cost.0).unwrap_or(0), tokens: call.tokens.total() }
    }

    fn note(&self, call: &mut Call, hold: &Hold, took: Amount, moved: &[Moved]) {
        let rules = &self.rules;
        for (period, start) in &hold.periods {
            let of_this = moved.iter().filter(|moved| moved.limit.period == *period);
            let share = of_this.map(Moved::share).max_by_key(|[_, after]| *after).unwrap_or_default();
            call.charges.push(Charge {
                budget: Arc::clone(&rules.name),
                key: hold.key().to_owned(),
                per: period.word(),
                period: *start,
                cost: Nano(i64::try_from(took.nano).unwrap_or(i64::MAX)),
                tokens: took.tokens,
                share,
            });
        }
        for moved in moved {
            let limit = || refusal::amount(&moved.limit);
            if moved.reached(1000) {
                rules.tally.spent.add();
                let limit = limit();
                tracing::warn!(budget = %rules.name, key = hold.key(), %limit, "a budget is spent");
            } else if let Some(soft) = rules.soft
                && moved.reached(soft)
            {
                rules.tally.soft.add();
                let (limit, used) = (limit(), format!("{}%", f64::from(moved.share()[1]) / 10.0));
                tracing::warn!(budget = %rules.name, key = hold.key(), %limit, used, "a budget is nearly spent");
            }
        }
    }
}

impl Reservation for Claim {
    fn settle(mut self: Box<Self>, call: &mut Call) {
        let Some(hold) = self.hold.take() else { return };
        let took = self.took(call);
        let moved = at_once(self.purse.settle(&self.rules.limits, &hold, took));
        self.note(call, &hold, took, &moved);
    }

    fn release(mut self: Box<Self>) {
        if let Some(hold) = self.hold.take() {
            at_once(self.purse.release(&hold));
        }
    }

    fn spent(&mut self, call: &mut Call) {
        let Some(hold) = &self.hold else { return };
        let took = self.took(call);
        let moved = at_once(self.purse.charge(&self.rules.limits, hold, took));
        self.note(call, hold, took, &moved);
    }

    fn running(&mut self, output_so_far: u64) -> Running {
        let used = self.price.so_far(output_so_far);
        let Some(hold) = &mut self.hold else { return Running::GoOn };
        let room = self.purse.running(&self.rules.limits, hold, used);
        if room || !self.rules.cut_off {
            return Running::GoOn;
        }
        self.rules.tally.cut_off.add();
        tracing::info!(budget = %self.rules.name, key = hold.key(), "a stream is cut off: its budget is spent");
        Running::Cut
    }
}

/// Whatever ends it, what was set aside comes back.
impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            at_once(self.purse.release(&hold));
        }
    }
}

/// What a store answers that need not be waited for: one that answers later goes on by itself.
fn at_once<T: Default + Send + 'static>(answer: Answer<T>) -> T {
    match answer {
        Answer::Now(value) => value,
        Answer::Later(future) => {
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(future);
            }
            T::default()
        }
    }
}
