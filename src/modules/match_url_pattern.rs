//! `url_pattern PATTERN`: the URL matches a WHATWG URL pattern. Adapted only: this version does not run it.

use serde::Serialize;
use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::matcher::Matcher;
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "url_pattern", parse, compile };

#[derive(Default, Serialize)]
struct Config {
    pattern: String,
}

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    let mut config = Config::default();
    for line in lines {
        let [pattern] = line.args.as_slice() else {
            return Err(cx.err(line.span(), "malformed-matcher", "`url_pattern` takes exactly one pattern"));
        };
        cx.no_lines(line)?;
        pattern.text().clone_into(&mut config.pattern);
    }
    Ok(serde_json::to_value(config).unwrap_or_default())
}

fn compile(_: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    Err(CompileError::not_supported("the matcher `url_pattern`"))
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::compile_matcher;
    use serde_json::json;

    #[test]
    fn it_is_refused_by_name() {
        let refused = compile_matcher("url_pattern", json!({"pattern": "/x"})).err().unwrap();
        assert_eq!(refused.code, "not-supported-yet");
        assert!(refused.message.contains("url_pattern"));
    }
}
