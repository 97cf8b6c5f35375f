//! Bodies both ways, trailers, unix sockets, upgrades, first bytes, and the simple client.

use http::HeaderMap;
use http_body::Frame;

use super::*;

const SIZE: usize = 8 << 20;

#[test]
fn a_chunked_upload_with_trailers() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let (feed, body) = fed();
        let server = async {
            let mut peer = origin.accept().await;
            let head = peer.head().await;
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            feed.send(data("one")).unwrap();
            assert_eq!(peer.read_until("one\r\n").await, "3\r\none\r\n", "each chunk goes at once");
            feed.send(data("two")).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "6".parse().unwrap());
            feed.send(Frame::trailers(trailers)).unwrap();
            let rest = peer.read_until("\r\n\r\n").await;
            assert_eq!(rest, "3\r\ntwo\r\n0\r\nx-sum: 6\r\n\r\n");
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            peer
        };
        let mut request = post(body);
        request.headers_mut().insert("trailer", "x-sum".parse().unwrap());
        let (result, _peer) = tokio::join!(go(&target, request), server);
        assert!(result.is_ok());
        assert_eq!(idle_count(&target), 1);
    });
}

#[test]
fn response_trailers_come_last() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let server = async {
            let mut peer = origin.accept().await;
            peer.head().await;
            let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
            peer.write(answer).await;
            peer.write("2\r\nok\r\n0\r\nx-sum: 2\r\n\r\n").await;
            peer
        };
        let client = async {
            let sent = go(&target, get("/")).await.unwrap();
            let collected = sent.response.into_body().collect().await.unwrap();
            assert_eq!(collected.trailers().unwrap()["x-sum"], "2");
            assert_eq!(collected.to_bytes(), "ok");
            assert_eq!(idle_count(&target), 1);
        };
        tokio::join!(server, client);
    });
}

#[test]
fn both_directions_at_once() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let (feed, body) = fed();
        let server = async {
            let mut peer = origin.accept().await;
            peer.head().await;
            peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\ngo\r\n").await;
            // The upload moves on although nobody reads the response meanwhile.
            for _ in 0..3 {
                feed.send(data("up")).unwrap();
                peer.read_until("up\r\n").await;
            }
            drop(feed);
            peer.read_until("0\r\n\r\n").await;
            peer.write("2\r\non\r\n0\r\n\r\n").await;
        };
        let client = async { go(&target, post(body)).await.unwrap().response };
        let ((), response) = tokio::join!(server, client);
        assert_eq!(text(response).await, "goon");
    });
}

#[test]
fn chunks_come_as_they_are_sent() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let (turn, mut turns) = tokio::sync::mpsc::unbounded_channel();
        let server = async {
            let mut peer = origin.accept().await;
            peer.head().await;
            peer.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                .await;
            for _ in 0..20 {
                peer.write("9\r\ndata: x\n\n\r\n").await;
                turns.recv().await.unwrap(); // the next one only after this one arrived
            }
            peer.write("0\r\n\r\n").await;
        };
        let client = async {
            let mut body = go(&target, get("/")).await.unwrap().response.into_body();
            for _ in 0..20 {
                assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: x\n\n");
                turn.send(()).unwrap();
            }
            assert!(body.frame().await.is_none());
        };
        tokio::join!(server, client);
    });
}

#[test]
fn a_large_body_arrives_whole() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let server = async {
            let mut peer = origin.accept().await;
            peer.head().await;
            peer.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n")).await;
            peer.stream.write_all(&vec![7; SIZE]).await.unwrap();
            peer
        };
        let client = async {
            let bytes = go(&target, get("/")).await.unwrap().response.into_body().collect().await.unwrap().to_bytes();
            assert!(bytes.len() == SIZE && bytes.iter().all(|b| *b == 7));
            assert_eq!(idle_count(&target), 1);
        };
        tokio::join!(server, client);
    });
}

