//! Walks an exchange through the route tree: one asynchronous function with an explicit stack.
//!
//! Matchers are evaluated when reached, after earlier handlers changed the request. A route list that ends without an
//! answer falls through to what follows it; the end of everything is an empty 200. Errors go to the error routes of
//! the innermost subroute entered so far, then outwards, then to the server's own (Caddy's rules, behaviours 45 to 48).

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use smallvec::SmallVec;

use super::error::HandlerError;
use super::exchange::{Exchange, Response};
use super::handler::{Flow, LocalFuture};
use super::matcher::Verdict;
use super::route::{Handler, RouteList};
use super::stage::Stage;
use crate::base::body::Body;
use crate::base::error::ProxyError;

/// How an exchange ended.
pub enum Outcome {
    Response(Response),
    /// Close the connection without a byte.
    Abort,
}

/// Frames deeper than this are refused: named routes may invoke one another without end.
const MAX_DEPTH: usize = 100;

struct Frame<'r> {
    list: &'r RouteList,
    /// Routes worth looking at, by index; `None` = all.
    candidates: Option<&'r [u32]>,
    /// Next route to look at: a position in `candidates`, or an index.
    route: usize,
    /// The matched route and its next handler.
    current: Option<(usize, usize)>,
    /// Groups that already matched in this list.
    groups: SmallVec<[u32; 4]>,
}

impl<'r> Frame<'r> {
    fn new(list: &'r RouteList, ex: &Exchange) -> Self {
        let candidates = list.index.as_ref().map(|index| index.candidates(ex.host()));
        Self { list, candidates, route: 0, current: None, groups: SmallVec::new() }
    }

    /// The index of the next route to look at.
    fn next_index(&self) -> Option<usize> {
        match self.candidates {
            Some(candidates) => candidates.get(self.route).map(|i| *i as usize),
            None => (self.route < self.list.routes.len()).then_some(self.route),
        }
    }
}

/// A place to go when something fails, with the number of stages registered before it.
struct ErrorScope<'r> {
    routes: &'r RouteList,
    stages: usize,
}

/// Runs `routes`, on failure the error routes, and applies the response stages. Always ends in an outcome.
///
/// Cancellation: dropping the future drops the handler that is running, which cancels its upstream request.
pub async fn run(routes: &RouteList, errors: Option<&RouteList>, ex: &mut Exchange) -> Outcome {
    let mut scopes: SmallVec<[ErrorScope<'_>; 4]> = SmallVec::new();
    if let Some(errors) = errors {
        scopes.push(ErrorScope { routes: errors, stages: 0 });
    }
    let mut flow = walk(routes, ex, &mut scopes).await;
    loop {
        match flow {
            Flow::Next => {
                // The end of an error route without an answer is the error's own status (Caddy's errorEmptyHandler).
                let response = match ex.error.take() {
                    Some(error) => error_response(&error),
                    None => Response::new(Body::Empty),
                };
                match finish(ex, response, 0).await {
                    Ok(response) => return Outcome::Response(response),
                    Err(error) => flow = Flow::Fail(error),
                }
            }
            Flow::Respond(response) => match finish(ex, response, 0).await {
                Ok(response) => return Outcome::Response(response),
                Err(error) => flow = Flow::Fail(error),
            },
            Flow::Abort => return Outcome::Abort,
            Flow::Fail(error) => {
                let Some(scope) = scopes.pop() else {
                    ex.stages.clear();
                    let mut response = error_response(&error);
                    ex.error = Some(error);
                    merge_early(ex, &mut response);
                    return Outcome::Response(response);
                };
                // What was deferred inside the failed part is dropped; the request is the client's again.
                ex.stages.truncate(scope.stages);
                ex.method = ex.original.method.clone();
                ex.uri = ex.original.uri.clone();
                ex.error = Some(error);
                let status_before = ex.error.as_ref().map_or(500, |e| e.status);
                flow = walk(scope.routes, ex, &mut scopes).await;
                if let Flow::Respond(response) = &mut flow {
                    inherit_status(response, status_before);
                }
            }
        }
    }
}

/// Runs a nested list (such as `handle_response` routes) without error scopes of its own and without stages.
pub fn run_nested<'a>(routes: &'a RouteList, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
    Box::pin(async move { walk(routes, ex, &mut SmallVec::new()).await })
}

/// Marks a response whose handler chose no status, so that error routes give it the error's (behaviour 46).
#[derive(Clone, Copy, Debug)]
pub struct NoStatus;

fn inherit_status(response: &mut Response, status: u16) {
    if response.extensions().get::<NoStatus>().is_some()
        && let Ok(status) = StatusCode::from_u16(status)
    {
        *response.status_mut() = status;
    }
}

