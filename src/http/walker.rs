//! Walks an exchange through the route tree: one asynchronous function with an explicit stack.
//!
//! Matchers are evaluated when reached, after earlier handlers changed the request. A route list that ends without an
//! answer falls through to what follows it; the end of everything is an empty 200, or a 404 in the caller's dialect for a
//! model that no `model` matcher wanted. Errors go to the error routes of
//! the innermost subroute entered so far, then outwards, then to the server's own (Caddy's rules, behaviours 45 to 48).

use http::{HeaderValue, StatusCode, header};
use smallvec::SmallVec;

use super::error::HandlerError;
use super::error_answer::error_response;
use super::exchange::{Exchange, Response};
use super::handler::{Flow, LocalFuture};
use super::hold::hold_body;
use super::matcher::Verdict;
use super::model_not_found;
use super::route::{Handler, RouteList};
use super::stage::Stage;
use crate::base::body::Body;

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
    let mut last_resort_ran = false;
    loop {
        match flow {
            Flow::Next => {
                // The end of an error route without an answer is the error's own status (Caddy's errorEmptyHandler).
                let response = match ex.error.take() {
                    Some(error) => error_response(ex, &error),
                    None if let Some(error) = model_not_found::unmatched(ex) => {
                        flow = Flow::Fail(error);
                        continue;
                    }
                    None => {
                        let mut response = Response::new(Body::Empty);
                        response.extensions_mut().insert(Unhandled);
                        response
                    }
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
                    // When the server's own error routes fail, the client gets the error that they ran for.
                    let error = ex.error.take().filter(|_| last_resort_ran).unwrap_or(error);
                    let mut response = error_response(ex, &error);
                    response.extensions_mut().insert(DefaultErrorAnswer);
                    ex.error = Some(error);
                    merge_early(ex, &mut response);
                    return Outcome::Response(response);
                };
                last_resort_ran = scopes.is_empty() && errors.is_some();
                flow = recover(scope, error, ex, &mut scopes).await;
            }
        }
    }
}

/// Runs a nested list (such as `handle_response` routes): errors that its own subroutes do not handle come back as
/// `Flow::Fail`, and the stages it registers run with those of the whole exchange.
pub fn run_nested<'a>(routes: &'a RouteList, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
    Box::pin(async move {
        let mut scopes = SmallVec::new();
        let mut flow = walk(routes, ex, &mut scopes).await;
        while let Flow::Fail(error) = flow {
            let Some(scope) = scopes.pop() else { return Flow::Fail(error) };
            flow = recover(scope, error, ex, &mut scopes).await;
        }
        flow
    })
}

/// Runs the error routes of a scope. What was deferred inside the failed part is dropped; the request is the client's
/// again.
async fn recover<'r>(
    scope: ErrorScope<'r>,
    error: HandlerError,
    ex: &mut Exchange,
    scopes: &mut SmallVec<[ErrorScope<'r>; 4]>,
) -> Flow {
    ex.stages.truncate(scope.stages);
    ex.method = ex.original.method.clone();
    ex.uri = ex.original.uri.clone();
    let status = error.status;
    ex.error = Some(error);
    let mut flow = walk(scope.routes, ex, scopes).await;
    if let Flow::Respond(response) = &mut flow {
        inherit_status(response, status);
    }
    flow
}

/// Marks a response whose handler chose no status, so that error routes give it the error's (behaviour 46).
#[derive(Clone, Copy, Debug)]
pub struct NoStatus;

/// Marks the empty response to a request that no handler answered, for the access log.
#[derive(Clone, Copy, Debug)]
pub struct Unhandled;

