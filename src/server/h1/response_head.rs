//! A response's head over HTTP/1: framing and the connection's fate are written here alone, whatever handlers said.

use std::cell::{Cell, RefCell};
use std::time::SystemTime;

use http::response::Parts;
use http::{StatusCode, Version, header};
use hyper::ext::ReasonPhrase;

use crate::base::body::Body;
use crate::client::h1::head::{Sending, write_field, write_length};
use crate::server::worker::current_tick;

/// What of the request a response depends on.
#[derive(Copy, Clone)]
pub struct Asked {
    pub version: Version,
    /// HEAD: the head of what GET would have had.
    pub head_only: bool,
}

/// How the body's end is told.
pub fn sending(asked: Asked, head: &Parts, body: &Body) -> Sending {
    match Sending::of(&head.headers, body) {
        Sending::Chunked if asked.version == Version::HTTP_10 => Sending::UntilClose,
        other => other,
    }
}

/// Appends the head. `close`: the connection ends with this response.
pub fn write(asked: Asked, head: &Parts, sending: Sending, close: bool, out: &mut Vec<u8>) {
    let http10 = asked.version == Version::HTTP_10;
    out.extend_from_slice(if http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    match head.extensions.get::<ReasonPhrase>() {
        Some(reason) => out.extend_from_slice(reason.as_bytes()),
        None => out.extend_from_slice(head.status.canonical_reason().unwrap_or("").as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
    let mut dated = false;
    let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in &head.headers {
        match *name {
            header::TRANSFER_ENCODING => continue,
            // What a body would be long that is not sent.
            header::CONTENT_LENGTH if asked.head_only || head.status == StatusCode::NOT_MODIFIED => {}
            header::CONTENT_LENGTH => continue,
            header::CONNECTION if !switching => continue,
            header::DATE => dated = true,
            _ => {}
        }
        write_field(name, value, out);
    }
    match sending {
        Sending::Length(length) => write_length(length, out),
        Sending::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Sending::Nothing if has_content(asked, head.status) => write_length(0, out),
        Sending::Nothing | Sending::UntilClose => {}
    }
    if close && !http10 {
        out.extend_from_slice(b"connection: close\r\n");
    } else if !close && http10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    if !dated {
        write_date(out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether such a response would have a body, were there one (RFC 9110 section 6.4.1).
fn has_content(asked: Asked, status: StatusCode) -> bool {
    !asked.head_only
        && !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
}

/// RFC 9110 section 6.6.1; made anew once a tick of the worker.
fn write_date(out: &mut Vec<u8>) {
    thread_local! {
        static TICK: Cell<u32> = const { Cell::new(u32::MAX) };
        static LINE: RefCell<String> = const { RefCell::new(String::new()) };
    }
    LINE.with_borrow_mut(|line| {
        let tick = current_tick();
        if TICK.replace(tick) != tick || line.is_empty() {
            *line = format!("date: {}\r\n", httpdate::fmt_http_date(SystemTime::now()));
        }
        out.extend_from_slice(line.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;

    const PLAIN: Asked = Asked { version: Version::HTTP_11, head_only: false };

    fn written(asked: Asked, response: http::response::Builder, body: &Body, close: bool) -> String {
        let head = response.header("date", "D").body(()).unwrap().into_parts().0;
        let mut out = Vec::new();
        write(asked, &head, sending(asked, &head, body), close, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn framing_is_said_once_whatever_the_handler_said() {
        let response = || Response::builder().header("content-length", "9").header("transfer-encoding", "chunked");
        let text = written(PLAIN, response(), &Body::from("hello"), false);
        assert_eq!(text, "HTTP/1.1 200 OK\r\ndate: D\r\ncontent-length: 5\r\n\r\n");
        let text = written(PLAIN, response().header("connection", "close"), &Body::Empty, true);
        assert_eq!(text, "HTTP/1.1 200 OK\r\ndate: D\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }

    #[test]
    fn statuses_without_content_say_no_length() {
        for status in [204, 304] {
            let text = written(PLAIN, Response::builder().status(status), &Body::Empty, false);
            assert!(!text.contains("content-length"), "{text}");
        }
        let head_only = Asked { head_only: true, ..PLAIN };
        let text = written(head_only, Response::builder().header("content-length", "7"), &Body::Empty, false);
        assert!(text.contains("content-length: 7\r\n"), "{text}");
    }

    #[test]
    fn http_1_0_is_told_that_the_connection_stays() {
        let old = Asked { version: Version::HTTP_10, ..PLAIN };
        let text = written(old, Response::builder(), &Body::from("x"), false);
        assert_eq!(text, "HTTP/1.0 200 OK\r\ndate: D\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\n");
    }
}
