//! Room 6: the features. One file per feature: its directive, handler, matcher, documentation and tests.
//! Features never import one another; what two share moves down a room.
//!
//! Adding a feature = one new file, one `mod` line and its rows in the tables below.

use crate::config::registry::{Directive, HandlerModule, MatcherModule, Registry};

mod abort;
mod auth_token;
mod copy_response;
mod error;
mod fs;
mod handle;
mod handle_errors;
mod handle_path;
mod intercept;
mod invoke;
mod log_append;
mod log_name;
mod log_skip;
mod map;
mod method;
mod redir;
mod request_body;
mod respond;
mod reverse_proxy;
mod rewrite;
mod root;
mod route;
mod sample_llm;
#[cfg(test)]
mod testing;
mod try_files;
mod uri;
mod vars;

/// All directives. The order of the `ordered` ones is the default running order (Caddy's, with ours inserted).
const DIRECTIVES: &[&Directive] = &[
    &map::DIRECTIVE,
    &vars::DIRECTIVE,
    &fs::DIRECTIVE,
    &root::DIRECTIVE,
    &log_append::DIRECTIVE,
    &log_skip::OLD_SPELLING,
    &log_skip::DIRECTIVE,
    &log_name::DIRECTIVE,
    &copy_response::HEADERS_DIRECTIVE,
    &request_body::DIRECTIVE,
    &redir::DIRECTIVE,
    &method::DIRECTIVE,
    &rewrite::DIRECTIVE,
    &uri::DIRECTIVE,
    &try_files::DIRECTIVE,
    &auth_token::DIRECTIVE,
    &reverse_proxy::forward_auth::DIRECTIVE,
    &intercept::DIRECTIVE,
    &invoke::DIRECTIVE,
    &handle::DIRECTIVE,
    &handle_path::DIRECTIVE,
    &route::DIRECTIVE,
    &abort::DIRECTIVE,
    &error::DIRECTIVE,
    &copy_response::DIRECTIVE,
    &respond::DIRECTIVE,
    &sample_llm::DIRECTIVE,
    &reverse_proxy::DIRECTIVE,
    &reverse_proxy::php_fastcgi::DIRECTIVE,
    // Without a place in the running order.
    &handle_errors::DIRECTIVE,
];

const HANDLERS: &[HandlerModule] = &[
    auth_token::HANDLER,
    copy_response::HANDLER,
    copy_response::HEADERS_HANDLER,
    error::HANDLER,
    intercept::HANDLER,
    invoke::HANDLER,
    log_append::HANDLER,
    map::HANDLER,
    request_body::HANDLER,
    respond::HANDLER,
    reverse_proxy::HANDLER,
    rewrite::HANDLER,
    sample_llm::HANDLER,
    vars::HANDLER,
];

const MATCHERS: &[MatcherModule] = &[];

pub static REGISTRY: Registry = Registry { directives: DIRECTIVES, handlers: HANDLERS, matchers: MATCHERS };
