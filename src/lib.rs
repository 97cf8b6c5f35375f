//! llmproxy: one binary in front of LLM APIs, configured by a Proxyfile (a Caddyfile with more words in it).
//!
//! The rooms, top to bottom. A room uses only rooms on lines below it; `tests/architecture.rs` enforces it.
//!
//! ```text
//! 9  cli                  commands, main
//! 8  server               listeners, workers, connections, reload, signals, control socket
//! 7  compile              Config -> Runtime
//! 6  modules              one file per feature: handlers, matchers, directives, global options
//! 5  proxy    tls         the reverse-proxy engine / certificates
//! 4  config               typed config, module traits, directive helper, expand, resolve
//! 3  http     state       exchange, walker, stages, placeholders, errors / counts that outlive a reload: limits, budgets
//! 2  client   storage   syntax   outbound dialling and HTTP / what is kept on disk / tokens, tree, formatter
//! 1  llm      telemetry   wire formats, error bodies (pure) / logs
//! 0  base                 span, diagnostic, units, body, error, clock, secret
//! ```

pub mod base;
pub mod cli;
pub mod client;
pub mod compile;
pub mod config;
pub mod http;
pub mod llm;
pub mod modules;
pub mod proxy;
pub mod server;
pub mod state;
pub mod storage;
pub mod syntax;
pub mod telemetry;
pub mod tls;
