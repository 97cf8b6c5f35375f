//! An HTTP/1.1 upstream that says what it saw. By default it answers JSON: its name, the request line, every header in
//! order, the body and how it was framed. Some paths behave on purpose (`?` marks their parameters):
//!
//! - `/status/N?Name=Value&…` that status, those response headers, the body `status N`; `/reply?Name=Value&…` the same
//!   with 200 and the body `reply`; `/pieces/N?…` as `/status/N`, chunked; `/seen/N` the JSON with that status
//! - `/sse?n=3&ms=100` that many events, so far apart; `/sse?n=0` endless; `/chunked?n=3&ms=100` text pieces likewise
//! - `/slow?n=3&ms=100` text with a Content-Length, written in pieces; `/hang?ms=100` waits before its head
//! - `/close` closes without a reply; `/cut?n=2` closes in the middle of a chunked body; `/trailers` ends with trailers
//! - `/upgrade` answers 101 and echoes bytes; `/early` answers before it reads the body
//!
//! [`Upstream::events`] tells what became of a connection, for the tests about clients that leave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What an upstream noticed of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The head has been read: `GET /path`.
    Asked(String),
    /// The proxy closed its side while the answer was still being awaited or written, so long after the request.
    Left {
        target: String,
        after: Duration,
    },
    Finished(String),
}

/// Serves on a loopback port until dropped (its threads end with the process).
pub struct Upstream {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    events: Mutex<Vec<(Instant, Event)>>,
    connections: AtomicUsize,
}

