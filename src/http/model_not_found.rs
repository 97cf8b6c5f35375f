//! A model that nobody here serves, or that is none of the caller's business: one answer for both.

use std::borrow::Cow;
use std::rc::Rc;

use super::error::{HandlerError, Refusal};
use super::exchange::Exchange;
use crate::llm::dialect::Dialect;

/// What the `model` matchers of a request said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModelMatch {
    /// None was asked, or the request names no model.
    #[default]
    Unasked,
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
        ModelMatch::Unasked | ModelMatch::Wanted => None,
    }
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
