//! A worker: one thread, one local runtime, its own connections and upstream pools.
//!
//! Every worker accepts on every listening socket; a worker that is busier than another hands the new connection over.
//! One coarse tick per worker does what needs a clock: idle and head timeouts, clients gone unnoticed, log flushing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak as RcWeak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::conn_state::{ConnState, Phase};
use super::connection;
use super::handshake::Handshakes;
use super::listeners::{ListenSocket, Listening};
use super::socket::Plain;
use super::sys;
use crate::compile::address::ListenAddr;
use crate::compile::runtime::{ListenerSpec, Runtime};
use crate::http::exchange::ServerFacts;

/// Length of the coarse tick.
pub const TICK: Duration = Duration::from_millis(250);

thread_local! {
    static NOW: Cell<u32> = const { Cell::new(0) };
}

/// Ticks since this worker started.
pub fn current_tick() -> u32 {
    NOW.with(Cell::get)
}

/// Ticks in a duration, at least one.
fn ticks(d: Duration) -> u32 {
    u32::try_from(d.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// Open connections of each worker.
pub struct Loads(Box<[AtomicUsize]>);

impl Loads {
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self((0..workers).map(|_| AtomicUsize::new(0)).collect()))
    }

    fn get(&self, index: usize) -> usize {
        self.0.get(index).map_or(0, |n| n.load(Ordering::Relaxed))
    }

    /// Where a new connection should go: stay here unless another worker has clearly fewer.
    fn best(&self, here: usize) -> usize {
        let (least, load) = (0..self.0.len()).map(|i| (i, self.get(i))).min_by_key(|(_, n)| *n).unwrap_or((here, 0));
        if self.get(here) > load { least } else { here }
    }
}

/// Counts a connection for as long as it is open.
pub struct LoadGuard {
    loads: Arc<Loads>,
    index: usize,
}

impl LoadGuard {
    fn new(loads: Arc<Loads>, index: usize) -> Self {
        if let Some(n) = loads.0.get(index) {
            n.fetch_add(1, Ordering::Relaxed);
        }
        Self { loads, index }
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        if let Some(n) = self.loads.0.get(self.index) {
            n.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

pub enum Message {
    /// Senders of all workers, for handing connections over.
    Peers(Arc<[mpsc::UnboundedSender<Message>]>),
    Swap {
        runtime: Arc<Runtime>,
        listening: Listening,
        /// True once every worker has the runtime. Accepting on a new address waits for it: a connection handed to a
        /// worker that does not know its address yet would be closed.
        begin: watch::Receiver<bool>,
        ack: oneshot::Sender<()>,
    },
    /// A connection that another worker accepted.
    Take {
        stream: Accepted,
        listener: ListenAddr,
        guard: LoadGuard,
    },
    Shutdown {
        grace: Option<Duration>,
        ack: oneshot::Sender<()>,
    },
}

/// A socket on its way between workers: it must not be registered with the other's reactor.
pub enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

pub struct WorkerHandle {
    index: usize,
    loads: Arc<Loads>,
    sender: mpsc::UnboundedSender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerHandle {
    pub fn spawn(index: usize, loads: Arc<Loads>) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let worker_loads = Arc::clone(&loads);
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build_local(tokio::runtime::LocalOptions::default())
            {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::error!(%error, "worker cannot start");
                    return;
                }
            };
            runtime.block_on(Worker::run(index, worker_loads, receiver));
        })?;
        Ok(Self { index, loads, sender, thread: Some(thread) })
    }

    pub fn send(&self, message: Message) {
        // Fails only when the worker has ended, and then there is nobody to tell.
        let _ = self.sender.send(message);
    }

    pub fn sender(&self) -> mpsc::UnboundedSender<Message> {
        self.sender.clone()
    }

