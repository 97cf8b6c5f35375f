//! Room 8: the running program. Owns: listening sockets, worker threads, connections, the swap of runtimes, shutdown.
//! Only here (and in the client room) are the types of hyper seen, which speaks HTTP/2 for us.
//!
//! ```text
//! Listeners ─fd─▶ worker (one per core): accept ─▶ [TLS] ─▶ h1 or h2 ─▶ request::serve ─▶ walker ─▶ response body
//! Server::swap(runtime): bind new sockets ─▶ message to every worker ─▶ all have acknowledged ─▶ done
//! ```

mod access_log;
mod admin;
mod awaited_certificate;
mod background;
mod conn_state;
mod connection;
pub mod control;
pub mod h1;
mod h2;
pub mod h2_frames;
mod h2_message;
mod handshake;
mod http_redirect;
mod keep_alive;
mod listeners;
mod metrics;
pub mod proxy_protocol;
mod request;
mod response_body;
mod socket;
pub mod supervisor;
mod sys;
mod upgrade;
pub mod watch;
mod worker;
mod wrappers;

use std::sync::Arc;
use std::time::Duration;

pub use listeners::BindError;
use listeners::Listeners;
use worker::{Message, WorkerHandle};

use crate::compile::Runtime;

/// The running proxy: its sockets and its workers.
pub struct Server {
    listeners: Listeners,
    workers: Vec<WorkerHandle>,
    current: Arc<Runtime>,
}

impl Server {
    /// Starts `workers` threads with nothing to serve yet.
    pub fn start(workers: usize) -> std::io::Result<Self> {
        let count = workers.max(1);
        let loads = worker::Loads::new(count);
        let mut handles: Vec<WorkerHandle> = Vec::with_capacity(count);
        for index in 0..count {
            handles.push(WorkerHandle::spawn(index, Arc::clone(&loads))?);
        }
        let peers: Arc<[_]> = handles.iter().map(WorkerHandle::sender).collect();
        for handle in &handles {
            handle.send(Message::Peers(Arc::clone(&peers)));
        }
        Ok(Self { listeners: Listeners::default(), workers: handles, current: Arc::default() })
    }

    /// Makes `runtime` live: binds what is new, hands it to every worker, and returns once all of them have it.
    ///
    /// Nothing in flight is cut: a request keeps the runtime it started with. On failure (an address is held by
    /// another process) nothing has changed.
    pub async fn swap(&mut self, runtime: Arc<Runtime>) -> Result<(), BindError> {
        let listening = self.listeners.prepare(runtime.listeners.keys())?;
        let mut acks = Vec::with_capacity(self.workers.len());
        let (all_have_it, begin) = tokio::sync::watch::channel(false);
        for worker in &self.workers {
            let (ack, done) = tokio::sync::oneshot::channel();
            let (runtime, listening, begin) = (Arc::clone(&runtime), Arc::clone(&listening), begin.clone());
            worker.send(Message::Swap { runtime, listening, begin, ack });
            acks.push(done);
        }
        for done in acks {
            // A worker that is gone has nothing to acknowledge.
            let _ = done.await;
        }
        for (address, spec) in &runtime.listeners {
            let socket = listening.get(address).map(|open| &open.socket);
            if let Some(Err(error)) = socket.map(|socket| keep_alive::set(socket, spec.keep_alive)) {
                tracing::warn!(%address, %error, "TCP keep-alive cannot be set");
            }
        }
        all_have_it.send_replace(true);
        self.listeners.keep(listening);
        self.current = runtime;
        Ok(())
    }

    #[must_use]
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.current
    }

    /// Open connections, by worker.
    #[must_use]
    pub fn open_connections(&self) -> Vec<usize> {
        self.workers.iter().map(WorkerHandle::load).collect()
    }

    /// Addresses listened on.
    pub fn addresses(&self) -> impl Iterator<Item = String> + '_ {
        self.listeners.addresses()
    }

    /// Stops accepting, lets open requests finish for at most `grace` (`None` = as long as they take), then ends the
    /// workers. Cancelling the future leaves the workers draining; [`Server::abort`] ends them.
    pub async fn shutdown(&mut self, grace: Option<Duration>) {
        let mut acks = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (ack, done) = tokio::sync::oneshot::channel();
            worker.send(Message::Shutdown { grace, ack });
            acks.push(done);
        }
        for done in acks {
            let _ = done.await;
        }
        self.listeners.close();
        for worker in &mut self.workers {
            worker.join();
        }
    }
}
