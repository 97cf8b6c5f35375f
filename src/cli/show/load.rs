//! Reads a record's lines into the two legs of the request.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::GzDecoder;

use crate::telemetry::transcript::Line;

/// Largest file that is read.
const LARGEST: u64 = 1 << 30;
/// Most bytes that a compressed body is unpacked to.
const LARGEST_UNPACKED: u64 = 256 << 20;

#[derive(Default)]
pub struct Record {
    pub id: String,
    pub time: String,
    pub user: Option<String>,
    pub client: Side,
    /// One for each attempt, in order.
    pub upstreams: Vec<Side>,
    /// The last line; `None` when the record is not at its end.
    pub end: Option<Line>,
}

/// One leg: a request and what came of it.
#[derive(Default)]
pub struct Side {
    pub request: Option<Line>,
    pub sent: Body,
    pub response: Option<Line>,
    pub received: Body,
    pub errors: Vec<Line>,
}

#[derive(Default)]
pub struct Body {
    /// Seconds since the request came, and the bytes.
    pub pieces: Vec<(f64, Vec<u8>)>,
    pub end: Option<Line>,
}

impl Record {
    pub fn load(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|e| e.to_string())?;
        Self::read(BufReader::new(file.take(LARGEST)))
    }

    pub fn read(input: impl BufRead) -> Result<Self, String> {
        let mut record = Self::default();
        let mut lines = input.split(b'\n');
        let first = lines.next().transpose().map_err(|e| e.to_string())?.unwrap_or_default();
        match serde_json::from_slice::<Line>(&first) {
            Ok(line) if line.event == "record" && line.format == Some(1) => {
                record.id = line.id.unwrap_or_default();
                record.time = line.time.unwrap_or_default();
            }
            Ok(line) if line.event == "record" => return Err("a record of another version of llmproxy".to_owned()),
            _ => return Err("not a record: `record` in a Proxyfile makes them".to_owned()),
        }
        for line in lines {
            let line = line.map_err(|e| e.to_string())?;
            // The last line of a record under way may be half a line.
            let Ok(line) = serde_json::from_slice(&line) else { continue };
            record.add(line);
        }
        Ok(record)
    }

    fn add(&mut self, line: Line) {
        if line.event == "end" {
            self.end = Some(line);
            return;
        }
        let side = if line.leg == "upstream" {
            if line.event == "request" || self.upstreams.is_empty() {
                self.upstreams.push(Side::default());
            }
            match self.upstreams.last_mut() {
                Some(side) => side,
                None => return,
            }
        } else {
            &mut self.client
        };
        match line.event.as_str() {
            "request" => side.request = Some(line),
            "request_body" => side.sent.pieces.push((line.at, line.data())),
            "request_end" => side.sent.end = Some(line),
            "response" => side.response = Some(line),
            "response_body" => side.received.pieces.push((line.at, line.data())),
            "response_end" => side.received.end = Some(line),
            "error" => side.errors.push(line),
            "user" => self.user = line.user,
            // A later version may know more.
            _ => {}
        }
    }
}

impl Body {
    pub fn bytes(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|(_, data)| data).copied().collect()
    }

    /// Bytes that are in the record.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|(_, data)| data.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

impl Side {
    /// A body as its reader sees it: gzip undone. `head` is the message's.
    pub fn readable(head: Option<&Line>, body: &Body) -> Vec<u8> {
        let bytes = body.bytes();
        let packed = head.is_some_and(|h| !h.unpacked && header(h, "content-encoding") == Some("gzip"));
        if !packed {
            return bytes;
        }
        let mut out = Vec::new();
        match GzDecoder::new(&bytes[..]).take(LARGEST_UNPACKED).read_to_end(&mut out) {
            // A stream that was cut is shown as far as it goes.
            Ok(_) | Err(_) if !out.is_empty() => out,
            _ => bytes,
        }
    }
}

pub fn header<'l>(head: &'l Line, name: &str) -> Option<&'l str> {
    head.headers.iter().flatten().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}
