//! Timeouts, connection limits, and failures to connect.

use std::time::Instant;

use super::*;
use crate::base::error::{Kind, Retry};

const SHORT: Option<Duration> = Some(Duration::from_millis(100));

#[test]
fn a_refused_connection_gives_the_request_back() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        drop(origin);
        let failed = go(&target, post("still here")).await.unwrap_err();
        assert_eq!((failed.error.kind, failed.error.retry), (Kind::ConnectFailed, Retry::Safe));
        let request = failed.request.unwrap();
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/p"));
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "still here");
    });
}

#[test]
fn connecting_takes_no_longer_than_allowed() {
    local(async {
        // A full accept queue: the kernel drops further handshakes.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let _first = TcpStream::connect(address).await.unwrap();
        let mut options =
            TargetOptions::new(Scheme::Http, Address::Tcp { host: "127.0.0.1".into(), port: address.port() });
        options.timeouts.dial = SHORT;
        let failed = go(&Target::new(options).unwrap(), get("/")).await.unwrap_err();
        assert_eq!((failed.error.kind, failed.error.retry), (Kind::ConnectTimeout, Retry::Safe), "{}", failed.error);
        assert!(failed.request.is_some());
    });
}

#[test]
fn an_unknown_name_fails_to_connect() {
    local(async {
        let address = Address::Tcp { host: "no-such-host.invalid".into(), port: 80 };
        let target = Target::new(TargetOptions::new(Scheme::Http, address)).unwrap();
        let error = go(&target, get("/")).await.unwrap_err().error;
        assert_eq!((error.kind, error.retry), (Kind::ConnectFailed, Retry::Safe), "{error}");
    });
}

#[test]
fn no_head_in_time() {
    local(async {
        for by_read_timeout in [false, true] {
            let origin = Origin::new().await;
            let mut options = origin.options();
            let timeouts = &mut options.timeouts;
            *(if by_read_timeout { &mut timeouts.read } else { &mut timeouts.response_header }) = SHORT;
            let target = Target::new(options).unwrap();
            let server = async {
                let mut peer = origin.accept().await;
                peer.head().await;
                assert!(peer.is_closed_by_client().await);
            };
            let start = Instant::now();
            let (result, ()) = tokio::join!(go(&target, get("/")), server);
            let error = result.unwrap_err().error;
            assert_eq!((error.kind, error.retry), (Kind::ResponseTimeout, Retry::IfIdempotent));
            assert!(start.elapsed() >= Duration::from_millis(100) && start.elapsed() < Duration::from_secs(1));
        }
    });
}

#[test]
fn the_head_timeout_does_not_count_the_upload() {
    local(async {
        let origin = Origin::new().await;
        let mut options = origin.options();
        options.timeouts.response_header = SHORT;
        let target = Target::new(options).unwrap();
        let (feed, body) = fed();
        let server = async {
            let mut peer = origin.accept().await;
            peer.head().await;
            tokio::time::sleep(Duration::from_millis(350)).await;
            feed.send(data("late")).unwrap();
            drop(feed);
            peer.read_until("0\r\n\r\n").await;
            peer.write("HTTP/1.1 204 No Content\r\n\r\n").await;
        };
        let (result, ()) = tokio::join!(go(&target, post(body)), server);
        assert_eq!(result.unwrap().response.status(), 204);
    });
}

#[test]
fn a_body_that_stalls() {
    local(async {
        let origin = Origin::new().await;
        let mut options = origin.options();
        options.timeouts.read = SHORT;
        let target = Target::new(options).unwrap();
        let server = async {
            let mut peer = origin.accept().await;
            peer.head().await;
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n").await;
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(60)).await;
                peer.write("x").await;
            }
            assert!(peer.is_closed_by_client().await);
        };
        let client = async {
            let mut body = go(&target, get("/")).await.unwrap().response.into_body();
            for _ in 0..3 {
                assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "x");
            }
            let error = body.frame().await.unwrap().unwrap_err();
            assert_eq!((error.kind, error.retry), (Kind::ReadTimeout, Retry::No));
        };
        tokio::join!(server, client);
    });
}

#[test]
fn a_write_that_stalls() {
    local(async {
        let origin = Origin::new().await;
        let mut options = origin.options();
        options.timeouts.write = SHORT;
        let target = Target::new(options).unwrap();
        let big = Bytes::from(vec![0; 64 << 20]);
        let server = async {
            let mut peer = origin.accept().await;
            peer.head().await;
            peer // reads no more
        };
        let (result, _peer) = tokio::join!(go(&target, post(big)), server);
        let error = result.unwrap_err().error;
        assert_eq!(error.kind, Kind::ResponseTimeout, "{error}");
    });
}

#[test]
fn a_tls_handshake_that_stalls() {
    local(async {
        let origin = Origin::new().await;
        let mut options = origin.options();
        options.scheme = Scheme::Https;
        options.timeouts.handshake = SHORT;
        let target = Target::new(options).unwrap();
        let (result, _peer) = tokio::join!(go(&target, get("/")), origin.accept());
        let error = result.unwrap_err().error;
        assert_eq!((error.kind, error.retry), (Kind::ResponseTimeout, Retry::Safe));
    });
}

#[test]
fn max_conns_makes_requests_take_turns() {
    local(async {
        let origin = Origin::new().await;
        let mut options = origin.options();
        options.max_conns = Some(1);
        let target = Target::new(options).unwrap();
        let server = async {
            let mut peer = origin.accept().await;
            for _ in 0..3 {
                peer.serve().await;
            }
            assert!(tokio::time::timeout(Duration::from_millis(50), origin.accept()).await.is_err());
        };
        let one = async { go(&target, get("/")).await.unwrap() };
        let (..) = tokio::join!(server, one, async { go(&target, get("/")).await.unwrap() }, async {
            go(&target, get("/")).await.unwrap()
        });
    });
}

#[test]
fn a_connection_that_closes_makes_room() {
    local(async {
        let origin = Origin::new().await;
        let mut options = origin.options();
        options.max_conns = Some(1);
        options.keepalive.enabled = false;
        let target = Target::new(options).unwrap();
        let server = async {
            origin.accept().await.serve().await;
            origin.accept().await.serve().await;
        };
        let client = async {
            let (one, two) = tokio::join!(go(&target, get("/")), go(&target, get("/")));
            assert!(one.is_ok() && two.is_ok());
        };
        tokio::join!(server, client);
    });
}

#[test]
fn an_idle_connection_of_one_worker_makes_room_for_another() {
    local(async {
        let origin = Origin::new().await;
        let mut options = origin.options();
        options.max_conns = Some(1);
        let target = std::sync::Arc::new(Target::new(options).unwrap());
        let server = async {
            let mut first = origin.accept().await;
            first.serve().await;
            origin.accept().await.serve().await;
        };
        let client = async {
            go(&target, get("/")).await.unwrap();
            assert_eq!(idle_count(&target), 1);
            let (told, done) = tokio::sync::oneshot::channel();
            let shared = std::sync::Arc::clone(&target);
            std::thread::spawn(move || local(async move { told.send(go(&shared, get("/")).await.is_ok()) }));
            assert!(done.await.unwrap());
        };
        tokio::join!(server, client);
    });
}
