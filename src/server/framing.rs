//! Watches the bytes of an HTTP/1 connection for request framing that two parsers could read in two ways.
//!
//! hyper mends some of it silently (it drops `Content-Length` beside `Transfer-Encoding`), after which nobody can see
//! that it happened. This follows the stream from head to head, holding no body byte, and says so first.
//! RFC 9112 §6.3: such a message "ought to be handled as an error".

/// Longest head this keeps while it waits for its end; hyper refuses longer ones by its own limit.
const MAX_HEAD: usize = 1 << 20;

#[derive(Debug)]
enum State {
    /// Inside a head; what came of it so far.
    Head,
    /// Inside a body of known length: bytes left.
    Length(u64),
    Chunked(Chunk),
    /// After an upgrade, or after something only hyper can judge: nothing more to watch.
    Opaque,
}

#[derive(Debug)]
enum Chunk {
    /// In the size line: the value so far, and whether its digits have ended.
    Size { value: u64, digits: u8, ended: bool },
    /// Bytes of data left.
    Data(u64),
    /// In the line end after the data; whether its CR was seen.
    DataEnd { cr: bool },
    /// In the trailers; whether the current line is empty so far.
    Trailer { empty: bool },
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Fine,
    /// Refuse the request that begins here and close.
    Ambiguous,
}

#[derive(Debug)]
pub struct FramingWatch {
    state: State,
    head: Vec<u8>,
}

impl Default for FramingWatch {
    fn default() -> Self {
        Self { state: State::Head, head: Vec::new() }
    }
}

impl FramingWatch {
    pub fn stop(&mut self) {
        self.state = State::Opaque;
        self.head = Vec::new();
    }

    /// Looks at the bytes just read. After `Ambiguous` nothing more is watched.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Verdict {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Opaque => return Verdict::Fine,
                State::Head => match self.feed_head(bytes) {
                    Ok(rest) => bytes = rest,
                    Err(()) => {
                        self.stop();
                        return Verdict::Ambiguous;
                    }
                },
                State::Length(left) => {
                    let take = (*left).min(bytes.len() as u64);
                    *left -= take;
                    bytes = &bytes[usize::try_from(take).unwrap_or(bytes.len())..];
                    if *left == 0 {
                        self.state = State::Head;
                    }
                }
                State::Chunked(chunk) => match chunk.feed(bytes) {
                    ChunkStep::More(rest) => bytes = rest,
                    ChunkStep::End(rest) => {
                        self.state = State::Head;
                        bytes = rest;
                    }
                    // hyper answers malformed chunking itself and closes.
                    ChunkStep::Malformed => self.stop(),
                },
            }
        }
        Verdict::Fine
    }

    /// Takes bytes up to the end of the head and judges it; gives what follows.
    fn feed_head<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], ()> {
        // The usual case: a whole head in one read, judged in place without a copy.
        if self.head.is_empty() {
            // Blank lines before a request line are skipped (RFC 9112 §2.2).
            let skip = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            let bytes = &bytes[skip..];
            return match head_end(bytes) {
                Some(end) => {
                    self.state = judge(&bytes[..end])?;
                    Ok(&bytes[end..])
                }
                None => {
                    self.head.extend_from_slice(bytes);
                    Ok(&[])
                }
            };
        }
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let from = before.saturating_sub(2);
        match head_end(&self.head[from..]) {
            Some(end) => {
                let end = from + end;
                self.state = judge(&self.head[..end])?;
                self.head = Vec::new();
                Ok(&bytes[end.saturating_sub(before)..])
            }
            None if self.head.len() > MAX_HEAD => {
                self.stop();
                Ok(&[])
            }
            None => Ok(&[]),
        }
    }
}

/// Where a head ends: after a line end that an empty line follows. A lone LF ends a line here, as it does for hyper;
/// `judge` then refuses it.
fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|i| match bytes.get(i + 1..)? {
        [b'\n', ..] => Some(i + 2),
        [b'\r', b'\n', ..] => Some(i + 3),
        _ => None,
    })
}

/// Reads the framing fields of a head, its final empty line included.
fn judge(head: &[u8]) -> Result<State, ()> {
    let mut length: Option<u64> = None;
    let mut chunked = false;
    // Every piece is then a line without its LF.
    let mut lines = head.strip_suffix(b"\n").unwrap_or(head).split(|b| *b == b'\n');
    // The request line: a line end within it is judged below like any other.
    if !lines.next().is_some_and(|l| l.ends_with(b"\r")) {
        return Err(());
    }
    for line in lines {
        // A bare LF ends a line for some parsers and not for others; so does a bare CR.
        let Some(line) = line.strip_suffix(b"\r") else { return Err(()) };
        if line.is_empty() {
            continue;
        }
        if memchr::memchr(b'\r', line).is_some() {
            return Err(());
        }
        // Obsolete folding: the line continues the one before (RFC 9112 §5.2).
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(());
        }
        let Some(colon) = memchr::memchr(b':', line) else { return Err(()) };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if length.is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                    return Err(());
                }
                length = Some(std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()).ok_or(())?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(());
                }
                chunked = true;
            }
            _ => {}
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err(()),
        (None, true) => Ok(State::Chunked(Chunk::new())),
        (Some(n), false) if n > 0 => Ok(State::Length(n)),
        _ => Ok(State::Head),
    }
}