impl Upstream {
    pub fn start(name: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let events = Mutex::default();
        let shared = Arc::new(Shared { name: name.to_owned(), events, connections: AtomicUsize::new(0) });
        let serving = Arc::clone(&shared);
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                shared.connections.fetch_add(1, Ordering::Relaxed);
                spawn(move || {
                    let _ = serve(&stream, &shared);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self { port, shared }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    pub fn events(&self) -> Vec<Event> {
        self.shared.events.lock().unwrap().iter().map(|(_, event)| event.clone()).collect()
    }

    /// Waits, at most `limit`, for an event that `wanted` accepts, and tells when it happened.
    pub fn wait_for(&self, limit: Duration, wanted: impl Fn(&Event) -> bool) -> Option<(Instant, Event)> {
        let until = Instant::now() + limit;
        loop {
            let found = self.shared.events.lock().unwrap().iter().find(|(_, event)| wanted(event)).cloned();
            if found.is_some() || Instant::now() > until {
                return found;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Shared {
    fn note(&self, event: Event) {
        self.events.lock().unwrap().push((Instant::now(), event));
    }
}

/// Threads here wait and write little: a thousand of them must be cheap.
pub fn spawn(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(192 * 1024).spawn(work).unwrap();
}

pub struct Request {
    pub method: String,
    pub target: String,
    version: String,
    pub headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        query.split('&').filter_map(|pair| pair.split_once('='))
    }

    /// `/WORD/STATUS`
    fn wanted_status(&self) -> Option<(&str, u16)> {
        let (word, status) = self.path().strip_prefix('/')?.split_once('/')?;
        Some((word, status.parse().ok()?))
    }

    fn wanted_headers(&self) -> Vec<(&str, String)> {
        self.parameters().map(|(name, value)| (name, decoded(value))).collect()
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.parameters().find(|(n, _)| *n == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(default)
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_head(&mut reader)? {
        shared.note(Event::Asked(format!("{} {}", request.method, request.target)));
        let went_on = answer(&request, &mut reader, stream, shared)?;
        if !went_on {
            return Ok(());
        }
        shared.note(Event::Finished(request.target.clone()));
        if request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return Ok(());
        }
    }
    Ok(())
}

pub fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let words: Vec<&str> = line.trim_end().splitn(3, ' ').collect();
    let [method, target, version] = words[..] else { return Ok(None) };
    let (method, target, version) = (method.to_owned(), target.to_owned(), version.to_owned());
    Ok(Some(Request { method, target, version, headers: read_fields(reader)? }))
}

/// Header or trailer fields up to the empty line.
fn read_fields(reader: &mut impl BufRead) -> std::io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches(['\r', '\n']);
        let Some((name, value)) = line.split_once(':') else { return Ok(fields) };
        fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

/// Answers one request; `false` when the connection is over.
fn answer(
    request: &Request,
    reader: &mut BufReader<&TcpStream>,
    mut out: &TcpStream,
    shared: &Shared,
) -> std::io::Result<bool> {
    let (n, ms) = (request.number("n", 3), request.number("ms", 100));
    let path = request.path();
    if path == "/early" {
        out.write_all(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly")?;
        return Ok(false);
    }
    let body = read_body(request, reader, |_, bytes| out.write_all(bytes))?;
    match path {
        "/close" => return Ok(false),
        "/hang" => {
            if !wait_or_left(out, Duration::from_millis(ms), request, shared) {
                return Ok(false);
            }
            plain(out, request, 200, &[], "late")?;
        }
        "/sse" => {
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            let pieces = if n == 0 { u64::MAX } else { n };
            return pieces_written(out, pieces, ms, request, shared, |i| chunk(&format!("data: {i}\n\n")), "0\r\n\r\n");
        }
        "/chunked" => {
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            return pieces_written(out, n, ms, request, shared, |i| chunk(&format!("piece {i};")), "0\r\n\r\n");
        }
        "/slow" => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", n * 8);
            out.write_all(head.as_bytes())?;
            return pieces_written(out, n, ms, request, shared, |i| format!("slow {:02};", i % 100), "");
        }
        "/cut" => {
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            pieces_written(out, n, ms, request, shared, |i| chunk(&format!("piece {i};")), "5\r\nhal")?;
            return Ok(false);
        }
        "/trailers" => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTrailer: X-Other, X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n";
            out.write_all(format!("{head}{}0\r\nX-Sum: 42\r\nX-Other: o\r\n\r\n", chunk("with trailers")).as_bytes())?;
        }
        "/upgrade" => {
            let protocol = request.header("upgrade").unwrap_or("none");
            let head =
                format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
            out.write_all(head.as_bytes())?;
            let mut chunk = [0; 4096];
            loop {
                match reader.read(&mut chunk)? {
                    0 => return Ok(false),
                    read => out.write_all(&chunk[..read])?,
                }
            }
        }
        "/reply" => plain(out, request, 200, &request.wanted_headers(), "reply")?,
        _ => match request.wanted_status() {
            Some(("status", status)) => {
                plain(out, request, status, &request.wanted_headers(), &format!("status {status}"))?;
            }
            Some(("pieces", status)) => pieces(out, status, &request.wanted_headers())?,
            Some(("seen", status)) => echo(request, status, &body, out, shared)?,
            _ => echo(request, 200, &body, out, shared)?,
        },
    }
    Ok(true)
}

fn echo(request: &Request, status: u16, body: &Body, mut out: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let seen = serde_json::json!({
        "upstream": shared.name,
        "method": request.method,
        "target": request.target,
        "version": request.version,
        "headers": request.headers,
        "framing": body.framing,
        "body": String::from_utf8_lossy(&body.bytes),
        "trailers": body.trailers,
    });
    let text = if request.method == "HEAD" { String::new() } else { seen.to_string() };
    let head = "Content-Type: application/json\r\nServer: upstream\r\nX-Up: v1\r\nX-Powered-By: tests\r\n";
    let head = format!("HTTP/1.1 {status} Said\r\n{head}");
    out.write_all(format!("{head}Content-Length: {}\r\n\r\n{text}", seen.to_string().len()).as_bytes())
}

pub struct Body {
    framing: &'static str,
    pub bytes: Vec<u8>,
    trailers: Vec<(String, String)>,
}

/// Reads the body as it is framed, after the interim answer that the client may wait for (`interim` writes it).
pub fn read_body<R: BufRead>(
    request: &Request,
    reader: &mut R,
    interim: impl FnOnce(&mut R, &[u8]) -> std::io::Result<()>,
) -> std::io::Result<Body> {
    if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        interim(reader, b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = Body { framing: "none", bytes: Vec::new(), trailers: Vec::new() };
    if request.header("transfer-encoding").is_some() {
        body.framing = "chunked";
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            if size == 0 {
                body.trailers = read_fields(reader)?;
                return Ok(body);
            }
            let start = body.bytes.len();
            body.bytes.resize(start + size, 0);
            reader.read_exact(&mut body.bytes[start..])?;
            reader.read_line(&mut line)?;
        }
    }
    if let Some(length) = request.header("content-length") {
        body.framing = "length";
        body.bytes.resize(length.parse().map_err(std::io::Error::other)?, 0);
        reader.read_exact(&mut body.bytes)?;
    }
    Ok(body)
}

fn pieces(mut out: &TcpStream, status: u16, headers: &[(&str, String)]) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} Said\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    out.write_all(format!("{head}\r\n{}{}0\r\n\r\n", chunk("pieces "), chunk(&status.to_string())).as_bytes())
}

fn plain(
    mut out: &TcpStream,
    request: &Request,
    status: u16,
    headers: &[(&str, String)],
    body: &str,
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} Said\r\nContent-Type: text/plain\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let body = if status == 204 || status == 304 { "" } else { body };
    if status != 204 && status != 304 {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let body = if request.method == "HEAD" { "" } else { body };
    out.write_all(format!("{head}\r\n{body}").as_bytes())
}

/// Writes pieces `ms` apart (the first at once) and then `end`; `false` when the peer left meanwhile.
fn pieces_written(
    mut out: &TcpStream,
    pieces: u64,
    ms: u64,
    request: &Request,
    shared: &Shared,
    piece: impl Fn(u64) -> String,
    end: &str,
) -> std::io::Result<bool> {
    for i in 0..pieces {
        if i > 0 && !wait_or_left(out, Duration::from_millis(ms), request, shared) {
            return Ok(false);
        }
        out.write_all(piece(i).as_bytes())?;
    }
    out.write_all(end.as_bytes())?;
    Ok(true)
}

/// Waits; `false` as soon as the peer closes its side, which is noted.
fn wait_or_left(stream: &TcpStream, wait: Duration, request: &Request, shared: &Shared) -> bool {
    let since = Instant::now();
    let mut byte = [0];
    loop {
        let left = wait.saturating_sub(since.elapsed());
        if left.is_zero() {
            let _ = stream.set_read_timeout(None);
            return true;
        }
        let _ = stream.set_read_timeout(Some(left));
        match stream.peek(&mut byte) {
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            // A pipelined byte would spin here; no test pipelines to a waiting path.
            Ok(1) => std::thread::sleep(left),
            _ => {
                shared.note(Event::Left { target: request.target.clone(), after: since.elapsed() });
                return false;
            }
        }
    }
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn decoded(value: &str) -> String {
    percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned()
}
