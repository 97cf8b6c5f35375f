//! Every fault of an origin against every kind of request: what comes of it, and that the connection never serves again.

use super::*;
use crate::base::error::{Kind, Retry};

#[derive(Copy, Clone, Debug, PartialEq)]
enum Fault {
    /// The control: nothing is wrong.
    None,
    Refuses,
    ResetsBeforeHead,
    ResetsWithinHead,
    ResetsWithinBody,
    Stalls,
    HalfCloses,
    Garbage,
    Surplus,
    DiesWithinChunk,
}

#[derive(Copy, Clone, Debug, PartialEq)]
enum Asked {
    Get,
    Post,
    /// Its body never ends.
    Streamed,
    Upgrade,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Fails(Kind, Retry),
    /// A head and a piece, then an error.
    BreaksOff(&'static str, Kind),
    /// The whole body, and how many connections wait then.
    Serves(&'static str, usize),
    Waits,
}

fn expected(fault: Fault, asked: Asked) -> Outcome {
    use Outcome::*;
    match fault {
        // What is left of an upload when its answer is complete would be taken for the next request.
        Fault::None if asked == Asked::Streamed => Serves("ok", 0),
        Fault::None => Serves("ok", 1),
        Fault::Refuses => Fails(Kind::ConnectFailed, Retry::Safe),
        Fault::ResetsBeforeHead | Fault::ResetsWithinHead | Fault::HalfCloses => {
            Fails(Kind::UpstreamClosed, Retry::IfIdempotent)
        }
        Fault::ResetsWithinBody => BreaksOff("half", Kind::UpstreamBody),
        // The time for an answer begins when the request is sent.
        Fault::Stalls if asked == Asked::Streamed => Waits,
        Fault::Stalls => Fails(Kind::ResponseTimeout, Retry::IfIdempotent),
        Fault::Garbage => Fails(Kind::UpstreamProtocol, Retry::IfIdempotent),
        Fault::Surplus => Serves("ok", 0),
        Fault::DiesWithinChunk => BreaksOff("ha", Kind::UpstreamBody),
    }
}

/// What the origin does once it has the head, and what there is of the body.
async fn misbehave(peer: &mut Peer, fault: Fault) {
    let (answer, resets, ends) = match fault {
        Fault::None => ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false, false),
        Fault::Refuses | Fault::Stalls => ("", false, false),
        Fault::ResetsBeforeHead => ("", true, true),
        Fault::ResetsWithinHead => ("HTTP/1.1 200 OK\r\nx: ", true, true),
        Fault::ResetsWithinBody => ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", true, true),
        Fault::HalfCloses => ("", false, true),
        Fault::Garbage => ("SSH-2.0-OpenSSH\r\n\r\n", false, false),
        Fault::Surplus => {
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false, false)
        }
        Fault::DiesWithinChunk => ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nha", false, true),
    };
    peer.write(answer).await;
    if resets {
        peer.stream.set_zero_linger().unwrap();
    } else if ends {
        peer.stream.shutdown().await.unwrap();
    }
}

async fn outcome(fault: Fault, asked: Asked) -> Outcome {
    let origin = Origin::new().await;
    let mut options = origin.options();
    options.timeouts.response_header = Some(Duration::from_millis(100));
    let target = Target::new(options).unwrap();
    let (feed, endless) = fed();
    feed.send(data("part")).unwrap();
    let request = match asked {
        Asked::Get => get("/"),
        Asked::Post => post("part"),
        Asked::Streamed => post(endless),
        Asked::Upgrade => asking_to_upgrade(Body::Empty),
    };
    if fault == Fault::Refuses {
        drop(origin);
    } else {
        tokio::task::spawn_local(async move {
            let mut peer = origin.accept().await;
            peer.head().await;
            if matches!(asked, Asked::Post | Asked::Streamed) {
                peer.read_until("part").await;
            }
            misbehave(&mut peer, fault).await;
            if !matches!(fault, Fault::ResetsBeforeHead | Fault::ResetsWithinHead | Fault::ResetsWithinBody) {
                peer.is_closed_by_client().await;
            }
        });
    }
    let Ok(sent) = tokio::time::timeout(Duration::from_millis(600), go(&target, request)).await else {
        assert_eq!(idle_count(&target), 0);
        return Outcome::Waits;
    };
    let outcome = match sent {
        Err(failed) => {
            assert_eq!(failed.request.is_some(), failed.error.retry == Retry::Safe, "{fault:?} {asked:?}");
            Outcome::Fails(failed.error.kind, failed.error.retry)
        }
        Ok(sent) => {
            let mut body = sent.response.into_body();
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            let piece = if piece == "ok" {
                "ok"
            } else if piece == "ha" {
                "ha"
            } else {
                "half"
            };
            match body.frame().await {
                None => return Outcome::Serves(piece, idle_count(&target)),
                Some(next) => Outcome::BreaksOff(piece, next.unwrap_err().kind),
            }
        }
    };
    assert_eq!(idle_count(&target), 0, "{fault:?} {asked:?}");
    outcome
}

fn asking_to_upgrade(body: Body) -> Request<Body> {
    let mut request = post(body);
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    request
}

#[test]
fn every_fault_against_every_request() {
    use Fault::*;
    local(async {
        for fault in [
            None,
            Refuses,
            ResetsBeforeHead,
            ResetsWithinHead,
            ResetsWithinBody,
            Stalls,
            HalfCloses,
            Garbage,
            Surplus,
            DiesWithinChunk,
        ] {
            for asked in [Asked::Get, Asked::Post, Asked::Streamed, Asked::Upgrade] {
                assert_eq!(outcome(fault, asked).await, expected(fault, asked), "{fault:?} {asked:?}");
            }
        }
    });
}

#[test]
fn protocols_are_switched_only_when_asked_and_behind_a_whole_request() {
    local(async {
        let (feed, endless) = fed();
        feed.send(data("part")).unwrap();
        for request in [get("/"), asking_to_upgrade(endless)] {
            let origin = Origin::new().await;
            let target = origin.target();
            let server = async {
                let mut peer = origin.accept().await;
                peer.head().await;
                peer.write("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
                    .await;
                assert!(peer.is_closed_by_client().await);
            };
            let (result, ()) = tokio::join!(go(&target, request), server);
            assert_eq!(result.unwrap_err().error.kind, Kind::UpstreamProtocol);
        }
    });
}
