//! Room 3: a request and its way through the route tree. Owns: the exchange, the walker, handler and matcher traits,
//! response stages, placeholders, header operations, handler errors. Must not know: hyper, sockets, configuration
//! files, or any single feature.
//!
//! ```text
//! Exchange ─▶ walker::run(routes) ─▶ step, gate, terminal … ─▶ Outcome
//!                 │ error ▶ error routes                  response ─▶ stages in reverse ─▶ server
//! ```

pub mod body_filter;
pub mod condition;
pub mod credentials;
pub mod error;
pub mod error_answer;
pub mod exchange;
pub mod glob;
pub mod gunzip;
pub mod handler;
pub mod headers;
pub mod hold;
pub mod host;
pub mod ip_range;
pub mod matcher;
pub mod metering;
pub mod model_not_found;
pub mod model_rights;
pub mod path;
pub mod path_pattern;
pub mod placeholder;
pub mod read_ahead;
pub mod regexp;
pub mod rename_model;
pub mod requested_model;
pub mod response_handler;
pub mod response_matcher;
pub mod rewrite;
pub mod route;
pub mod stage;
pub mod status;
pub mod transcript;
pub mod vars;
pub mod walker;
