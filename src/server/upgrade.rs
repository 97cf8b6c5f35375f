//! The downstream side of a protocol upgrade (websocket).

use std::pin::Pin;
use std::sync::Arc;

use hyper_util::rt::TokioIo;

use super::conn_state::{ConnState, Phase};
use super::worker::current_tick;
use crate::base::error::{Kind, ProxyError, Retry};
use crate::http::exchange::{Duplex, PendingUpgrade};

pub struct Upgrade {
    pub on_upgrade: hyper::upgrade::OnUpgrade,
    pub state: Arc<ConnState>,
}

impl PendingUpgrade for Upgrade {
    fn upgraded(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<Box<dyn Duplex>, ProxyError>>>> {
        Box::pin(async move {
            let upgraded = self
                .on_upgrade
                .await
                .map_err(|e| ProxyError::new(Kind::ClientGone, Retry::No, format!("upgrade failed: {e}")))?;
            self.state.enter(Phase::Upgraded, current_tick());
            Ok(Box::new(TokioIo::new(upgraded)) as Box<dyn Duplex>)
        })
    }
}
