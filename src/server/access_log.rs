//! Tells the access log how each request ended, and the error log why.
//!
//! What the client sent is taken before handlers may change it ([`taken`]), the response's headers when they are there,
//! the rest of the entry when the response has ended.

mod place;
mod request_line;
mod taken;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::HeaderMap;

use self::place::Place;
use self::request_line::RequestLine;
use self::taken::Taken;
use super::request::Active;
use super::response_body::{End, OnEnd};
use super::worker::Live;
use crate::base::body::Body;
use crate::base::spare_headers;
use crate::http::error::HandlerError;
use crate::http::exchange::{Exchange, LogField, LogNote, Response};
use crate::http::placeholder::{Scope, Unknown};
use crate::http::walker::{DefaultErrorAnswer, Unhandled};
use crate::telemetry::access::AccessLogs;
use crate::telemetry::encoder::{Entry, now};
use crate::telemetry::level::Level;
use crate::telemetry::line::{Line, key};

/// Status shown for a request whose client left before a response was there (nginx's number, as in Caddy).
const CLIENT_GONE: u16 = 499;

/// A request that handlers are at work on. Dropped before it has a response, it is logged as left by its client.
pub struct Pending {
    live: Rc<Live>,
    server: usize,
    /// `None` when the host has no access log.
    taken: Option<Taken>,
    /// `None` once the response is there.
    ex: Place,
}

impl Pending {
    pub fn new(live: &Rc<Live>, server: usize, ex: Exchange) -> Self {
        let logs = live.runtime.servers.get(server).map(|server| &server.logs);
        let logs = logs.filter(|logs| logs.logs_every_host() || logs.is_on() && logs.logs_host(ex.host()));
        let taken = logs.map(|logs| Taken::of(&ex, logs.are_plain()));
        Self { live: Rc::clone(live), server, taken, ex: Place::new(ex) }
    }

    /// The exchange, until a response is there.
    pub fn exchange(&mut self) -> Option<&mut Exchange> {
        self.ex.get()
    }

    /// Goes on with the response's head. `aborted`: the connection is closed without one.
    pub fn respond(mut self, response: &Response, aborted: bool, active: Active) -> Box<dyn OnEnd> {
        let live = Rc::clone(&self.live);
        match self.record(response, aborted) {
            None => Box::new(Quiet { _live: live, _active: active }),
            Some(record) => Box::new(LogOnEnd { live, server: self.server, record, _active: active }),
        }
    }

    /// What the entry will be made of, where there is to be one. Of the exchange only what it needs stays: a stream
    /// may be long, and the rest holds the connection's own buffer.
    fn record(&mut self, response: &Response, aborted: bool) -> Option<Record> {
        let mut taken = self.taken.take();
        let ex = self.ex.get()?;
        if let Some(taken) = &mut taken {
            taken.settle(ex);
        }
        if let (Some(error), Some(server)) = (&ex.error, self.live.runtime.servers.get(self.server)) {
            log_error(&server.logs, ex, error, taken.as_ref(), response);
        }
        let record = taken.filter(|_| !ex.log.skip).map(|mut taken| {
            let unhandled = response.extensions().get::<Unhandled>().is_some();
            let status = if aborted || unhandled { 0 } else { response.status().as_u16() };
            if !aborted {
                taken.add_response(response.headers(), ex.server.log_credentials);
            }
            Record { unhandled, ..Record::new(taken, ex, status) }
        });
        let Some(mut record) = record else {
            self.ex.clear();
            return None;
        };
        if record.is_deferred() {
            let headers = (!aborted).then(|| response.headers().clone());
            record.deferred = self.ex.take().map(|ex| Deferred::new(ex, headers));
        } else {
            spare_headers::keep(std::mem::take(&mut ex.headers));
            self.ex.clear();
        }
        Some(record)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(mut ex) = self.ex.take() else { return };
        if let Some(transcript) = ex.transcript.take() {
            transcript.abandoned(&ex);
        }
        let (Some(mut taken), Some(server)) = (self.taken.take(), self.live.runtime.servers.get(self.server)) else {
            return;
        };
        if ex.log.skip {
            return;
        }
        taken.settle(&ex);
        let mut record = Record::new(taken, &mut ex, CLIENT_GONE);
        if record.is_deferred() {
            record.deferred = Some(Deferred::new(ex, None));
        }
        record.write(&server.logs, 0);
    }
}

/// Keeps the runtime and the mark of activity, and logs nothing.
struct Quiet {
    _live: Rc<Live>,
    _active: Active,
}

impl OnEnd for Quiet {
    fn ended(self: Box<Self>, _: End, _: u64) {}
}

/// Writes the entry once the response has ended.
struct LogOnEnd {
    live: Rc<Live>,
    server: usize,
    record: Record,
    _active: Active,
}

impl OnEnd for LogOnEnd {
    fn ended(self: Box<Self>, _: End, bytes: u64) {
        if let Some(server) = self.live.runtime.servers.get(self.server) {
            self.record.write(&server.logs, bytes);
        }
    }
}

