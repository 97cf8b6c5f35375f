//! Paths and queries of URLs with Go's rules, so that matching and rewriting agree with Caddy: percent decoding and
//! encoding (`net/url`), lexical cleaning (`path.Clean`), joining below a root, and query values.

use std::borrow::Cow;

/// The path as its text was meant (`URL.Path`): percent sequences decoded. Borrowed when there are none. A wrong
/// sequence stays as it is (the server answers 400 to it before any route runs).
#[must_use]
pub fn decode_path(raw: &str) -> Cow<'_, str> {
    if memchr::memchr(b'%', raw.as_bytes()).is_none() {
        return Cow::Borrowed(raw);
    }
    percent_encoding::percent_decode_str(raw).decode_utf8_lossy()
}

/// The path as it goes on the wire (`URL.EscapedPath`): as it came when that is a valid encoding, else encoded anew.
#[must_use]
pub fn escaped_path(raw: &str) -> Cow<'_, str> {
    if raw.bytes().all(|b| allowed_in_path(b) || b"!'()*[]%".contains(&b)) {
        Cow::Borrowed(raw)
    } else {
        Cow::Owned(escape_path(&decode_path(raw)))
    }
}

/// Encodes a decoded path, slashes kept.
#[must_use]
pub fn escape_path(path: &str) -> String {
    escape(path, allowed_in_path)
}

/// Encodes a query key or value (`url.QueryEscape`): a space becomes `+`.
#[must_use]
pub fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    query_escape_into(text, &mut out);
    out
}

/// Decodes a query key or value; `None` when a percent sequence is wrong.
#[must_use]
pub fn query_unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Some(Cow::Borrowed(text));
    }
    valid_percent(text)?;
    let spaced = text.replace('+', " ");
    Some(Cow::Owned(percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()))
}

/// True when every `%` begins a whole sequence.
#[must_use]
pub fn is_valid_escaped(text: &str) -> bool {
    valid_percent(text).is_some()
}

/// Pairs of a query in their order; pairs that Go's parser rejects (a semicolon, a wrong percent sequence) are skipped.
pub fn query_pairs(raw: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    raw.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((query_unescape(key)?, query_unescape(value)?))
    })
}

/// A query's values by key (`url.Values`), in their order; encoded with sorted keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryValues(pub std::collections::BTreeMap<String, Vec<String>>);

impl QueryValues {
    #[must_use]
    pub fn parse(raw: &str) -> Self {
        let mut out = Self::default();
        for (key, value) in query_pairs(raw) {
            out.add(&key, value.into_owned());
        }
        out
    }

    pub fn add(&mut self, key: &str, value: String) {
        match self.0.get_mut(key) {
            Some(values) => values.push(value),
            None => {
                self.0.insert(key.to_owned(), vec![value]);
            }
        }
    }

    pub fn set(&mut self, key: &str, value: String) {
        self.0.insert(key.to_owned(), vec![value]);
    }

    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        for (key, values) in &self.0 {
            for value in values {
                if !out.is_empty() {
                    out.push('&');
                }
                query_escape_into(key, &mut out);
                out.push('=');
                query_escape_into(value, &mut out);
            }
        }
        out
    }
}

/// Go's `path.Clean`: dots resolved, slashes merged, no trailing slash; `.` for an empty path.
#[must_use]
pub fn clean(path: &str) -> Cow<'_, str> {
    if is_clean(path) {
        return Cow::Borrowed(path);
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    Cow::Owned(match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    })
}

/// Caddy's `CleanPath`: like [`clean`] but a trailing slash stays, and runs of slashes stay unless `merge_slashes`.
#[must_use]
pub fn clean_path(path: &str, merge_slashes: bool) -> Cow<'_, str> {
    if merge_slashes {
        return clean_keeping_slash(path);
    }
    if !path.contains("//") {
        return clean_keeping_slash(path);
    }
    let mut marked = String::with_capacity(path.len() + 8);
    let mut after_slash = false;
    for c in path.chars() {
        if c == '/' && after_slash {
            marked.push(MARK);
        }
        after_slash = c == '/';
        marked.push(c);
    }
    Cow::Owned(clean_keeping_slash(&marked).replace(MARK, ""))
}

/// Joins a request path below a root so that it cannot leave it (Caddy's `SanitizedPathJoin`). The path is decoded.
/// The root itself when the path names nothing safe; a trailing slash stays.
#[must_use]
pub fn join_below(root: &str, request_path: &str) -> String {
    let root = if root.is_empty() { "." } else { root };
    let rooted = format!("/{request_path}");
    let relative = clean(&rooted);
    let relative = &relative[1..];
    // Cleaning a rooted path leaves no `..`; a NUL cannot be in a file name.
    if relative.contains('\0') {
        return root.to_owned();
    }
    let joined = if relative.is_empty() { root.to_owned() } else { format!("{root}/{relative}") };
    let mut joined = clean(&joined).into_owned();
    if request_path.ends_with('/') && request_path.len() > 1 {
        joined.push('/');
    }
    joined
}

/// Not a character of any text: keeps empty segments apart while the rest of a path is cleaned.
const MARK: char = '\u{10FFFF}';

/// The directory part with its slash, and the file part (Go's `path.Split`).
#[must_use]
pub fn split(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |i| i + 1))
}

