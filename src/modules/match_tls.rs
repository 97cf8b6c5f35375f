//! `tls [early_data]`: the request came over TLS; with `early_data`, before the handshake was complete (which never
//! happens here: early data is not accepted).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, Verdict};
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "tls", parse, compile };

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_complete: Option<bool>,
}

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    let mut config = Config::default();
    for line in lines {
        match line.args.as_slice() {
            [] => {}
            [option] if option.text() == "early_data" => config.handshake_complete = Some(false),
            [option] => {
                let message = format!("`tls` has no option `{}`", option.shown());
                return Err(cx.err(option.span, "malformed-matcher", message));
            }
            _ => return Err(cx.arg_err(line)),
        }
        cx.no_lines(line)?;
    }
    Ok(serde_json::to_value(config).unwrap_or_default())
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let config: Config = read_value(value)?;
    Ok(Box::new(MatchTls { possible: config.handshake_complete != Some(false) }))
}

struct MatchTls {
    /// False when only early data would match.
    possible: bool,
}

impl Matcher for MatchTls {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        (self.possible && ex.is_tls()).into()
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::{exchange, matches};
    use serde_json::json;

    #[test]
    fn a_plain_request_is_not_tls() {
        let mut ex = exchange("GET", "/");
        assert!(!matches("tls", json!({}), &mut ex));
        let conn = crate::http::exchange::Conn {
            peer: ex.conn.peer.clone(),
            local: ex.conn.local,
            peer_ip_value: ex.conn.peer_ip_value.clone(),
            tls: Some(crate::http::exchange::TlsFacts::default()),
        };
        ex.conn = std::rc::Rc::new(conn);
        assert!(matches("tls", json!({}), &mut ex) && matches("tls", json!({"handshake_complete": true}), &mut ex));
        assert!(!matches("tls", json!({"handshake_complete": false}), &mut ex));
    }
}
