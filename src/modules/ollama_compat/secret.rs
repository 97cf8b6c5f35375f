//! Secret paths: what one may look like, and finding the one that a request begins with.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::config::SecretConfig;
use crate::config::compile_cx::CompileError;
use crate::http::placeholder::{Key, Template};

/// Shorter ones are warned of.
pub const LONG_ENOUGH: usize = 16;
const LONGEST: usize = 256;

pub const HELP: &str = "one part of a path: letters, digits and `-._~`, such as `openssl rand -hex 16` makes";

/// The secret without slashes around it.
pub fn segment(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('/').unwrap_or(text).trim_end_matches('/')
}

/// Whether it can be told apart in a path. The message never shows it.
pub fn check(segment: &str) -> Result<(), &'static str> {
    if segment.is_empty() {
        return Err("a secret path is empty, which would let everybody in");
    }
    if segment.len() > LONGEST {
        return Err("a secret path is longer than 256 characters");
    }
    if matches!(segment, "api" | "v1" | "." | "..") {
        return Err("a secret path has the name of a path that everybody knows");
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    if segment.bytes().all(plain) { Ok(()) } else { Err("a secret path holds characters that paths escape or divide") }
}

/// The secrets of one directive, as digests.
pub struct Secrets(Box<[([u8; 32], Arc<str>)]>);

impl Secrets {
    /// Files that hold secrets are read now and added to `watched`.
    pub fn compile(list: &[SecretConfig], watched: &mut Vec<PathBuf>) -> Result<Self, CompileError> {
        let mut out: Vec<([u8; 32], Arc<str>)> = Vec::with_capacity(list.len());
        for (i, entry) in list.iter().enumerate() {
            let text = text(&entry.path, watched).map_err(|e| e.within("path").within(i))?;
            let segment = segment(&text);
            let wrong = |code, why: &str| CompileError::new(code, why).help(HELP).within("path").within(i);
            check(segment).map_err(|why| wrong("invalid-secret-path", why))?;
            if entry.name.trim().is_empty() {
                return Err(CompileError::new("invalid-value", "a secret path has no name").within("name").within(i));
            }
            let digest = digest(segment.as_bytes());
            if out.iter().any(|(other, _)| *other == digest) {
                return Err(wrong("duplicate-secret", "two secret paths are the same"));
            }
            out.push((digest, Arc::from(entry.name.as_str())));
        }
        Ok(Self(out.into()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of the token that the first part of the path stands for, with that part and what follows it. Every secret
    /// is looked at whatever the outcome, and only digests are compared: time tells neither which nor how much is right.
    pub fn find<'p>(&self, path: &'p str) -> Option<(&Arc<str>, &'p str, &'p str)> {
        // Clients join bases and paths with two slashes, and some escape letters. A secret that was not seen would stand in
        // logs, and go up.
        let path = path.trim_start_matches('/');
        let end = path.find('/').unwrap_or(path.len());
        let (first, rest) = path.split_at(end);
        if first.is_empty() || first.len() > 3 * LONGEST {
            return None;
        }
        let given = digest(&Cow::from(percent_decode_str(first)));
        let mut found = None;
        for (known, name) in &self.0 {
            let same: Choice = known.ct_eq(&given);
            if bool::from(same) {
                found = Some(name);
            }
        }
        found.map(|name| (name, first, rest))
    }
}

fn digest(segment: &[u8]) -> [u8; 32] {
    Sha256::digest(segment).into()
}

fn text(path: &str, watched: &mut Vec<PathBuf>) -> Result<String, CompileError> {
    let template = Template::parse(path);
    match (template.as_static(), template.as_key()) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, Some(Key::File(path))) => {
            watched.push(path.clone());
            std::fs::read_to_string(path)
                .map_err(|e| CompileError::new("unreadable-file", format!("{}: {e}", path.display())))
        }
        (None, _) => Err(CompileError::new("token-not-fixed", "a secret path cannot be made from the request")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(list: &[(&str, &str)]) -> Result<Secrets, CompileError> {
        let list: Vec<_> =
            list.iter().map(|(n, p)| SecretConfig { name: (*n).to_owned(), path: (*p).to_owned() }).collect();
        Secrets::compile(&list, &mut Vec::new())
    }

    #[test]
    fn the_whole_first_part_must_be_right() {
        let known = secrets(&[("a", "first-secret"), ("b", "/second-secret/")]).unwrap_or_else(|_| unreachable!());
        let find = |path| known.find(path).map(|(name, _, rest)| (name.to_string(), rest));
        assert_eq!(find("/first-secret/api/tags"), Some(("a".to_owned(), "/api/tags")));
        assert_eq!(find("/second-secret"), Some(("b".to_owned(), "")));
        assert_eq!(find("//first-secret/api/tags"), Some(("a".to_owned(), "/api/tags")));
        assert_eq!(find("/%66irst-secre%74"), Some(("a".to_owned(), "")));
        for path in ["/", "", "/x/first-secret/", "/first-secre/api", "/first-secretx/api", "/FIRST-SECRET/api", "/api"]
        {
            assert_eq!(find(path), None, "{path}");
        }
    }

    #[test]
    fn no_configuration_opens_the_door() {
        for (list, code) in [
            (&[("a", "")][..], "invalid-secret-path"),
            (&[("a", "/")], "invalid-secret-path"),
            (&[("a", "api")], "invalid-secret-path"),
            (&[("a", "two/parts")], "invalid-secret-path"),
            (&[("a", "{env.LLMPROXY_TEST_IS_NOT_SET}")], "invalid-secret-path"),
            (&[("a", "{http.request.host}")], "token-not-fixed"),
            (&[("a", "{file./nonexistent/secret}")], "unreadable-file"),
            (&[("a", "same-secret"), ("b", "/same-secret")], "duplicate-secret"),
            (&[("", "a-good-secret")], "invalid-value"),
        ] {
            let error = secrets(list).err().map(|e| (e.code, e.message));
            assert_eq!(error.as_ref().map(|(c, _)| *c), Some(code), "{list:?}");
            assert!(!error.is_some_and(|(_, m)| m.contains("same-secret")));
        }
    }
}
