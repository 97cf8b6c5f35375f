//! The downstream side of a protocol upgrade (websocket).

use std::pin::Pin;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::conn_state::{ConnState, Phase};
use super::socket::Socket;
use super::worker::current_tick;
use crate::base::error::{Kind, ProxyError, Retry};
use crate::http::exchange::{Duplex, PendingUpgrade};

pub struct Upgrade {
    /// The connection, once the 101 answer has been written.
    pub upgraded: oneshot::Receiver<Socket>,
    pub state: Rc<ConnState>,
}

impl PendingUpgrade for Upgrade {
    fn upgraded(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<Box<dyn Duplex>, ProxyError>>>> {
        Box::pin(async move {
            let socket = self
                .upgraded
                .await
                .map_err(|_| ProxyError::new(Kind::ClientGone, Retry::No, "the connection ended before the upgrade"))?;
            self.state.enter(Phase::Upgraded, current_tick());
            Ok(Box::new(socket) as Box<dyn Duplex>)
        })
    }
}
