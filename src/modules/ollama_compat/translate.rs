//! The half that runs after access control: answers what needs no upstream, turns the rest into requests of the OpenAI
//! API, and goes on down the route.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Uri, header};

use super::answer::{self, Listing, Translation, Wanted};
use super::config::{CompatConfig, table};
use super::endpoint::Endpoint;
use super::tag::{self, Tagged};
use super::{DEFAULT_VERSION, HANDLER, check_version};
use crate::base::body::Body;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::types::Module;
use crate::http::body_filter;
use crate::http::error::{HandlerError, Refusal};
use crate::http::exchange::{Exchange, User};
use crate::http::handler::{AsyncHandler, Flow, LocalFuture};
use crate::http::hold::hold_body;
use crate::http::route::Handler;
use crate::http::stage::Stage;
use crate::llm::dialect::Dialect;
use crate::llm::model_glob::ModelGlobs;
use crate::llm::model_table::ModelTable;
use crate::llm::ollama::request::{self, BadRequest, Translated};
use crate::llm::ollama::{RUNNING, discovery, errors, response};

/// Bytes of a request with messages or inputs: images stand inside the JSON.
const MAX_BODY: usize = 64 << 20;
/// Bytes of a request that only names a model.
const MAX_NAMING: usize = 64 << 10;

pub fn compile(module: &Module, _: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: CompatConfig = read(module, "handler")?;
    let version = if config.version.is_empty() { DEFAULT_VERSION.to_owned() } else { config.version };
    check_version(&version).map_err(|why| CompileError::new("invalid-value", why).within("version"))?;
    let table = table(&config.models)?;
    let expose = (!config.expose.is_empty()).then(|| ModelGlobs::new(&config.expose));
    let server = Arc::new(Server {
        version: Bytes::from(discovery::version(&version)),
        table,
        expose,
        tagged: Tagged::default(),
    });
    Ok(Handler::Async(Box::new(Compat { mount: config.mount, server })))
}

/// What a directive shows to clients, shared with the answers under way.
pub struct Server {
    /// The body that tells the version.
    version: Bytes,
    pub table: ModelTable,
    /// Of the upstream's models, those that are shown; `None` = all.
    pub expose: Option<ModelGlobs>,
    pub tagged: Tagged,
}

struct Compat {
    mount: Option<u32>,
    server: Arc<Server>,
}

impl AsyncHandler for Compat {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
        if self.mount.is_some() && self.mount != ex.mounted {
            return Box::pin(std::future::ready(Flow::Next));
        }
        // Where no access control knows the name of a secret path, the path itself is who the caller is.
        if let (None, Some(name)) = (&ex.user, &ex.vouched) {
            ex.user = Some(User { id: name.to_string(), ..User::default() });
        }
        let endpoint = Endpoint::of(ex.uri.path());
        if ex.method == Method::OPTIONS && (endpoint.is_some() || ex.mounted.is_some()) {
            // What `cors` permits it has answered. Nothing goes up with a key that was not asked for.
            return Box::pin(std::future::ready(Flow::Respond(answer::options())));
        }
        match endpoint {
            None if tag::may_have_tag(ex) => Box::pin(async move {
                tag::take_off(ex, MAX_BODY, &self.server.tagged).await.map_or_else(Flow::Fail, |()| Flow::Next)
            }),
            None => Box::pin(std::future::ready(Flow::Next)),
            Some(endpoint) => Box::pin(async move {
                ex.llm = true;
                ex.dialect = Some(Dialect::Ollama);
                self.serve(ex, endpoint).await.unwrap_or_else(Flow::Fail)
            }),
        }
    }
}

impl Compat {
    async fn serve(&self, ex: &mut Exchange, endpoint: Endpoint) -> Result<Flow, HandlerError> {
        if !endpoint.takes(&ex.method) {
            return Err(refuse(405, "405 method not allowed").header(header::ALLOW, endpoint.allow()));
        }
        match endpoint {
            Endpoint::Root => Ok(answer::text(RUNNING).into()),
            Endpoint::Version => Ok(answer::json(self.server.version.clone()).into()),
            Endpoint::Tags => Ok(self.list(ex, Wanted::Tags)),
            Endpoint::Ps => Ok(self.list(ex, Wanted::Running)),
            Endpoint::Show => {
                let asked = discovery::asked(&body(ex, MAX_NAMING).await?).map_err(refused)?;
                Ok(self.list(ex, Wanted::Show(asked)))
            }
            Endpoint::Pull => {
                let asked = discovery::asked(&body(ex, MAX_NAMING).await?).map_err(refused)?;
                Ok(self.list(ex, Wanted::Pull(asked)))
            }
            Endpoint::Chat => self.translate(ex, request::chat).await,
            Endpoint::Generate => self.translate(ex, request::generate).await,
            Endpoint::Embed => self.translate(ex, request::embed).await,
            Endpoint::Embeddings => self.translate(ex, request::embeddings).await,
            Endpoint::Managing => Err(refuse(403, "models are managed by the upstream, not by this server")),
        }
    }