/// The extension with its dot, of the last segment (Go's `path.Ext`).
#[must_use]
pub fn extension(path: &str) -> &str {
    let file = split(path).1;
    file.rfind('.').map_or("", |i| &file[i..])
}

/// The last segment (Go's `path.Base`): `.` for an empty path, `/` for slashes alone.
#[must_use]
pub fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    match path.trim_end_matches('/') {
        "" => "/",
        trimmed => split(trimmed).1,
    }
}

fn is_clean(path: &str) -> bool {
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
    path == "/" || segments.all(|s| !matches!(s, "" | "." | ".."))
}

fn clean_keeping_slash(path: &str) -> Cow<'_, str> {
    // The common case: a clean path with a slash at its end stays borrowed.
    if let Some(front) = path.strip_suffix('/')
        && !matches!(front, "" | "/")
        && is_clean(front)
    {
        return Cow::Borrowed(path);
    }
    let cleaned = clean(path);
    if cleaned != "/" && path.ends_with('/') { Cow::Owned(cleaned.into_owned() + "/") } else { cleaned }
}

fn unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.~".contains(&b)
}

fn allowed_in_path(b: u8) -> bool {
    unreserved(b) || b"$&+,/:;=@".contains(&b)
}

fn escape(text: &str, allowed: fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for b in text.bytes() {
        if allowed(b) { out.push(char::from(b)) } else { push_hex(b, &mut out) }
    }
    out
}

fn query_escape_into(text: &str, out: &mut String) {
    for b in text.bytes() {
        match b {
            b' ' => out.push('+'),
            b if unreserved(b) => out.push(char::from(b)),
            b => push_hex(b, out),
        }
    }
}

fn push_hex(b: u8, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(b >> 4)]));
    out.push(char::from(HEX[usize::from(b & 15)]));
}

fn valid_percent(text: &str) -> Option<()> {
    let bytes = text.as_bytes();
    let ok = memchr::memchr_iter(b'%', bytes)
        .all(|i| bytes.get(i + 1..i + 3).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit)));
    ok.then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_is_that_of_go() {
        for (given, want) in [
            ("", "."),
            ("/", "/"),
            ("//", "/"),
            ("/a/../../b", "/b"),
            ("a/../..", ".."),
            ("/a//b/./c/", "/a/b/c"),
            ("/a/b", "/a/b"),
        ] {
            assert_eq!(clean(given), want, "{given}");
        }
        assert_eq!(clean_path("/a//b/../c/", true), "/a/c/");
        assert_eq!(clean_path("/a//b/../c/", false), "/a//c/");
        assert_eq!(clean_path("/..//", false), "//");
        assert_eq!(clean_path("//", true), "/");
        assert!(matches!(clean_path("/a/b/", true), Cow::Borrowed(_)));
    }

    #[test]
    fn a_joined_path_stays_below_its_root() {
        assert_eq!(join_below("/srv", "/../../etc/passwd"), "/srv/etc/passwd");
        assert_eq!(join_below("", "/a"), "a");
        assert_eq!(join_below("/srv", "/"), "/srv");
        assert_eq!(join_below("/srv", "/a/"), "/srv/a/");
    }

    #[test]
    fn encodings_are_those_of_go() {
        assert_eq!(decode_path("/a%20b%2Fc"), "/a b/c");
        assert_eq!(escape_path("/a b?c"), "/a%20b%3Fc");
        assert_eq!(escaped_path("/a%2Fb"), "/a%2Fb");
        assert_eq!(escaped_path("/a\"b"), "/a%22b");
        assert_eq!(query_escape("a b&c/ü"), "a+b%26c%2F%C3%BC");
        assert_eq!(query_unescape("a+b%2"), None);
    }

    #[test]
    fn a_query_is_parsed_leniently_and_encoded_sorted() {
        let values = QueryValues::parse("b=1&a=2%26&a=%zz&a=3;4&a=+&c");
        assert_eq!(values.encode(), "a=2%26&a=+&b=1&c=");
    }

    proptest::proptest! {
        #[test]
        fn cleaning_leaves_nothing_to_clean(path in "/[ab./%]{0,12}") {
            let once = clean_path(&path, true).into_owned();
            proptest::prop_assert_eq!(&clean_path(&once, true), &once);
            proptest::prop_assert!(!once.contains("//") && !once.split('/').any(|s| s == ".." || s == "."));
        }

        #[test]
        fn a_joined_path_begins_with_its_root(path in "[ab./\\\\]{0,12}") {
            let joined = join_below("/srv", &path);
            proptest::prop_assert!(joined == "/srv" || joined.starts_with("/srv/"), "{}", joined);
            proptest::prop_assert!(!joined.split('/').any(|s| s == ".."));
        }

        #[test]
        fn an_encoded_query_value_decodes_to_itself(text in ".{0,20}") {
            let escaped = query_escape(&text);
            proptest::prop_assert_eq!(query_unescape(&escaped).unwrap(), text.as_str());
        }
    }

    #[test]
    fn parts_of_a_path() {
        assert_eq!(split("/a/b.c"), ("/a/", "b.c"));
        assert_eq!(extension("/a.x/b"), "");
        assert_eq!(extension("/a/b.tar.gz"), ".gz");
        assert_eq!((base("/a/"), base("/"), base("")), ("a", "/", "."));
    }
}
