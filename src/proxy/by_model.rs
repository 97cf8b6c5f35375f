//! Upstreams that are there for some models only.

use std::rc::Rc;

use super::upstream::Upstream;
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::hold::hold_body;
use crate::http::model_not_found::{model_not_found, no_model_named};
use crate::http::requested_model::{DEFAULT_LIMIT, ModelOf};

/// The model that a request asks for, read from its body if need be; `None` also where no upstream asks for it.
///
/// # Errors
/// When no upstream is there for the model, or for requests without one.
pub(super) async fn settle(upstreams: &[Upstream], ex: &mut Exchange) -> Result<Option<Rc<str>>, HandlerError> {
    if upstreams.iter().all(|upstream| upstream.own.models.is_empty()) {
        return Ok(None);
    }
    let model = model_of(ex).await?;
    if upstreams.iter().any(|upstream| upstream.takes(model.as_deref())) {
        return Ok(model);
    }
    ex.llm |= model.is_some();
    Err(match model {
        Some(model) => model_not_found(ex, ex.aliased.as_deref().unwrap_or(&model)),
        None => no_model_named(ex),
    })
}

async fn model_of(ex: &mut Exchange) -> Result<Option<Rc<str>>, HandlerError> {
    let mut held = false;
    loop {
        match ex.requested_model(DEFAULT_LIMIT) {
            ModelOf::Named(model) => return Ok(Some(model)),
            ModelOf::NeedBody(limit) if !held => {
                hold_body(ex, limit).await?;
                held = true;
            }
            ModelOf::NotTold | ModelOf::NeedBody(_) => return Ok(None),
            ModelOf::Bad(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::body::Body;
    use crate::client::{Address, Scheme, TargetOptions};
    use crate::llm::model_glob::ModelGlobs;
    use crate::proxy::testing::{block_on, chunks, exchange};
    use crate::proxy::upstream::{Settings, TransportTemplate};

    fn upstreams(of_models: &[&[&str]]) -> Vec<Upstream> {
        let options = TargetOptions::new(Scheme::Http, Address::Tcp { host: "".into(), port: 0 });
        let transport =
            Arc::new(TransportTemplate { options, scheme: Scheme::Http, except_ports: Vec::new(), server_name: None });
        let settings = |globs: &&[&str]| Settings { models: ModelGlobs::new(*globs), ..Settings::default() };
        of_models.iter().map(|globs| Upstream::new("a.test:1", &transport, settings(globs)).unwrap()).collect()
    }

    fn asking(body: Body) -> Exchange {
        let mut ex = exchange("POST", "/v1/chat/completions");
        ex.headers.insert("content-type", "application/json".parse().unwrap());
        ex.body = body;
        ex
    }

    fn settled(of_models: &[&[&str]], ex: &mut Exchange) -> Result<Option<String>, (u16, Option<&'static str>)> {
        let result = block_on(settle(&upstreams(of_models), ex));
        result.map(|m| m.map(|m| m.to_string())).map_err(|e| (e.status, e.refusal.and_then(|r| r.code)))
    }

    #[test]
    fn the_body_is_read_only_where_an_upstream_asks_for_it() {
        let streamed = || asking(chunks(&[r#"{"mod"#, r#"el":"gpt-5"}"#]));
        let mut ex = streamed();
        assert_eq!(settled(&[&[], &[]], &mut ex), Ok(None));
        assert!(matches!(ex.body, Body::Stream(_)));
        let mut ex = streamed();
        assert_eq!(settled(&[&["gpt-*"]], &mut ex), Ok(Some("gpt-5".into())));
        assert!(matches!(&ex.body, Body::Full(b) if b == r#"{"model":"gpt-5"}"#));
    }

    #[test]
    fn what_nobody_is_there_for_is_told_so() {
        let claude = || asking(Body::from(r#"{"model":"claude-x"}"#));
        assert_eq!(settled(&[&["gpt-*"], &["llama*"]], &mut claude()), Err((404, Some("model_not_found"))));
        assert_eq!(settled(&[&["gpt-*"], &[]], &mut claude()), Ok(Some("claude-x".into())));
        assert_eq!(settled(&[&["gpt-*"]], &mut exchange("GET", "/v1/files")), Err((404, None)));
        assert_eq!(settled(&[&["gpt-*"], &[]], &mut exchange("GET", "/v1/files")), Ok(None));
        let broken = settled(&[&["gpt-*"], &[]], &mut asking(Body::from("{\"model\":[]}")));
        assert_eq!(broken.unwrap_err().0, 400);
    }
}
