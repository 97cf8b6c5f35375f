//! Reads an answer on its way to the client, and tells when it has ended.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::header;

use super::underway::Ended;
use super::{Meter, Running};
use crate::base::body::Body;
use crate::base::error::ProxyError;
use crate::http::body_filter::{self, Out, Transform};
use crate::http::exchange::Response;
use crate::http::gunzip;
use crate::llm::in_band::{Place, Protocol};
use crate::llm::usage::hidden::Hider;
use crate::llm::usage::{Answer, Endpoint, Framing, last_words};

/// Output tokens between two questions whether a stream goes on.
const ASK_EVERY: u64 = 16;

/// Compressed bytes undone at a time: what one step can make is bounded by it.
const STEP: usize = 4096;

/// Follows the answer of the upstream that [`Meter::sends`] named last. `path`: as the upstream was asked for it.
pub fn follow(mut meter: Box<Meter>, response: &mut Response, path: &str) {
    let status = response.status();
    if !meter.counts() {
        return;
    }
    if !status.is_success() {
        return meter.refused(status.as_u16());
    }
    let kind = response.headers().get(header::CONTENT_TYPE).map(|v| v.as_bytes().to_vec()).unwrap_or_default();
    let framing = Framing::of(&kind);
    let hider = (meter.asked_for_usage && framing == Some(Framing::Events)).then(Hider::default);
    if hider.is_some() {
        // What is to be taken out must be readable.
        gunzip::apply(response);
    }
    let gzip =
        response.headers().get(header::CONTENT_ENCODING).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"gzip"));
    let readable = gzip || !body_filter::is_encoded(response.headers());
    // An answer that has told its length cannot end in other words.
    let told_length = response.headers().contains_key(header::CONTENT_LENGTH);
    let mut reading = Reading {
        meter,
        status: status.as_u16(),
        answer: framing.filter(|_| readable).map(Answer::new),
        stream: matches!(framing, Some(Framing::Events | Framing::Lines)),
        gunzip: gzip.then(|| MultiGzDecoder::new(Vec::new())),
        hider: hider.filter(|_| readable && !gzip),
        protocol: Protocol::of(&kind, path).filter(|_| readable && !gzip && !told_length),
        endpoint: Endpoint::of_path(path),
        place: Place::default(),
        first_byte: None,
        asked_at: 0,
        cut: false,
        told: false,
    };
    match response.body_mut() {
        Body::Empty => reading.tell(true),
        // Whole already: whatever becomes of the client, it is paid for.
        Body::Full(body) if reading.hider.is_none() => {
            reading.read(body);
            reading.tell(true);
        }
        body => {
            let inner = body.take();
            if reading.hider.is_some() {
                *body = inner;
                body_filter::transform(response, reading);
            } else {
                *body = if reading.may_be_cut() {
                    body_filter::filter(inner, reading)
                } else {
                    body_filter::tap(inner, reading)
                };
            }
        }
    }
}

/// What reads one answer. Dropped before its end, the client has left.
struct Reading {
    meter: Box<Meter>,
    status: u16,
    /// `None` = sound, an image, compressed in another way: nothing to read.
    answer: Option<Answer>,
    stream: bool,
    gunzip: Option<MultiGzDecoder<Vec<u8>>>,
    hider: Option<Hider>,
    /// Which words can end it.
    protocol: Option<Protocol>,
    endpoint: Endpoint,
    place: Place,
    first_byte: Option<Duration>,
    /// Output tokens when it was last asked whether to go on.
    asked_at: u64,
    /// It is to end at the next place where it can.
    cut: bool,
    told: bool,
}

impl Reading {
    /// Whether it may have to end before the upstream does.
    fn may_be_cut(&self) -> bool {
        self.stream && self.protocol.is_some() && !self.meter.reservations.is_empty()
    }

