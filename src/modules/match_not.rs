//! `not MATCHER` and `not { matchers }`: none of the matcher sets matches. Each `not` is a set of its own; inside a set
//! all matchers must match for the set to match.

use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::config::types;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, MatcherSet, Verdict};
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "not", parse, compile };

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    // What must not match has no groups to show: its regular expressions do not take the matcher's name.
    let name = std::mem::take(&mut cx.matcher_name);
    let sets: Parsed<Vec<Value>> = lines.iter().map(|line| parse_one(line, cx).map(Value::Object)).collect();
    cx.matcher_name = name;
    sets.map(Value::Array)
}

/// `not not not …`: each is a level of recursion here and in whatever reads the JSON.
const MAX_CHAIN: usize = 32;

fn parse_one(line: &Node, cx: &mut DirectiveCx<'_, '_>) -> Parsed<types::MatcherSet> {
    match line.args.split_first() {
        Some((kind, args)) => {
            if args.len() > MAX_CHAIN && line.args[..MAX_CHAIN].iter().all(|word| word.text() == "not") {
                return Err(cx.err(
                    kind.span,
                    "nesting-too-deep",
                    format!("`not` is repeated more than {MAX_CHAIN} times"),
                ));
            }
            let inner = Node { name: kind.clone(), args: args.to_vec(), block: line.block.clone() };
            cx.matcher_set(std::slice::from_ref(&inner))
        }
        None => cx.matcher_set(line.block.as_ref().map_or(&[], |block| &block.nodes)),
    }
}

fn compile(value: &Value, cx: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let sets: Option<Vec<types::MatcherSet>> = read_value(value)?;
    let sets = sets.unwrap_or_default();
    let compiled = sets.iter().enumerate().map(|(i, set)| cx.at(i, |cx| cx.compile_matcher_set(set)));
    Ok(Box::new(MatchNot { sets: compiled.collect() }))
}

struct MatchNot {
    sets: Box<[MatcherSet]>,
}

impl Matcher for MatchNot {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        'sets: for set in &self.sets {
            for matcher in set {
                match matcher.matches(ex) {
                    Verdict::Yes => {}
                    Verdict::No => continue 'sets,
                    other => return other,
                }
            }
            return Verdict::No;
        }
        Verdict::Yes
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::{exchange, matches};
    use serde_json::json;

    #[test]
    fn no_set_may_match() {
        let mut ex = exchange("GET", "/a");
        assert!(!matches("not", json!([{"path": ["/a"]}]), &mut ex));
        assert!(matches("not", json!([{"path": ["/a"], "method": ["POST"]}]), &mut ex));
        assert!(!matches("not", json!([{"path": ["/b"]}, {"path": ["/a"]}]), &mut ex));
        assert!(matches("not", json!([{"not": [{"path": ["/a"]}]}]), &mut ex));
        assert!(!matches("not", json!([{}]), &mut ex) && matches("not", json!([]), &mut ex));
    }
}
