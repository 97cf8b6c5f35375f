//! Every fault of an upstream against every kind of request: what the client gets, how often the upstreams were asked,
//! what the log says, which connections go on. The tables were written before the program was asked.
//!
//! Two laws hold in every cell: an answer that was cut never looks complete, and what may have been billed is not sent
//! twice (only a request that reached nobody, or a GET, goes to the second upstream).

use crate::harness::client::{Connection, NoResponse};
use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::scripted_upstream::Way::{HalfCloses, Resets, Stalls};
use crate::harness::scripted_upstream::{Fault, Scripted, Stage};
use crate::harness::upstream::spawn;
use std::io::Read as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Get,
    Post,
    /// A POST whose answer is a stream of events.
    Events,
    Upgrade,
}

const ALL: [Asked; 4] = [Asked::Get, Asked::Post, Asked::Events, Asked::Upgrade];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// An answer of ours, with this word in the log; the client's connection goes on.
    Says(u16, &'static str),
    /// 200 and the beginning of the body, then the end of the connection, with this word in the log.
    Cut(&'static str, &'static str),
    /// Everything; both connections go on.
    Whole,
    /// Everything, and the upstream's connection is not used again.
    WholeAndLeft,
    /// Everything, from the second upstream.
    Other,
    /// 101, so many bytes, the end.
    Ends(&'static str),
    /// 101, so many bytes, and no end: nobody limits how long an upgraded connection is silent.
    Waits(&'static str),
    /// There is no such moment.
    Never,
}

use Expected::{Cut, Ends, Never, Other, Says, Waits, Whole, WholeAndLeft};

const CONNECT: Expected = Says(502, "upstream_connect_failed");
const CLOSED: Expected = Says(502, "upstream_closed");
const LATE: Expected = Says(504, "upstream_response_timeout");
const NO_HTTP: Expected = Says(502, "upstream_protocol_error");
const BROKEN: &str = "upstream_body_error";
const SILENT: &str = "upstream_read_timeout";
/// Of a stream of events: the first event, and some of the second.
const EVENT: &str = "data: half\n\n";
const EVENTS: &str = "data: half\n\ndata: [D";

/// One upstream, nothing is tried again.
#[rustfmt::skip]
const ALONE: [(Fault, [Expected; 4]); 35] = [
    //                                               GET                 POST                   events                upgrade
    (Fault::None,                                   [Whole,              Whole,                 Whole,                Waits("halfhalf")]),
    (Fault::Refuses,                                [CONNECT,            CONNECT,               CONNECT,              CONNECT]),
    (Fault::At(Stage::Unread, Resets),              [CLOSED,             CLOSED,                CLOSED,               CLOSED]),
    (Fault::At(Stage::Unread, HalfCloses),          [CLOSED,             CLOSED,                CLOSED,               CLOSED]),
    (Fault::At(Stage::Unread, Stalls),              [LATE,               LATE,                  LATE,                 LATE]),
    (Fault::At(Stage::RequestHead, Resets),         [CLOSED,             CLOSED,                CLOSED,               CLOSED]),
    (Fault::At(Stage::RequestHead, HalfCloses),     [CLOSED,             CLOSED,                CLOSED,               CLOSED]),
    (Fault::At(Stage::RequestHead, Stalls),         [LATE,               LATE,                  LATE,                 LATE]),
    (Fault::At(Stage::RequestBody, Resets),         [Never,              CLOSED,                CLOSED,               Never]),
    (Fault::At(Stage::RequestBody, HalfCloses),     [Never,              CLOSED,                CLOSED,               Never]),
    (Fault::At(Stage::RequestBody, Stalls),         [Never,              LATE,                  LATE,                 Never]),
    (Fault::At(Stage::Request, Resets),             [CLOSED,             CLOSED,                CLOSED,               CLOSED]),
    (Fault::At(Stage::Request, HalfCloses),         [CLOSED,             CLOSED,                CLOSED,               CLOSED]),
    (Fault::At(Stage::Request, Stalls),             [LATE,               LATE,                  LATE,                 LATE]),
    (Fault::At(Stage::WithinHead, Resets),          [CLOSED,             CLOSED,                CLOSED,               CLOSED]),
    (Fault::At(Stage::WithinHead, HalfCloses),      [CLOSED,             CLOSED,                CLOSED,               CLOSED]),
    (Fault::At(Stage::WithinHead, Stalls),          [LATE,               LATE,                  LATE,                 LATE]),
    (Fault::At(Stage::Head, Resets),                [Cut("", BROKEN),    Cut("", BROKEN),       Cut("", BROKEN),      Ends("")]),
    (Fault::At(Stage::Head, HalfCloses),            [Cut("", BROKEN),    Cut("", BROKEN),       Cut("", BROKEN),      Ends("")]),
    (Fault::At(Stage::Head, Stalls),                [Cut("", SILENT),    Cut("", SILENT),       Cut("", SILENT),      Waits("")]),
    (Fault::At(Stage::Body, Resets),                [Cut("half", BROKEN),Cut("half", BROKEN),   Cut(EVENT, BROKEN),   Ends("half")]),
    (Fault::At(Stage::Body, HalfCloses),            [Cut("half", BROKEN),Cut("half", BROKEN),   Cut(EVENT, BROKEN),   Ends("half")]),
    (Fault::At(Stage::Body, Stalls),                [Cut("half", SILENT),Cut("half", SILENT),   Cut(EVENT, SILENT),   Waits("half")]),
    (Fault::At(Stage::ChunkHead, Resets),           [Never,              Cut("half", BROKEN),   Cut(EVENT, BROKEN),   Never]),
    (Fault::At(Stage::ChunkHead, HalfCloses),       [Never,              Cut("half", BROKEN),   Cut(EVENT, BROKEN),   Never]),
    (Fault::At(Stage::ChunkHead, Stalls),           [Never,              Cut("half", SILENT),   Cut(EVENT, SILENT),   Never]),
    (Fault::At(Stage::Chunk, Resets),               [Never,              Cut("halfha", BROKEN), Cut(EVENTS, BROKEN),  Never]),
    (Fault::At(Stage::Chunk, HalfCloses),           [Never,              Cut("halfha", BROKEN), Cut(EVENTS, BROKEN),  Never]),
    (Fault::At(Stage::Chunk, Stalls),               [Never,              Cut("halfha", SILENT), Cut(EVENTS, SILENT),  Never]),
    (Fault::DiesAtOnce,                             [Cut("half", BROKEN),Cut("halfha", BROKEN), Cut(EVENTS, BROKEN),  Ends("half")]),
    (Fault::Garbage,                                [NO_HTTP,            NO_HTTP,               NO_HTTP,              NO_HTTP]),
    (Fault::EndlessField,                           [NO_HTTP,            NO_HTTP,               NO_HTTP,              NO_HTTP]),
    (Fault::EndlessHints,                           [NO_HTTP,            NO_HTTP,               NO_HTTP,              NO_HTTP]),
    (Fault::EndlessHead,                            [NO_HTTP,            NO_HTTP,               NO_HTTP,              NO_HTTP]),
    (Fault::Surplus,                                [WholeAndLeft,       WholeAndLeft,          WholeAndLeft,         Never]),
];

/// The same with a second upstream and retries: what reached nobody goes there, and a GET that has no answer yet.
fn with_another(expected: Expected, asked: Asked) -> Expected {
    match expected {
        CONNECT => Other,
        Says(..) if matches!(asked, Asked::Get | Asked::Upgrade) => Other,
        as_alone => as_alone,
    }
}

struct Cell {
    name: String,
    fault: Fault,
    asked: Asked,
    expected: Expected,
    upstream: Scripted,
    other: Scripted,
}

fn cells(prefix: &str, retries: bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (row, (fault, columns)) in ALONE.iter().enumerate() {
        for (column, (asked, expected)) in ALL.iter().zip(columns).enumerate() {
            if *expected != Never {
                cells.push(Cell {
                    name: format!("{prefix}-{row}-{column}.test"),
                    fault: *fault,
                    asked: *asked,
                    expected: if retries { with_another(*expected, *asked) } else { *expected },
                    upstream: Scripted::start(*fault, if *fault == Fault::Refuses { free_port() } else { 0 }),
                    other: Scripted::start(Fault::None, 0),
                });
            }
        }
    }
    cells
}

fn proxyfile(port: u16, cells: &[Cell], retries: bool) -> String {
    let mut text = format!(
        "{{\n\tadmin off\n\tauto_https off\n\tservers {{\n\t\tprotocols h1 h2c\n\t}}\n}}\nhttp://again.test:{port} {{\n\tbind 127.0.0.1\n\trespond \"again\"\n}}\n"
    );
    for cell in cells {
        let (name, first, second) = (&cell.name, cell.upstream.port, cell.other.port);
        let (more, retry) = match retries {
            true => (format!(" 127.0.0.1:{second}"), "\t\tlb_policy first\n\t\tlb_retries 3\n\t\tfail_duration 1m\n"),
            false => (String::new(), ""),
        };
        text += &format!(
            "http://{name}:{port} {{\n\tbind 127.0.0.1\n\tlog\n\treverse_proxy 127.0.0.1:{first}{more} {{\n{retry}\t\ttransport http {{\n\t\t\tresponse_header_timeout 800ms\n\t\t\tread_timeout 800ms\n\t\t}}\n\t}}\n}}\n"
        );
    }
    text
}

/// Runs all cells at once, each on a thread that mostly waits, and gathers what is not as expected.
fn run(cells: Vec<Cell>, port: u16, proxy: &Proxy, check: fn(&Cell, u16) -> Vec<String>) -> Vec<String> {
    let (tell, told) = mpsc::channel();
    let count = cells.len();
    for cell in cells {
        let tell = tell.clone();
        spawn(move || {
            let problems = check(&cell, port);
            let _ = tell.send((cell, problems));
        });
    }
    let mut wrong = Vec::new();
    for _ in 0..count {
        let (cell, mut problems) = told.recv_timeout(Duration::from_secs(60)).expect("every cell ends");
        problems.extend(wrong_log(&cell, proxy));
        let title = format!("{} {:?} × {:?}, {:?} expected", cell.name, cell.fault, cell.asked, cell.expected);
        wrong.extend(problems.into_iter().map(|problem| format!("{title}: {problem}")));
    }
    wrong.sort();
    wrong
}

fn over_http1(cell: &Cell, port: u16) -> Vec<String> {
    let mut connection = Connection::open(port);
    connection.set_patience(Duration::from_secs(4));
    connection.send(request(cell));
    let (seen, goes_on) = match connection.head(false) {
        Err(NoResponse::Closed) => (Saw::Nothing, false),
        Err(NoResponse::Silent) => (Saw::Silence, false),
        Ok(head) if head.status == 101 => (upgraded(cell, connection), false),
        Ok(head) => {
            let mut body = String::new();
            if matches!(cell.expected, Cut("", _)) {
                cell.upstream.go_on();
            }
            while let Some(piece) = connection.piece() {
                body += &String::from_utf8_lossy(&piece);
                if body.len() >= expected_body(cell).len() {
                    cell.upstream.go_on();
                }
            }
            let complete = connection.ended_cleanly();
            let seen = if complete { Saw::Whole(head.status, body) } else { Saw::Cut(head.status, body) };
            (seen, complete && asks_again(&mut connection))
        }
    };
    let mut problems = wrong_answer(cell, &seen);
    // What is left of an upload may be too much to read for nothing.
    let unread =
        matches!(cell.fault, Fault::Refuses | Fault::At(Stage::Unread | Stage::RequestHead | Stage::RequestBody, _));
    let answered = matches!(cell.expected, Says(..) | Whole | WholeAndLeft | Other) && cell.asked != Asked::Upgrade;
    let must_go_on = answered && !(unread && cell.asked == Asked::Post);
    if must_go_on && !goes_on {
        problems.push("the client's connection does not go on".to_owned());
    }
    problems.extend(wrong_upstreams(cell));
    problems
}

/// A stream that is cut is reset, and the connection goes on for the others.
fn over_http2(cell: &Cell, port: u16) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asking = async { tokio::time::timeout(Duration::from_secs(10), exchange_over_http2(cell, port)).await };
    let (seen, goes_on) = match runtime.block_on(asking) {
        Ok(Ok(seen)) => seen,
        Ok(Err(error)) => return vec![format!("the connection failed: {error}")],
        Err(_) => return vec!["nothing came".to_owned()],
    };
    let mut problems = wrong_answer(cell, &seen);
    if !goes_on {
        problems.push("the client's connection does not go on".to_owned());
    }
    problems.extend(wrong_upstreams(cell));
    problems
}

async fn exchange_over_http2(cell: &Cell, port: u16) -> Result<(Saw, bool), Box<dyn std::error::Error>> {
    let socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut sender, connection) = h2::client::handshake(socket).await?;
    tokio::spawn(connection);
    let (method, path, upload) = match cell.asked {
        Asked::Get | Asked::Upgrade => ("GET", "/", String::new()),
        Asked::Post => ("POST", "/", "b".repeat(65536)),
        Asked::Events => ("POST", "/events", "{}".to_owned()),
    };
    let request = http::Request::builder().method(method).uri(format!("http://{}{path}", cell.name));
    let request = request.header("content-length", upload.len()).body(())?;
    let (response, mut uploading) = sender.send_request(request, upload.is_empty())?;
    if !upload.is_empty() {
        uploading.send_data(upload.into(), true)?;
    }
    let seen = match response.await {
        Err(_) => Saw::Nothing,
        Ok(response) => {
            let (status, mut stream) = (response.status().as_u16(), response.into_body());
            if matches!(cell.expected, Cut("", _)) {
                cell.upstream.go_on();
            }
            let mut body = String::new();
            loop {
                match stream.data().await {
                    None => break Saw::Whole(status, body),
                    Some(Err(_)) => break Saw::Cut(status, body),
                    Some(Ok(data)) => {
                        stream.flow_control().release_capacity(data.len())?;
                        body += &String::from_utf8_lossy(&data);
                        if body.len() >= expected_body(cell).len() {
                            cell.upstream.go_on();
                        }
                    }
                }
            }
        }
    };
    let again = http::Request::builder().uri("http://again.test/").body(())?;
    let goes_on = sender.send_request(again, true)?.0.await.is_ok_and(|response| response.status() == 200);
    Ok((seen, goes_on))
}

