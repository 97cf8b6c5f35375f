//! Server-sent events (WHATWG HTML, 9.2): blocks of lines ended by a blank line, found in chunks that may be cut
//! anywhere.
//!
//! Sans-io. A block keeps its bytes as they came, so that what nobody changes goes on byte-identical, and without a copy
//! where a chunk holds it whole. Fields are read only when asked for.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

/// `content-type` of an event stream, without parameters.
pub const MEDIA_TYPE: &str = "text/event-stream";

/// The longest block that a filter holds unless it says otherwise: events with images inside reach some megabytes.
pub const MAX_EVENT: usize = 16 << 20;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// A block did not end within the limit. The bytes held are in [`Decoder::rest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTooLong {
    /// Bytes.
    pub limit: usize,
}

impl std::fmt::Display for EventTooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an event of the stream is longer than {} bytes", self.limit)
    }
}

impl std::error::Error for EventTooLong {}

/// Cuts a stream into events: [`feed`](Self::feed) a chunk, take events with [`next`](Self::next) until `None`; at the
/// end of the stream [`finish`](Self::finish) gives what had no blank line after it.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    /// The beginning of a block whose end has not come.
    partial: BytesMut,
    /// Not looked at yet.
    chunk: Bytes,
    scan: Scan,
    /// The byte-order mark can only stand before the first block.
    first: bool,
    failed: bool,
}

impl Decoder {
    /// `limit`: bytes of one event, its line ends included.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, partial: BytesMut::new(), chunk: Bytes::new(), scan: Scan::default(), first: true, failed: false }
    }

    pub fn feed(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            self.chunk = [&self.chunk[..], &chunk[..]].concat().into();
        }
    }

    /// The next whole event; `None` = feed more. After an error there is nothing more but [`rest`](Self::rest).
    #[allow(clippy::should_implement_trait)] // not an iterator: `None` is no end
    pub fn next(&mut self) -> Option<Result<Event, EventTooLong>> {
        if self.chunk.is_empty() || self.failed {
            return None;
        }
        let lead_lf = self.scan.lead_lf;
        let end = self.scan.end_of_block(&self.chunk);
        if self.partial.len() + end.unwrap_or(self.chunk.len()) > self.limit {
            self.failed = true;
            return Some(Err(EventTooLong { limit: self.limit }));
        }
        let Some(end) = end else {
            self.partial.extend_from_slice(&self.chunk);
            self.chunk.clear();
            return None;
        };
        let tail = self.chunk.split_to(end);
        let raw = if self.partial.is_empty() {
            tail
        } else {
            self.partial.extend_from_slice(&tail);
            self.partial.split().freeze()
        };
        self.scan = Scan { lead_lf: self.scan.cr_at_end, ..Scan::default() };
        Some(Ok(self.event(raw, lead_lf, true)))
    }

    /// The stream is over: an event that no blank line ended. Lenient where the standard drops it, because servers forget
    /// the last line end.
    pub fn finish(&mut self) -> Option<Event> {
        let raw = self.partial.split().freeze();
        let lead_lf = self.scan.lead_lf;
        self.scan = Scan::default();
        (!raw.is_empty() && !self.failed).then(|| self.event(raw, lead_lf, false))
    }

    /// What is held of an event that was too long, and what came behind it.
    pub fn rest(&mut self) -> [Bytes; 2] {
        [self.partial.split().freeze(), std::mem::take(&mut self.chunk)]
    }

    fn event(&mut self, raw: Bytes, lead_lf: bool, terminated: bool) -> Event {
        let first = std::mem::take(&mut self.first);
        let lead =
            if first && raw.starts_with(BOM) { BOM.len() } else { usize::from(lead_lf && raw.starts_with(b"\n")) };
        Event { raw, lead, terminated }
    }
}

/// Where in its lines a block is.
#[derive(Debug, Default)]
struct Scan {
    /// The block before ended in CR at the end of a chunk: an LF that comes first still belongs to that line end.
    lead_lf: bool,
    /// Bytes of this block seen so far are more than that LF.
    begun: bool,
    /// The current line has bytes.
    in_line: bool,
    /// The byte before was CR: an LF is the second half of that line end.
    after_cr: bool,
    /// The blank line that ended the block is a CR with nothing known behind it.
    cr_at_end: bool,
}

