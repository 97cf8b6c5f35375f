//! One token: what is compared with, and what whoever shows it may do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderValue, header};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::{Date, Month, Time, UtcDateTime};

use super::HANDLER;
use crate::base::password::Algorithm;
use crate::config::compile_cx::CompileError;
use crate::http::error::{HandlerError, Refusal};
use crate::http::exchange::{Exchange, User, contains};
use crate::http::ip_range::{self, PRIVATE_RANGES};
use crate::http::path_pattern::{PathPattern, RequestPath};
use crate::llm::model_glob::ModelGlobs;

/// Longest credential that is looked at.
pub const LONGEST: usize = 4096;
/// A plain token below this can be guessed, or found from its digest.
const WEAK: usize = 16;
const LONGEST_NAME: usize = 64;
const LONGEST_TEXT: usize = 256;

/// A token as it is written down: in the JSON form, and what a line of a token file becomes. No `Debug`: it holds a
/// secret.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Written {
    pub name: String,
    pub value: String,
    /// `None` = all. Likewise below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ips: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// No `Debug`, as above.
pub struct Token {
    pub name: Arc<str>,
    pub secret: Secret,
    /// Given in clear, and short.
    pub weak: bool,
    /// `team`, `app`, `tag.…`.
    metadata: Vec<(String, String)>,
    pub models: Option<Arc<ModelGlobs>>,
    paths: Option<Box<[PathPattern]>>,
    ips: Option<Box<[IpNet]>>,
    /// Unix seconds.
    expires: Option<i64>,
}

/// What a credential is compared with.
#[derive(Clone)]
pub enum Secret {
    /// SHA-256 of the token.
    Digest([u8; 32]),
    /// A hash that is slow on purpose.
    Argon2(Arc<str>),
}

impl Written {
    /// Reads all of it. `value` is the token or its hash, with placeholders already replaced.
    pub fn settle(&self, value: &str) -> Result<Token, CompileError> {
        check_name(&self.name)?;
        let (secret, weak) = read_value(value)?;
        let mut metadata = Vec::new();
        for (key, text) in [("team", &self.team), ("app", &self.app)] {
            if let Some(text) = text {
                check_text(text)?;
                metadata.push((key.to_owned(), text.clone()));
            }
        }
        for (key, text) in &self.tags {
            check_tag(key)?;
            check_text(text)?;
            metadata.push((format!("tag.{key}"), text.clone()));
        }
        Ok(Token {
            name: self.name.as_str().into(),
            secret,
            weak,
            metadata,
            models: self.models.as_ref().map(|m| Arc::new(ModelGlobs::new(m))),
            paths: self.paths.as_ref().map(|p| p.iter().map(|p| read_path(p)).collect()).transpose()?,
            ips: self.ips.as_ref().map(|ips| read_ranges(ips)).transpose()?,
            expires: self.expires.as_deref().map(read_expiry).transpose()?,
        })
    }
}

impl Token {
    /// What is known of whoever shows the token.
    pub fn user(&self) -> User {
        User { id: (*self.name).to_owned(), metadata: self.metadata.clone(), models: self.models.clone() }
    }

    /// Whether the request may go on, as far as its head tells.
    pub fn check(&self, ex: &Exchange) -> Result<(), HandlerError> {
        if self.expires.is_some_and(|at| at <= now()) {
            return Err(self.expired());
        }
        if let Some(ranges) = &self.ips
            && !ex.client_ip().is_some_and(|ip| contains(ranges, ip))
        {
            return Err(self.forbidden("ip_not_allowed", "This key may not be used from this address."));
        }
        if let Some(patterns) = &self.paths {
            let path = RequestPath::new(ex.uri.path());
            if !patterns.iter().any(|pattern| pattern.matches(&path)) {
                return Err(self.forbidden("path_not_allowed", "This key may not be used for this path."));
            }
        }
        Ok(())
    }

    fn expired(&self) -> HandlerError {
        let message = "This API key has expired.";
        let refusal = Refusal { message: message.into(), code: Some("token_expired"), ..Refusal::default() };
        let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\", error_description=\"expired\"");
        let error = HandlerError::refusal(401, HANDLER.id, refusal).header(header::WWW_AUTHENTICATE, challenge);
        HandlerError { message: format!("token {} has expired", self.name).into(), ..error }
    }

    fn forbidden(&self, code: &'static str, message: &'static str) -> HandlerError {
        let refusal =
            Refusal { message: message.into(), kind: Some("permission_error"), code: Some(code), param: None };
        let error = HandlerError::refusal(403, HANDLER.id, refusal);
        HandlerError { message: format!("token {}: {code}", self.name).into(), ..error }
    }
}

