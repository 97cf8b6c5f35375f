//! `protocol NAME`: the request came by this protocol: `http`, `https`, `grpc`, or `http/1.0`, `http/1.1`, `http/2`,
//! `http/3`, each also with `+` for "or later". The last line counts.

use http::Version;
use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, Verdict};
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "protocol", parse, compile };

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    let mut protocol = String::new();
    for line in lines {
        let [name] = line.args.as_slice() else {
            return Err(cx.err(line.span(), "malformed-matcher", "`protocol` takes exactly one protocol"));
        };
        cx.no_lines(line)?;
        name.text().clone_into(&mut protocol);
    }
    Ok(Value::String(protocol))
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let name: String = read_value(value)?;
    let matcher = match name.as_str() {
        "http" => MatchProtocol::Plain,
        "https" => MatchProtocol::Tls,
        "grpc" => MatchProtocol::Grpc,
        "http/1.0" => MatchProtocol::Exactly(Version::HTTP_10),
        "http/1.1" => MatchProtocol::Exactly(Version::HTTP_11),
        "http/2" => MatchProtocol::Exactly(Version::HTTP_2),
        "http/3" => MatchProtocol::Exactly(Version::HTTP_3),
        "http/1.0+" => MatchProtocol::AtLeast(Version::HTTP_10),
        "http/1.1+" => MatchProtocol::AtLeast(Version::HTTP_11),
        "http/2+" => MatchProtocol::AtLeast(Version::HTTP_2),
        "http/3+" => MatchProtocol::AtLeast(Version::HTTP_3),
        // Caddy lets it through and never matches.
        _ => {
            return Err(CompileError::new("unknown-protocol", format!("there is no protocol `{name}`"))
                .help("one of `http`, `https`, `grpc`, `http/1.0`, `http/1.1`, `http/2`, `http/3`; `+` = or later"));
        }
    };
    Ok(Box::new(matcher))
}

enum MatchProtocol {
    Plain,
    Tls,
    Grpc,
    Exactly(Version),
    AtLeast(Version),
}

impl Matcher for MatchProtocol {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        let yes = match self {
            Self::Plain => !ex.is_tls(),
            Self::Tls => ex.is_tls(),
            Self::Grpc => ex
                .headers
                .get(http::header::CONTENT_TYPE)
                .is_some_and(|v| v.as_bytes().starts_with(b"application/grpc")),
            Self::Exactly(version) => ex.version == *version,
            Self::AtLeast(version) => ex.version >= *version,
        };
        yes.into()
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::{compile_matcher, exchange, matches};
    use serde_json::json;

    #[test]
    fn versions_and_kinds() {
        let mut ex = exchange("GET", "/");
        for (name, want) in [
            ("http", true),
            ("https", false),
            ("grpc", false),
            ("http/1.1", true),
            ("http/1.0", false),
            ("http/1.0+", true),
            ("http/2+", false),
        ] {
            assert_eq!(matches("protocol", json!(name), &mut ex), want, "{name}");
        }
        ex.headers.insert("content-type", "application/grpc+proto".parse().unwrap());
        ex.version = http::Version::HTTP_2;
        assert!(matches("protocol", json!("grpc"), &mut ex) && matches("protocol", json!("http/2"), &mut ex));
        assert_eq!(compile_matcher("protocol", json!("HTTP")).err().unwrap().code, "unknown-protocol");
    }
}
