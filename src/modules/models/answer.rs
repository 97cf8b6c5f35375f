//! What `models` does with a request: lists, shows one, refuses, or lets it pass.

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, header};

use super::HANDLER;
use super::catalogue::Catalogue;
use super::list::List;
use super::source::MAX_PAGE;
use crate::base::body::Body;
use crate::http::body_filter::hold;
use crate::http::error::{HandlerError, Refusal};
use crate::http::exchange::{Exchange, Response};
use crate::http::handler::{AsyncHandler, Flow, LocalFuture};
use crate::http::hold::hold_body;
use crate::http::model_not_found::model_not_found;
use crate::http::requested_model::{DEFAULT_LIMIT, ModelOf};
use crate::http::stage::{AsyncStage, Stage};
use crate::llm::dialect::Dialect;
use crate::llm::error_body::JSON;
use crate::llm::model_glob::ModelGlobs;
use crate::llm::model_list::{self, Edited, Entry, Shape};

pub struct Models(Arc<Rules>);

/// What the configuration says.
pub struct Rules {
    /// The list is ours to answer; `None` = it is what later handlers answer.
    pub catalogue: Option<Arc<Catalogue>>,
    /// Models of the file.
    pub own: List,
    pub allow: Option<ModelGlobs>,
    pub deny: ModelGlobs,
    /// Only models of the list may be asked for.
    pub strict: bool,
}

impl Models {
    pub fn new(rules: Rules) -> Self {
        Self(Arc::new(rules))
    }
}

impl AsyncHandler for Models {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
        Box::pin(async move {
            let flow = match Asked::of(ex) {
                Asked::List => self.list(ex).await,
                Asked::One(id) => self.one(ex, &id).await,
                Asked::Other => self.0.check(ex).await.map(|()| Flow::Next),
            };
            flow.unwrap_or_else(Flow::Fail)
        })
    }
}

/// What a request is about.
enum Asked {
    List,
    One(String),
    Other,
}

impl Asked {
    fn of(ex: &Exchange) -> Self {
        if ex.method != Method::GET && ex.method != Method::HEAD {
            return Self::Other;
        }
        let path = ex.uri.path();
        let Some(rest) = path.strip_prefix("/v1/models").or_else(|| path.strip_prefix("/models")) else {
            return Self::Other;
        };
        match rest.strip_prefix('/') {
            None if rest.is_empty() => Self::List,
            Some("") => Self::List,
            Some(id) => Self::One(percent_encoding::percent_decode_str(id).decode_utf8_lossy().into_owned()),
            None => Self::Other,
        }
    }
}

impl Models {
    async fn list(&self, ex: &mut Exchange) -> Result<Flow, HandlerError> {
        ex.llm = true;
        let Some(catalogue) = &self.0.catalogue else {
            // Compressed, or in part, it could not be filtered.
            ex.headers.remove(header::ACCEPT_ENCODING);
            ex.headers.remove(header::RANGE);
            ex.stages.push(Stage::Async(Box::new(FilterList(Arc::clone(&self.0)))));
            return Ok(Flow::Next);
        };
        let list = catalogue.get(&ex.server).await?;
        let aliases = self.0.aliases(ex, list.entries());
        let seen = list.entries().iter().filter(|entry| self.0.shows(ex, entry.id()));
        let added = aliases.iter().filter(|alias| list.find(alias.id()).is_none());
        Ok(Flow::Respond(answer(model_list::write(seen.chain(added), shape(ex)))))
    }

    async fn one(&self, ex: &mut Exchange, id: &str) -> Result<Flow, HandlerError> {
        ex.llm = true;
        // An alias has put the model it stands for into the path by now.
        let name = ex.aliased.as_deref().unwrap_or(id);
        if !self.0.offers(ex, id) || !may_use(ex, name) {
            return Err(model_not_found(ex, name));
        }
        let list = match &self.0.catalogue {
            Some(catalogue) => catalogue.get(&ex.server).await?,
            None => self.0.own.clone(),
        };
        match list.find(id) {
            Some(entry) if name == id => Ok(Flow::Respond(answer(entry.write(shape(ex))))),
            Some(entry) => Ok(Flow::Respond(answer(entry.renamed(name).write(shape(ex))))),
            None if self.0.catalogue.is_some() => Err(model_not_found(ex, name)),
            None => {
                if name != id {
                    let name = name.to_owned();
                    ex.headers.remove(header::ACCEPT_ENCODING);
                    ex.stages.push(Stage::Async(Box::new(RenameOne(name))));
                }
                Ok(Flow::Next)
            }
        }
    }
}

impl Rules {
    /// Refuses a request for a model that is not offered.
    async fn check(&self, ex: &mut Exchange) -> Result<(), HandlerError> {
        if !self.strict && self.allow.is_none() && self.deny.is_empty() {
            return Ok(());
        }
        let model = loop {
            match ex.requested_model(DEFAULT_LIMIT) {
                ModelOf::Named(model) => break model,
                ModelOf::NotTold if ex.may_hide_model() && speaks_llm(ex) => {
                    let message = "The model of this request cannot be told: send JSON without Content-Encoding.";
                    let refusal = Refusal { message: message.into(), param: Some("model"), ..Refusal::default() };
                    return Err(HandlerError::refusal(415, HANDLER.id, refusal));
                }
                ModelOf::NotTold => return Ok(()),
                ModelOf::NeedBody(limit) => hold_body(ex, limit).await?,
                ModelOf::Bad(error) => return Err(error),
            }
        };
        ex.llm = true;
        let mut known = self.offers(ex, &model) && ex.fallback_models()?.iter().all(|model| self.allows(model));
        if let (true, true, Some(catalogue)) = (known, self.strict, &self.catalogue) {
            // While nobody knows what there is, it is for the upstream to say.
            known = catalogue.get(&ex.server).await.map_or(true, |list| list.find(&model).is_some());
        }
        if known { Ok(()) } else { Err(model_not_found(ex, ex.aliased.as_deref().unwrap_or(&model))) }
    }