async fn walk<'r>(routes: &'r RouteList, ex: &mut Exchange, scopes: &mut SmallVec<[ErrorScope<'r>; 4]>) -> Flow {
    let mut stack: SmallVec<[Frame<'r>; 4]> = SmallVec::new();
    stack.push(Frame::new(routes, ex));
    while let Some(frame) = stack.last_mut() {
        let Some((route_index, handler_index)) = frame.current else {
            match next_route(frame, ex).await {
                Ok(true) => {}
                Ok(false) => {
                    stack.pop();
                }
                Err(error) => return Flow::Fail(error),
            }
            continue;
        };
        let route = &frame.list.routes[route_index];
        let Some(handler) = route.handlers.get(handler_index) else {
            if route.terminal {
                return Flow::Next;
            }
            frame.current = None;
            continue;
        };
        frame.current = Some((route_index, handler_index + 1));
        let flow = match handler {
            Handler::Step(step) => step.run(ex),
            Handler::Async(handler) => handler.call(ex).await,
            Handler::Subroute(sub) => {
                if let Some(errors) = &sub.errors {
                    scopes.push(ErrorScope { routes: errors, stages: ex.stages.len() });
                }
                if let Err(error) = enter(&mut stack, &sub.routes, ex) {
                    return Flow::Fail(error);
                }
                continue;
            }
            Handler::Invoke(cell) => {
                let Some(list) = cell.get() else {
                    return Flow::Fail(HandlerError::internal("invoke", "named route is not compiled"));
                };
                if let Err(error) = enter(&mut stack, list, ex) {
                    return Flow::Fail(error);
                }
                continue;
            }
        };
        match flow {
            Flow::Next => {}
            other => return other,
        }
    }
    Flow::Next
}

fn enter<'r>(stack: &mut SmallVec<[Frame<'r>; 4]>, list: &'r RouteList, ex: &Exchange) -> Result<(), HandlerError> {
    if stack.len() >= MAX_DEPTH {
        return Err(HandlerError::internal("subroute", "routes are nested too deeply"));
    }
    stack.push(Frame::new(list, ex));
    Ok(())
}

/// Finds the next matching route of the frame; false at the end of the list.
async fn next_route(frame: &mut Frame<'_>, ex: &mut Exchange) -> Result<bool, HandlerError> {
    while let Some(index) = frame.next_index() {
        let Some(route) = frame.list.routes.get(index) else { break };
        if route.group.is_some_and(|g| frame.groups.contains(&g)) {
            frame.route += 1;
            continue;
        }
        match route.matchers.matches(ex) {
            Verdict::Yes => {
                frame.route += 1;
                if let Some(group) = route.group {
                    frame.groups.push(group);
                }
                frame.current = Some((index, 0));
                return Ok(true);
            }
            Verdict::No => frame.route += 1,
            Verdict::Error(error) => return Err(error),
            Verdict::NeedBody(limit) => hold_body(ex, limit).await?,
        }
    }
    Ok(false)
}

/// Reads the request body into memory, at most `limit` bytes, so that a matcher can look at it and a retry resend it.
pub async fn hold_body(ex: &mut Exchange, limit: usize) -> Result<(), HandlerError> {
    let body = ex.body.take();
    ex.body = match body {
        Body::Stream(stream) => {
            let collected = http_body_util::Limited::new(stream, limit).collect().await.map_err(|e| {
                if e.is::<http_body_util::LengthLimitError>() {
                    HandlerError::new(413, "body", "request body is larger than may be held")
                } else if let Ok(cause) = e.downcast::<ProxyError>() {
                    HandlerError::from_proxy("body", *cause)
                } else {
                    HandlerError::new(400, "body", "request body could not be read")
                }
            })?;
            Body::Full(collected.to_bytes())
        }
        // Full even when empty: a matcher that asked knows by it that the body has been read.
        Body::Empty => Body::Full(Bytes::new()),
        full @ Body::Full(_) => full,
    };
    Ok(())
}

/// Merges early headers, then runs the stages registered after `floor`, last first.
async fn finish(ex: &mut Exchange, mut response: Response, floor: usize) -> Result<Response, HandlerError> {
    merge_early(ex, &mut response);
    while ex.stages.len() > floor {
        match ex.stages.pop() {
            Some(Stage::Sync(stage)) => stage.apply(ex, &mut response),
            Some(Stage::Async(stage)) => {
                response = stage.apply(ex, response).await?;
                // Routes that the stage ran may have set some.
                merge_early(ex, &mut response);
            }
            None => break,
        }
    }
    Ok(response)
}

fn merge_early(ex: &mut Exchange, response: &mut Response) {
    if ex.server_header && !response.headers().contains_key(header::SERVER) {
        response.headers_mut().insert(header::SERVER, HeaderValue::from_static("llmproxy"));
    }
    if ex.early_headers.is_empty() {
        return;
    }
    // Early values come first, the handler's own after them.
    let mut merged = std::mem::take(&mut ex.early_headers);
    let own = std::mem::take(response.headers_mut());
    let mut last = None;
    for (name, value) in own {
        last = name.or(last);
        if let Some(name) = &last {
            merged.append(name.clone(), value);
        }
    }
    *response.headers_mut() = merged;
}

/// The answer to an error that no error route answered: its status, its own headers and body (empty as in Caddy
/// unless the route has a dialect).
#[must_use]
pub fn error_response(error: &HandlerError) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &error.headers {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    if let Some(answer) = &error.answer {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
        *response.body_mut() = Body::Full(answer.body.clone());
    }
    response
}
