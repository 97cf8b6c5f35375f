//! `ollama_compat`: the Ollama API for clients that speak nothing else, over any upstream in the OpenAI format.
//!
//! VS Code Copilot, Zed, Open WebUI, Continue, JetBrains AI Assistant and the `ollama` packages find the models of the
//! upstream, with their context lengths and capabilities, and chat with them. Requests for Ollama's own routes
//! (`/api/chat`, `/api/generate`, `/api/embed`, `/api/embeddings`, `/api/tags`, `/api/show`, `/api/ps`, `/api/version`, `/`)
//! are turned into requests for `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings` and `/v1/models`, which go on down the
//! site; the answers are turned back, streams line by line. What is under `/v1/` goes on as it is, as Ollama serves both on
//! one base address. Models are managed by the upstream: `push`, `create`, `copy`, `delete` and the like are refused, `pull` of
//! a model that is there succeeds.
//!
//! **Where.** Without a path the API stands at the root of the site. `ollama_compat /ollama` puts it under `/ollama`; the path
//! is taken off before any other directive looks at it. To bound the directive to some requests use `@name`: a path in
//! its first place is where the API stands, not a matcher.
//!
//! **Who.** Access is controlled by `auth_token` and the like, which run before the translation and ask for a key on every
//! route, discovery included. Some clients send no key when they look for models: VS Code Copilot does not. For those there
//! are secret paths: `secret NAME PATH` opens the API under `/PATH`, without a header, with the rights, limits and expiry of the
//! token NAME of `auth_token` (without any access control in the site, NAME is only what logs show). A secret path opens
//! what is needed to find models and use them: the routes above and, under `/v1/`, `chat/completions`, `completions`,
//! `embeddings`, `models`, `responses`, `messages` and `audio/transcriptions`. Everything else is answered 404. The secret is taken out of the
//! request at once: logs, errors, placeholders and the upstream never see it. PATH is one part of a path, as long and as random
//! as any key (`openssl rand -hex 16`), and may come from `{$VAR}`, `{env.VAR}` or `{file./path}`.
//!
//! **Models.** Upstreams list names alone. What clients want to know besides comes from a table of models that is part of
//! this program; `model GLOB { … }` says what the table does not know or what you know better (`context` and `output` in
//! tokens; `capabilities` of `completion`, `tools`, `insert`, `vision`, `embedding`, `thinking`, `audio`; `name` is what pickers show).
//! For a model that neither knows, clients are told a context of 32768 tokens and tools. `expose` lists only the models
//! that a glob names; callers see and use only those that their token may use. `version` is the Ollama version that clients are
//! told, for those that ask for a newer one.
//!
//! Options of Ollama that the OpenAI format lacks (`num_ctx`, `top_k`, `keep_alive` and others) are left out. Errors, also those
//! of the upstream, come as `{"error": "…"}` with the upstream's status and `Retry-After`; a stream that breaks off ends with
//! such a line. In a `route` block, write `ollama_compat` after access control only if it has no path and no secrets.

use crate::config::registry::{Directive, Doc, HandlerModule};

mod answer;
mod config;
mod endpoint;
mod mount;
mod parse;
mod secret;
mod tag;
mod translate;