/// Marks the response to an error that no error route answered, for the error log.
#[derive(Clone, Copy, Debug)]
pub struct DefaultErrorAnswer;

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
    // Early already where it belonged to a response that an `intercept` answered instead of.
    let named = response.headers().contains_key(header::SERVER) || ex.early_headers.contains_key(header::SERVER);
    if ex.server_header && !named {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::exchange::testing::exchange;
    use crate::http::handler::Step;
    use crate::http::matcher::{Matcher, MatcherSets};
    use crate::http::route::{HostIndex, Route, Subroute};
    use crate::http::stage::SyncStage;

    /// Adds its letter to the variable `trace`, then does what it is told.
    struct Mark(char, fn(&mut Exchange) -> Flow);

    impl Step for Mark {
        fn run(&self, ex: &mut Exchange) -> Flow {
            let trace = format!("{}{}", ex.var("trace").unwrap_or(""), self.0);
            ex.set_var(&"trace".into(), trace);
            (self.1)(ex)
        }
    }

    struct Says(bool);

    impl Matcher for Says {
        fn matches(&self, _: &mut Exchange) -> Verdict {
            self.0.into()
        }
    }

    fn next(_: &mut Exchange) -> Flow {
        Flow::Next
    }

    fn answer(_: &mut Exchange) -> Flow {
        Flow::Respond(Response::new(Body::from("answer")))
    }

    fn fail(_: &mut Exchange) -> Flow {
        Flow::Fail(HandlerError::new(418, "test", "boom"))
    }

    fn mark(letter: char, act: fn(&mut Exchange) -> Flow) -> Handler {
        Handler::Step(Box::new(Mark(letter, act)))
    }

    fn route(handlers: Vec<Handler>) -> Route {
        Route { matchers: MatcherSets::default(), handlers: handlers.into(), group: None, terminal: false }
    }

    fn list(routes: Vec<Route>) -> RouteList {
        RouteList { routes: routes.into(), index: None }
    }

    fn sub(routes: Vec<Route>, errors: Option<Vec<Route>>) -> Handler {
        Handler::Subroute(Subroute { routes: list(routes), errors: errors.map(list) })
    }

    /// The letters in the order they ran, and the status.
    async fn walked(routes: &RouteList, errors: Option<&RouteList>) -> (String, u16) {
        let mut ex = exchange("GET", "/", &[("host", "b.test")]);
        let Outcome::Response(response) = run(routes, errors, &mut ex).await else { panic!("aborted") };
        (ex.var("trace").unwrap_or("").to_owned(), response.status().as_u16())
    }

    #[tokio::test]
    async fn a_list_falls_through_to_what_follows_it_and_ends_in_an_empty_200() {
        let inner = sub(vec![route(vec![mark('b', next)]), route(vec![mark('c', next)])], None);
        let routes = list(vec![route(vec![mark('a', next), inner, mark('d', next)]), route(vec![mark('e', next)])]);
        assert_eq!(walked(&routes, None).await, ("abcde".into(), 200));
    }

    #[tokio::test]
    async fn nothing_runs_after_an_answer_or_a_terminal_route() {
        let routes = list(vec![route(vec![mark('a', answer), mark('b', next)]), route(vec![mark('c', next)])]);
        assert_eq!(walked(&routes, None).await, ("a".into(), 200));
        let terminal = Route { terminal: true, ..route(vec![mark('a', next)]) };
        let routes = list(vec![route(vec![sub(vec![terminal], None), mark('b', next)]), route(vec![mark('c', next)])]);
        assert_eq!(walked(&routes, None).await, ("a".into(), 200));
    }

    #[tokio::test]
    async fn of_a_group_only_the_first_match_runs() {
        let grouped = |says: bool, letter| Route {
            group: Some(1),
            matchers: MatcherSets(Box::new([Box::new([Box::new(Says(says)) as Box<dyn Matcher>])])),
            ..route(vec![mark(letter, next)])
        };
        let routes =
            list(vec![grouped(false, 'a'), grouped(true, 'b'), grouped(true, 'c'), route(vec![mark('d', next)])]);
        assert_eq!(walked(&routes, None).await, ("bd".into(), 200));
    }

    #[tokio::test]
    async fn an_error_goes_to_the_innermost_scope_entered_then_outwards() {
        let errors = list(vec![route(vec![mark('E', answer)])]);
        // The scope of a subroute also covers what comes after it in the same chain, as in Caddy.
        let inner = || sub(vec![route(vec![mark('a', next)])], Some(vec![route(vec![mark('I', answer)])]));
        let routes = list(vec![route(vec![inner(), mark('b', fail)])]);
        assert_eq!(walked(&routes, Some(&errors)).await, ("abI".into(), 200));
        let failing = sub(vec![route(vec![mark('a', fail)])], Some(vec![route(vec![mark('I', fail)])]));
        let routes = list(vec![route(vec![failing])]);
        assert_eq!(walked(&routes, Some(&errors)).await, ("aIE".into(), 200));
        assert_eq!(walked(&routes, None).await, ("aI".into(), 418));
    }

    #[tokio::test]
    async fn error_routes_that_write_nothing_leave_the_status_of_the_error() {
        let errors = list(vec![route(vec![mark('E', next)])]);
        let routes = list(vec![route(vec![mark('a', fail)])]);
        assert_eq!(walked(&routes, Some(&errors)).await, ("aE".into(), 418));
    }

    #[tokio::test]
    async fn when_the_servers_error_routes_fail_the_first_error_is_answered() {
        fn fail_again(_: &mut Exchange) -> Flow {
            Flow::Fail(HandlerError::new(502, "test", "again"))
        }
        let errors = list(vec![route(vec![mark('E', fail_again)])]);
        assert_eq!(walked(&list(vec![route(vec![mark('a', fail)])]), Some(&errors)).await, ("aE".into(), 418));
        // Those of a subroute pass their own error on.
        let inner = sub(vec![route(vec![mark('a', fail)])], Some(vec![route(vec![mark('I', fail_again)])]));
        assert_eq!(walked(&list(vec![route(vec![inner])]), None).await, ("aI".into(), 502));
    }

    struct Header(&'static str);

    impl SyncStage for Header {
        fn apply(self: Box<Self>, _: &mut Exchange, response: &mut Response) {
            response.headers_mut().append("x-stage", HeaderValue::from_static(self.0));
        }
    }

    #[tokio::test]
    async fn stages_run_last_first_and_those_of_a_failed_part_are_dropped() {
        fn one(ex: &mut Exchange) -> Flow {
            ex.stages.push(Stage::Sync(Box::new(Header("one"))));
            Flow::Next
        }
        fn two(ex: &mut Exchange) -> Flow {
            ex.stages.push(Stage::Sync(Box::new(Header("two"))));
            Flow::Next
        }
        let stages = |routes: RouteList| async move {
            let mut ex = exchange("GET", "/", &[("host", "b.test")]);
            let Outcome::Response(response) = run(&routes, None, &mut ex).await else { panic!("aborted") };
            let all: Vec<String> =
                response.headers().get_all("x-stage").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
            all.join(",")
        };
        assert_eq!(stages(list(vec![route(vec![mark('a', one), mark('b', two), mark('c', answer)])])).await, "two,one");
        let failing =
            sub(vec![route(vec![mark('b', two), mark('c', fail)])], Some(vec![route(vec![mark('d', answer)])]));
        assert_eq!(stages(list(vec![route(vec![mark('a', one), failing])])).await, "one");
    }

    #[tokio::test]
    async fn named_routes_that_invoke_themselves_end_in_an_error() {
        let cell = std::sync::Arc::new(std::sync::OnceLock::new());
        let _ = cell.set(list(vec![route(vec![Handler::Invoke(std::sync::Arc::clone(&cell))])]));
        let routes = list(vec![route(vec![Handler::Invoke(cell)])]);
        assert_eq!(walked(&routes, None).await, (String::new(), 500));
    }

    struct WantsNoModel;

    impl Matcher for WantsNoModel {
        fn matches(&self, ex: &mut Exchange) -> Verdict {
            ex.model_match.note(&"m".into(), false);
            Verdict::No
        }
    }

    #[tokio::test]
    async fn a_model_that_no_matcher_wanted_is_not_found() {
        let unwanted = || Route {
            matchers: MatcherSets(Box::new([Box::new([Box::new(WantsNoModel) as Box<dyn Matcher>])])),
            ..route(vec![mark('a', next)])
        };
        assert_eq!(walked(&list(vec![unwanted()]), None).await, (String::new(), 404));
        assert_eq!(walked(&list(vec![unwanted(), route(vec![mark('b', answer)])]), None).await, ("b".into(), 200));
        // As any error it goes to the error routes, and once.
        let errors = list(vec![route(vec![mark('E', next)])]);
        assert_eq!(walked(&list(vec![unwanted()]), Some(&errors)).await, ("E".into(), 404));
    }

    #[tokio::test]
    async fn an_index_skips_the_sites_of_other_hosts() {
        let site = |letter| Route { terminal: true, ..route(vec![mark(letter, next)]) };
        let mut routes = list(vec![site('a'), site('b'), site('z')]);
        routes.index = Some(HostIndex {
            exact: [("b.test".into(), Box::from([1_u32, 2]))].into_iter().collect(),
            general: Box::new([2]),
        });
        assert_eq!(walked(&routes, None).await, ("b".into(), 200));
    }
}
