//! An HTTP/1.1 upstream that misbehaves to a script: how far it plays along ([`Stage`]), and how it ends ([`Way`]).
//!
//! Without a fault it answers `halfhalf`: with a length, in two chunks, or as two events of a stream; a request to upgrade
//! gets 101 and the same bytes. What lies behind the head of an answer waits until the client has seen what came before
//! ([`Scripted::go_on`]), so that nothing depends on what the network holds back.

use super::upstream::{read_head, spawn};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long the upstream waits for its test, at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where it stops playing along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Bytes of the request are there, none is read.
    Unread,
    /// The request's head is read.
    RequestHead,
    /// Some of the request's body is read.
    RequestBody,
    /// The whole request is read.
    Request,
    /// Some of the answer's head is written.
    WithinHead,
    /// The answer's head is written.
    Head,
    /// The first half of the answer's body is written.
    Body,
    /// And some of the size of the next chunk.
    ChunkHead,
    /// And some of the next chunk.
    Chunk,
}

/// How it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// RST.
    Resets,
    /// FIN; it goes on reading.
    HalfCloses,
    /// Nothing more is sent.
    Stalls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Nobody listens.
    Refuses,
    At(Stage, Way),
    /// Half an answer and FIN, all in one.
    DiesAtOnce,
    /// Not HTTP.
    Garbage,
    /// One header field without end.
    EndlessField,
    /// Header fields without end.
    EndlessHead,
    /// Interim answers without end.
    EndlessHints,
    /// More than the length, or the last chunk, allows.
    Surplus,
}

pub struct Scripted {
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Requests of which at least a byte came.
    asked: usize,
    /// Connections of the proxy.
    open: usize,
    go_on: bool,
    over: bool,
}

impl Scripted {
    /// `port`: of one that refuses, a port where nobody listens.
    pub fn start(fault: Fault, refused_port: u16) -> Self {
        let shared = Arc::new(Shared::default());
        if fault == Fault::Refuses {
            return Self { port: refused_port, shared };
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = Arc::clone(&shared);
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                shared.update(|state| state.open += 1);
                spawn(move || {
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let _ = stream.set_write_timeout(Some(PATIENCE));
                    let _ = serve(&stream, fault, &shared);
                    shared.update(|state| state.open -= 1);
                });
            }
        });
        Self { port, shared }
    }

    pub fn asked(&self) -> usize {
        self.shared.state.lock().unwrap().asked
    }

    /// The client has seen what was sent until now.
    pub fn go_on(&self) {
        self.shared.update(|state| state.go_on = true);
    }

    /// The client has all it gets. `true` when no connection of the proxy is open any more, within `limit`.
    pub fn is_left_within(&self, limit: Duration) -> bool {
        self.shared.update(|state| {
            state.go_on = true;
            state.over = true;
        });
        self.shared.wait(limit, |state| state.open == 0)
    }
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait(&self, limit: Duration, until: impl Fn(&State) -> bool) -> bool {
        let guard = self.state.lock().unwrap();
        let (guard, _) = self.changed.wait_timeout_while(guard, limit, |state| !until(state)).unwrap();
        until(&guard)
    }
}

/// An answer in the parts between which something may go wrong.
struct Answer {
    head: &'static str,
    first: &'static str,
    /// The beginning of the next chunk's head, and of the next chunk.
    cut_chunk_head: &'static str,
    cut_chunk: &'static str,
    rest: &'static str,
}

const LENGTH: Answer = Answer {
    head: "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\n",
    first: "half",
    cut_chunk_head: "",
    cut_chunk: "",
    rest: "half",
};
const CHUNKED: Answer = Answer {
    head: "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
    first: "4\r\nhalf\r\n",
    cut_chunk_head: "4",
    cut_chunk: "4\r\nha",
    rest: "4\r\nhalf\r\n0\r\n\r\n",
};
const EVENTS: Answer = Answer {
    head: "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    first: "c\r\ndata: half\n\n\r\n",
    cut_chunk_head: "e",
    cut_chunk: "e\r\ndata: [D",
    rest: "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
};
const UPGRADED: Answer = Answer {
    head: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    first: "half",
    cut_chunk_head: "",
    cut_chunk: "",
    rest: "half",
};