pub const DIRECTIVE: Directive = Directive {
    name: "ollama_compat",
    renamed_to: None,
    ordered: true,
    // A path in its first place is its own argument.
    matcher: false,
    parse: parse::parse,
    doc: &Doc {
        summary: "The Ollama API over an OpenAI-compatible upstream: for Copilot, Zed, Open WebUI and others.",
        syntax: "ollama_compat [*|@name] [<path>] { secret <token name> <path>  version <version>  expose <globs…>  model <glob> { context|output|embedding_length <number>  capabilities <words…>  family|parameters|quantization|name <text> } }",
        examples: &[
            "ollama_compat\nreverse_proxy 127.0.0.1:8000",
            "ollama_compat /ollama {\n\tsecret copilot 3d9f1c7a5b2e48609f1c7a5b2e48603d\n\texpose gpt-* claude-*\n}\nreverse_proxy 127.0.0.1:8000",
            "@inside remote_ip private_ranges\nollama_compat @inside {\n\tversion 0.13.0\n\tmodel house-* {\n\t\tcontext 128000\n\t\toutput 16384\n\t\tcapabilities completion tools vision\n\t\tfamily llama\n\t\tparameters 70.6B\n\t\tquantization Q4_K_M\n\t\tname \"House model\"\n\t}\n}\nreverse_proxy 127.0.0.1:8000",
        ],
        rejected: &[
            ("ollama_compat ollama", "invalid-mount-path"),
            ("ollama_compat /ollama/*", "invalid-mount-path"),
            ("ollama_compat /a /b", "wrong-argument-count"),
            ("ollama_compat @nobody", "undefined-matcher"),
            ("ollama_compat {\n\tsecret copilot\n}", "invalid-secret-path"),
            ("ollama_compat {\n\tsecret copilot 3d9f1c7a5b2e48609f1c7a5b more\n}", "wrong-argument-count"),
            ("ollama_compat {\n\tsecret copilot \"\"\n}", "invalid-secret-path"),
            ("ollama_compat {\n\tsecret copilot two/parts-of-a-path\n}", "invalid-secret-path"),
            ("ollama_compat {\n\tsecret copilot {http.request.host}\n}", "token-not-fixed"),
            (
                "ollama_compat {\n\tsecret one 3d9f1c7a5b2e48609f1c7a5b\n\tsecret two /3d9f1c7a5b2e48609f1c7a5b/\n}",
                "duplicate-secret",
            ),
            ("ollama_compat {\n\tversion 0.6\n}", "invalid-value"),
            ("ollama_compat {\n\tversion latest\n}", "invalid-value"),
            ("ollama_compat {\n\tmodel gpt-4o {\n\t\tcontext 128k\n\t}\n}", "invalid-number"),
            ("ollama_compat {\n\tmodel gpt-4o {\n\t\tcapabilities sight\n\t}\n}", "invalid-value"),
            ("ollama_compat {\n\texpose\n}", "wrong-argument-count"),
            ("ollama_compat {\n\tsecrets copilot x\n}", "unknown-subdirective"),
        ],
        adapt_only: false,
    },
};

/// The half that takes the mount's path or the secret off.
pub const MOUNT_HANDLER: HandlerModule = HandlerModule { id: "ollama_mount", compile: mount::compile };

/// The half that translates.
pub const HANDLER: HandlerModule = HandlerModule { id: "ollama_compat", compile: translate::compile };

/// The mount runs before this directive, and so before all that logs, guards or routes by the path: those see the request
/// as if it had come without the prefix.
const MOUNT_BEFORE: &str = "fs";

/// What clients are told that they talk to. Any version from [`LOWEST_VERSION`] on has all that is offered.
const DEFAULT_VERSION: &str = "0.12.6";

/// VS Code Copilot takes no server below this one.
const LOWEST_VERSION: [u64; 3] = [0, 6, 4];

/// Clients compare versions number by number, and some take nothing but digits and dots.
fn check_version(version: &str) -> Result<(), String> {
    let numbers: Option<Vec<u64>> =
        version.split('.').map(|n| n.parse().ok().filter(|_| !n.starts_with('+'))).collect();
    match numbers {
        Some(numbers) if numbers.len() == 3 && numbers.as_slice() >= LOWEST_VERSION.as_slice() => Ok(()),
        Some(numbers) if numbers.len() == 3 => Err("clients take no Ollama server below version 0.6.4".into()),
        _ => Err("a version is three numbers with dots between, such as `0.12.6`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_three_numbers_and_not_too_old() {
        for version in ["0.6.4", "0.12.6", "1.0.0", DEFAULT_VERSION] {
            assert_eq!(check_version(version), Ok(()), "{version}");
        }
        for version in ["", "0.6.3", "0.5.99", "0.12", "v0.12.6", "0.12.6-rc1", "0.12.6.1", "+1.0.0", "0..1"] {
            assert!(check_version(version).is_err(), "{version}");
        }
    }
}
