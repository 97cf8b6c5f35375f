//! What `handle_response` and `replace_status` do with a response, at run time.

use super::error::HandlerError;
use super::exchange::{Exchange, Response};
use super::handler::Flow;
use super::response_matcher::CompiledResponseMatcher;
use super::route::RouteList;
use super::status::StatusSource;
use super::walker;

pub struct ResponseHandler {
    /// `None` = every response.
    pub matcher: Option<CompiledResponseMatcher>,
    /// When set, the response goes on with this status and no routes run.
    pub status: StatusSource,
    pub routes: RouteList,
}

/// What the first handler that matches wants.
pub enum Reaction<'h> {
    /// The response goes on, perhaps with another status.
    None,
    /// These routes answer instead.
    Routes(&'h RouteList),
}

/// Finds the handler for a response and replaces its status if that is all it asks for.
pub fn react<'h>(
    handlers: &'h [ResponseHandler],
    ex: &Exchange,
    response: &mut Response,
) -> Result<Reaction<'h>, HandlerError> {
    let matching = handlers
        .iter()
        .find(|h| h.matcher.as_ref().is_none_or(|m| m.matches(response.status().as_u16(), response.headers())));
    let Some(handler) = matching else { return Ok(Reaction::None) };
    if let Some(status) = handler.status.get(ex, "handle_response")? {
        *response.status_mut() = status;
        return Ok(Reaction::None);
    }
    if matches!(handler.status, StatusSource::Unset) {
        return Ok(Reaction::Routes(&handler.routes));
    }
    Ok(Reaction::None)
}

/// Runs the routes with the response at hand for `copy_response`. A response that nothing took is dropped, which ends
/// its upstream; `Next` means that nothing was answered.
pub async fn run(routes: &RouteList, ex: &mut Exchange, response: Response) -> Flow {
    let outer = ex.held_response.replace(response);
    let flow = walker::run_nested(routes, ex).await;
    ex.held_response = outer;
    flow
}
