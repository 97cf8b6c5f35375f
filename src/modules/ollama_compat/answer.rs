//! The way back: an answer of the OpenAI API becomes one of Ollama's.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::HANDLER;
use super::translate::{Server, not_found};
use crate::base::body::Body;
use crate::base::error::ProxyError;
use crate::http::body_filter::{self, Out, Transform, forget_body, hold};
use crate::http::error::{HandlerError, Refusal};
use crate::http::exchange::{Exchange, Response};
use crate::http::handler::LocalFuture;
use crate::http::stage::AsyncStage;
use crate::llm::model_glob::ModelGlobs;
use crate::llm::model_table::ModelTable;
use crate::llm::ollama::discovery::{Asked, Listed};
use crate::llm::ollama::stream::{End, Stream};
use crate::llm::ollama::{self, Moment, Plan, discovery, errors, response};
use crate::llm::sse::{self, Decoder, Event};

/// Bytes of an upstream's answer that is no stream: embeddings of a large batch, images.
const MAX_ANSWER: usize = 64 << 20;
/// Bytes of an error body that are read.
const MAX_ERROR: usize = 256 << 10;

const JSON: HeaderValue = HeaderValue::from_static(ollama::JSON);
const LINES: HeaderValue = HeaderValue::from_static(ollama::NDJSON);

/// What a list of models is turned into.
pub enum Wanted {
    Tags,
    Running,
    Show(Asked),
    Pull(Asked),
}

/// Turns the answer to `GET /v1/models`.
pub struct Listing {
    pub wanted: Wanted,
    pub server: Arc<Server>,
}

impl AsyncStage for Listing {
    fn apply(
        self: Box<Self>,
        ex: &mut Exchange,
        response: Response,
    ) -> LocalFuture<'_, Result<Response, HandlerError>> {
        Box::pin(async move {
            if !response.status().is_success() {
                return Ok(failed(response, None).await);
            }
            let (mut head, body) = whole(response).await?;
            let listed = discovery::models(&body).ok_or_else(unreadable)?;
            self.server.tagged.learn(listed.iter().map(|m| m.id.as_str()));
            let offer = Offer::new(ex, &self.server, listed);
            let (kind, body) = match &self.wanted {
                Wanted::Tags => (JSON, discovery::tags(&offer.visible(), &offer.table)),
                Wanted::Running => (JSON, discovery::ps(&offer.visible(), &offer.table, SystemTime::now())),
                Wanted::Show(asked) => (JSON, discovery::show(&offer.find(ex, asked)?, &offer.table, asked.verbose)),
                Wanted::Pull(asked) => {
                    offer.find(ex, asked)?;
                    (LINES, b"{\"status\":\"success\"}\n".to_vec())
                }
            };
            head.headers.insert(header::CONTENT_TYPE, kind);
            Ok(Response::from_parts(head, Body::from(Bytes::from(body))))
        })
    }
}

/// The models of a list, as the caller may see them.
struct Offer<'a> {
    listed: Vec<Listed>,
    rights: Option<&'a ModelGlobs>,
    expose: Option<&'a ModelGlobs>,
    table: Cow<'a, ModelTable>,
}

impl<'a> Offer<'a> {
    fn new(ex: &'a Exchange, server: &'a Server, listed: Vec<Listed>) -> Self {
        let rights = ex.user.as_ref().and_then(|user| user.models.as_deref());
        let table = if ex.aliases.is_empty() {
            Cow::Borrowed(&server.table)
        } else {
            Cow::Owned(server.table.with_names(ex.aliases.iter().flat_map(|aliases| aliases.names())))
        };
        Self { listed, rights, expose: server.expose.as_ref(), table }
    }

    fn shows(&self, name: &str) -> bool {
        self.rights.is_none_or(|rights| rights.allows(name)) && self.expose.is_none_or(|expose| expose.allows(name))
    }

    fn visible(&self) -> Vec<Listed> {
        self.listed.iter().filter(|model| self.shows(&model.id)).cloned().collect()
    }

    /// The model that the client means, under the name by which it knows it: an alias need not stand in the list itself.
    fn find(&self, ex: &Exchange, asked: &Asked) -> Result<Listed, HandlerError> {
        let own = ex.aliased.as_deref().unwrap_or(&asked.model);
        let named = Asked { model: own.to_owned(), verbose: asked.verbose };
        let mut found = self.listed.iter().filter(|model| named.is(&model.id) || asked.is(&model.id));
        match found.next() {
            Some(model) if self.shows(own) => {
                let id = if named.is(&model.id) { &model.id } else { own };
                Ok(Listed { id: id.to_owned(), ..model.clone() })
            }
            _ => Err(not_found(own)),
        }
    }
}

/// Turns the answer to a translated request.
pub struct Translation {
    pub plan: Plan,
}

