//! `budget`: what callers may spend, in money or tokens, by day, week, month or in total.
//!
//! `budget person $20 per month` gives everybody twenty dollars a month. A block says more:
//!
//! ```text
//! budget NAME [AMOUNT per PERIOD] {
//!     key {http.auth.user.id}           # who shares one purse; each caller has one of their own without it
//!     limit $100 per month              # money, or `2M tokens`; per day, week or month, or `in total`
//!     limit 2M tokens per day           # several: all must have room
//!     soft 80%                          # log and alerts say when so much of a limit is used
//!     cut_off                           # ends streams whose budget is spent while they run
//!     reserve 4096                      # output tokens set aside for a call that sets no maximum itself
//!     unknown_price allow               # let models pass whose price is not known
//! }
//! ```
//!
//! **The key** is any text with placeholders: `{auth.team}`, `{auth.app}`, `{http.request.host}`, `{llm.model}`, or a word of
//! your own for a purse that all share. `budget` runs behind access control (`auth_token`, `jwt_auth`, …), so it knows the
//! caller; it runs behind `model_alias` too, so it prices the model that is really asked. Several `budget` lines all count:
//! one for the person, one for the team. A name is one purse wherever it is written, in however many sites.
//!
//! **How it counts.** Before a call its worst case is set aside: the prompt (estimated) and the most output it may make,
//! which is the request's own maximum, else `reserve`, else the longest answer of the model. A call may go when something is left behind
//! all that is spent *and* set aside, and its prompt fits into that. After the call what it really took is charged, by the
//! upstream's own counts, and the rest is given back. So however many calls run at once, a budget of $100 never spends more
//! than $100 and one call's worst case. Where a call makes more than was set aside, because it set no maximum and
//! `reserve` was low, more is set aside as it runs. With `cut_off` a stream ends when the limit is reached by what has really been
//! used: properly, as if its longest answer were reached, and the upstream is stopped.
//!
//! **Periods** are those of UTC: days from midnight, weeks from Monday, months from the first. A call counts in the period in
//! which it began. A clock that jumps opens no period anew.
//!
//! **Prices** are those of [`usage`](#usage), embedded and overridable (`price MODEL in 2.5 out 10`). A call whose price nobody knows cannot be
//! counted against money: it is refused (403, `price_unknown`), and the log says which model lacks a price. `unknown_price allow`
//! lets it pass uncharged; limits on tokens count it all the same. WebSockets (realtime) are not metered, so they are refused in
//! the same way, whatever the limits are. What generates nothing (files, counting tokens) is not charged, and passes
//! while anything is left; `GET` always passes. On paths of no known API nothing is set aside, and charged is what the answer tells. Batches and fine-tuning are billed by providers later and not seen here: keep
//! such paths from tokens that must not (`paths` of `auth_token`).
//!
//! **When it is spent** callers are answered 429 in the shape of their API, with OpenAI's `insufficient_quota`, when the next
//! period begins, and `x-should-retry: false`: official clients do not try again. When nothing is spent but all that is left
//! is set aside for calls under way, the answer is 429 with `retry-after: 1`.
//!
//! **It is kept** in the ledger of [`usage`](#usage), which is opened for a budget also where `usage` is not written: what was
//! spent survives a restart and a crash, which loses at most the calls of the last flush (a second), and those that were
//! under way. The ledger is that of the whole file, also where a site keeps its calls in another one. A reload changes limits at once and keeps what is spent. Keys longer than 256 bytes are kept as their SHA-256. With more than a
//! million keys in one period, new ones share one purse, `(others)`.

mod amount;
mod gate;
mod opening;
mod parse;
mod refusal;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::Module;
use crate::http::placeholder::Template;
use crate::http::route::Handler;
use crate::state;

use self::gate::{Gate, Rules};
use self::opening::Opening;

