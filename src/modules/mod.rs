//! Room 6: the features. One file per feature: its directive, handler, matcher, documentation and tests.
//! Features never import one another; what two share moves down a room.
//!
//! Adding a feature = one new file, one `mod` line and its rows in the tables below.

use crate::config::registry::{Directive, HandlerModule, MatcherModule, Registry};

mod abort;
pub mod acme_server;
mod alert;
pub mod auth_token;
mod basic_auth;
mod bind;
mod budget;
mod copy_response;
mod cors;
mod cursor_compat;
mod encode;
mod error;
mod file_server;
mod fs;
mod handle;
mod handle_errors;
mod handle_path;
mod header;
mod intercept;
mod invoke;
mod jwt_auth;
mod log;
mod log_append;
mod log_name;
mod log_skip;
mod map;
mod match_expression;
mod match_file;
mod match_header;
mod match_header_regexp;
mod match_host;
mod match_method;
mod match_model;
mod match_not;
mod match_path;
mod match_path_regexp;
mod match_protocol;
mod match_query;
mod match_remote_ip;
mod match_tls;
mod match_url_pattern;
mod match_vars;
mod match_vars_regexp;
mod method;
mod metrics;
mod model_alias;
mod models;
mod ollama_compat;
mod push;
mod rate_limit;
mod record;
mod redir;
mod request_body;
mod request_header;
mod respond;
mod reverse_proxy;
mod rewrite;
mod root;
mod route;
mod sample_llm;
mod templates;
#[cfg(test)]
mod testing;
mod timeouts;
mod tls;
mod tracing;
mod try_files;
mod uri;
mod usage;
mod vars;

/// All directives. The order of the `ordered` ones is the default running order (Caddy's, with ours inserted).
const DIRECTIVES: &[&Directive] = &[
    &tracing::DIRECTIVE,
    &map::DIRECTIVE,
    &vars::DIRECTIVE,
    &fs::DIRECTIVE,
    &root::DIRECTIVE,
    &log_append::DIRECTIVE,
    &log_skip::OLD_SPELLING,
    &log_skip::DIRECTIVE,
    &log_name::DIRECTIVE,
    &header::DIRECTIVE,
    &copy_response::HEADERS_DIRECTIVE,
    &request_body::DIRECTIVE,
    &timeouts::DIRECTIVE,
    &record::DIRECTIVE,
    &cors::DIRECTIVE,
    &redir::DIRECTIVE,
    &method::DIRECTIVE,
    &rewrite::DIRECTIVE,
    &uri::DIRECTIVE,
    &try_files::DIRECTIVE,
    // Ahead of access control, so that guessing is limited too; Caddy's plugin stands before `basic_auth`.
    &rate_limit::DIRECTIVE,
    &auth_token::DIRECTIVE,
    &jwt_auth::DIRECTIVE,
    &basic_auth::OLD_SPELLING,
    &basic_auth::DIRECTIVE,
    &reverse_proxy::forward_auth::DIRECTIVE,
    &request_header::DIRECTIVE,
    // In front of what translates, so that it compresses what came of that.
    &encode::DIRECTIVE,
    &cursor_compat::DIRECTIVE,
    &model_alias::DIRECTIVE,
    &usage::DIRECTIVE,
    // Behind the aliases: how a model wants to be asked goes by the one that is asked.
    &ollama_compat::DIRECTIVE,
    &models::DIRECTIVE,
    // Behind what names the caller and the model.
    &alert::DIRECTIVE,
    &budget::DIRECTIVE,
    &push::DIRECTIVE,
    &intercept::DIRECTIVE,
    &templates::DIRECTIVE,
    &invoke::DIRECTIVE,
    &handle::DIRECTIVE,
    &handle_path::DIRECTIVE,
    &route::DIRECTIVE,
    &abort::DIRECTIVE,
    &error::DIRECTIVE,
    &copy_response::DIRECTIVE,
    &respond::DIRECTIVE,
    &sample_llm::DIRECTIVE,
    &metrics::DIRECTIVE,
    &reverse_proxy::DIRECTIVE,
    &reverse_proxy::php_fastcgi::DIRECTIVE,
    &file_server::DIRECTIVE,
    &acme_server::DIRECTIVE,
    // Without a place in the running order.
    &handle_errors::DIRECTIVE,
    &bind::DIRECTIVE,
    &log::DIRECTIVE,
    &tls::DIRECTIVE,
];