    fn read(&mut self, chunk: &Bytes) {
        if self.first_byte.is_none() && !chunk.is_empty() {
            self.first_byte = self.meter.attempt.as_ref().map(super::underway::Attempt::elapsed);
        }
        let Some(answer) = &mut self.answer else { return };
        let Some(gunzip) = &mut self.gunzip else { return answer.feed(chunk) };
        for step in chunk.chunks(STEP) {
            if gunzip.write_all(step).and_then(|()| gunzip.flush()).is_err() {
                // The client will find it broken too.
                self.answer = None;
                return;
            }
            answer.feed(gunzip.get_ref());
            gunzip.get_mut().clear();
        }
    }

    fn output_so_far(&self) -> u64 {
        let Some(answer) = &self.answer else { return 0 };
        let told = answer.told();
        told.output.unwrap_or(0).max(told.output_so_far).max(answer.text().quick())
    }

    /// Whether somebody says now that it must end.
    fn must_end(&mut self) -> bool {
        let output = self.output_so_far();
        if output < self.asked_at.saturating_add(ASK_EVERY) {
            return false;
        }
        self.asked_at = output;
        // Everybody is told, also behind one who says no.
        let answers = self.meter.reservations.iter_mut().map(|reservation| reservation.running(output));
        answers.filter(|answer| *answer == Running::Cut).count() > 0
    }

    /// Puts the last words behind what has passed.
    fn end_here(&mut self, out: &mut Out) {
        let output = self.output_so_far();
        let input = self.answer.as_ref().map_or(0, |answer| answer.told().tokens.input);
        let words = self.answer.as_ref().and_then(|answer| last_words::of(self.endpoint, answer, input, output));
        out.push(words.unwrap_or_default());
        out.finish();
        self.tell(false);
    }

    fn tell(&mut self, complete: bool) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        if let Some(answer) = &mut self.answer {
            answer.end();
        }
        let Self { meter, answer, status, stream, first_byte, .. } = self;
        meter.settle(&Ended {
            status: *status,
            answer: answer.as_ref(),
            stream: *stream,
            complete,
            first_byte: *first_byte,
        });
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.tell(false);
    }
}

impl body_filter::Tap for Reading {
    fn chunk(&mut self, chunk: &Bytes) {
        self.read(chunk);
    }

    fn end(&mut self, how: body_filter::TapEnd<'_>) {
        self.tell(matches!(how, body_filter::TapEnd::Complete));
    }
}

impl Transform for Reading {
    fn data(&mut self, chunk: Bytes, out: &mut Out) -> Result<(), ProxyError> {
        let mut chunk = chunk;
        if self.cut
            && let Some(end) = end_of_event(&chunk, self.protocol)
        {
            chunk.truncate(end);
        }
        self.read(&chunk);
        self.place.passed(&chunk);
        match &mut self.hider {
            Some(hider) => hider.feed(chunk, |piece| out.push(piece)),
            None => out.push(chunk),
        }
        if self.may_be_cut() {
            self.cut = self.cut || self.must_end();
            let ends = match self.protocol {
                Some(Protocol::Lines) => self.place.gap(Protocol::Lines).is_empty(),
                _ => self.place.is_between_events(),
            };
            if self.cut && ends {
                self.end_here(out);
            }
        }
        Ok(())
    }

    fn end(&mut self, how: Result<(), ProxyError>, out: &mut Out) -> Result<(), ProxyError> {
        if let Some(hider) = &mut self.hider {
            hider.end(|piece| out.push(piece));
        }
        self.tell(how.is_ok());
        how
    }
}

/// Where in a chunk an event ends.
fn end_of_event(chunk: &[u8], protocol: Option<Protocol>) -> Option<usize> {
    if protocol == Some(Protocol::Lines) {
        return memchr::memchr(b'\n', chunk).map(|at| at + 1);
    }
    let ends = [&b"\n\n"[..], b"\r\n\r\n"].map(|end| memchr::memmem::find(chunk, end).map(|at| at + end.len()));
    ends.into_iter().flatten().min()
}