fn request(cell: &Cell) -> String {
    let host = &cell.name;
    match cell.asked {
        Asked::Get => format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        Asked::Post => format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 65536\r\n\r\n{}", "b".repeat(65536)),
        Asked::Events => format!("POST /events HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\n{{}}"),
        Asked::Upgrade => {
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        }
    }
}

/// What a client saw of its answer.
#[derive(Debug)]
enum Saw {
    /// Closed without a byte.
    Nothing,
    Silence,
    Whole(u16, String),
    Cut(u16, String),
    /// After 101.
    Ended(String),
    Waited(String),
}

fn upgraded(cell: &Cell, mut connection: Connection) -> Saw {
    let mut bytes = connection.take_buffer();
    connection.set_patience(Duration::from_millis(1200));
    loop {
        if bytes.len() >= expected_body(cell).len() {
            cell.upstream.go_on();
        }
        let mut chunk = [0; 64];
        let text = || String::from_utf8_lossy(&bytes).into_owned();
        match connection.stream.read(&mut chunk) {
            Ok(0) => return Saw::Ended(text()),
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Saw::Ended(text()),
            Err(_) => return Saw::Waited(text()),
        }
    }
}

/// Another request on the same connection is answered.
fn asks_again(connection: &mut Connection) -> bool {
    connection.send("GET / HTTP/1.1\r\nHost: again.test\r\n\r\n");
    connection.response().is_ok_and(|response| response.text() == "again")
}

