//! What becomes of a request: who shows which token, and whether it may go on.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::HANDLER;
use super::set::{Found, TokenSet};
use super::token::Token;
use crate::base::body::Body;
use crate::base::password::Busy;
use crate::http::credentials;
use crate::http::error::{HandlerError, Refusal};
use crate::http::exchange::{Exchange, Response};
use crate::http::handler::{AsyncHandler, Flow, LocalFuture, Step};
use crate::http::model_rights;

const MISSING: &str = "You didn't provide an API key. Send it in an Authorization header using Bearer auth \
                       (Authorization: Bearer YOUR_KEY), or as x-api-key or api-key.";
const INCORRECT: &str = "Incorrect API key provided.";
const BUSY: &str = "Too many keys are being checked at this moment. Try again.";

pub struct Gate {
    pub set: TokenSet,
    /// Headers that are looked at and taken off.
    pub headers: Box<[HeaderName]>,
}

/// Whose token a request shows.
enum Shown<'g> {
    Nothing,
    Unknown,
    Known(&'g Token),
    /// Perhaps this one's: the slow hash and what is to be verified against it.
    Slow(&'g Token, Arc<str>, Vec<u8>),
}

/// When no token of the set needs waiting.
impl Step for Gate {
    fn run(&self, ex: &mut Exchange) -> Flow {
        if is_preflight(ex) {
            return answer_preflight();
        }
        match self.shown(ex) {
            Shown::Known(token) => admit(token, ex).map_or_else(Flow::Fail, |()| Flow::Next),
            Shown::Nothing => Flow::Fail(missing()),
            Shown::Unknown | Shown::Slow(..) => Flow::Fail(incorrect()),
        }
    }
}

impl AsyncHandler for Gate {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
        Box::pin(async move {
            if is_preflight(ex) {
                return answer_preflight();
            }
            match self.judge(ex).await {
                Ok(()) => Flow::Next,
                Err(error) => Flow::Fail(error),
            }
        })
    }
}

impl Gate {
    async fn judge(&self, ex: &mut Exchange) -> Result<(), HandlerError> {
        let token = match self.shown(ex) {
            Shown::Known(token) => token,
            Shown::Slow(token, hash, credential) => match self.set.verify(hash, credential).await {
                Ok(true) => token,
                Ok(false) => return Err(incorrect()),
                Err(Busy) => return Err(busy()),
            },
            Shown::Nothing => return Err(missing()),
            Shown::Unknown => return Err(incorrect()),
        };
        admit(token, ex)?;
        match &token.models {
            Some(models) => model_rights::allow(ex, models, HANDLER.id).await,
            None => Ok(()),
        }
    }

    /// Looks at all that the request shows and takes it off: admitted or refused, no handler further on sees it. The
    /// first known token counts.
    fn shown(&self, ex: &mut Exchange) -> Shown<'_> {
        let mut shown = Shown::Nothing;
        credentials::take(ex, &self.headers, |credential| {
            let found = self.set.find(credential);
            let known = !matches!(found, Found::Unknown);
            match (&shown, found) {
                (Shown::Known(_), _) | (Shown::Slow(..), Found::Slow(..) | Found::Unknown) => {}
                (_, Found::Known(token)) => shown = Shown::Known(token),
                (_, Found::Slow(token, hash)) => shown = Shown::Slow(token, hash, credential.to_vec()),
                (_, Found::Unknown) => shown = Shown::Unknown,
            }
            known
        });
        // A secret path stands for a token, whatever else is shown.
        match &ex.vouched {
            Some(name) => self.set.named(name).map_or(Shown::Unknown, Shown::Known),
            None => shown,
        }
    }
}

/// The caller is known from here on, to the log too when it may not go on.
fn admit(token: &Token, ex: &mut Exchange) -> Result<(), HandlerError> {
    ex.user = Some(token.user());
    token.check(ex)
}

/// A browser asks before it sends, and cannot show a token with that (Fetch standard, "CORS-preflight fetch").
fn is_preflight(ex: &Exchange) -> bool {
    ex.method == Method::OPTIONS
        && ex.headers.contains_key(header::ORIGIN)
        && ex.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// No permission is given here, that is for `cors`; but an upstream is not asked by strangers.
fn answer_preflight() -> Flow {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    Flow::Respond(response)
}

fn missing() -> HandlerError {
    unauthorized("missing token", MISSING, "Bearer")
}

fn incorrect() -> HandlerError {
    unauthorized("incorrect token", INCORRECT, "Bearer error=\"invalid_token\"")
}

fn unauthorized(why: &'static str, message: &'static str, challenge: &'static str) -> HandlerError {
    let refusal = Refusal { message: message.into(), code: Some("invalid_api_key"), ..Refusal::default() };
    let error = HandlerError::refusal(401, HANDLER.id, refusal);
    let error = error.header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    HandlerError { message: why.into(), ..error }
}

fn busy() -> HandlerError {
    let refusal = Refusal { message: BUSY.into(), ..Refusal::default() };
    HandlerError::refusal(503, HANDLER.id, refusal).header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}
