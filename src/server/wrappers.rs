//! Takes a connection through the listener wrappers of its server, before or after the TLS handshake.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};

use super::http_redirect::{self, Outcome};
use super::proxy_protocol::{self, Origin};
use crate::compile::wrappers::Wrapper;
use crate::http::exchange::Peer;

/// Who is at the other end, and which of our addresses it reached.
type Ends = (Peer, Option<SocketAddr>);

/// What was read and is to be read again; `None` when the connection is over. `ends` become those that a trusted load
/// balancer names. `max_head` bounds a request that a wrapper answers itself.
pub async fn pass<S: AsyncRead + AsyncWrite + Unpin>(
    wrappers: &[Wrapper],
    stream: &mut S,
    ends: &mut Ends,
    max_head: usize,
) -> Option<Vec<u8>> {
    let mut seen = Vec::new();
    for wrapper in wrappers {
        match wrapper {
            Wrapper::HttpRedirect { max_head: own } => {
                let limit = own.unwrap_or(max_head);
                if http_redirect::answer(stream, &mut seen, limit).await == Outcome::Done {
                    return None;
                }
            }
            Wrapper::ProxyProtocol(settings) => {
                let peer = match &ends.0 {
                    Peer::Ip(address) => Some(address.ip()),
                    Peer::Unix => None,
                };
                match proxy_protocol::receive(settings, peer, stream, &mut seen).await {
                    Ok(None | Some(Origin::Connection)) => {}
                    Ok(Some(Origin::Unix)) => *ends = (Peer::Unix, None),
                    Ok(Some(Origin::Addresses { source, destination })) => {
                        *ends = (Peer::Ip(source), Some(destination));
                    }
                    Err(refused) => {
                        tracing::debug!(?peer, ?refused, "connection closed for its PROXY header");
                        return None;
                    }
                }
            }
        }
    }
    Some(seen)
}
