//! A handshake that waits until its certificate has been had: other connections of the worker go on meanwhile.

use std::net::{IpAddr, Ipv4Addr};

use rustls::server::ClientHello;

use super::conn_state::{ConnState, Phase};
use super::worker::{Live, current_tick};
use crate::tls::on_demand::{Desk, Hello, Waiting};
use crate::tls::{self, ServerTls};

/// What this handshake has to wait for; mostly nothing, which is told without a lock.
pub fn look(live: &Live, tls: &ServerTls, hello: &ClientHello<'_>, about: &tls::Hello<'_>) -> Option<Waiting> {
    let plan = &live.runtime.certificates;
    plan.on_demand.as_ref()?;
    let name = tls.name_to_have(about)?;
    let hello = Hello {
        name: &name,
        client: about.remote.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        local: about.local,
        signature_schemes: hello.signature_schemes(),
        cipher_suites: hello.cipher_suites(),
    };
    Desk::shared().look(plan, &hello)
}

/// Waits. The bound on handshakes does not count meanwhile; a client that leaves is noticed by the worker's tick. False
/// when the listener ends.
pub async fn wait(waiting: Waiting, state: &ConnState) -> bool {
    state.enter(Phase::Serving, current_tick());
    let goes_on = tokio::select! {
        () = waiting.over() => true,
        () = state.draining() => false,
    };
    state.enter(Phase::Opening, current_tick());
    goes_on
}
