//! The one integration binary: every test that runs the built `llmproxy`, most of them beside the real Caddy 2.11.7.
//!
//! `harness` holds what the tests share: spawning both proxies, a client that sends exact bytes, an upstream that says
//! what it saw, a stand-in for the API. A test that needs Caddy is skipped with a message where `caddy` is absent, and
//! fails there under `CI=true`. `LLMPROXY_BIN` names another binary to test.
#![allow(clippy::pedantic)] // tests are read as stories; pedantry is for the product
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a broken assumption is a failed test

mod harness;

mod access_log;
mod acme;
mod acme_bad;
mod acme_dns;
mod acme_server;
mod alert;
mod auth_token;
mod auth_token_rights;
mod auto_https;
mod bad_files;
mod balancing;
mod behaviours;
mod budget;
mod cli;
mod clients;
mod configs;
mod corpus;
mod cors;
mod cursor_compat;
mod doctor;
mod encode;
mod examples;
mod fault_matrix;
mod format;
mod golden_adapt;
mod golden_diagnostics;
mod golden_ollama;
mod gpt_reverse_proxy;
mod health;
mod hostile;
mod http1;
mod http2;
mod install;
mod jwt_auth;
mod ledger;
mod listener_wrappers;
mod migrate;
mod migrate_caddy;
mod migrate_storage;
mod models;
mod ocsp;
mod ollama_compat;
mod on_demand;
mod planted_secrets;
mod rate_limit;
mod record;
mod reference;
mod reload;
mod sdk;
mod secrets;
mod soak;
mod sse_keepalive;
mod storage_loss;
mod streaming;
mod system_calls;
mod tls;
mod token_commands;
mod transport;
mod transport_tls;
mod trust;
mod upstreams;
mod usage;
