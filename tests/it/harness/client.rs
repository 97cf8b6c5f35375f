//! An HTTP/1.1 client that sends exactly the bytes it is given and keeps what it receives as it came: header order,
//! repeated headers, chunk boundaries as far as reads show them, trailers, and whether the end was a clean one.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long any one read may take, unless a test says otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub version: String,
    pub status: u16,
    pub reason: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first value of a header, its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn headers_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// `false` when the connection ended before the framing said so.
    pub complete: bool,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }
}

/// Why no response came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoResponse {
    /// The peer closed before the first byte of a response.
    Closed,
    /// Nothing, or not a whole head, arrived in time.
    Silent,
}

/// A connection over any stream: TCP, or TLS from `harness::tls`.
pub struct Connection<S = TcpStream> {
    pub stream: S,
    buffer: Vec<u8>,
    body: Framing,
    trailers: Vec<(String, String)>,
    complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Done,
    Length(u64),
    /// Bytes left of the current chunk; `None` before a chunk's size line.
    Chunked(Option<u64>),
    UntilClose,
}

/// One request over a connection of its own.
pub fn request(port: u16, bytes: impl AsRef<[u8]>) -> Result<Response, NoResponse> {
    let bytes = bytes.as_ref();
    let mut connection = Connection::open(port);
    connection.send(bytes);
    connection.response_to(bytes.starts_with(b"HEAD "))
}

/// `GET path`, one connection, answered or the test fails.
pub fn get(port: u16, path: &str) -> Response {
    get_of(port, "api.test", path)
}

pub fn get_of(port: u16, host: &str, path: &str) -> Response {
    request(port, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).expect("an answer")
}

impl Connection<TcpStream> {
    pub fn open(port: u16) -> Self {
        Self::open_to("127.0.0.1", port)
    }