impl Scan {
    /// How many bytes of `chunk` belong to the block, when its end is among them.
    fn end_of_block(&mut self, chunk: &[u8]) -> Option<usize> {
        let mut at = 0;
        if !self.begun {
            at = usize::from(self.lead_lf && chunk.first() == Some(&b'\n'));
            self.begun = true;
        }
        if self.after_cr && chunk.get(at) == Some(&b'\n') {
            at += 1;
        }
        self.after_cr = false;
        while let Some(n) = memchr::memchr2(b'\n', b'\r', &chunk[at..]) {
            let blank = n == 0 && !self.in_line;
            let line_end = at + n;
            self.in_line = false;
            at = line_end + 1;
            if chunk[line_end] == b'\r' {
                match chunk.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None if blank => self.cr_at_end = true,
                    None => self.after_cr = true,
                }
            }
            if blank {
                return Some(at);
            }
        }
        self.in_line |= at < chunk.len();
        None
    }
}

/// One block of a stream: an event, or only comments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    raw: Bytes,
    /// Bytes in front that are no part of its lines: the byte-order mark, or the LF of a line end cut in two.
    lead: usize,
    terminated: bool,
}

impl Event {
    /// As it came, with its blank line.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    #[must_use]
    pub fn into_raw(self) -> Bytes {
        self.raw
    }

    /// False for the last of a stream that ended without a blank line: before another event follows, one is needed.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.terminated
    }

    /// The `data` lines, joined with LF; `None` when there is none: comments, or nothing that a reader dispatches.
    #[must_use]
    pub fn data(&self) -> Option<Cow<'_, [u8]>> {
        let mut lines = self.fields().filter(|f| f.name == b"data").map(|f| &self.raw[f.value]);
        let first = lines.next()?;
        let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
        let mut joined = [first, b"\n", second].concat();
        for line in lines {
            joined.push(b'\n');
            joined.extend_from_slice(line);
        }
        Some(Cow::Owned(joined))
    }

    /// Where in [`raw`](Self::raw) the data stands, when it is a single line: for edits that keep every other byte.
    #[must_use]
    pub fn data_span(&self) -> Option<Range<usize>> {
        let mut lines = self.fields().filter(|f| f.name == b"data");
        let first = lines.next()?;
        lines.next().is_none().then_some(first.value)
    }

    /// The event's type; empty when it has none (a reader takes that for `message`).
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.last(b"event").map_or(&[], |span| &self.raw[span])
    }

    /// The last `id` without a NUL in it.
    #[must_use]
    pub fn id(&self) -> Option<&[u8]> {
        let ids = self.fields().filter(|f| f.name == b"id").map(|f| &self.raw[f.value]);
        ids.filter(|id| memchr::memchr(0, id).is_none()).last()
    }

    /// How long a reader should wait before it connects again.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        let value = &self.raw[self.last(b"retry")?];
        let digits = value.iter().all(u8::is_ascii_digit).then_some(value)?;
        std::str::from_utf8(digits).ok()?.parse().ok().map(Duration::from_millis)
    }

    fn last(&self, name: &[u8]) -> Option<Range<usize>> {
        self.fields().filter(|f| f.name == name).last().map(|f| f.value)
    }

    fn fields(&self) -> Fields<'_> {
        Fields { raw: &self.raw, at: self.lead }
    }
}

struct Field<'a> {
    name: &'a [u8],
    /// Within the raw bytes.
    value: Range<usize>,
}

/// The lines of a block that are neither blank nor comments.
struct Fields<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        while self.at < self.raw.len() {
            let start = self.at;
            // The LF of a CRLF makes an empty line here, which is nothing.
            let end = memchr::memchr2(b'\n', b'\r', &self.raw[start..]).map_or(self.raw.len(), |n| start + n);
            self.at = end + 1;
            let line = &self.raw[start..end];
            match memchr::memchr(b':', line) {
                None if line.is_empty() => {}
                None => return Some(Field { name: line, value: end..end }),
                Some(0) => {}
                Some(colon) => {
                    let space = usize::from(line.get(colon + 1) == Some(&b' '));
                    return Some(Field { name: &line[..colon], value: start + colon + 1 + space..end });
                }
            }
        }
        None
    }
}

