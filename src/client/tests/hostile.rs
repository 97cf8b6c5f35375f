//! Origins that misbehave: each failure has its kind, and none is taken for a complete answer.

use super::*;
use crate::base::error::{Kind, Retry};

/// Sends a GET to an origin that answers `answer` and closes.
async fn answered_with(answer: String) -> Result<Sent, SendError> {
    let origin = Origin::new().await;
    let target = origin.target();
    tokio::task::spawn_local(async move {
        let mut peer = origin.accept().await;
        peer.head().await;
        let _ = peer.stream.write_all(answer.as_bytes()).await;
        let _ = peer.stream.shutdown().await;
        let _ = peer.is_closed_by_client().await;
    });
    go(&target, get("/")).await
}

#[test]
fn heads_that_are_not_http() {
    local(async {
        for answer in [
            "SSH-2.0-OpenSSH\r\n\r\n".to_owned(),
            "HTTP/1.1 999999 X\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nbad header\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_owned(),
            format!("HTTP/1.1 200 OK\r\nbig: {}\r\n\r\n", "x".repeat(600_000)),
            format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(300)),
        ] {
            let error = answered_with(answer.clone()).await.unwrap_err().error;
            let head = &answer[..answer.len().min(60)];
            assert_eq!(error.kind, Kind::UpstreamProtocol, "{head:?}: {error}");
            assert_eq!(error.retry, Retry::IfIdempotent, "{head:?}");
        }
    });
}

#[test]
fn a_small_head_limit_is_kept() {
    local(async {
        let origin = Origin::new().await;
        let mut options = origin.options();
        options.max_response_header = Some(2000);
        let target = Target::new(options).unwrap();
        let server = async {
            for size in [1000, 3000] {
                let mut peer = origin.accept().await;
                peer.head().await;
                peer.write(&format!("HTTP/1.1 200 OK\r\nbig: {}\r\nconnection: close\r\n\r\n", "x".repeat(size))).await;
            }
        };
        let client = async {
            assert!(go(&target, get("/")).await.is_ok());
            assert_eq!(go(&target, get("/")).await.unwrap_err().error.kind, Kind::UpstreamProtocol);
        };
        tokio::join!(server, client);
    });
}

#[test]
fn a_head_cut_short() {
    local(async {
        for answer in ["", "HTTP/1.1 200 OK\r\nx: y"] {
            let error = answered_with(answer.to_owned()).await.unwrap_err().error;
            assert_eq!(error.kind, Kind::UpstreamClosed, "{answer:?}: {error}");
        }
    });
}

#[test]
fn a_body_cut_short_is_an_error() {
    local(async {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
        ] {
            let sent = answered_with(answer.to_owned()).await.unwrap();
            let mut body = sent.response.into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
            let error = body.frame().await.unwrap().unwrap_err();
            assert_eq!((error.kind, error.retry), (Kind::UpstreamBody, Retry::No), "{answer:?}");
        }
    });
}

#[test]
fn a_body_that_ends_with_the_connection_is_whole() {
    local(async {
        let sent = answered_with("HTTP/1.0 200 OK\r\n\r\nall there is".to_owned()).await.unwrap();
        assert_eq!(text(sent.response).await, "all there is");
    });
}

#[test]
fn informational_answers_are_passed_over() {
    local(async {
        let answer = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let sent = answered_with(answer.to_owned()).await.unwrap();
        assert_eq!(sent.response.status(), 200);
        assert_eq!(text(sent.response).await, "ok");
    });
}

#[test]
fn an_answer_before_the_upload_ends_is_heard() {
    local(async {
        for _ in 0..20 {
            let origin = Origin::new().await;
            let target = origin.target();
            let server = async {
                let mut peer = origin.accept().await;
                peer.head().await;
                peer.write("HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig").await;
            };
            let client = async {
                let sent = go(&target, post(Bytes::from(vec![0; 4 << 20]))).await.unwrap();
                assert_eq!(sent.response.status(), 413);
                assert_eq!(text(sent.response).await, "big");
            };
            tokio::join!(server, client);
        }
    });
}