/// The digest that plain tokens are known by, as `llmproxy hash-token` prints it.
pub fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Letters, digits and `._@+-`: a name stands in logs, in headers and in tokens that `new-token` makes.
pub fn check_name(name: &str) -> Result<(), CompileError> {
    let fine = (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@+-".contains(&b));
    // Not shown: it may be the token itself, with the name forgotten.
    let message = "the name of a token is not usable";
    let error = || CompileError::new("invalid-token-name", message).help(NAME_HELP);
    if fine { Ok(()) } else { Err(error()) }
}

const NAME_HELP: &str = "a name comes first, then the token; it has letters, digits and `._@+-`, 64 of them at most";

/// What is compared with, and whether it is a short token in clear.
pub fn read_value(text: &str) -> Result<(Secret, bool), CompileError> {
    let text = text.trim();
    let bad = |message: &str| CompileError::new("invalid-token-hash", message).help("`llmproxy hash-token` makes one");
    if text.is_empty() {
        return Err(CompileError::new("empty-token", "a token is empty"));
    }
    if let Some(hex) = text.strip_prefix("sha256:") {
        let digest = read_hex(hex).ok_or_else(|| bad("`sha256:` is not followed by 64 hexadecimal digits"))?;
        return Ok((Secret::Digest(digest), false));
    }
    if text.starts_with('$') {
        if !Algorithm::Argon2id.accepts(text) {
            return Err(bad("what begins with `$` is taken for a hash, and this is none of argon2id"));
        }
        return Ok((Secret::Argon2(text.into()), false));
    }
    if text.len() > LONGEST {
        return Err(CompileError::new("bad-value", "a token is longer than 4096 bytes"));
    }
    Ok((Secret::Digest(digest(text.as_bytes())), text.len() < WEAK))
}

fn read_hex(hex: &str) -> Option<[u8; 32]> {
    let digits = hex.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// `2027-01-01` (its first second) or `2027-01-01T18:30:00Z`, in unix seconds. UTC, nothing else: a time that depends
/// on where it is read is not one to lock doors by.
pub fn read_expiry(text: &str) -> Result<i64, CompileError> {
    expiry(text).ok_or_else(|| {
        CompileError::new("invalid-expiry", format!("`{text}` is not a time at which a token can expire"))
            .help("write `2027-01-01` (from its first moment on) or `2027-01-01T18:30:00Z`; both are UTC")
    })
}

fn expiry(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', 't']) {
        Some((date, time)) => (date, Some(time.strip_suffix(['Z', 'z'])?)),
        None => (text, None),
    };
    let [year, month, day] = numbers(date, '-', &[4, 2, 2])?;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()?;
    let [hour, minute, second] = match time {
        Some(time) => numbers(time, ':', &[2, 2, 2])?,
        None => [0; 3],
    };
    let small = |n: u16| u8::try_from(n).ok();
    let time = Time::from_hms(small(hour)?, small(minute)?, small(second)?).ok()?;
    Some(UtcDateTime::new(date, time).unix_timestamp())
}

/// Three numbers of so many digits each.
fn numbers(text: &str, separator: char, digits: &[usize; 3]) -> Option<[u16; 3]> {
    let mut out = [0; 3];
    let mut parts = text.split(separator);
    for (number, digits) in out.iter_mut().zip(digits) {
        let part = parts.next().filter(|p| p.len() == *digits && p.bytes().all(|b| b.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

pub fn read_path(pattern: &str) -> Result<PathPattern, CompileError> {
    if pattern.starts_with(['/', '*']) {
        return Ok(PathPattern::new(&pattern.to_lowercase()));
    }
    let message = format!("`{pattern}` is not a path");
    Err(CompileError::new("bad-value", message).help("a path begins with `/` or `*`, as in the `path` matcher"))
}

pub fn read_ranges(texts: &[String]) -> Result<Box<[IpNet]>, CompileError> {
    let mut out = Vec::new();
    for text in texts {
        if text == "private_ranges" {
            out.extend(PRIVATE_RANGES.iter().filter_map(|range| ip_range::parse(range)));
            continue;
        }
        out.push(ip_range::parse(text).ok_or_else(|| {
            CompileError::new("invalid-ip-range", format!("`{text}` is not an IP address or network"))
                .help("a range is an address (`192.0.2.1`), a network (`10.0.0.0/8`) or `private_ranges`")
        })?);
    }
    Ok(out.into())
}

/// The key of a tag: part of a placeholder's name.
pub fn check_tag(key: &str) -> Result<(), CompileError> {
    let fine = (1..=LONGEST_NAME).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let error = || CompileError::new("bad-value", "the key of a tag has letters, digits, `_` and `-`");
    if fine { Ok(()) } else { Err(error()) }
}

/// A value that may stand in a header or a log.
pub fn check_text(text: &str) -> Result<(), CompileError> {
    let fine = !text.is_empty() && text.len() <= LONGEST_TEXT && !text.chars().any(char::is_control);
    let error = || CompileError::new("bad-value", "a team, an app or a tag is a text of 1 to 256 bytes on one line");
    if fine { Ok(()) } else { Err(error()) }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::testing::exchange;

    fn written(change: impl FnOnce(&mut Written)) -> Written {
        let mut written = Written { name: "ide".into(), ..Written::default() };
        change(&mut written);
        written
    }

    #[test]
    fn times_of_expiry() {
        assert_eq!(expiry("1970-01-02"), Some(86_400));
        assert_eq!(expiry("2027-01-01T00:00:01Z"), Some(1_798_761_601));
        assert_eq!(expiry("2028-02-29t23:59:59z"), Some(1_835_481_599));
        for wrong in
            ["", "2027", "2027-13-01", "2027-02-29", "27-01-01", "2027-1-1", "2027-01-01T00:00:00", "2027-01-01-01"]
        {
            assert_eq!(expiry(wrong), None, "{wrong}");
        }
        for wrong in
            ["2027-01-01T24:00:00Z", "2027-01-01T00:00:00+02:00", "2027-01-01T00:00Z", "+027-01-01", "2027-01-01 "]
        {
            assert_eq!(expiry(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn values_in_clear_and_hashed() {
        let same = |a: &str, b: &str| match (read_value(a).unwrap().0, read_value(b).unwrap().0) {
            (Secret::Digest(a), Secret::Digest(b)) => a == b,
            _ => false,
        };
        let hash = "sha256:9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08";
        assert!(same("test", hash) && same(" test\n", &hash.to_lowercase().replace("SHA", "sha")));
        assert!(read_value("test").unwrap().1 && !read_value(hash).unwrap().1, "short in clear");
        assert!(!read_value("sixteen-letters!").unwrap().1);
        for (wrong, code) in [
            (" ", "empty-token"),
            ("sha256:", "invalid-token-hash"),
            ("sha256:9f86", "invalid-token-hash"),
            (&hash.replace('9', "g"), "invalid-token-hash"),
            ("$2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG", "invalid-token-hash"),
            ("$argon2id$v=19$m=1", "invalid-token-hash"),
            (&"x".repeat(LONGEST + 1), "bad-value"),
        ] {
            assert_eq!(read_value(wrong).err().unwrap().code, code, "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_and_not_shown() {
        for (written, code) in [
            (written(|w| w.name = "a b".into()), "invalid-token-name"),
            (written(|w| w.name = String::new()), "invalid-token-name"),
            (written(|w| w.team = Some("a\nb".into())), "bad-value"),
            (written(|w| w.app = Some(String::new())), "bad-value"),
            (written(|w| drop(w.tags.insert("a.b".into(), "x".into()))), "bad-value"),
            (written(|w| w.paths = Some(vec!["v1".into()])), "bad-value"),
            (written(|w| w.ips = Some(vec!["10.0.0.0/33".into()])), "invalid-ip-range"),
            (written(|w| w.expires = Some("tomorrow".into())), "invalid-expiry"),
        ] {
            let error = written.settle("the-token-of-the-test").err().unwrap();
            assert_eq!(error.code, code);
            assert!(!error.message.contains("the-token"), "{}", error.message);
        }
    }

    #[test]
    fn rights_are_asked_in_turn() {
        let status = |written: Written| {
            let token = written.settle("the-token-of-the-test").ok().unwrap();
            token.check(&exchange("GET", "/v1/models")).err().map(|e| (e.status, e.refusal.unwrap().code.unwrap()))
        };
        assert_eq!(status(written(|_| {})), None);
        assert_eq!(status(written(|w| w.expires = Some("2001-01-01".into()))), Some((401, "token_expired")));
        assert_eq!(status(written(|w| w.expires = Some("9999-01-01".into()))), None);
        assert_eq!(status(written(|w| w.ips = Some(vec!["192.0.2.0/24".into()]))), None);
        assert_eq!(status(written(|w| w.ips = Some(vec!["private_ranges".into()]))), Some((403, "ip_not_allowed")));
        assert_eq!(status(written(|w| w.ips = Some(vec![]))), Some((403, "ip_not_allowed")));
        assert_eq!(status(written(|w| w.paths = Some(vec!["/V1/*".into()]))), None);
        assert_eq!(status(written(|w| w.paths = Some(vec!["/v1/chat/*".into()]))), Some((403, "path_not_allowed")));
    }
}