impl AsyncStage for Translation {
    fn apply(
        self: Box<Self>,
        ex: &mut Exchange,
        mut response: Response,
    ) -> LocalFuture<'_, Result<Response, HandlerError>> {
        Box::pin(async move {
            let plan = self.plan;
            if !response.status().is_success() {
                return Ok(failed(response, Some(&plan.model)).await);
            }
            let is_stream =
                response.headers().get(header::CONTENT_TYPE).is_some_and(|v| sse::is_event_stream(v.as_bytes()));
            if plan.stream && is_stream {
                if !body_filter::decode(&mut response) {
                    return Err(unreadable());
                }
                let lines =
                    Lines { decoder: Decoder::new(sse::MAX_EVENT), stream: Stream::new(plan), started: ex.started };
                body_filter::transform(&mut response, lines);
                response.headers_mut().insert(header::CONTENT_TYPE, LINES);
                return Ok(response);
            }
            let (mut head, body) = whole(response).await?;
            let mut answer = response::whole(&plan, head.status.as_u16(), &body, &moment(ex.started));
            head.status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
            let lines = plan.stream && head.status.is_success();
            if lines {
                answer.body.push(b'\n');
            }
            head.headers.insert(header::CONTENT_TYPE, if lines { LINES } else { JSON });
            Ok(Response::from_parts(head, Body::from(Bytes::from(answer.body))))
        })
    }
}

/// Events to lines.
struct Lines {
    decoder: Decoder,
    stream: Stream,
    started: Instant,
}

impl Lines {
    fn event(&mut self, event: &Event, lines: &mut Vec<u8>) {
        if let Some(data) = event.data() {
            self.stream.event(&data, &moment(self.started), lines);
        }
    }
}

impl Transform for Lines {
    fn data(&mut self, chunk: Bytes, out: &mut Out) -> Result<(), ProxyError> {
        let mut lines = Vec::new();
        self.decoder.feed(chunk);
        while let Some(event) = self.decoder.next() {
            match event {
                Ok(event) => self.event(&event, &mut lines),
                Err(_) => {
                    self.stream.fail("the upstream sent an event that is too long", &mut lines);
                    out.push(std::mem::take(&mut lines));
                    out.finish();
                    break;
                }
            }
        }
        out.push(lines);
        Ok(())
    }

    fn end(&mut self, how: Result<(), ProxyError>, out: &mut Out) -> Result<(), ProxyError> {
        let mut lines = Vec::new();
        if let Some(event) = self.decoder.finish() {
            self.event(&event, &mut lines);
        }
        // A stream that has begun ends well on the wire, and says in a line of its own that it is not whole.
        let end = if how.is_ok() { End::Clean } else { End::Broken };
        self.stream.end(end, &moment(self.started), &mut lines);
        out.push(lines);
        Ok(())
    }
}

pub fn moment(started: Instant) -> Moment {
    Moment { wall: SystemTime::now(), elapsed: started.elapsed() }
}

/// An answer without upstream.
pub fn text(text: &'static str) -> Response {
    with_type(HeaderValue::from_static("text/plain; charset=utf-8"), Body::from(text))
}

/// To `OPTIONS`: permits nothing.
pub fn options() -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
    response
}

pub fn json(body: impl Into<Bytes>) -> Response {
    with_type(JSON, Body::from(body.into()))
}

fn with_type(kind: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Head and body of an answer that is read as a whole; what was true only of the old body is gone from the head.
async fn whole(mut response: Response) -> Result<(http::response::Parts, Bytes), HandlerError> {
    if !body_filter::decode(&mut response) {
        return Err(unreadable());
    }
    let (mut head, body) = response.into_parts();
    let body = hold(body, MAX_ANSWER).await?;
    forget_body(&mut head.headers);
    Ok((head, body))
}

/// An upstream's error in Ollama's shape, with its status and headers (`Retry-After`).
async fn failed(mut response: Response, model: Option<&str>) -> Response {
    let readable = body_filter::decode(&mut response);
    let (mut head, body) = response.into_parts();
    let body = if readable { hold(body, MAX_ERROR).await.unwrap_or_default() } else { Bytes::new() };
    if !head.status.is_client_error() && !head.status.is_server_error() {
        // A redirect would lead an Ollama client to an address that speaks something else.
        head.status = StatusCode::BAD_GATEWAY;
        head.headers.remove(header::LOCATION);
    }
    forget_body(&mut head.headers);
    head.headers.remove(header::CONTENT_ENCODING);
    head.headers.insert(header::CONTENT_TYPE, JSON);
    let body = errors::translate(head.status.as_u16(), &body, model);
    Response::from_parts(head, Body::from(Bytes::from(body)))
}

fn unreadable() -> HandlerError {
    let message = "the upstream's answer could not be understood".into();
    HandlerError::refusal(502, HANDLER.id, Refusal { message, ..Refusal::default() })
}
