//! One line of a record, as it is written and read again.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Version;
use serde::{Deserialize, Serialize};

use super::event::{Direction, End, Event, Head, Leg, What};

/// What the lines of a record hold; which fields are there depends on `event`:
///
/// `record` opens the file and `end` closes it. Between them: `request`, `request_body`, `request_end`, `response`,
/// `response_body`, `response_end` of the `leg` `client` or `upstream`, `user` and `error`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// Seconds since the request came.
    pub at: f64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub leg: String,
    pub event: String,
    /// The request's id and when it came, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Format of the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<(String, String)>>,
    #[serde(skip_serializing_if = "is_false")]
    pub unpacked: bool,
    /// Bytes that are UTF-8; others are in `base64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// `complete`, `failed` or `gone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// Length of the whole body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Events that are missing because the disk did not keep up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gaps: Option<u64>,
    /// The record reached its greatest size: bodies go on beyond what it shows.
    #[serde(skip_serializing_if = "is_false")]
    pub truncated: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_false(flag: &bool) -> bool {
    !flag
}

pub const FORMAT: u32 = 1;

impl Line {
    pub(super) fn named(at: std::time::Duration, event: &str) -> Self {
        // Microseconds are enough, and read better than all the digits.
        #[allow(clippy::cast_precision_loss)]
        let at = at.as_micros() as f64 / 1e6;
        Self { at, event: event.to_owned(), ..Self::default() }
    }

    pub(super) fn of(event: Event) -> Self {
        let Event { at, leg, what } = event;
        let side = |direction, request: &str, response: &str| match direction {
            Direction::Request => request.to_owned(),
            Direction::Response => response.to_owned(),
        };
        let mut line = Self::named(at, "");
        line.leg = match leg {
            Leg::Client => "client",
            Leg::Upstream => "upstream",
        }
        .to_owned();
        match what {
            What::Request { method, target, version, headers, peer } => {
                line.event = "request".to_owned();
                line.method = Some(method.as_str().to_owned());
                line.target = Some(target);
                line.version = Some(version_text(version).to_owned());
                line.headers = Some(pairs(&headers));
                line.peer = Some(as_text(&peer));
            }
            What::Response { status, headers, unpacked } => {
                line.event = "response".to_owned();
                line.status = Some(status.as_u16());
                line.headers = Some(pairs(&headers));
                line.unpacked = unpacked;
            }
            What::Data(direction, data) => {
                line.event = side(direction, "request_body", "response_body");
                match std::str::from_utf8(&data) {
                    Ok(text) => line.text = Some(text.to_owned()),
                    Err(_) => line.base64 = Some(STANDARD.encode(&data)),
                }
            }
            What::End { direction, how, bytes } => {
                line.event = side(direction, "request_end", "response_end");
                line.bytes = Some(bytes);
                let (how, error) = match how {
                    End::Complete => ("complete", None),
                    End::Failed(error) => ("failed", Some(error)),
                    End::Gone => ("gone", None),
                };
                line.how = Some(how.to_owned());
                line.error = error;
            }
            What::User(id) => {
                line.event = "user".to_owned();
                line.user = Some(id);
            }
            What::Error(message) => {
                line.event = "error".to_owned();
                line.error = Some(message);
            }
        }
        line
    }

    /// The bytes of a body's piece.
    #[must_use]
    pub fn data(&self) -> Vec<u8> {
        match (&self.text, &self.base64) {
            (Some(text), _) => text.as_bytes().to_vec(),
            (None, Some(coded)) => STANDARD.decode(coded).unwrap_or_default(),
            (None, None) => Vec::new(),
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        // Into memory, and nothing in a line can fail to become JSON.
        let _ = serde_json::to_writer(&mut *out, self);
        out.push(b'\n');
    }
}

fn as_text(peer: &Arc<str>) -> String {
    (**peer).to_owned()
}

fn pairs(headers: &Head) -> Vec<(String, String)> {
    let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::time::Duration;

    fn through_json(what: What) -> Line {
        let line = Line::of(Event { at: Duration::from_nanos(1_234_567), leg: Leg::Client, what });
        let mut out = Vec::new();
        line.write(&mut out);
        assert_eq!(out.iter().position(|b| *b == b'\n'), Some(out.len() - 1), "one line whatever is in it");
        let read: Line = serde_json::from_slice(&out).unwrap();
        assert_eq!(read, line);
        read
    }

    #[test]
    fn bytes_come_back_as_they_were() {
        for data in [&b"data: {\"a\":\"\xc3\xa9\"}\n\n"[..], b"\xc3", b"\x00\x1b[31m", b""] {
            let line = through_json(What::Data(Direction::Response, Bytes::from_static(data)));
            assert_eq!(line.data(), data);
            assert_eq!((line.leg.as_str(), line.event.as_str(), line.at), ("client", "response_body", 0.001_234));
        }
    }

    #[test]
    fn an_end_says_how() {
        let end = |how| through_json(What::End { direction: Direction::Request, how, bytes: 7 });
        assert_eq!(end(End::Gone).how.as_deref(), Some("gone"));
        let failed = end(End::Failed("broke".into()));
        assert_eq!(
            (failed.how.as_deref(), failed.error.as_deref(), failed.bytes),
            (Some("failed"), Some("broke"), Some(7))
        );
    }
}