/// An event with this data: as many `data` lines as it has lines. `name`: its type; empty = none.
#[must_use]
pub fn encode(name: &str, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + name.len() + 24);
    encode_into(&mut out, name, data);
    out.into()
}

/// As [`encode`], behind what is there.
pub fn encode_into(out: &mut Vec<u8>, name: &str, data: &[u8]) {
    if !name.is_empty() {
        out.extend_from_slice(b"event: ");
        // A line end in a name would begin another field.
        out.extend(name.bytes().filter(|b| !matches!(b, b'\n' | b'\r')));
        out.push(b'\n');
    }
    let mut rest = data;
    loop {
        let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&rest[..end]);
        out.push(b'\n');
        let line_end = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        match rest.get(end + line_end..) {
            Some(after) => rest = after,
            None => break,
        }
    }
    out.push(b'\n');
}

/// True for `text/event-stream`, with or without parameters.
#[must_use]
pub fn is_event_stream(content_type: &[u8]) -> bool {
    let essence = content_type.split(|b| *b == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(MEDIA_TYPE.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The events of these chunks; the one without a blank line last.
    fn events(chunks: &[&[u8]]) -> Vec<Event> {
        let mut decoder = Decoder::new(1 << 20);
        let mut out = Vec::new();
        for chunk in chunks {
            decoder.feed(Bytes::copy_from_slice(chunk));
            while let Some(event) = decoder.next() {
                out.push(event.unwrap());
            }
        }
        out.extend(decoder.finish());
        out
    }

    type Seen = (String, Option<String>, Option<String>);

    /// What a reader sees: events that have data, with name and id.
    fn seen(events: &[Event]) -> Vec<Seen> {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        events
            .iter()
            .filter(|e| e.data().is_some())
            .map(|e| (text(e.name()), e.data().map(|d| text(&d)), e.id().map(text)))
            .collect()
    }

    fn data(stream: &str) -> Vec<String> {
        seen(&events(&[stream.as_bytes()])).into_iter().filter_map(|(_, data, _)| data).collect()
    }

    #[test]
    fn lines_end_in_lf_crlf_or_cr() {
        for stream in ["data: a\n\ndata: b\n\n", "data: a\r\n\r\ndata: b\r\n\r\n", "data: a\r\rdata: b\r\r"] {
            assert_eq!(data(stream), ["a", "b"], "{stream:?}");
        }
        assert_eq!(data("data: a\r\n\ndata: b\n\r\n"), ["a", "b"]);
    }

    #[test]
    fn data_lines_join_and_the_space_is_optional() {
        assert_eq!(data("data:a\ndata: b\ndata\ndata:  c\n\n"), ["a\nb\n\n c"]);
        assert_eq!(data(": hello\n\ndata: x\n: more\n\n:\n\n"), ["x"]);
        assert_eq!(data("datum: x\n\n"), [""; 0]);
    }

    #[test]
    fn the_last_event_may_lack_its_end() {
        for stream in ["data: a\n\ndata: b", "data: a\n\ndata: b\n", "data: a\r\rdata: b\r"] {
            let found = events(&[stream.as_bytes()]);
            assert_eq!(seen(&found).len(), 2, "{stream:?}");
            assert!(found[0].is_terminated() && !found[1].is_terminated());
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_kept() {
        let found = events(&["\u{feff}data: a\n\n\u{feff}data: b\n\n".as_bytes()]);
        assert_eq!(found[0].data().as_deref(), Some(&b"a"[..]));
        assert_eq!(found[1].data(), None, "only at the very beginning");
        assert!(found[0].raw().starts_with(BOM));
    }

    #[test]
    fn name_id_and_retry() {
        let found = events(&[b"event: one\nevent:two\nid: 7\nid: 8\0\nretry: 1500\ndata: x\n\nretry: 1x\n\n"]);
        assert_eq!(found[0].name(), b"two");
        assert_eq!(found[0].id(), Some(&b"7"[..]));
        assert_eq!(found[0].retry(), Some(Duration::from_millis(1500)));
        assert_eq!(found[1].retry(), None);
    }

    #[test]
    fn an_event_is_there_as_soon_as_its_blank_line_is() {
        let mut decoder = Decoder::new(100);
        decoder.feed(Bytes::from_static(b"data: a\r\n\r"));
        assert_eq!(decoder.next().unwrap().unwrap().data().as_deref(), Some(&b"a"[..]));
        decoder.feed(Bytes::from_static(b"\ndata: b\r\n\r\n"));
        let second = decoder.next().unwrap().unwrap();
        assert_eq!(second.data().as_deref(), Some(&b"b"[..]));
        assert_eq!(&second.raw()[..], b"\ndata: b\r\n\r\n");
        assert!(decoder.next().is_none());
    }

    #[test]
    fn a_whole_event_is_not_copied() {
        let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\n");
        let mut decoder = Decoder::new(100);
        decoder.feed(chunk.clone());
        for at in [0, 9] {
            let event = decoder.next().unwrap().unwrap();
            assert_eq!(event.raw().as_ptr(), chunk[at..].as_ptr());
        }
    }

    #[test]
    fn an_event_beyond_the_limit_is_told_and_its_bytes_can_be_had() {
        for cut in [1, 5, 8] {
            let mut decoder = Decoder::new(8);
            decoder.feed(Bytes::copy_from_slice(&b"data: longer"[..cut]));
            assert!(decoder.next().is_none());
            decoder.feed(Bytes::copy_from_slice(&b"data: longer"[cut..]));
            assert_eq!(decoder.next(), Some(Err(EventTooLong { limit: 8 })));
            assert_eq!(decoder.rest().concat(), b"data: longer");
            decoder.feed(Bytes::from_static(b"data: x\n\n"));
            assert_eq!(decoder.next(), None);
            assert_eq!(decoder.finish(), None);
        }
        let mut decoder = Decoder::new(9);
        decoder.feed(Bytes::from_static(b"data: x\n\ndata: yy\n\n"));
        assert!(decoder.next().unwrap().is_ok());
        assert!(decoder.next().unwrap().is_err());
    }

    #[test]
    fn the_data_can_be_replaced_in_place() {
        let event = &events(&[b"id: 1\ndata: {}\nevent: x\n\n"])[0];
        assert_eq!(event.data_span(), Some(12..14));
        assert_eq!(events(&[b"data: {\ndata: }\n\n"])[0].data_span(), None);
    }

    #[test]
    fn what_is_encoded_reads_the_same() {
        for text in ["", "a", "a\nb", "\n", "a\n", "{\"x\":1}"] {
            let found = events(&[&encode("e", text.as_bytes())]);
            assert_eq!(seen(&found), [("e".to_owned(), Some(text.to_owned()), None)], "{text:?}");
        }
        assert_eq!(&encode("", b"[DONE]")[..], b"data: [DONE]\n\n");
        assert_eq!(&encode("x", b"a\r\nb\rc")[..], b"event: x\ndata: a\ndata: b\ndata: c\n\n");
    }

    #[test]
    fn event_streams_are_recognised() {
        assert!(is_event_stream(b"text/event-stream"));
        assert!(is_event_stream(b"Text/Event-Stream ; charset=utf-8"));
        assert!(!is_event_stream(b"text/event-streams"));
    }

    proptest! {
        /// Wherever the chunks are cut, a reader sees the same events and no byte is lost.
        #[test]
        fn cuts_change_nothing(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "\n", "\r", "\r\n", "\n\n", "data: é", "data", ":", " ", "event: x", "id: 1", "\u{feff}", "a", "{\"k\":\"ü\"}",
                "data: [DONE]\n\n",
            ]), 0..40),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let stream = pieces.concat();
            let bytes = stream.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let whole = events(&[bytes]);
            let cut = events(&chunks);
            prop_assert_eq!(seen(&whole), seen(&cut));
            for found in [whole, cut] {
                let raw: Vec<u8> = found.iter().flat_map(|e| e.raw().to_vec()).collect();
                prop_assert_eq!(&raw[..], bytes);
            }
        }
    }
}