fn serve(stream: &TcpStream, fault: Fault, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(512, stream);
    let mut out = stream;
    loop {
        if stream.peek(&mut [0])? == 0 {
            return Ok(());
        }
        shared.update(|state| state.asked += 1);
        let at = |stage| matches!(fault, Fault::At(s, _) if s == stage);
        if at(Stage::Unread) {
            return end(stream, fault, shared);
        }
        let Some(request) = read_head(&mut reader)? else { return Ok(()) };
        if at(Stage::RequestHead) {
            return end(stream, fault, shared);
        }
        let mut left: usize = request.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        let stop_at = if at(Stage::RequestBody) { left / 2 } else { 0 };
        while left > stop_at {
            let read = reader.fill_buf()?.len().min(left - stop_at);
            if read == 0 {
                return Ok(());
            }
            reader.consume(read);
            left -= read;
        }
        if at(Stage::RequestBody) || at(Stage::Request) {
            return end(stream, fault, shared);
        }
        match fault {
            Fault::Garbage => {
                out.write_all(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")?;
                return end(stream, fault, shared);
            }
            Fault::EndlessField => return endless(out, "HTTP/1.1 200 OK\r\nX-Long: ", &"x".repeat(8192)),
            Fault::EndlessHead => return endless(out, "HTTP/1.1 200 OK\r\n", &"X-Many: field\r\n".repeat(512)),
            Fault::EndlessHints => {
                return endless(out, "", &"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(64));
            }
            _ => {}
        }
        let answer = match (request.method.as_str(), request.header("upgrade"), request.path()) {
            (_, Some(_), _) => UPGRADED,
            (_, _, path) if path.ends_with("/events") => EVENTS,
            ("POST", ..) => CHUNKED,
            _ => LENGTH,
        };
        if fault == Fault::DiesAtOnce {
            out.write_all(format!("{}{}{}", answer.head, answer.first, answer.cut_chunk).as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            return drain(stream, shared);
        }
        if at(Stage::WithinHead) {
            out.write_all(&answer.head.as_bytes()[..30])?;
            return end(stream, fault, shared);
        }
        out.write_all(answer.head.as_bytes())?;
        if at(Stage::Head) {
            return end(stream, fault, shared);
        }
        out.write_all(answer.first.as_bytes())?;
        if at(Stage::ChunkHead) {
            out.write_all(answer.cut_chunk_head.as_bytes())?;
        }
        if at(Stage::Chunk) {
            out.write_all(answer.cut_chunk.as_bytes())?;
        }
        if at(Stage::Body) || at(Stage::ChunkHead) || at(Stage::Chunk) {
            return end(stream, fault, shared);
        }
        out.write_all(answer.rest.as_bytes())?;
        if fault == Fault::Surplus {
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")?;
        }
        if fault == Fault::Surplus || request.header("upgrade").is_some() {
            return drain(stream, shared);
        }
    }
}

/// Ends as the fault says, once the client has seen what went before.
fn end(stream: &TcpStream, fault: Fault, shared: &Shared) -> std::io::Result<()> {
    if let Fault::At(Stage::Head | Stage::Body | Stage::ChunkHead | Stage::Chunk, _) = fault {
        shared.wait(PATIENCE, |state| state.go_on);
    }
    match fault {
        Fault::At(_, Way::Resets) => {
            socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
            return Ok(());
        }
        Fault::At(_, Way::HalfCloses) => stream.shutdown(Shutdown::Write)?,
        _ => {}
    }
    drain(stream, shared)
}

/// Reads nothing until the client has all it gets, then until the proxy closes.
fn drain(mut stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    shared.wait(PATIENCE, |state| state.over);
    while stream.read(&mut [0; 4096])? > 0 {}
    Ok(())
}

/// Writes until the proxy has had enough.
fn endless(mut out: &TcpStream, start: &str, more: &str) -> std::io::Result<()> {
    let until = Instant::now() + PATIENCE;
    out.write_all(start.as_bytes())?;
    while Instant::now() < until {
        out.write_all(more.as_bytes())?;
    }
    Err(std::io::ErrorKind::TimedOut.into())
}
