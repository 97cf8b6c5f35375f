//! What a compiled handler is: a step, or an asynchronous one (gate or terminal).

use std::pin::Pin;

use super::error::HandlerError;
use super::exchange::{Exchange, Response};

/// What a handler decided.
pub enum Flow {
    /// Go on with the next handler.
    Next,
    /// Answer with this; nothing after it runs.
    Respond(Response),
    /// Go to the error routes.
    Fail(HandlerError),
    /// Close the connection without a byte (`abort`).
    Abort,
}

impl From<HandlerError> for Flow {
    fn from(e: HandlerError) -> Self {
        Self::Fail(e)
    }
}

impl From<Response> for Flow {
    fn from(r: Response) -> Self {
        Self::Respond(r)
    }
}

pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A synchronous handler: edits the exchange or answers. Costs a virtual call, no allocation.
pub trait Step: Send + Sync {
    fn run(&self, ex: &mut Exchange) -> Flow;
}

/// An asynchronous handler: a gate (rare waits, then `Next`) or a terminal (usually answers). One boxed future each.
///
/// Dropping the future cancels what it started (the client went away).
pub trait AsyncHandler: Send + Sync {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow>;
}
