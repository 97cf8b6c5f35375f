//! What `handle_response` and `replace_status` do with a response, at run time.

use std::sync::Arc;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName};

use super::error::HandlerError;
use super::exchange::{Exchange, Response};
use super::handler::Flow;
use super::response_matcher::CompiledResponseMatcher;
use super::route::RouteList;
use super::status::StatusSource;
use super::walker;
use crate::base::body::Body;

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
        set_status(response, status);
        return Ok(Reaction::None);
    }
    if matches!(handler.status, StatusSource::Unset) {
        return Ok(Reaction::Routes(&handler.routes));
    }
    Ok(Reaction::None)
}

/// Gives a response another status; one that allows no body leaves it behind, with what it said of it.
pub fn set_status(response: &mut Response, status: StatusCode) {
    *response.status_mut() = status;
    if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        *response.body_mut() = Body::Empty;
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
}

/// What the upstream of a held response said, before `header_down` and what we add.
#[derive(Clone, Debug)]
struct AsReceived(Arc<HeaderMap>);

/// A held response whose headers the exchange has as early headers already.
#[derive(Clone, Copy, Debug)]
struct HeadersTaken;

/// As [`run`] for a response that was on its way to the client: its headers stay for what is answered instead, but for
/// those that speak of its body. The response comes back when no route answered.
pub async fn run_over(routes: &RouteList, ex: &mut Exchange, mut response: Response) -> (Flow, Option<Response>) {
    for (name, value) in response.headers() {
        if !speaks_of_body(name) {
            ex.early_headers.append(name, value.clone());
        }
    }
    response.extensions_mut().insert(HeadersTaken);
    let outer = ex.held_response.replace(response);
    let flow = walker::run_nested(routes, ex).await;
    let unused = take_held(ex);
    ex.held_response = outer;
    (flow, unused)
}

/// The held response, to be sent after all.
pub fn take_held(ex: &mut Exchange) -> Option<Response> {
    let mut response = ex.held_response.take()?;
    response.extensions_mut().remove::<AsReceived>();
    if response.extensions_mut().remove::<HeadersTaken>().is_some() {
        let body = std::mem::take(response.headers_mut());
        response.headers_mut().extend(body.into_iter().filter(|(n, _)| n.as_ref().is_some_and(speaks_of_body)));
    }
    Some(response)
}

fn speaks_of_body(name: &HeaderName) -> bool {
    *name == header::CONTENT_LENGTH || *name == header::CONTENT_ENCODING || *name == header::TRAILER
}

/// The headers that `copy_response_headers` takes from; `None` when no response is held.
#[must_use]
pub fn received_headers(ex: &Exchange) -> Option<&HeaderMap> {
    let held = ex.held_response.as_ref()?;
    Some(held.extensions().get().map_or(held.headers(), |AsReceived(headers)| headers))
}

/// Runs the routes with the response at hand for `copy_response`, and its headers as they were `received`. A response that
/// nothing took is dropped, which ends its upstream; `Next` means that nothing was answered.
pub async fn run(routes: &RouteList, ex: &mut Exchange, mut response: Response, received: Arc<HeaderMap>) -> Flow {
    response.extensions_mut().insert(AsReceived(received));
    let outer = ex.held_response.replace(response);
    let flow = walker::run_nested(routes, ex).await;
    ex.held_response = outer;
    flow
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_without_a_body_leaves_it_behind() {
        let mut response = Response::new("body".into());
        response.headers_mut().insert(header::CONTENT_LENGTH, 4.into());
        set_status(&mut response, StatusCode::ACCEPTED);
        assert!(!response.body().is_empty() && response.headers().contains_key(header::CONTENT_LENGTH));
        set_status(&mut response, StatusCode::NO_CONTENT);
        assert!(response.body().is_empty() && response.headers().is_empty());
    }
}
