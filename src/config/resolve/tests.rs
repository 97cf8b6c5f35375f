//! The adapter with a handful of toy directives; what the real ones make is compared with Caddy in `tests/golden`.

#![allow(clippy::unnecessary_wraps)] // the toys have the type of directives

use serde_json::{Value, json};

use super::*;
use crate::base::env::Env;
use crate::config::compile_cx::CompileError;
use crate::config::directive_cx::{AccessLog, DirectiveCx, Parsed, TlsValue};
use crate::config::expand::load_text;
use crate::config::registry::{Directive, Doc, MatcherModule};
use crate::config::types::Log;

const DOC: Doc = Doc { summary: "", syntax: "", examples: &[], rejected: &[], adapt_only: false };

const fn directive(
    name: &'static str,
    ordered: bool,
    parse: fn(&mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>>,
) -> Directive {
    Directive { name, renamed_to: None, ordered, matcher: ordered, parse, doc: &DOC }
}

/// A route whose handler says the directive's name and first word.
fn say(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let word = cx.args.first().map_or("", Token::text);
    Ok(cx.route(handler(cx.directive.name, &json!({ "word": word }))))
}

fn block(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let sort = cx.directive.name != "route";
    let nodes = cx.node.block.as_ref().map_or(&[][..], |b| &b.nodes);
    let subroute = cx.subroute(nodes, sort)?;
    Ok(cx.route(handler("subroute", &subroute)))
}

fn invoke(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let [name] = cx.args else { return Err(cx.arg_err(cx.node)) };
    cx.file.invoked.push((name.text().to_owned(), name.span));
    say(cx)
}

fn bind(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let addresses = cx.args.iter().map(|token| token.text().to_owned()).collect();
    Ok(vec![ConfigValue::Bind { addresses, protocols: Vec::new() }])
}

fn log(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let level = cx.args.first().map(|token| token.text().to_owned());
    let log = level.map(|level| Log { level, ..Log::default() });
    Ok(vec![ConfigValue::AccessLog(AccessLog { log, ..AccessLog::default() })])
}

fn tls(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let policy = cx.args.first().map_or(json!({}), |token| json!({ "protocol_min": token.text() }));
    Ok(vec![ConfigValue::Tls(TlsValue::ConnectionPolicy(policy))])
}

static REGISTRY: Registry = Registry {
    directives: &[
        &directive("vars", true, say),
        &directive("rewrite", true, say),
        &directive("invoke", true, invoke),
        &directive("handle", true, block),
        &directive("handle_path", true, block),
        &directive("route", true, block),
        &directive("say", true, say),
        &directive("shout", true, say),
        &directive("bind", false, bind),
        &directive("log", false, log),
        &directive("tls", false, tls),
    ],
    handlers: &[],
    matchers: &[MatcherModule {
        id: "path",
        parse: |lines, _| Ok(lines.iter().flat_map(|l| &l.args).map(|t| Value::from(t.text())).collect()),
        compile: |_, _| Err(CompileError::new("", "")),
    }],
};

fn adapt(text: &str) -> (Resolved, SourceMap) {
    let known = |name: &str| REGISTRY.directive(name).is_some();
    let loaded = load_text("Proxyfile", text, &Env::empty(), &known);
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    (resolve(&loaded.file, &loaded.sources, &REGISTRY), loaded.sources)
}

fn servers(text: &str) -> Value {
    let (resolved, _) = adapt(text);
    assert!(!resolved.diagnostics.iter().any(Diagnostic::is_error), "{:?}", resolved.diagnostics);
    let config = serde_json::to_value(resolved.config).unwrap();
    config["apps"]["http"]["servers"].clone()
}

/// Codes of the diagnostics with the text they point at.
fn errors(text: &str) -> Vec<(&'static str, String)> {
    let (resolved, sources) = adapt(text);
    let place = |d: &Diagnostic| d.primary.as_ref().map_or("", |label| sources.text(label.span)).to_owned();
    resolved.diagnostics.iter().map(|d| (d.code, place(d))).collect()
}

#[test]
fn a_lone_catch_all_site_is_not_wrapped_and_equal_routes_merge() {
    assert_eq!(
        servers(":80 {\n shout b\n say a\n}"),
        json!({"srv0": {"listen": [":80"], "routes": [
            {"handle": [{"handler": "say", "word": "a"}, {"handler": "shout", "word": "b"}]}
        ]}})
    );
}

#[test]
fn sites_of_one_listener_are_final_routes_most_specific_first() {
    let servers = servers("*.a.com {\n say wild\n}\nx.a.com, y.a.com/p {\n say plain\n}\n:443 {\n say all\n}");
    let routes = servers["srv0"]["routes"].as_array().unwrap();
    assert_eq!(routes[0]["match"], json!([{"host": ["x.a.com"]}, {"host": ["y.a.com"], "path": ["/p"]}]));
    assert_eq!(routes[1]["match"], json!([{"host": ["*.a.com"]}]));
    assert_eq!(routes[2].get("match"), None);
    assert!(routes.iter().all(|route| route["terminal"] == true));
}

#[test]
fn handles_exclude_one_another_and_a_rewrite_stands_alone() {
    let servers = servers(":80 {\n handle /a {\n rewrite x\n }\n handle_path /b* {\n }\n say z\n}");
    let routes = servers["srv0"]["routes"].as_array().unwrap();
    assert_eq!(routes[0]["group"], "group2");
    assert_eq!(routes[1]["group"], "group2");
    assert_eq!(routes[0]["handle"][0]["routes"][0]["group"], "group0");
    assert_eq!(routes[2].get("group"), None);
}

#[test]
fn the_order_option_moves_a_directive() {
    let handlers = |order: &str| {
        let servers = servers(&format!("{{\n{order}\n}}\n:80 {{\n vars a\n say b\n shout c\n}}"));
        let handlers = servers["srv0"]["routes"][0]["handle"].as_array().cloned().unwrap_or_default();
        handlers.iter().filter_map(|h| h["handler"].as_str().map(str::to_owned)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(handlers("order shout first"), "shout vars say");
    assert_eq!(handlers("order vars last"), "say shout vars");
    assert_eq!(handlers("order vars after say"), "say vars shout");
    assert_eq!(handlers("order shout before say"), "vars shout say");
    let codes = |order: &str| errors(&format!("{{\n{order}\n}}"));
    assert_eq!(codes("order sya first"), [("unknown-directive", "sya".to_owned())]);
    assert_eq!(codes("order say before bind"), [("unordered-directive", "bind".to_owned())]);
    assert_eq!(codes("order say before"), [("wrong-argument-count", "order say before".to_owned())]);
    assert_eq!(codes("order say soon"), [("invalid-value", "soon".to_owned())]);
}

#[test]
fn matchers_of_a_block_are_seen_inside_it_alone() {
    let text = ":80 {\n handle {\n @a path /a /b\n say @a x\n }\n say @a y\n}";
    assert_eq!(errors(text), [("undefined-matcher", "@a".to_owned())]);
    let text = ":80 {\n handle {\n @a path /a /b\n say @a x\n }\n}";
    let inner = &servers(text)["srv0"]["routes"][0]["handle"][0]["routes"][0];
    assert_eq!(inner["match"], json!([{"path": ["/a", "/b"]}]));
}

#[test]
fn a_named_route_goes_to_the_servers_that_invoke_it() {
    let servers = servers("&(x) {\n route {\n say 1\n shout 2\n }\n}\n:80 {\n invoke x\n}\n:81 {\n say 1\n}");
    let routes = &servers["srv0"]["named_routes"]["x"]["handle"][0]["routes"];
    assert_eq!(routes[0]["handle"].as_array().map(Vec::len), Some(2));
    assert_eq!(servers["srv1"].get("named_routes"), None);
}

#[test]
fn a_named_route_that_caddy_cuts_short_is_cut_with_a_warning() {
    let text = "&(x) {\n shout 2\n say 1\n}\n:80 {\n invoke x\n}";
    assert_eq!(servers(text)["srv0"]["named_routes"]["x"]["handle"], json!([{"handler": "say", "word": "1"}]));
    assert_eq!(errors(text).iter().map(|e| e.0).collect::<Vec<_>>(), ["named-route-cut-short"]);
}

#[test]
fn every_error_of_the_file_is_reported() {
    let text = "http://a:443 {\n sya x\n}\n:80 {\n handle {\n bind 1\n }\n @m path /\n @m path /\n}\n:80 {\n say @x\n}";
    assert_eq!(
        errors(text),
        [
            ("unknown-directive", "sya".to_owned()),
            ("duplicate-matcher", "@m".to_owned()),
            ("directive-not-allowed-here", "bind 1".to_owned()),
            ("undefined-matcher", "@x".to_owned()),
            ("bad-site-address", "http://a:443".to_owned()),
            ("ambiguous-site", ":80".to_owned()),
        ]
    );
}

#[test]
fn a_mistake_in_a_snippet_is_reported_once() {
    let text = "(s) {\n sya x\n}\n:80 {\n import s\n}\n:81 {\n import s\n}";
    assert_eq!(errors(text), [("unknown-directive", "sya".to_owned())]);
}

#[test]
fn http_and_https_cannot_share_a_listener() {
    assert_eq!(errors("http://a:90 {\n}\nhttps://b:90 {\n}"), [("mixed-schemes", "https://b:90".to_owned())]);
    assert_eq!(errors("http://a:90 {\n tls 1\n}"), [("mixed-schemes", "http://a:90".to_owned())]);
}

#[test]
fn policies_name_the_hosts_of_their_own_server_and_a_catch_all_follows() {
    let servers = servers("a.com, b.com:8443 {\n tls tls1.3\n}\n:9443 {\n tls\n}");
    let policies = |server: &str| servers[server]["tls_connection_policies"].clone();
    assert_eq!(policies("srv0"), json!([{"match": {"sni": ["a.com"]}, "protocol_min": "tls1.3"}, {}]));
    assert_eq!(policies("srv1"), json!([{"match": {"sni": ["b.com"]}, "protocol_min": "tls1.3"}, {}]));
    assert_eq!(policies("srv2"), json!([{}]));
}

#[test]
fn logs_are_named_and_left_out_of_the_default_log() {
    let (resolved, _) = adapt("a.com {\n log INFO\n}\nb.com {\n log\n}\nc.com:444, :443 {\n}");
    let config = serde_json::to_value(resolved.config).unwrap();
    assert_eq!(
        config["logging"]["logs"],
        json!({
            "default": {"exclude": ["http.log.access.log0"]},
            "log0": {"include": ["http.log.access.log0"], "level": "INFO"},
        })
    );
    assert_eq!(
        config["apps"]["http"]["servers"]["srv0"]["logs"],
        json!({"logger_names": {"a.com": ["log0"], "b.com": [""]}, "skip_unmapped_hosts": true})
    );
}

#[test]
fn pointers_lead_to_tls_and_log_lines() {
    let (resolved, sources) = adapt("a.com {\n tls tls1.3\n log INFO\n}\nb.com {\n tls tls1.2\n}");
    let place = |pointer: &str| spans::nearest(&resolved.spans, pointer).map(|span| sources.text(span));
    assert_eq!(place("/logging/logs/log0/writer"), Some("log INFO"));
    assert_eq!(place("/apps/http/servers/srv0/tls_connection_policies/0/protocol_min"), Some("tls tls1.3"));
    assert_eq!(place("/apps/http/servers/srv0/tls_connection_policies/1"), Some("tls tls1.2"));
}

#[test]
fn pointers_lead_back_to_the_lines_and_leave_no_trace() {
    let (resolved, sources) = adapt("a.com {\n handle /x {\n say deep\n }\n}");
    let place = |pointer: &str| spans::nearest(&resolved.spans, pointer).map(|span| sources.text(span));
    let site = "/apps/http/servers/srv0/routes/0";
    assert_eq!(place(site), Some("a.com"));
    let handle = format!("{site}/handle/0/routes/0");
    assert_eq!(place(&handle), Some("handle /x"));
    assert_eq!(place(&format!("{handle}/match/0/path")), Some("handle /x"));
    assert_eq!(place(&format!("{handle}/handle/0/routes/0/handle/0/word")), Some("say deep"));
    assert_eq!(place("/apps/http/servers/srv0/listen/0"), Some("a.com"));
    assert_eq!(place("/apps/tls"), None);
    assert!(!serde_json::to_string(&resolved.config).unwrap().contains("span"));
}

proptest::proptest! {
    /// Whatever the words, the adapter ends and says something sensible: a config, or at least one error.
    #[test]
    fn any_soup_of_words_is_adapted_or_refused(
        words in proptest::collection::vec(proptest::sample::select(&[
            "a.com", ":80", "http://b:81", "https://", "[::1", "*.c", "{", "}", "\n", "\n", "@m", "@", "path", "/x", "/x*", "*",
            "say", "vars", "rewrite", "handle", "handle_path", "route", "bind", "unix//s", "log", "tls", "tls1.3",
            "invoke", "&(r)", "r", "nonsense", "\"q\"", ",",
        ][..]), 0..60)
    ) {
        let text = words.join(" ");
        let known = |name: &str| REGISTRY.directive(name).is_some();
        let loaded = load_text("Proxyfile", &text, &Env::empty(), &known);
        let resolved = resolve(&loaded.file, &loaded.sources, &REGISTRY);
        let text = serde_json::to_string(&resolved.config).unwrap();
        proptest::prop_assert!(!text.contains("span"));
    }
}
