//! Dropping a request or a response reaches the upstream at once.

use super::*;

#[test]
fn before_the_head() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let mut request = Box::pin(go(&target, post("think hard")));
        let mut peer = tokio::select! {
            _ = &mut request => unreachable!("nothing answers"),
            peer = async { let mut peer = origin.accept().await; peer.read_until("hard").await; peer } => peer,
        };
        drop(request);
        assert!(peer.is_closed_by_client().await);
    });
}

#[test]
fn within_the_body() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let server = async {
            let mut peer = origin.accept().await;
            peer.head().await;
            peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
            peer
        };
        let client = async {
            let mut body = go(&target, get("/")).await.unwrap().response.into_body();
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), "first");
            body
        };
        let (mut peer, body) = tokio::join!(server, client);
        drop(body);
        assert!(peer.is_closed_by_client().await);
        assert_eq!(idle_count(&target), 0);
    });
}

#[test]
fn within_the_upload() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let (feed, body) = fed();
        feed.send(data("part")).unwrap();
        let mut request = Box::pin(go(&target, post(body)));
        let mut peer = tokio::select! {
            _ = &mut request => unreachable!("nothing answers"),
            peer = async { let mut peer = origin.accept().await; peer.read_until("part").await; peer } => peer,
        };
        drop(request);
        assert!(peer.is_closed_by_client().await);
        assert!(feed.is_closed());
    });
}

#[test]
fn a_response_that_began_before_the_upload_ended() {
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let (feed, body) = fed();
        let server = async {
            let mut peer = origin.accept().await;
            peer.head().await;
            peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            peer
        };
        let (mut peer, sent) = tokio::join!(server, go(&target, post(body)));
        drop(sent.unwrap());
        assert!(peer.is_closed_by_client().await);
        assert!(feed.is_closed());
    });
}

#[test]
fn a_request_body_that_breaks_off_is_the_clients_fault() {
    struct Broken;
    impl http_body::Body for Broken {
        type Data = Bytes;
        type Error = crate::base::error::ProxyError;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            use crate::base::error::{Kind, ProxyError, Retry};
            std::task::Poll::Ready(Some(Err(ProxyError::new(Kind::ClientBody, Retry::No, "cut"))))
        }
    }
    local(async {
        let origin = Origin::new().await;
        let target = origin.target();
        let server = async {
            let mut peer = origin.accept().await;
            assert!(peer.is_closed_by_client().await);
        };
        let (result, ()) = tokio::join!(go(&target, post(Body::stream(Broken))), server);
        let error = result.unwrap_err().error;
        assert_eq!((error.kind, error.retry), (crate::base::error::Kind::ClientBody, crate::base::error::Retry::No));
    });
}