#[test]
fn a_head_request_has_no_body() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let server = async {
            let mut peer = origin.accept().await;
            peer.head().await;
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n").await;
            peer
        };
        let client = async {
            let request = Request::head("/").body(Body::Empty).unwrap();
            let response = go(&target, request).await.unwrap().response;
            assert_eq!(response.headers()["content-length"], "5000");
            assert!(response.body().is_empty());
            assert_eq!(idle_count(&target), 1);
        };
        tokio::join!(server, client);
    });
}

#[test]
fn over_a_unix_socket() {
    local(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("up.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let target = Target::new(TargetOptions::new(Scheme::Http, Address::Unix(path))).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 1024];
            let n = stream.read(&mut bytes).await.unwrap();
            assert!(bytes[..n].starts_with(b"GET /u HTTP/1.1\r\n"));
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nunix").await.unwrap();
            stream
        };
        let client = async {
            let sent = go(&target, get("/u")).await.unwrap();
            assert_eq!(sent.remote_addr, None);
            text(sent.response).await
        };
        let (_stream, body) = tokio::join!(server, client);
        assert_eq!(body, "unix");
    });
}

#[test]
fn an_upgrade_hands_over_the_connection() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let server = async {
            let mut peer = origin.accept().await;
            let head = peer.head().await;
            assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
            peer.write("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello")
                .await;
            assert_eq!(peer.read_until("ping").await, "ping");
            peer.write(" pong").await;
        };
        let client = async {
            let request = Request::get("/ws")
                .header("upgrade", "websocket")
                .header("connection", "upgrade")
                .body(Body::Empty)
                .unwrap();
            let sent = go(&target, request).await.unwrap();
            assert_eq!(sent.response.status(), 101);
            let mut raw = sent.upgraded.unwrap();
            raw.write_all(b"ping").await.unwrap();
            let mut all = String::new();
            raw.read_to_string(&mut all).await.unwrap();
            assert_eq!(all, "hello pong");
        };
        tokio::join!(server, client);
        assert_eq!(idle_count(&target), 0);
    });
}

#[test]
fn first_bytes_lead_a_connection_of_their_own() {
    local(async {
        let origin = Origin::new().await;
        let plain = origin.target();
        let mut options = origin.options();
        options.proxy_protocol = Some(ProxyProtocol::V1);
        let target = Target::new(options).unwrap();
        let server = async {
            origin.accept().await.serve().await;
            let mut peer = origin.accept().await;
            let head = peer.head().await;
            assert!(head.starts_with("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / "), "{head}");
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            assert!(peer.is_closed_by_client().await);
        };
        let client = async {
            go(&plain, get("/")).await.unwrap();
            let ends = Ends { client: "1.2.3.4:1".parse().unwrap(), listener: "5.6.7.8:2".parse().ok() };
            let options = SendOptions { ends: Some(ends) };
            assert!(!send(&target, get("/"), options).await.unwrap().reused);
        };
        tokio::join!(server, client);
    });
}

#[test]
fn the_simple_client_reads_a_whole_answer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let server = async {
            for _ in 0..2 {
                let mut peer = origin.accept().await;
                peer.head().await;
                peer.write("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nhealthy").await;
            }
        };
        let ask = |limit| {
            let request = Request::get("/health").header("host", "h").body(Bytes::new()).unwrap();
            simple::request(&target, request, limit, Duration::from_secs(5))
        };
        let client = async {
            assert_eq!(ask(100).await.unwrap().body(), "healthy");
            assert!(ask(3).await.is_err(), "longer than the limit");
        };
        tokio::join!(server, client);
    });
}

#[test]
fn what_the_simple_client_does_may_run_anywhere() {
    fn send<T: Send>(_: T) {}
    let target = Target::new(TargetOptions::new(Scheme::Http, Address::Unix("/x".into()))).unwrap();
    send(simple::request(&target, Request::new(Bytes::new()), 1, Duration::ZERO));
}