fn expected_body(cell: &Cell) -> &'static str {
    match (cell.expected, cell.asked) {
        (Cut(body, _) | Ends(body) | Waits(body), _) => body,
        (Whole | WholeAndLeft | Other, Asked::Events) => "data: half\n\ndata: [DONE]\n\n",
        (Whole | WholeAndLeft | Other, _) => "halfhalf",
        (Says(..) | Never, _) => "",
    }
}

fn wrong_answer(cell: &Cell, seen: &Saw) -> Vec<String> {
    let right = match (cell.expected, seen) {
        (Says(status, _), Saw::Whole(s, _)) => status == *s,
        (Cut(..), Saw::Cut(200, body)) => body == expected_body(cell),
        (Whole | WholeAndLeft | Other, Saw::Whole(200, body)) => body == expected_body(cell),
        (Ends(bytes), Saw::Ended(b)) | (Waits(bytes), Saw::Waited(b)) => bytes == b,
        (Other, Saw::Waited(b)) if cell.asked == Asked::Upgrade => b == "halfhalf",
        _ => false,
    };
    if right { Vec::new() } else { vec![format!("the client saw {seen:?}")] }
}

/// How often the upstreams were asked, and whether their connections go on.
fn wrong_upstreams(cell: &Cell) -> Vec<String> {
    let mut problems = Vec::new();
    let asked = (cell.upstream.asked(), cell.other.asked());
    let right = (usize::from(cell.fault != Fault::Refuses), usize::from(cell.expected == Other));
    if asked != right {
        problems.push(format!("the upstreams were asked {asked:?} times, not {right:?}"));
    }
    // One that goes on is idle in the pool: only time would tell, so its thread is looked at once.
    let limit = if cell.expected == Whole { Duration::ZERO } else { Duration::from_secs(3) };
    if cell.upstream.is_left_within(limit) == (cell.expected == Whole) {
        problems.push("the connection to the upstream is not as it should be afterwards".to_owned());
    }
    problems
}