    pub fn open_to(address: &str, port: u16) -> Self {
        let stream =
            TcpStream::connect((address, port)).unwrap_or_else(|error| panic!("connecting to {port}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    pub fn set_patience(&mut self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).unwrap();
    }
}

impl<S: Read + Write> Connection<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), body: Framing::Done, trailers: Vec::new(), complete: true }
    }

    /// Sends what it can: a peer that refuses early may already have closed.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
        let _ = self.stream.flush();
    }

    /// A whole response. `to_head`: to a HEAD request, so without a body.
    pub fn response_to(&mut self, to_head: bool) -> Result<Response, NoResponse> {
        let head = self.head(to_head)?;
        let mut body = Vec::new();
        while let Some(piece) = self.piece() {
            body.extend_from_slice(&piece);
        }
        Ok(Response { head, body, trailers: std::mem::take(&mut self.trailers), complete: self.complete })
    }

    pub fn response(&mut self) -> Result<Response, NoResponse> {
        self.response_to(false)
    }

    /// The next final response head (interim ones are skipped); its body is then read by [`Connection::piece`].
    pub fn head(&mut self, to_head: bool) -> Result<Head, NoResponse> {
        loop {
            let head = self.any_head()?;
            if head.status >= 200 || head.status == 101 {
                self.body = framing(&head, to_head);
                self.complete = self.body == Framing::Done;
                self.trailers.clear();
                return Ok(head);
            }
        }
    }

    /// The next head, interim (1xx) or final, with no say about its body.
    pub fn any_head(&mut self) -> Result<Head, NoResponse> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let bytes: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Ok(parse_head(&bytes));
            }
            match self.fill() {
                Fill::Some if Instant::now() < until => {}
                Fill::Closed if self.buffer.is_empty() => return Err(NoResponse::Closed),
                Fill::Closed => panic!("half a response head: {:?}", String::from_utf8_lossy(&self.buffer)),
                Fill::Some | Fill::Silent => return Err(NoResponse::Silent),
            }
        }
    }

    /// The next piece of the body as it arrives; `None` at its end, clean or not.
    pub fn piece(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.body {
                Framing::Done => return None,
                Framing::Length(0) => return self.end(),
                Framing::Length(left) => {
                    let piece = self.up_to(left)?;
                    self.body = Framing::Length(left - piece.len() as u64);
                    return Some(piece);
                }
                Framing::UntilClose => {
                    if !self.buffer.is_empty() {
                        return Some(std::mem::take(&mut self.buffer));
                    }
                    match self.fill() {
                        Fill::Some => {}
                        Fill::Closed => return self.end(),
                        Fill::Silent => return self.broken(),
                    }
                }
                Framing::Chunked(Some(left)) if left > 0 => {
                    let piece = self.up_to(left)?;
                    let left = left - piece.len() as u64;
                    if left == 0 {
                        self.line()?;
                        self.body = Framing::Chunked(None);
                    } else {
                        self.body = Framing::Chunked(Some(left));
                    }
                    return Some(piece);
                }
                Framing::Chunked(_) => {
                    let line = self.line()?;
                    let size = line.split(';').next().unwrap_or_default().trim();
                    let size = u64::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk size {line:?}"));
                    self.body = Framing::Chunked(Some(size));
                    if size == 0 {
                        loop {
                            let line = self.line()?;
                            let Some((name, value)) = line.split_once(':') else { return self.end() };
                            self.trailers.push((name.to_owned(), value.trim().to_owned()));
                        }
                    }
                }
            }
        }
    }

    /// `true` when the peer closes (or resets) within the patience; what it sends before is dropped.
    pub fn closes(&mut self) -> bool {
        loop {
            match self.fill() {
                Fill::Some => self.buffer.clear(),
                Fill::Closed => return true,
                Fill::Silent => return false,
            }
        }
    }

    /// The body's framing said it ended where it ended.
    pub fn ended_cleanly(&self) -> bool {
        self.complete
    }

    /// Bytes read so far and not yet given out: what follows a 101.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    fn end(&mut self) -> Option<Vec<u8>> {
        self.body = Framing::Done;
        self.complete = true;
        None
    }

    fn broken<T>(&mut self) -> Option<T> {
        self.body = Framing::Done;
        self.complete = false;
        None
    }

    fn up_to(&mut self, most: u64) -> Option<Vec<u8>> {
        while self.buffer.is_empty() {
            if self.fill() != Fill::Some {
                return self.broken();
            }
        }
        let take = self.buffer.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        Some(self.buffer.drain(..take).collect())
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.fill() != Fill::Some {
                return self.broken();
            }
        }
    }

    fn fill(&mut self) -> Fill {
        let mut chunk = [0; 16 * 1024];
        loop {
            return match self.stream.read(&mut chunk) {
                Ok(0) => Fill::Closed,
                Ok(n) => {
                    self.buffer.extend_from_slice(&chunk[..n]);
                    Fill::Some
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Fill::Silent,
                Err(_) => Fill::Closed,
            };
        }
    }
}

#[derive(PartialEq, Eq)]
enum Fill {
    Some,
    Closed,
    Silent,
}

fn framing(head: &Head, to_head: bool) -> Framing {
    let chunked = head.headers_named("transfer-encoding").any(|value| value.eq_ignore_ascii_case("chunked"));
    if to_head || head.status == 204 || head.status == 304 || head.status == 101 {
        Framing::Done
    } else if chunked {
        Framing::Chunked(None)
    } else if let Some(length) = head.header("content-length") {
        Framing::Length(length.parse().unwrap_or_else(|_| panic!("content-length {length:?}")))
    } else {
        Framing::UntilClose
    }
}

fn parse_head(bytes: &[u8]) -> Head {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let mut words = status_line.splitn(3, ' ');
    let version = words.next().unwrap_or_default().to_owned();
    let status = words.next().and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("status line {status_line:?}"));
    let reason = words.next().unwrap_or_default().to_owned();
    let headers = lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_once(':').unwrap_or_else(|| panic!("header line {line:?}")))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Head { version, status, reason, headers }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