    /// Asks what follows on the route for its models.
    fn list(&self, ex: &mut Exchange, wanted: Wanted) -> Flow {
        go_to(ex, "/v1/models");
        ex.method = Method::GET;
        ex.headers.remove(header::CONTENT_TYPE);
        ex.headers.remove(header::CONTENT_LENGTH);
        ex.headers.remove(header::TRANSFER_ENCODING);
        ex.body = Body::Empty;
        ex.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        ex.stages.push(Stage::Async(Box::new(Listing { wanted, server: Arc::clone(&self.server) })));
        Flow::Next
    }

    async fn translate(&self, ex: &mut Exchange, read: Read) -> Result<Flow, HandlerError> {
        let mut translated = read(&body(ex, MAX_BODY).await?, &self.server.table).map_err(refused)?;
        let model = match &mut translated {
            Translated::Ask(ask) => &mut ask.plan.model,
            Translated::Immediate(immediate) => &mut immediate.model,
        };
        let sent = model.clone();
        // The answer repeats the name that the client knows, and its rights go by that name.
        if let Some(alias) = &ex.aliased {
            alias.as_ref().clone_into(model);
        }
        // Access control has read the same body; whatever it made of it, this is what goes up.
        if ex.user.as_ref().and_then(|user| user.models.as_ref()).is_some_and(|models| !models.allows(model)) {
            return Err(not_found(model));
        }
        let ask = match translated {
            Translated::Ask(ask) => ask,
            Translated::Immediate(immediate) => {
                return Ok(answer::json(response::immediate(&immediate, &answer::moment(ex.started))).into());
            }
        };
        go_to(ex, ask.path);
        ex.replace_body(self.server.tagged.restore(&sent, ask.body).into());
        ex.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let accept = if ask.plan.stream { "text/event-stream" } else { "application/json" };
        ex.headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        ex.tells_broken_streams = true;
        ex.stages.push(Stage::Async(Box::new(Translation { plan: ask.plan })));
        Ok(Flow::Next)
    }
}

/// A reader of one of the four requests that are translated.
type Read = fn(&[u8], &ModelTable) -> Result<Translated, BadRequest>;

/// The whole body of the request, which is then gone from it.
async fn body(ex: &mut Exchange, limit: usize) -> Result<Bytes, HandlerError> {
    let encoding = ex.headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(refuse(415, "compressed request bodies are not understood"));
    }
    hold_body(ex, limit).await?;
    ex.headers.remove(header::CONTENT_ENCODING);
    ex.headers.remove(header::EXPECT);
    match ex.body.take() {
        Body::Full(bytes) => Ok(bytes),
        _ => Ok(Bytes::new()),
    }
}

/// Fields that speak of the resource that the client asked for, which is not the one that is asked upstream.
const MEANT_FOR_ANOTHER: [HeaderName; 7] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::UPGRADE,
];

/// Another path for the request; its answer is going to be read, so it must not be compressed.
fn go_to(ex: &mut Exchange, path: &'static str) {
    ex.uri = Uri::from(PathAndQuery::from_static(path));
    body_filter::ask_identity(ex);
    for name in &MEANT_FOR_ANOTHER {
        ex.headers.remove(name);
    }
}

fn refuse(status: u16, message: impl Into<Cow<'static, str>>) -> HandlerError {
    HandlerError::refusal(status, HANDLER.id, Refusal { message: message.into(), ..Refusal::default() })
}

fn refused(bad: BadRequest) -> HandlerError {
    refuse(bad.status, bad.text)
}

/// In Ollama's words; the name is the client's own.
pub fn not_found(model: &str) -> HandlerError {
    refuse(404, errors::model_not_found(model))
}