/// The access log has the request, and the word for what went wrong is on a line about it.
fn wrong_log(cell: &Cell, proxy: &Proxy) -> Vec<String> {
    let (status, word) = match cell.expected {
        Says(status, word) => (status, word),
        Cut(_, word) => (200, word),
        Whole | WholeAndLeft => (200, ""),
        Other if cell.asked != Asked::Upgrade => (200, ""),
        Other | Ends(_) | Waits(_) => (101, ""),
        Never => return Vec::new(),
    };
    let until = Instant::now() + Duration::from_secs(3);
    // A cut is told of the upstream: the entry of the request has its status from before.
    let (host, upstream) = (format!("\"{}\"", cell.name), format!(" 127.0.0.1:{}: ", cell.upstream.port));
    loop {
        let log = proxy.log();
        let about = |line: &&str| line.contains(&host) || line.contains(&upstream);
        let lines: Vec<&str> = log.lines().filter(about).collect();
        let entry = lines.iter().any(|line| line.contains(&format!("\"status\":{status}")));
        let explained = if word.is_empty() {
            !lines.iter().any(|line| line.contains("upstream_"))
        } else {
            lines.iter().any(|line| line.contains(word))
        };
        if entry && explained {
            return Vec::new();
        }
        if Instant::now() > until {
            return vec![format!("{status} and `{word}` are not in the log:\n  {}", lines.join("\n  "))];
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn matrix(prefix: &str, retries: bool, check: fn(&Cell, u16) -> Vec<String>, wanted: fn(&Cell) -> bool) {
    let mut cells = cells(prefix, retries);
    cells.retain(wanted);
    let port = free_port();
    let proxy = Proxy::start(Which::Llmproxy, &proxyfile(port, &cells, retries), port);
    let count = cells.len();
    let wrong = run(cells, port, &proxy, check);
    assert!(wrong.is_empty(), "{} of {count} cells are wrong:\n\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn one_upstream() {
    matrix("alone", false, over_http1, |_| true);
}

#[test]
fn two_upstreams_and_retries() {
    matrix("retries", true, over_http1, |_| true);
}

#[test]
fn one_upstream_and_http2() {
    matrix("h2", false, over_http2, |cell| cell.asked != Asked::Upgrade);
}