enum ChunkStep<'b> {
    More(&'b [u8]),
    End(&'b [u8]),
    Malformed,
}

impl Chunk {
    fn new() -> Self {
        Self::Size { value: 0, digits: 0, ended: false }
    }

    fn feed<'b>(&mut self, bytes: &'b [u8]) -> ChunkStep<'b> {
        match self {
            Self::Size { value, digits, ended } => {
                for (i, b) in bytes.iter().enumerate() {
                    match (b, char::from(*b).to_digit(16)) {
                        (b'\n', _) if *digits > 0 => {
                            *self = if *value == 0 { Self::Trailer { empty: true } } else { Self::Data(*value) };
                            return ChunkStep::More(&bytes[i + 1..]);
                        }
                        (_, Some(d)) if !*ended => {
                            *digits += 1;
                            if *digits > 16 {
                                return ChunkStep::Malformed;
                            }
                            *value = (*value << 4) | u64::from(d);
                        }
                        (b'\n', _) => return ChunkStep::Malformed,
                        _ => *ended = true,
                    }
                }
                ChunkStep::More(&[])
            }
            Self::Data(left) => {
                let take = (*left).min(bytes.len() as u64);
                *left -= take;
                if *left == 0 {
                    *self = Self::DataEnd { cr: false };
                }
                ChunkStep::More(&bytes[usize::try_from(take).unwrap_or(bytes.len())..])
            }
            Self::DataEnd { cr } => match bytes {
                [b'\n', rest @ ..] => {
                    *self = Self::new();
                    ChunkStep::More(rest)
                }
                [b'\r', rest @ ..] if !*cr => {
                    *cr = true;
                    ChunkStep::More(rest)
                }
                [] => ChunkStep::More(&[]),
                _ => ChunkStep::Malformed,
            },
            Self::Trailer { empty } => {
                for (i, b) in bytes.iter().enumerate() {
                    match b {
                        b'\n' if *empty => return ChunkStep::End(&bytes[i + 1..]),
                        b'\n' => *empty = true,
                        b'\r' => {}
                        _ => *empty = false,
                    }
                }
                ChunkStep::More(&[])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict is the same however the bytes are split.
    fn verdict(bytes: &[u8]) -> Verdict {
        let feed_by = |n: usize| {
            let mut watch = FramingWatch::default();
            bytes.chunks(n.max(1)).map(|c| watch.feed(c)).find(|v| *v == Verdict::Ambiguous).unwrap_or(Verdict::Fine)
        };
        let whole = feed_by(bytes.len());
        for n in 1..bytes.len().min(40) {
            assert_eq!(feed_by(n), whole, "split by {n}: {}", String::from_utf8_lossy(bytes));
        }
        whole
    }

    #[test]
    fn ordinary_requests_pass_also_pipelined() {
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let post =
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\nContent-Length: 1\r\nTransfer-Encoding: x\r\n";
        let chunked =
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\n";
        assert_eq!(post.iter().rev().take(40).count(), 40);
        for parts in [vec![&get[..], get], vec![post, get], vec![chunked, post, chunked, get], vec![b"\r\n", get]] {
            assert_eq!(verdict(&parts.concat()), Verdict::Fine);
        }
    }

    #[test]
    fn a_second_request_is_judged_as_the_first() {
        let bad = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        assert_eq!(verdict(bad), Verdict::Ambiguous);
        assert_eq!(verdict(&[&chunked[..], bad].concat()), Verdict::Ambiguous);
    }

    #[test]
    fn lone_line_feeds_are_seen_wherever_they_are() {
        for head in
            ["GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\n"]
        {
            assert_eq!(verdict(head.as_bytes()), Verdict::Ambiguous, "{head:?}");
        }
    }

    #[test]
    fn framing_that_can_be_read_in_two_ways_is_seen() {
        for fields in [
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: +3\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "X: a\r\n folded\r\n",
            "X: a\nContent-Length: 3\r\n",
            "X: a\rY: b\r\n",
            "no colon\r\n",
            "X: a\n",
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\nabc");
            assert_eq!(verdict(head.as_bytes()), Verdict::Ambiguous, "{fields:?}");
        }
    }

    proptest::proptest! {
        /// Whatever comes, in whatever pieces: no panic, one verdict.
        #[test]
        fn the_verdict_does_not_depend_on_the_pieces(parts in proptest::collection::vec(proptest::sample::select(&[
            "GET / HTTP/1.1\r\n", "POST /x HTTP/1.1\r\n", "Host: a\r\n", "Content-Length: 5\r\n", "content-length: 0\r\n",
            "Transfer-Encoding: chunked\r\n", "Content-Length: 99999999999999999999\r\n", "Upgrade: websocket\r\n",
            "\r\n", "\n", "\r", " folded\r\n", "5\r\n", "hello", "0\r\n", "fffffffffffffffff\r\n", "5;x=y\r\n", "T: v\r\n", "\0", ":",
        ][..]), 0..24)) {
            verdict(parts.concat().as_bytes());
        }
    }
}
