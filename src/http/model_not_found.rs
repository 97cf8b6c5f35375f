//! A model that nobody here serves, or that is none of the caller's business: one answer for both.

use std::borrow::Cow;
use std::rc::Rc;

use http::Method;

use super::error::{HandlerError, Refusal};
use super::exchange::Exchange;
use crate::llm::dialect::Dialect;

/// What the `model` matchers of a request said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModelMatch {
    /// None was asked.
    #[default]
    Unasked,
    /// All said no, as the request names no model.
    Untold,
    /// All said no to this model.
    Refused(Rc<str>),
    /// One said yes.
    Wanted,
}

impl ModelMatch {
    pub fn note(&mut self, model: &Rc<str>, wanted: bool) {
        *self = match self {
            Self::Wanted => return,
            _ if wanted => Self::Wanted,
            _ => Self::Refused(Rc::clone(model)),
        };
    }

    pub fn note_untold(&mut self) {
        if *self == Self::Unasked {
            *self = Self::Untold;
        }
    }
}

/// 404 `model_not_found` in the words of the caller's API.
#[must_use]
pub fn model_not_found(ex: &Exchange, model: &str) -> HandlerError {
    let message = match ex.error_dialect() {
        Some(Dialect::Anthropic) => format!("model: {model}"),
        Some(Dialect::Ollama) => format!("model '{model}' not found"),
        Some(Dialect::OpenAi) | None => {
            format!("The model `{model}` does not exist or you do not have access to it.")
        }
    };
    let refusal = Refusal { message: message.into(), code: Some("model_not_found"), ..Refusal::default() };
    // What a client wrote is not for the log.
    HandlerError { message: Cow::Borrowed("model not found"), ..HandlerError::refusal(404, "model", refusal) }
}

/// The end of a request that nothing answered after all `model` matchers said no.
pub(super) fn unmatched(ex: &mut Exchange) -> Option<HandlerError> {
    match std::mem::take(&mut ex.model_match) {
        ModelMatch::Refused(model) => {
            ex.llm = true;
            Some(model_not_found(ex, ex.aliased.as_deref().unwrap_or(&model)))
        }
        // Without this a chat that forgot its model would be told 200 with nothing in it.
        ModelMatch::Untold if ex.error_dialect().is_some() => Some(no_model_named(ex)),
        ModelMatch::Untold | ModelMatch::Unasked | ModelMatch::Wanted => None,
    }
}

/// A route of an LLM API that is there for some models only, and a request that names none: a mistake where it could have
/// named one, else nothing that is served here.
#[must_use]
pub fn no_model_named(ex: &Exchange) -> HandlerError {
    let (status, message, code, param) = if ex.method == Method::POST && !ex.may_hide_model() {
        (400, "You must provide a model: the request names none.", Some("missing_required_parameter"), Some("model"))
    } else {
        (404, "Nothing here serves a request that names no model in its path, JSON body or form.", None, None)
    };
    let refusal = Refusal { message: message.into(), code, param, ..Refusal::default() };
    HandlerError { message: "the request names no model".into(), ..HandlerError::refusal(status, "model", refusal) }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::testing::exchange;
    use super::*;

    #[test]
    fn one_yes_is_enough() {
        let model: Rc<str> = "m".into();
        let mut said = ModelMatch::default();
        said.note(&model, false);
        assert_eq!(said, ModelMatch::Refused(Rc::clone(&model)));
        said.note(&model, true);
        said.note(&model, false);
        assert_eq!(said, ModelMatch::Wanted);
    }

    #[test]
    fn a_request_of_an_llm_api_without_a_model_is_told_so() {
        let told = |method: &str, path: &str| {
            let mut ex = exchange(method, path, &[]);
            assert!(unmatched(&mut ex).is_none(), "no matcher was asked");
            ex.model_match.note_untold();
            unmatched(&mut ex).map(|error| (error.status, error.refusal.and_then(|r| r.param)))
        };
        assert_eq!(told("POST", "/v1/chat/completions"), Some((400, Some("model"))));
        assert_eq!(told("GET", "/v1/files"), Some((404, None)));
        assert_eq!(told("POST", "/a-form"), None);
        let mut said = ModelMatch::Refused("m".into());
        said.note_untold();
        assert_eq!(said, ModelMatch::Refused("m".into()));
    }

    #[test]
    fn each_api_has_its_words() {
        let told = |path: &str, llm: bool| {
            let mut ex = exchange("POST", path, &[]);
            ex.llm = llm;
            let error = model_not_found(&ex, "x");
            assert_eq!((error.status, &*error.message), (404, "model not found"));
            error.refusal.unwrap().message.into_owned()
        };
        assert!(told("/v1/chat/completions", false).starts_with("The model `x` does not exist"));
        assert_eq!(told("/v1/messages", false), "model: x");
        assert_eq!(told("/api/chat", true), "model 'x' not found");
    }
}
