//! Shorthand placeholders: `{host}` is `{http.request.host}`. Caddy writes them out in every word of a site or named
//! route (matchers and regular expressions too, global options not), and so do we.

use std::borrow::Cow;

use crate::syntax::tree::Node;

/// Whole names.
const NAMES: &[(&str, &str)] = &[
    ("host", "http.request.host"),
    ("hostport", "http.request.hostport"),
    ("port", "http.request.port"),
    ("orig_method", "http.request.orig_method"),
    ("orig_uri", "http.request.orig_uri"),
    ("orig_path", "http.request.orig_uri.path"),
    ("orig_dir", "http.request.orig_uri.path.dir"),
    ("orig_file", "http.request.orig_uri.path.file"),
    ("orig_query", "http.request.orig_uri.query"),
    ("orig_?query", "http.request.orig_uri.prefixed_query"),
    ("method", "http.request.method"),
    ("uri", "http.request.uri"),
    ("%uri", "http.request.uri_escaped"),
    ("path", "http.request.uri.path"),
    ("%path", "http.request.uri.path_escaped"),
    ("dir", "http.request.uri.path.dir"),
    ("file", "http.request.uri.path.file"),
    ("query", "http.request.uri.query"),
    ("%query", "http.request.uri.query_escaped"),
    ("?query", "http.request.uri.prefixed_query"),
    ("remote", "http.request.remote"),
    ("remote_host", "http.request.remote.host"),
    ("remote_port", "http.request.remote.port"),
    ("scheme", "http.request.scheme"),
    ("uuid", "http.request.uuid"),
    ("tls_cipher", "http.request.tls.cipher_suite"),
    ("tls_version", "http.request.tls.version"),
    ("tls_client_fingerprint", "http.request.tls.client.fingerprint"),
    ("tls_client_issuer", "http.request.tls.client.issuer"),
    ("tls_client_serial", "http.request.tls.client.serial"),
    ("tls_client_subject", "http.request.tls.client.subject"),
    ("tls_client_certificate_pem", "http.request.tls.client.certificate_pem"),
    ("tls_client_certificate_der_base64", "http.request.tls.client.certificate_der_base64"),
    ("upstream_hostport", "http.reverse_proxy.upstream.hostport"),
    ("client_ip", "http.vars.client_ip"),
];

/// Families: prefix, full prefix, and whether the rest of the name may hold dots.
const FAMILIES: &[(&str, &str, bool)] = &[
    ("header.", "http.request.header.", false),
    ("cookie.", "http.request.cookie.", false),
    ("labels.", "http.request.host.labels.", false),
    ("path.", "http.request.uri.path.", false),
    ("file.", "http.request.uri.path.file.", false),
    ("query.", "http.request.uri.query.", false),
    ("re.", "http.regexp.", true),
    ("vars.", "http.vars.", false),
    ("rp.", "http.reverse_proxy.", true),
    ("resp.", "http.intercept.", true),
    ("err.", "http.error.", true),
    ("file_match.", "http.matchers.file.", false),
];

/// Writes out the shorthands of every word of these lines.
pub fn expand_nodes(nodes: &mut [Node]) {
    for node in nodes {
        for token in std::iter::once(&mut node.name).chain(&mut node.args) {
            if let Cow::Owned(text) = expand(&token.text) {
                token.text = text.into();
            }
        }
        if let Some(block) = &mut node.block {
            expand_nodes(&mut block.nodes);
        }
    }
}

/// Writes out the shorthands of one word.
pub fn expand(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut written = 0;
    for open in memchr::memchr_iter(b'{', text.as_bytes()) {
        // No name holds a brace, so the next brace decides.
        let Some(len) = memchr::memchr2(b'{', b'}', &text.as_bytes()[open + 1..]) else { break };
        let close = open + 1 + len;
        if text.as_bytes()[close] == b'}'
            && let Some(full) = full_name(&text[open + 1..close])
        {
            out.push_str(&text[written..=open]);
            out.push_str(&full);
            written = close;
        }
    }
    if written == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[written..]);
    Cow::Owned(out)
}

/// The shorthand for a full name such as `http.request.host`, to show people the word they wrote.
#[must_use]
pub fn short_name(full: &str) -> Option<&'static str> {
    NAMES.iter().find(|(_, long)| *long == full).map(|(short, _)| *short)
}

fn full_name(name: &str) -> Option<Cow<'static, str>> {
    if let Some((_, full)) = NAMES.iter().find(|(short, _)| *short == name) {
        return Some(Cow::Borrowed(full));
    }
    FAMILIES.iter().find_map(|(prefix, full, dots)| {
        let rest = name.strip_prefix(prefix)?;
        let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-' || (*dots && c == b'.');
        rest.bytes().all(allowed).then(|| Cow::Owned(format!("{full}{rest}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_families_and_the_rest() {
        assert_eq!(expand("{host}:{port}{unknown}"), "{http.request.host}:{http.request.port}{unknown}");
        assert_eq!(
            expand("{header.X-Y} {re.a.0} {path.0}"),
            "{http.request.header.X-Y} {http.regexp.a.0} {http.request.uri.path.0}"
        );
        assert_eq!(expand("{query.a.b} {file./etc/x}"), "{query.a.b} {file./etc/x}");
        assert_eq!(expand("{{host}} {host"), "{{http.request.host}} {host");
        assert_eq!(
            expand("[a-z]{1,3}{%path}{?query}"),
            "[a-z]{1,3}{http.request.uri.path_escaped}{http.request.uri.prefixed_query}"
        );
        assert!(matches!(expand("nothing"), Cow::Borrowed(_)));
        assert_eq!(short_name("http.request.host"), Some("host"));
    }
}
