//! Keys written into the file itself. Looks at the file as the admin wrote it, where `{$VAR}` is still `{$VAR}`.

use std::sync::LazyLock;

use regex::Regex;

use crate::base::diagnostic::Diagnostic;
use crate::base::span::{FileId, SourceMap, Span};

/// The group `key` is what must not be shown.
static KEYS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    // Provider keys by their prefix; any long literal after `Bearer`; the tokens of `auth_token`, on its line and named;
    // secret paths; the tokens of a DNS provider.
    let shapes = r#"(?m)^[ \t]*(?:acme_dns|dns)[ \t]+cloudflare[ \t]+"?(?P<dns>[A-Za-z0-9_-]{8,})|^[ \t]*(?:api_token|zone_token)[ \t]+"?(?P<dns_token>[A-Za-z0-9_-]{8,})|\b(?P<key>sk-[A-Za-z0-9_-]{16,})|\bBearer (?P<bearer>[A-Za-z0-9._~+/=-]{20,})|^[ \t]*(?:token|secret)[ \t]+[^\s]+[ \t]+"?/?(?P<named>[A-Za-z0-9._~+=-]{8,})|^[ \t]*auth_token[ \t]+(?:[@/*][^\s]*[ \t]+)?"?(?P<token>[A-Za-z0-9._~+=-]{8,})"#;
    Regex::new(shapes).ok()
});

pub fn check(sources: &SourceMap) -> Vec<Diagnostic> {
    let Some(keys) = &*KEYS else { return Vec::new() };
    let mut found = Vec::new();
    for (index, file) in (0_u32..).zip(sources.files()) {
        for captures in keys.captures_iter(&file.text) {
            let Some(key) =
                ["key", "bearer", "token", "named", "dns", "dns_token"].iter().find_map(|g| captures.name(g))
            else {
                continue;
            };
            let line_start = file.text[..key.start()].rfind('\n').map_or(0, |i| i + 1);
            let is_comment = file.text[line_start..key.start()].trim_start().starts_with('#');
            if is_comment || key.as_str().starts_with("sha256") {
                continue;
            }
            let span = Span::new(FileId(index), key.start(), key.end());
            found.push(
                Diagnostic::warning("key-in-clear", "a key stands in clear in the file")
                    .at(span, "")
                    .secret(span)
                    .help("keep it in the environment (`{$NAME}`, with `--envfile` or the service's environment) or in a file (`{file./path}`)"),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut sources = SourceMap::new();
        sources.add("Proxyfile", None, text);
        check(&sources).iter().map(|d| sources.text(d.secret[0]).to_owned()).collect()
    }

    #[test]
    fn keys_are_seen_where_they_stand_in_clear() {
        assert_eq!(
            found("header_up Authorization \"Bearer sk-abcdefghijklmnopqrstuv\""),
            ["sk-abcdefghijklmnopqrstuv"]
        );
        assert_eq!(
            found("header_up Authorization \"Bearer abcdefghijklmnopqrstuvwxyz\""),
            ["abcdefghijklmnopqrstuvwxyz"]
        );
        assert_eq!(found("\tsecret copilot /a-secret-path"), ["a-secret-path"]);
        assert_eq!(found("\tauth_token /v1/* my-secret-token"), ["my-secret-token"]);
        assert_eq!(found("\tdns cloudflare my-secret-token"), ["my-secret-token"]);
        assert_eq!(found("\tdns cloudflare {\n\t\tapi_token my-secret-token\n"), ["my-secret-token"]);
        assert!(found("\tdns cloudflare {env.CF_API_TOKEN}\n\tdns exec a-long-enough-word").is_empty());
        assert_eq!(found("auth_token {\n\ttoken ide my-secret-token {\n"), ["my-secret-token"]);
    }

    #[test]
    fn placeholders_hashes_and_comments_are_not_keys() {
        assert!(found("header_up Authorization \"Bearer {$OPENAI_API_KEY}\"\nauth_token {$TOKEN}").is_empty());
        assert!(found("auth_token sha256:0123456789abcdef").is_empty());
        assert!(found("token a sha256:0123456789abcdef\ntoken b {$B}\ntoken c $argon2id$v=19$m=19456").is_empty());
        assert!(found("# Bearer abcdefghijklmnopqrstuvwxyz").is_empty());
    }

    #[test]
    fn the_message_never_shows_the_key() {
        let mut sources = SourceMap::new();
        sources.add("Proxyfile", None, "header_up X \"Bearer sk-abcdefghijklmnopqrstuv\"\n");
        let text = crate::base::diagnostic::render(&check(&sources), &sources, false);
        assert!(!text.contains("abcdefghijkl"), "{text}");
        assert!(text.contains("key-in-clear"), "{text}");
    }
}
