//! What happens to a response after a handler made it: stages run in reverse order of registration.

use super::error::HandlerError;
use super::exchange::{Exchange, Response};
use super::handler::LocalFuture;

pub trait SyncStage {
    /// Edits the response head, or wraps its body.
    fn apply(self: Box<Self>, ex: &mut Exchange, response: &mut Response);
}

/// A stage that may wait: holds the body, runs routes, answers anew.
pub trait AsyncStage {
    fn apply(self: Box<Self>, ex: &mut Exchange, response: Response)
    -> LocalFuture<'_, Result<Response, HandlerError>>;
}

pub enum Stage {
    Sync(Box<dyn SyncStage>),
    Async(Box<dyn AsyncStage>),
}