pub const DIRECTIVE: Directive = Directive {
    name: "budget",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse: parse::parse,
    doc: &Doc {
        summary: "Limits what callers may spend, in money or tokens.",
        syntax: "budget [matcher] <name> [<amount> per <day|week|month>] { key <text>  limit <amount> per <day|week|month> | in total  soft <percent>  cut_off  reserve <tokens>  unknown_price <refuse|allow> }",
        examples: &[
            "budget person $20 per month",
            "budget person 500k tokens per day",
            "budget /v1/* trial $5 in total",
            "budget team {\n\tkey {auth.team}\n\tlimit $100 per month\n\tlimit 2M tokens per day\n\tsoft 80%\n\tcut_off\n\treserve 4096\n\tunknown_price allow\n}",
        ],
        rejected: &[
            ("budget", "wrong-argument-count"),
            ("budget person", "budget-without-limit"),
            ("budget person {\n\tsoft 80%\n}", "budget-without-limit"),
            ("budget person 20 per month", "invalid-amount"),
            ("budget person $0 per month", "invalid-amount"),
            ("budget person $-5 per month", "invalid-amount"),
            ("budget person $20 per year", "invalid-period"),
            ("budget person 2X tokens per day", "invalid-amount"),
            ("budget person $20", "wrong-argument-count"),
            ("budget person {\n\tlimit $5 per day\n\tlimit $6 per day\n}", "duplicate-option"),
            ("budget person $5 per day {\n\tsoft 120%\n}", "invalid-percentage"),
            ("budget person $5 per day {\n\tsoft 0.8\n}", "invalid-percentage"),
            ("budget person $5 per day {\n\treserve none\n}", "invalid-number"),
            ("budget person $5 per day {\n\tunknown_price ignore\n}", "invalid-value"),
            ("budget person $5 per day {\n\tcut_off\n\tcut_off\n}", "duplicate-option"),
            ("budget person $5 per day {\n\tcutoff\n}", "unknown-subdirective"),
            ("budget \"a b\" $5 per day", "invalid-value"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "budget", compile };

/// Whose purse it is, unless something else is said.
const EACH_CALLER: &str = "{http.auth.user.id}";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    limits: Vec<LimitConfig>,
    /// Percent of each limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    soft: Option<f64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut_off: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserve: Option<u64>,
    #[serde(skip_serializing_if = "UnknownPrice::is_default")]
    unknown_price: UnknownPrice,
}

/// As it is written: `$100`, `2M tokens`; `day`, `week`, `month`, `total`.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct LimitConfig {
    limit: String,
    per: String,
}

/// What becomes of calls that cannot be priced.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum UnknownPrice {
    #[default]
    Refuse,
    Allow,
}

impl UnknownPrice {
    #[allow(clippy::trivially_copy_pass_by_ref)] // the shape that serde asks for
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn compile(module: &Module, cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: Config = read(module, "handler")?;
    let invalid = |why: &str, field: &str| Err(CompileError::new("invalid-value", why).within(field));
    if !is_name(&config.name) {
        return invalid(NAME, "name");
    }
    if config.limits.is_empty() {
        return Err(CompileError::new("budget-without-limit", format!("budget `{}` has no limit", config.name)));
    }
    let mut limits: SmallVec<[state::spend::Limit; 2]> = SmallVec::new();
    for (i, written) in config.limits.iter().enumerate() {
        let limit = amount::limit(&written.limit, &written.per).map_err(|(code, message)| {
            let field = if code == "invalid-period" { "per" } else { "limit" };
            CompileError::new(code, message).within(field).within(i).within("limits")
        })?;
        if limits.iter().any(|known| known.unit == limit.unit && known.period == limit.period) {
            let message = "one period has one limit of money and one of tokens";
            return Err(CompileError::new("duplicate-option", message).within(i).within("limits"));
        }
        limits.push(limit);
    }
    let soft = config.soft.map(|percent| amount::per_mille(percent).ok_or(percent)).transpose();
    let Ok(soft) = soft else {
        let message = "`soft` is a percentage above 0 and up to 100";
        return Err(CompileError::new("invalid-percentage", message).within("soft"));
    };
    if config.reserve == Some(0) {
        return Err(CompileError::new("invalid-number", "`reserve` is a number of tokens").within("reserve"));
    }
    let purse = state::process().purse(&config.name);
    let ledger = cx.default_ledger()?;
    // Behind the ledger's own, which opens it.
    cx.go_live.push(Arc::new(Opening {
        budget: config.name.clone(),
        purse: Arc::clone(&purse),
        ledger: Arc::clone(&ledger),
    }));
    let rules = Rules {
        name: config.name.as_str().into(),
        limits,
        soft,
        cut_off: config.cut_off,
        reserve: config.reserve,
        unknown_price: config.unknown_price == UnknownPrice::Allow,
        tally: state::tally::budget(&config.name),
    };
    Ok(Handler::Async(Box::new(Gate {
        key: Template::parse(config.key.as_deref().unwrap_or(EACH_CALLER)),
        purse,
        rules: Arc::new(rules),
        ledger,
        prices: Arc::clone(&cx.prices),
    })))
}

const NAME: &str = "a budget's name is 1 to 64 letters, digits, `-`, `_` and `.`";

/// Names stand in the ledger, in metrics and in commands.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}
