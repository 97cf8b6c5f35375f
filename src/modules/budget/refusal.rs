//! What callers are told when they may not spend.

use http::{HeaderName, HeaderValue, header};

use super::HANDLER;
use crate::http::error::{HandlerError, Refusal};
use crate::llm::date::rfc3339;
use crate::llm::price::Nano;
use crate::state::period::Period;
use crate::state::spend::{Limit, Refused, Unit};

const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const QUOTA: &str = "insufficient_quota";

/// No room in a limit. Official clients heed `x-should-retry` before the status.
pub fn no_room(name: &str, refused: &Refused) -> HandlerError {
    if refused.held {
        let message = format!(
            "All that is left of the budget `{name}` ({}) is set aside for calls that are under way. Try again soon.",
            amount(&refused.limit)
        );
        let refusal = Refusal { message: message.into(), code: Some("rate_limit_exceeded"), ..Refusal::default() };
        return HandlerError::refusal(429, HANDLER.id, refusal)
            .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
            .header(X_SHOULD_RETRY, HeaderValue::from_static("true"));
    }
    let what = if refused.spent >= refused.limit.most { "is spent" } else { "has too little left for this call" };
    let renews = refused.renews.map(|at| format!(" It begins anew at {}.", rfc3339(at))).unwrap_or_default();
    let message = format!("The budget `{name}` ({}) {what}.{renews}", amount(&refused.limit));
    quota(429, message)
}

/// Its price is not known, so it cannot be counted.
pub fn no_price(name: &str, model: Option<&str>) -> HandlerError {
    let what = model.map_or_else(|| "this call".to_owned(), |model| format!("the model `{model}`"));
    let message = format!("No price of {what} is known, so the budget `{name}` does not allow it.");
    let refusal = Refusal { message: message.into(), code: Some("price_unknown"), ..Refusal::default() };
    HandlerError::refusal(403, HANDLER.id, refusal).header(X_SHOULD_RETRY, HeaderValue::from_static("false"))
}

fn quota(status: u16, message: String) -> HandlerError {
    let refusal = Refusal { message: message.into(), code: Some(QUOTA), kind: Some(QUOTA), param: None };
    HandlerError::refusal(status, HANDLER.id, refusal).header(X_SHOULD_RETRY, HeaderValue::from_static("false"))
}

/// `$100 per month`, `2000000 tokens in total`.
pub fn amount(limit: &Limit) -> String {
    let most = match limit.unit {
        Unit::Money => format!("${}", Nano(i64::try_from(limit.most).unwrap_or(i64::MAX))),
        Unit::Tokens => format!("{} tokens", limit.most),
    };
    match limit.period {
        Period::Total => format!("{most} in total"),
        period => format!("{most} per {}", period.word()),
    }
}
