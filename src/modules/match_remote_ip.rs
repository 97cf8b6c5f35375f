//! `remote_ip RANGE…` and `client_ip RANGE…`: the address of the peer, or of the client behind trusted proxies, lies in
//! one of the ranges.
//!
//! A range is an address, a network (`10.0.0.0/8`) or `private_ranges`. Several lines are one list.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::compile_cx::{CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::{Exchange, contains};
use crate::http::ip_range::{self, PRIVATE_RANGES};
use crate::http::matcher::{Matcher, Verdict};
use crate::http::placeholder::Template;
use crate::syntax::tree::Node;

pub const REMOTE: MatcherModule =
    MatcherModule { id: "remote_ip", parse: parse_remote, compile: |value, _| compile(value, Exchange::peer_ip) };

pub const CLIENT: MatcherModule =
    MatcherModule { id: "client_ip", parse, compile: |value, _| compile(value, Exchange::client_ip) };

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<String>,
}

fn parse_remote(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    if let Some(old) = lines.iter().flat_map(|l| &l.args).find(|a| a.text() == "forwarded") {
        let mut d = cx.err(old.span, "removed-option", "`forwarded` is no longer an option of `remote_ip`");
        d.help = Some("use the `client_ip` matcher".to_owned());
        return Err(d);
    }
    parse(lines, cx)
}

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    let mut config = Config::default();
    for line in lines {
        for arg in &line.args {
            match arg.text() {
                "private_ranges" => config.ranges.extend(PRIVATE_RANGES.map(String::from)),
                range => config.ranges.push(range.to_owned()),
            }
        }
        cx.no_lines(line)?;
    }
    Ok(serde_json::to_value(config).unwrap_or_default())
}

fn compile(value: &Value, address: fn(&Exchange) -> Option<IpAddr>) -> Result<Box<dyn Matcher>, CompileError> {
    let config: Config = read_value(value)?;
    let mut ranges = Vec::with_capacity(config.ranges.len());
    for (i, range) in config.ranges.iter().enumerate() {
        let parsed = read_range(range);
        ranges.push(parsed.map_err(|e| e.within(i).within("ranges"))?);
    }
    Ok(Box::new(MatchIp { ranges: ranges.into(), address }))
}

fn read_range(written: &str) -> Result<IpNet, CompileError> {
    let template = Template::parse(written);
    let invalid = || {
        CompileError::new("invalid-ip-range", format!("`{written}` is not an IP address or network"))
            .help("a range is an address (`192.0.2.1`), a network (`10.0.0.0/8`) or `private_ranges`")
    };
    let text = template.as_static().ok_or_else(invalid)?;
    if text.contains('%') {
        return Err(CompileError::not_supported("an IP range with a zone"));
    }
    ip_range::parse(text).ok_or_else(invalid)
}

struct MatchIp {
    ranges: Box<[IpNet]>,
    address: fn(&Exchange) -> Option<IpAddr>,
}

impl Matcher for MatchIp {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        (self.address)(ex).is_some_and(|ip| contains(&self.ranges, ip)).into()
    }
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::{compile_matcher, exchange, matches};
    use serde_json::json;

    #[test]
    fn the_peer_lies_in_a_range() {
        let mut ex = exchange("GET", "/");
        assert!(matches("remote_ip", json!({"ranges": ["10.0.0.0/8", "192.0.2.1"]}), &mut ex));
        assert!(matches("client_ip", json!({"ranges": ["192.0.2.77/24"]}), &mut ex));
        assert!(!matches("remote_ip", json!({"ranges": ["::/0"]}), &mut ex));
        assert!(!matches("remote_ip", json!({}), &mut ex));
        let bad = compile_matcher("remote_ip", json!({"ranges": ["::1", "x"]})).err().unwrap();
        assert_eq!((bad.code, bad.pointer.as_str()), ("invalid-ip-range", "/ranges/1"));
    }

    #[test]
    fn forwarded_addresses_count_only_for_client_ip_and_from_trusted_peers() {
        let mut ex = exchange("GET", "/");
        ex.headers.insert("x-forwarded-for", "198.51.100.9".parse().unwrap());
        let range = json!({"ranges": ["198.51.100.0/24"]});
        assert!(!matches("client_ip", range.clone(), &mut ex));
        let mut ex = exchange("GET", "/");
        ex.headers.insert("x-forwarded-for", "198.51.100.9".parse().unwrap());
        let facts = crate::http::exchange::ServerFacts {
            trusted_proxies: vec!["192.0.2.0/24".parse().unwrap()],
            ..Default::default()
        };
        ex.server = std::rc::Rc::new(facts);
        assert!(matches("client_ip", range.clone(), &mut ex) && !matches("remote_ip", range, &mut ex));
    }
}
