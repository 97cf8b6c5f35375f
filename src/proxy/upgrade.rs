//! `101 Switching Protocols`: joins the client's connection and the upstream's for as long as both live.
//!
//! The joined pair is a task of its own: it outlives the exchange and any reload.

use std::time::Duration;

use http::HeaderMap;

use super::outgoing;
use super::state::InFlight;
use crate::base::error::{Kind, ProxyError, Retry};
use crate::client::Upgraded;
use crate::http::exchange::Exchange;

/// Starts the tunnel. `answer` is the head of the upstream's 101; `limit` ends the tunnel after that time; until its
/// end it is a request under way.
pub fn join(
    ex: &mut Exchange,
    answer: &HeaderMap,
    upstream: Option<Upgraded>,
    limit: Option<Duration>,
    in_flight: InFlight,
) -> Result<(), ProxyError> {
    let wrong = |detail| Err(ProxyError::new(Kind::UpstreamProtocol, Retry::No, detail));
    let (asked, given) = (outgoing::upgrade_of(&ex.headers), outgoing::upgrade_of(answer));
    if asked.is_none() || asked != given {
        return wrong("the upstream switched to a protocol that was not asked for");
    }
    let (Some(client), Some(mut upstream)) = (ex.upgrade.take(), upstream) else {
        return wrong("the connection cannot be upgraded");
    };
    tokio::task::spawn_local(async move {
        let Ok(mut client) = client.upgraded().await else { return };
        let copy = tokio::io::copy_bidirectional(&mut client, &mut upstream);
        let _in_flight = in_flight;
        // Either side may end it at any time; that is no error.
        match limit {
            Some(limit) => {
                let _ = tokio::time::timeout(limit, copy).await;
            }
            None => {
                let _ = copy.await;
            }
        }
    });
    Ok(())
}