const HANDLERS: &[HandlerModule] = &[
    acme_server::HANDLER,
    alert::HANDLER,
    auth_token::HANDLER,
    basic_auth::HANDLER,
    budget::HANDLER,
    copy_response::HANDLER,
    copy_response::HEADERS_HANDLER,
    cors::HANDLER,
    cursor_compat::HANDLER,
    encode::HANDLER,
    error::HANDLER,
    file_server::HANDLER,
    header::HANDLER,
    intercept::HANDLER,
    invoke::HANDLER,
    jwt_auth::HANDLER,
    log_append::HANDLER,
    map::HANDLER,
    metrics::HANDLER,
    model_alias::HANDLER,
    models::HANDLER,
    ollama_compat::HANDLER,
    ollama_compat::MOUNT_HANDLER,
    push::HANDLER,
    rate_limit::HANDLER,
    record::HANDLER,
    request_body::HANDLER,
    respond::HANDLER,
    reverse_proxy::HANDLER,
    rewrite::HANDLER,
    sample_llm::HANDLER,
    templates::HANDLER,
    timeouts::HANDLER,
    tracing::HANDLER,
    usage::HANDLER,
    vars::HANDLER,
];

const MATCHERS: &[MatcherModule] = &[
    match_expression::MATCHER,
    match_file::MATCHER,
    match_header::MATCHER,
    match_header_regexp::MATCHER,
    match_host::MATCHER,
    match_method::MATCHER,
    match_model::MATCHER,
    match_not::MATCHER,
    match_path::MATCHER,
    match_path_regexp::MATCHER,
    match_protocol::MATCHER,
    match_query::MATCHER,
    match_remote_ip::REMOTE,
    match_remote_ip::CLIENT,
    match_tls::MATCHER,
    match_url_pattern::MATCHER,
    match_vars::MATCHER,
    match_vars_regexp::MATCHER,
];

pub static REGISTRY: Registry = Registry { directives: DIRECTIVES, handlers: HANDLERS, matchers: MATCHERS };

#[cfg(test)]
mod tests {
    use super::REGISTRY;
    use crate::base::diagnostic::Diagnostic;
    use crate::base::env::Env;
    use crate::config::compile_cx::CompileCx;
    use crate::config::expand::load_text;
    use crate::config::resolve::resolve;

    /// Codes of everything that is wrong with a site body, and whether it adapts.
    fn check(body: &str) -> (Vec<&'static str>, bool) {
        let text = format!("a.test {{\n{body}\n}}\n");
        let loaded = load_text("example", &text, &Env::empty(), &|name| REGISTRY.directive(name).is_some());
        let resolved = resolve(&loaded.file, &loaded.sources, &REGISTRY);
        let said = loaded.diagnostics.iter().chain(&resolved.diagnostics);
        let mut codes: Vec<_> = said.filter(|d| Diagnostic::is_error(d)).map(|d| d.code).collect();
        let adapts = codes.is_empty();
        let mut cx = CompileCx::new(&REGISTRY);
        for server in resolved.config.apps.http.iter().flat_map(|http| http.servers.values()) {
            cx.compile_named_routes(&server.named_routes);
            cx.compile_routes(&server.routes);
            if let Some(errors) = &server.errors {
                cx.compile_routes(&errors.routes);
            }
        }
        codes.extend(cx.errors.iter().map(|e| e.code));
        (codes, adapts)
    }

    #[test]
    fn examples_do_what_their_directive_says() {
        let mut wrong = Vec::new();
        for directive in REGISTRY.directives {
            for example in directive.doc.examples {
                let (codes, adapts) = check(example);
                // What makes no route (`tls`) is refused elsewhere.
                let refused = codes.contains(&"not-supported-yet") || !directive.ordered;
                if !adapts || (directive.doc.adapt_only && !refused) || (!directive.doc.adapt_only && !codes.is_empty())
                {
                    wrong.push(format!("{}: {codes:?} for {example:?}", directive.name));
                }
            }
            for (example, code) in directive.doc.rejected {
                let (codes, _) = check(example);
                if !codes.contains(code) {
                    wrong.push(format!("{}: {codes:?} and not {code} for {example:?}", directive.name));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn no_name_is_registered_twice() {
        let names = REGISTRY.directives.iter().map(|d| d.name);
        let handlers = REGISTRY.handlers.iter().map(|h| h.id);
        let matchers = REGISTRY.matchers.iter().map(|m| m.id);
        for mut list in [names.collect::<Vec<_>>(), handlers.collect(), matchers.collect()] {
            let count = list.len();
            list.sort_unstable();
            list.dedup();
            assert_eq!(list.len(), count, "{list:?}");
        }
    }
}