    pub fn load(&self) -> usize {
        self.loads.get(self.index)
    }

    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A worker's own view of a runtime. A request clones the `Rc`: no cache line is shared between cores.
pub struct Live {
    pub runtime: Arc<Runtime>,
    /// Facts of each server, by its index.
    pub facts: Box<[Rc<ServerFacts>]>,
}

impl Live {
    fn new(runtime: Arc<Runtime>) -> Rc<Self> {
        let facts = runtime.servers.iter().map(|s| Rc::new(s.facts.clone())).collect();
        Rc::new(Self { runtime, facts })
    }
}

/// An address this worker accepts on.
struct Accepting {
    socket: Arc<ListenSocket>,
    /// Ends the accept loop when dropped.
    _stop: oneshot::Sender<()>,
    /// Tells the connections of this address to finish.
    drain: Rc<Cell<bool>>,
}

pub struct Worker {
    index: usize,
    loads: Arc<Loads>,
    live: RefCell<Rc<Live>>,
    peers: RefCell<Arc<[mpsc::UnboundedSender<Message>]>>,
    accepting: RefCell<BTreeMap<ListenAddr, Accepting>>,
    conns: RefCell<Vec<RcWeak<ConnState>>>,
    pub handshakes: Handshakes,
}

impl Worker {
    async fn run(index: usize, loads: Arc<Loads>, mut inbox: mpsc::UnboundedReceiver<Message>) {
        let worker = Rc::new(Self {
            index,
            loads,
            live: RefCell::new(Live::new(Arc::default())),
            peers: RefCell::new(Arc::new([])),
            accepting: RefCell::default(),
            conns: RefCell::default(),
            handshakes: Handshakes::default(),
        });
        tokio::task::spawn_local(Self::tick_loop(Rc::downgrade(&worker)));
        while let Some(message) = inbox.recv().await {
            match message {
                Message::Peers(peers) => *worker.peers.borrow_mut() = peers,
                Message::Swap { runtime, listening, begin, ack } => {
                    worker.swap(runtime, &listening, &begin);
                    let _ = ack.send(());
                }
                Message::Take { stream, listener, guard } => worker.take(stream, listener, guard),
                Message::Shutdown { grace, ack } => {
                    worker.drain(grace).await;
                    crate::telemetry::buffer::flush();
                    let _ = ack.send(());
                    return;
                }
            }
        }
    }

    /// The runtime that a request starting now runs on.
    pub fn live(&self) -> Rc<Live> {
        Rc::clone(&self.live.borrow())
    }

    pub fn listener_spec(live: &Live, address: &ListenAddr) -> Option<ListenerSpec> {
        live.runtime.listeners.get(address).cloned()
    }

    fn swap(self: &Rc<Self>, runtime: Arc<Runtime>, listening: &Listening, begin: &watch::Receiver<bool>) {
        *self.live.borrow_mut() = Live::new(runtime);
        let mut accepting = self.accepting.borrow_mut();
        // An address that is gone: its accept loop takes what the kernel has queued, then ends; idle connections close.
        accepting.retain(|address, entry| {
            let keep = listening.get(address).is_some_and(|s| Arc::ptr_eq(s, &entry.socket));
            if !keep {
                entry.drain.set(true);
            }
            keep
        });
        self.wake_connections();
        for (address, socket) in listening.iter() {
            if accepting.contains_key(address) {
                continue;
            }
            let (stop, stopped) = oneshot::channel();
            let entry = Accepting { socket: Arc::clone(socket), _stop: stop, drain: Rc::default() };
            accepting.insert(address.clone(), entry);
            tokio::task::spawn_local(Rc::clone(self).accept_loop(Arc::clone(socket), begin.clone(), stopped));
        }
    }

