//! `model PATTERN…`: the request asks for one of these models. `*` stands for any run of characters, `?` for one; case
//! counts; `name` and `name:latest` are one model. Several lines are one list.
//!
//! The name is read from the path (`/v1/models/ID`, `/openai/deployments/NAME/…`, `/v1beta/models/NAME:…`), from `?model=`
//! of a realtime connection, or from the body: the top-level `model` of a JSON object, or the part `model` of a form. For
//! that the body is held in memory, at most 64 MiB (more is answered 413); `request_body { max_size … }` sets less. Bodies
//! that cannot name a model are not read: other types, and compressed ones. A request that names none does not match. One
//! that names its model twice, or says it is JSON and is not, is answered 400.
//!
//! Requests are the same to the upstream, byte for byte. A request for a model that no `model` matcher wanted, and that
//! nothing else answered, is told so: 404 `model_not_found` in the form that its API has for it. So is one that names no
//! model where an LLM API has its paths: 400, or 404 when it is no `POST`. `{llm.model}` is the model asked for, once a
//! matcher or handler has looked.

use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, Verdict};
use crate::http::requested_model::{DEFAULT_LIMIT, ModelOf};
use crate::llm::model_glob::ModelGlobs;
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "model", parse, compile };

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    match lines.iter().find(|line| line.args.is_empty()) {
        Some(line) => Err(cx.arg_err(line)),
        None => cx.word_list(lines),
    }
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let patterns: Vec<String> = read_value(value)?;
    Ok(Box::new(MatchModel(ModelGlobs::new(patterns))))
}

struct MatchModel(ModelGlobs);

impl Matcher for MatchModel {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        match ex.requested_model(DEFAULT_LIMIT) {
            ModelOf::Named(model) => {
                let wanted = self.0.allows(&model);
                ex.model_match.note(&model, wanted);
                wanted.into()
            }
            ModelOf::NotTold => {
                ex.model_match.note_untold();
                Verdict::No
            }
            ModelOf::NeedBody(limit) => Verdict::NeedBody(limit),
            ModelOf::Bad(error) => Verdict::Error(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::body::Body;
    use crate::http::model_not_found::ModelMatch;
    use crate::modules::testing::{compile_matcher, exchange, matches};
    use bytes::Bytes;
    use serde_json::json;
    use std::time::Instant;

    fn asking(body: impl Into<Bytes>) -> Exchange {
        let mut ex = exchange("POST", "/v1/chat/completions");
        ex.headers.insert("content-type", "application/json".parse().unwrap());
        ex.body = Body::Full(body.into());
        ex
    }

    #[test]
    fn patterns_are_alternatives_and_what_was_said_is_noted() {
        let mut ex = asking(r#"{"model":"gpt-4o-mini"}"#);
        assert!(!matches("model", json!(["claude-*"]), &mut ex));
        assert_eq!(ex.model_match, ModelMatch::Refused("gpt-4o-mini".into()));
        assert!(matches("model", json!(["claude-*", "gpt-*"]), &mut ex));
        assert_eq!(ex.model_match, ModelMatch::Wanted);
    }

    #[test]
    fn no_name_no_match() {
        let mut ex = exchange("GET", "/v1/models");
        assert!(!matches("model", json!(["*"]), &mut ex));
        for body in ["{}", "[]", "{\"model\":null}", ""] {
            let mut ex = asking(body);
            assert!(!matches("model", json!(["*"]), &mut ex), "{body}");
            assert_eq!(ex.model_match, ModelMatch::Untold);
        }
        let mut ex = asking(r#"{"model":"m"}"#);
        ex.headers.insert("content-encoding", "gzip".parse().unwrap());
        assert!(!matches("model", json!(["*"]), &mut ex));
    }

    #[test]
    fn a_name_that_is_not_sure_is_an_error() {
        for body in [r#"{"model":"a","model":"b"}"#, r#"{"model":["a"]}"#, "{\"model\""] {
            let verdict = compile_matcher("model", json!(["*"])).unwrap().matches(&mut asking(body));
            assert!(matches!(verdict, Verdict::Error(e) if e.status == 400), "{body}");
        }
    }

    #[test]
    #[ignore = "a measurement: cargo test --release --lib match_model -- --ignored --nocapture"]
    fn cost_of_finding_a_model() {
        let matcher = compile_matcher("model", json!(["claude-*", "gpt-*"])).unwrap();
        for size in [1 << 10, 1 << 20] {
            let body = Bytes::from(format!(
                r#"{{"messages":[{{"role":"user","content":"{}"}}],"model":"gpt-4o"}}"#,
                "word ".repeat(size / 5)
            ));
            let rounds = (256 << 20) / size / 8;
            let mut ex = asking(body.clone());
            let started = Instant::now();
            for _ in 0..rounds {
                // A copy of its own: the same bytes would not be looked at twice.
                ex.replace_body(body.clone());
                assert!(matches!(matcher.matches(&mut ex), Verdict::Yes));
            }
            eprintln!("{size} bytes: {:?} a request", started.elapsed() / u32::try_from(rounds).unwrap());
        }
    }
}