/// What the entry of a request is made of.
struct Record {
    taken: Taken,
    started: Instant,
    bytes_read: Rc<Cell<u64>>,
    user_id: String,
    note: LogNote,
    status: u16,
    /// No handler answered.
    unhandled: bool,
    /// For fields that are worked out at the end.
    deferred: Option<Box<Deferred>>,
}

/// The exchange, and the response's headers where there was one.
struct Deferred {
    ex: Exchange,
    response_headers: Option<HeaderMap>,
}

impl Deferred {
    fn new(mut ex: Exchange, response_headers: Option<HeaderMap>) -> Box<Self> {
        // What the request still holds of the connection goes now, whatever the entry needs of the rest.
        ex.body = Body::Empty;
        ex.upgrade = None;
        ex.held_response = None;
        ex.stages.clear();
        Box::new(Self { ex, response_headers })
    }
}

impl Record {
    fn new(taken: Taken, ex: &mut Exchange, status: u16) -> Self {
        Self {
            taken,
            started: ex.started,
            bytes_read: Rc::clone(&ex.bytes_read),
            // Cloned, as fields worked out at the end may show it too.
            user_id: ex.user.as_ref().map(|u| u.id.clone()).unwrap_or_default(),
            note: std::mem::take(&mut ex.log),
            status,
            unhandled: false,
            deferred: None,
        }
    }

    fn is_deferred(&self) -> bool {
        self.note.fields.iter().any(|(_, field)| !matches!(field, LogField::Text(_)))
    }

    fn write(self, logs: &AccessLogs, size: u64) {
        let level = if self.status >= 500 { Level::Error } else { Level::Info };
        let message = if self.unhandled { "NOP" } else { "handled request" };
        let elapsed = self.started.elapsed();
        let time = now();
        let write = |logger: &crate::telemetry::access::Logger| {
            for log in logger.access.iter().filter(|log| log.takes(level)) {
                let entry = Entry { level, unix_nanos: time, logger: &logger.access_name, message };
                log.write(&entry, |line| self.write_fields(line, elapsed, size));
            }
        };
        if self.note.loggers.is_empty() {
            logs.loggers(self.taken.host_name()).iter().for_each(|logger| write(logger));
        } else {
            self.note.loggers.iter().for_each(|name| write(&logs.named(name)));
        }
    }

    fn write_fields(&self, line: &mut Line<'_>, elapsed: Duration, size: u64) {
        self.taken.write_request(line);
        line.number(key!("bytes_read"), self.bytes_read.get());
        line.text(key!("user_id"), &self.user_id);
        line.duration(key!("duration"), elapsed);
        line.number(key!("size"), size);
        line.number(key!("status"), self.status.into());
        self.taken.write_response_headers(line);
        self.write_added(line);
    }

    /// `log_append`: what was settled at once comes first; of the rest the inner handlers come before the outer ones.
    fn write_added(&self, line: &mut Line<'_>) {
        for (key, field) in &self.note.fields {
            if let LogField::Text(text) = field {
                line.text(&**key, text);
            }
        }
        let Some(Deferred { ex, response_headers }) = self.deferred.as_deref() else { return };
        let scope = Scope { exchange: ex, response_headers: response_headers.as_ref() };
        for (key, field) in self.note.fields.iter().rev() {
            match field {
                LogField::Text(_) => {}
                LogField::Deferred(template) => line.text(&**key, &template.render_in(scope, Unknown::Empty)),
                LogField::Variable(name) => line.text(&**key, ex.var(name).unwrap_or(name)),
            }
        }
    }
}

/// An error that error routes answered is no more than a note.
fn log_error(logs: &AccessLogs, ex: &Exchange, error: &HandlerError, taken: Option<&Taken>, response: &Response) {
    let unanswered = response.extensions().get::<DefaultErrorAnswer>().is_some();
    let level = if unanswered && error.status >= 500 { Level::Error } else { Level::Debug };
    let elapsed = ex.started.elapsed();
    for logger in logs.loggers(ex.host()) {
        for log in logger.errors.iter().filter(|log| log.takes(level)) {
            let message = if error.message.is_empty() { error.status_text() } else { &error.message };
            let entry = Entry { level, unix_nanos: now(), logger: &logger.error_name, message };
            log.write(&entry, |line| write_error(line, ex, taken, error, elapsed));
        }
    }
}

fn write_error(line: &mut Line<'_>, ex: &Exchange, taken: Option<&Taken>, error: &HandlerError, elapsed: Duration) {
    match taken {
        Some(taken) => taken.write_request(line),
        // Without access log nothing was taken, and handlers may have put secrets into the headers since.
        None => {
            let request = RequestLine::of(ex);
            line.object(key!("request"), |line| request.write_start(line, ex.host_port().as_bytes()));
        }
    }
    line.duration(key!("duration"), elapsed);
    line.number(key!("status"), error.status.into());
    line.text(key!("err_id"), &error_id());
    // The client was told this one.
    if let Some(id) = ex.id.get() {
        line.text(key!("request_id"), id);
    }
    line.text(key!("err_trace"), error.origin);
}

/// Nine letters and digits that are hard to mistake for each other, as Caddy's.
fn error_id() -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz0123456789";
    (0..9).filter_map(|_| LETTERS.get(fastrand::usize(..LETTERS.len()))).map(|b| char::from(*b)).collect()
}