    async fn accept_loop(
        self: Rc<Self>,
        socket: Arc<ListenSocket>,
        mut begin: watch::Receiver<bool>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        // An error means that the swap was given up half-way, at the end of the program.
        let _ = begin.wait_for(|all_have_it| *all_have_it).await;
        let listener = match Listener::register(&socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(address = %socket.address, %error, "cannot accept on listener");
                return;
            }
        };
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(stream) => self.place(stream, &socket.address),
                    Err(error) => {
                        // Out of descriptors, or a connection that died in the queue: say so, breathe, go on.
                        tracing::warn!(address = %socket.address, %error, "accept failed");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                },
                _ = &mut stopped => break,
            }
        }
        // Connections the kernel completed before we stopped are answered, not reset.
        while let Some(stream) = listener.try_accept() {
            self.place(stream, &socket.address);
        }
    }

    /// Serves a new connection here, or hands it to the least loaded worker.
    fn place(self: &Rc<Self>, stream: Accepted, listener: &ListenAddr) {
        let target = self.loads.best(self.index);
        let guard = LoadGuard::new(Arc::clone(&self.loads), target);
        if target != self.index {
            let peers = self.peers.borrow();
            if let Some(peer) = peers.get(target) {
                let message = Message::Take { stream, listener: listener.clone(), guard };
                match peer.send(message) {
                    Ok(()) => return,
                    Err(mpsc::error::SendError(Message::Take { stream, listener, guard })) => {
                        drop(peers);
                        return self.take(stream, listener, guard);
                    }
                    Err(_) => return,
                }
            }
            drop(peers);
        }
        self.take(stream, listener.clone(), guard);
    }

    fn take(self: &Rc<Self>, stream: Accepted, listener: ListenAddr, guard: LoadGuard) {
        let stream = match stream {
            Accepted::Tcp(s) => {
                // Small writes (events of a stream) must leave at once.
                let _ = s.set_nodelay(true);
                tokio::net::TcpStream::from_std(s).map(Plain::tcp)
            }
            Accepted::Unix(s) => tokio::net::UnixStream::from_std(s).map(Plain::unix),
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot register connection");
                return;
            }
        };
        let draining = match self.accepting.borrow().get(&listener) {
            Some(entry) => Rc::clone(&entry.drain),
            // The address was removed meanwhile: answer, then close.
            None => Rc::new(Cell::new(true)),
        };
        let state = Rc::new(ConnState::new(stream.fd(), current_tick(), draining));
        self.conns.borrow_mut().push(Rc::downgrade(&state));
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            connection::serve(worker, stream, listener, state).await;
            drop(guard);
        });
    }

    async fn drain(&self, grace: Option<Duration>) {
        let entries = std::mem::take(&mut *self.accepting.borrow_mut());
        for entry in entries.values() {
            entry.drain.set(true);
        }
        drop(entries);
        self.wake_connections();
        let empty = async {
            while self.loads.get(self.index) > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match grace {
            None => empty.await,
            Some(grace) => {
                let _ = tokio::time::timeout(grace, empty).await;
            }
        }
    }

    /// Has connections look whether they are to drain.
    fn wake_connections(&self) {
        self.conns.borrow().iter().filter_map(RcWeak::upgrade).for_each(|state| state.wake());
    }

    async fn tick_loop(worker: RcWeak<Self>) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            interval.tick().await;
            NOW.with(|n| n.set(n.get().wrapping_add(1)));
            let Some(worker) = worker.upgrade() else { return };
            worker.sweep();
            crate::telemetry::buffer::flush();
        }
    }

    /// Closes connections that take too long to say something, and those whose client is gone unnoticed.
    fn sweep(&self) {
        let now = current_tick();
        let live = self.live();
        // One bound for all servers of this worker: the widest, so that none is cut short by another's.
        let limit = |pick: fn(&crate::compile::runtime::Limits) -> Option<Duration>| {
            live.runtime.servers.iter().map(|s| pick(&s.limits).map_or(u32::MAX, ticks)).max().unwrap_or(u32::MAX)
        };
        let (head_limit, idle_limit) = (limit(|l| l.read_header), limit(|l| l.idle));
        let mut serving = Vec::new();
        self.conns.borrow_mut().retain(|weak| {
            let Some(state) = weak.upgrade() else { return false };
            let age = now.wrapping_sub(state.since());
            if state.block_age(now).is_some_and(|age| age > head_limit) {
                state.kill();
            }
            match state.phase() {
                Phase::Opening | Phase::Head if age > head_limit => state.kill(),
                Phase::Idle if age > idle_limit => state.end_idle(age - idle_limit),
                // hyper sees a client leave at once, unless bytes wait in its read buffer: look for those here.
                Phase::Serving if age > 0 => serving.push(state),
                Phase::Upgraded => return false,
                _ => {}
            }
            true
        });
        kill_gone(&serving);
    }
}

/// Ends the connections whose peer has closed its side.
fn kill_gone(serving: &[Rc<ConnState>]) {
    let (fds, states): (Vec<_>, Vec<_>) = serving.iter().filter_map(|s| Some((s.fd()?, s))).unzip();
    for index in sys::closed_by_peer(&fds) {
        states[index].kill();
    }
}

/// A listening socket registered with this worker's reactor.
pub enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    pub fn register(socket: &ListenSocket) -> std::io::Result<Self> {
        let dup = socket.socket.try_clone()?;
        if dup.domain()? == socket2::Domain::UNIX {
            Ok(Self::Unix(tokio::net::UnixListener::from_std(dup.into())?))
        } else {
            Ok(Self::Tcp(tokio::net::TcpListener::from_std(dup.into())?))
        }
    }

    pub async fn accept(&self) -> std::io::Result<Accepted> {
        match self {
            Self::Tcp(l) => Ok(Accepted::Tcp(l.accept().await?.0.into_std()?)),
            Self::Unix(l) => Ok(Accepted::Unix(l.accept().await?.0.into_std()?)),
        }
    }

    fn try_accept(&self) -> Option<Accepted> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match self {
            Self::Tcp(l) => match l.poll_accept(&mut cx) {
                std::task::Poll::Ready(Ok((s, _))) => s.into_std().ok().map(Accepted::Tcp),
                _ => None,
            },
            Self::Unix(l) => match l.poll_accept(&mut cx) {
                std::task::Poll::Ready(Ok((s, _))) => s.into_std().ok().map(Accepted::Unix),
                _ => None,
            },
        }
    }
}
