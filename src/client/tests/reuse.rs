//! Keep-alive: when a connection serves again, and what happens when it was stale.

use super::*;
use crate::base::error::{Kind, Retry};

#[test]
fn a_connection_serves_again_when_the_body_was_read() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let server = async {
            let mut peer = origin.accept().await;
            let first = peer.head().await;
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
            peer.head().await;
            peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\r\n").await;
            peer.serve().await;
            first
        };
        let client = async {
            let one = go(&target, get("/one?q=1")).await.unwrap();
            assert!(!one.reused && one.timings.connect.is_some());
            assert_eq!(one.remote_addr.unwrap().port(), origin.port);
            assert_eq!(text(one.response).await, "hi");
            assert_eq!(idle_count(&target), 1);
            let two = go(&target, get("/two")).await.unwrap();
            assert!(two.reused && two.timings.connect.is_none());
            assert_eq!(text(two.response).await, "ho");
            assert!(go(&target, get("/three")).await.unwrap().reused);
        };
        let (head, ()) = tokio::join!(server, client);
        assert_eq!(head, "GET /one?q=1 HTTP/1.1\r\nhost: up.test\r\n\r\n", "nothing is invented");
    });
}

#[test]
fn connection_close_is_honoured() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let server = async {
            let mut peer = origin.accept().await;
            peer.head().await;
            peer.write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
            assert!(peer.is_closed_by_client().await);
        };
        let client = async {
            go(&target, get("/")).await.unwrap();
            assert_eq!(idle_count(&target), 0);
        };
        tokio::join!(server, client);
    });
}

#[test]
fn without_keep_alive_each_request_connects() {
    local(async {
        let origin = Origin::new().await;
        let mut options = origin.options();
        options.keepalive.enabled = false;
        let target = Target::new(options).unwrap();
        let server = async {
            for _ in 0..2 {
                let mut peer = origin.accept().await;
                peer.serve().await;
                assert!(peer.is_closed_by_client().await);
            }
        };
        let client = async {
            for _ in 0..2 {
                assert!(!go(&target, get("/")).await.unwrap().reused);
            }
        };
        tokio::join!(server, client);
    });
}

#[test]
fn a_connection_closed_while_idle_costs_nothing_even_for_post() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let (close, closed) = tokio::sync::oneshot::channel();
        let server = async {
            let mut first = origin.accept().await;
            first.serve().await;
            closed.await.unwrap();
            drop(first);
            let mut peer = origin.accept().await;
            peer.head().await;
            let body = peer.read_until("twice").await;
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            body
        };
        let client = async {
            go(&target, get("/")).await.unwrap();
            assert_eq!(idle_count(&target), 1);
            close.send(()).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await; // the close arrives
            let sent = go(&target, post("not twice")).await.unwrap();
            assert!(!sent.reused);
        };
        let (body, ()) = tokio::join!(server, client);
        assert_eq!(body, "not twice");
    });
}

/// The origin answers the first request and drops the connection after reading the second.
async fn dropped_after_the_second(request: Request<Body>) -> (Result<Sent, SendError>, usize) {
    let origin = Origin::new().await;
    let target = origin.target();
    let server = async {
        let mut peer = origin.accept().await;
        peer.serve().await;
        peer.head().await;
        drop(peer);
        let third = tokio::time::timeout(Duration::from_millis(200), origin.accept()).await;
        match third {
            Err(_) => 1,
            Ok(mut peer) => {
                peer.serve().await;
                2
            }
        }
    };
    let client = async {
        go(&target, get("/")).await.unwrap();
        go(&target, request).await
    };
    let (connections, result) = tokio::join!(server, client);
    (result, connections)
}

#[test]
fn a_stale_connection_replays_what_may_happen_twice() {
    local(async {
        let keyed = Request::post("/p").header("idempotency-key", "k").body(Body::from("x")).unwrap();
        for request in [get("/again"), keyed, Request::put("/p").body(Body::from("x")).unwrap()] {
            let (result, connections) = dropped_after_the_second(request).await;
            assert_eq!(result.unwrap().response.status(), 200);
            assert_eq!(connections, 2);
        }
    });
}

#[test]
fn a_post_is_never_replayed() {
    local(async {
        let (result, connections) = dropped_after_the_second(post("bill me once")).await;
        let failed = result.unwrap_err();
        assert_eq!((failed.error.kind, failed.error.retry), (Kind::UpstreamClosed, Retry::IfIdempotent));
        assert!(failed.request.is_none());
        assert_eq!(connections, 1);
    });
}

#[test]
fn a_streamed_body_is_never_replayed() {
    local(async {
        let (feed, body) = fed();
        feed.send(data("x")).unwrap();
        drop(feed);
        let (result, connections) = dropped_after_the_second(Request::put("/p").body(body).unwrap()).await;
        assert_eq!(result.unwrap_err().error.kind, Kind::UpstreamClosed);
        assert_eq!(connections, 1);
    });
}

#[test]
fn a_fresh_connection_is_not_replayed() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let server = async {
            let mut peer = origin.accept().await;
            peer.head().await;
        };
        let (result, ()) = tokio::join!(go(&target, get("/")), server);
        let failed = result.unwrap_err();
        assert_eq!((failed.error.kind, failed.error.retry), (Kind::UpstreamClosed, Retry::IfIdempotent));
    });
}

#[test]
fn bytes_on_an_idle_connection_disqualify_it() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let server = async {
            let mut peer = origin.accept().await;
            peer.head().await;
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen").await;
            let mut second = origin.accept().await;
            second.serve().await;
        };
        let client = async {
            go(&target, get("/")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            let sent = go(&target, post("mine")).await.unwrap();
            assert_eq!(text(sent.response).await, "");
        };
        tokio::join!(server, client);
    });
}

#[test]
fn pools_survive_a_new_target_of_the_same_kind() {
    local(async {
        let origin = Origin::new().await;
        let old = origin.target();
        let server = async {
            let mut peer = origin.accept().await;
            peer.serve().await;
            peer.serve().await;
        };
        let client = async {
            go(&old, get("/")).await.unwrap();
            let new = origin.target();
            drop(old);
            assert!(go(&new, get("/")).await.unwrap().reused);
        };
        tokio::join!(server, client);
    });
}

#[test]
fn idle_connections_expire() {
    local(async {
        let origin = Origin::new().await;
        let mut options = origin.options();
        options.keepalive.idle = Duration::from_millis(1);
        let target = Target::new(options).unwrap();
        let server = async {
            let mut peer = origin.accept().await;
            peer.serve().await;
            assert!(peer.is_closed_by_client().await);
        };
        let client = async {
            go(&target, get("/")).await.unwrap();
            assert_eq!(idle_count(&target), 1);
        };
        tokio::join!(server, client);
        assert_eq!(idle_count(&target), 0);
    });
}