    /// Whether the configuration lets a model be used, under the name that the caller gave it.
    fn offers(&self, ex: &Exchange, model: &str) -> bool {
        let denied = |name: &str| self.deny.allows(name);
        self.allows(model) && !ex.aliased.as_deref().is_some_and(denied)
    }

    fn allows(&self, model: &str) -> bool {
        self.allow.as_ref().is_none_or(|globs| globs.allows(model)) && !self.deny.allows(model)
    }

    /// Whether this caller sees a model.
    fn shows(&self, ex: &Exchange, model: &str) -> bool {
        self.allows(model) && may_use(ex, model)
    }

    /// The aliases that this caller sees, of the models of a list.
    fn aliases(&self, ex: &Exchange, list: &[Entry]) -> Vec<Entry> {
        let names = ex.aliases.iter().flat_map(|aliases| aliases.names());
        names
            .filter(|(name, model)| self.allows(model) && !self.deny.allows(name) && may_use(ex, name))
            .filter_map(|(name, model)| Some(list.iter().find(|entry| entry.id() == model)?.renamed(name)))
            .collect()
    }
}

fn speaks_llm(ex: &Exchange) -> bool {
    ex.llm || Dialect::of_path(ex.uri.path()).is_some()
}

/// Whether the caller's token allows a model.
fn may_use(ex: &Exchange, model: &str) -> bool {
    ex.user.as_ref().and_then(|user| user.models.as_ref()).is_none_or(|models| models.allows(model))
}

fn shape(ex: &Exchange) -> Shape {
    let anthropic = ex.error_dialect() == Some(Dialect::Anthropic);
    if anthropic { Shape::Anthropic } else { Shape::OpenAi }
}

fn answer(json: bytes::Bytes) -> Response {
    let mut response = Response::new(Body::Full(json));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

/// The body of an answer that can be edited; the answer itself when it cannot.
async fn editable(ex: &Exchange, response: &mut Response) -> Result<Option<bytes::Bytes>, HandlerError> {
    if response.status() != StatusCode::OK {
        return Ok(None);
    }
    if ex.method == Method::HEAD {
        // It would tell the length of what the upstream lists.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        return Ok(None);
    }
    hold(response.body_mut().take(), MAX_PAGE).await.map(Some)
}

fn replace(response: &mut Response, body: bytes::Bytes) {
    for gone in [header::CONTENT_LENGTH, header::ETAG, header::LAST_MODIFIED, header::ACCEPT_RANGES] {
        response.headers_mut().remove(gone);
    }
    *response.body_mut() = Body::Full(body);
}

/// Edits the list that later handlers answered.
struct FilterList(Arc<Rules>);

impl AsyncStage for FilterList {
    fn apply(
        self: Box<Self>,
        ex: &mut Exchange,
        mut response: Response,
    ) -> LocalFuture<'_, Result<Response, HandlerError>> {
        Box::pin(async move {
            let rules = &self.0;
            let Some(body) = editable(ex, &mut response).await? else { return Ok(response) };
            let own = rules.own.entries();
            let more = |listed: &[Entry]| {
                let mut all: Vec<Entry> = own.iter().filter(|entry| rules.shows(ex, entry.id())).cloned().collect();
                all.extend(rules.aliases(ex, own));
                all.extend(rules.aliases(ex, listed));
                all
            };
            match model_list::edit(&body, shape(ex), |id| rules.shows(ex, id), more) {
                Edited::Same => *response.body_mut() = Body::Full(body),
                Edited::Changed(edited) => replace(&mut response, edited),
                Edited::Unreadable if rules.filters(ex) => {
                    let why = "the list of models could not be read, so not be filtered";
                    return Err(HandlerError::new(502, HANDLER.id, why));
                }
                Edited::Unreadable => *response.body_mut() = Body::Full(body),
            }
            Ok(response)
        })
    }
}

impl Rules {
    /// Whether anything may have to be left out.
    fn filters(&self, ex: &Exchange) -> bool {
        self.allow.is_some() || !self.deny.is_empty() || ex.user.as_ref().is_some_and(|user| user.models.is_some())
    }
}

/// Shows a model under the name that the caller gave it.
struct RenameOne(String);

impl AsyncStage for RenameOne {
    fn apply(
        self: Box<Self>,
        ex: &mut Exchange,
        mut response: Response,
    ) -> LocalFuture<'_, Result<Response, HandlerError>> {
        Box::pin(async move {
            let Some(body) = editable(ex, &mut response).await? else { return Ok(response) };
            match model_list::replace_id(&body, &self.0) {
                Some(renamed) => replace(&mut response, renamed.into()),
                None => *response.body_mut() = Body::Full(body),
            }
            Ok(response)
        })
    }
}
