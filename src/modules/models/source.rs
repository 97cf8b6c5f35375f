//! Asks one source for its models.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, StatusCode, header};

use crate::base::body::Body;
use crate::http::body_filter::hold;
use crate::http::error::HandlerError;
use crate::http::exchange::{Conn, Exchange, Peer, ServerFacts};
use crate::http::route::RouteList;
use crate::http::walker::{self, Outcome};
use crate::llm::model_list::{self, Entry, Page};

/// Time for all pages of a source.
const PATIENCE: Duration = Duration::from_secs(5);

/// Largest page held, in bytes.
pub const MAX_PAGE: usize = 8 << 20;

/// Pages of a list that says that it goes on.
const MAX_PAGES: usize = 20;

/// Runs the routes of a source with `GET /v1/models`, with nothing of the client in it: what comes back is for all.
pub async fn ask(routes: &RouteList, server: &Rc<ServerFacts>) -> Result<Vec<Entry>, HandlerError> {
    match tokio::time::timeout(PATIENCE, pages(routes, server)).await {
        Ok(answer) => answer,
        Err(_) => Err(HandlerError::new(504, super::HANDLER.id, "a source of models did not answer in time")),
    }
}

async fn pages(routes: &RouteList, server: &Rc<ServerFacts>) -> Result<Vec<Entry>, HandlerError> {
    let mut target = "/v1/models".to_owned();
    let mut all = Vec::new();
    for _ in 0..MAX_PAGES {
        let page = page(routes, server, &target).await?;
        all.extend(page.entries);
        let Some(last) = page.next else { break };
        let after = percent_encoding::utf8_percent_encode(&last, percent_encoding::NON_ALPHANUMERIC);
        target = format!("/v1/models?limit=1000&after_id={after}");
    }
    Ok(all)
}

async fn page(routes: &RouteList, server: &Rc<ServerFacts>, target: &str) -> Result<Page, HandlerError> {
    let failed = |why: String| HandlerError::new(502, super::HANDLER.id, why);
    let mut ex = exchange(target, server).map_err(|e| failed(e.to_string()))?;
    let Outcome::Response(response) = walker::run(routes, None, &mut ex).await else {
        return Err(failed("a source of models closed the connection".to_owned()));
    };
    if let Some(error) = ex.error.take() {
        return Err(error);
    }
    if response.status() != StatusCode::OK {
        return Err(failed(format!("a source of models answered {}", response.status().as_u16())));
    }
    let body = hold(response.into_body(), MAX_PAGE).await?;
    model_list::read(&body).ok_or_else(|| failed("a source of models answered something else than a list".to_owned()))
}

/// A request of our own. Without `Host`: each upstream gets its own name.
fn exchange(target: &str, server: &Rc<ServerFacts>) -> Result<Exchange, http::Error> {
    let request = Request::builder()
        .uri(target)
        .header(header::ACCEPT, HeaderValue::from_static("application/json"))
        .header(header::USER_AGENT, HeaderValue::from_static(concat!("llmproxy/", env!("CARGO_PKG_VERSION"))));
    let (head, ()) = request.body(())?.into_parts();
    let conn = Conn { peer: Peer::Unix, local: None, peer_ip_value: HeaderValue::from_static(""), tls: None };
    Ok(Exchange::new(head, Body::Empty, Rc::new(conn), Rc::clone(server), Instant::now()))
}
