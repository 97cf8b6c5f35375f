//! Parts of keys made safe to be file names, as Caddy makes them (certmagic's `StorageKeys`).

/// One segment of a key: lower case, blanks and signs replaced or left out.
///
/// ```
/// use llmproxy::storage::key::safe;
/// assert_eq!(safe("*.Example.com"), "wildcard_.example.com");
/// assert_eq!(safe("../../etc"), "etc");
/// ```
#[must_use]
pub fn safe(text: &str) -> String {
    let text = text.trim().to_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            ' ' => out.push('_'),
            '+' => out.push_str("_plus_"),
            '*' => out.push_str("wildcard_"),
            ':' => out.push('-'),
            '.' if rest.starts_with('.') => rest = &rest[1..],
            'a'..='z' | '0'..='9' | '_' | '@' | '.' | '-' => out.push(c),
            _ => {}
        }
    }
    // A name of dots alone would leave the folder.
    if out.bytes().all(|b| b == b'.') { String::new() } else { out }
}

/// The key of an issuer: `local`, or the host and path of an ACME directory as one segment.
///
/// ```
/// use llmproxy::storage::key::issuer;
/// assert_eq!(issuer("https://acme-v02.api.letsencrypt.org/directory"), "acme-v02.api.letsencrypt.org-directory");
/// ```
#[must_use]
pub fn issuer(ca_url: &str) -> String {
    let rest = ca_url.split_once("://").map_or(ca_url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or(rest).trim_end_matches('/');
    safe(&rest.replace('/', "-"))
}

/// Keys of a certificate's three files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateKeys {
    pub chain: String,
    pub private_key: String,
    pub metadata: String,
}

#[must_use]
pub fn certificate(issuer: &str, name: &str) -> CertificateKeys {
    let name = safe(name);
    let stem = format!("certificates/{issuer}/{name}/{name}");
    CertificateKeys {
        chain: format!("{stem}.crt"),
        private_key: format!("{stem}.key"),
        metadata: format!("{stem}.json"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_file_names_as_in_caddy() {
        for (name, key) in [
            ("example.com", "example.com"),
            ("*.wild.localhost", "wildcard_.wild.localhost"),
            ("::1", "--1"),
            ("a+b@x.test", "a_plus_b@x.test"),
            ("a/../b", "ab"),
            ("..", ""),
            (".", ""),
            ("", ""),
            ("ÄB", "b"),
        ] {
            assert_eq!(safe(name), key, "{name}");
        }
    }

    #[test]
    fn issuers_are_named_by_their_directory() {
        assert_eq!(issuer("https://localhost:14000/dir"), "localhost-14000-dir");
        assert_eq!(issuer("https://acme.zerossl.com/v2/DV90"), "acme.zerossl.com-v2-dv90");
        assert_eq!(certificate("local", "*.a.test").chain, "certificates/local/wildcard_.a.test/wildcard_.a.test.crt");
    }
}
