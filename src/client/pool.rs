//! Each worker's connections that wait for a request, by target: HTTP/1 as a stack (the youngest serves first), HTTP/2
//! as the open connections themselves. One timer per worker closes what is old, closed by its peer, or of no target.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::h1::H1;
use super::h2::H2;
use super::identity::{Identity, PoolId};
use super::target::Target;

const SWEEP: Duration = Duration::from_secs(1);

#[derive(Default)]
#[allow(clippy::vec_box)] // connections move between here and their users: as pointers
struct Pool {
    generation: u64,
    identity: Weak<Identity>,
    h1: Vec<Box<H1>>,
    h2: Vec<Rc<H2>>,
    protocol: Protocol,
    dialing: Option<Rc<Dialing>>,
    /// Wakes requests of this worker that wait for room.
    given_back: Rc<Notify>,
    waiting_here: usize,
}

/// What the target's last new connection spoke.
#[derive(Copy, Clone, Default, PartialEq, Eq)]
enum Protocol {
    #[default]
    Unknown,
    H1,
    H2,
}

/// A connection being made that others may come to share.
#[derive(Default)]
struct Dialing {
    over: Notify,
    failed: Cell<bool>,
}

thread_local! {
    static POOLS: RefCell<Vec<Pool>> = const { RefCell::new(Vec::new()) };
    static SWEEPING: Cell<bool> = const { Cell::new(false) };
}

/// A connection at hand.
pub(super) enum Idle {
    H1(Box<H1>),
    H2(Rc<H2>),
}

pub(super) fn take(id: &PoolId, h1_only: bool) -> Option<Idle> {
    with(id, |pool| {
        if h1_only {
            return pool.h1.pop().map(Idle::H1);
        }
        pool.h2.retain(|h2| !h2.is_closed());
        if let Some(h2) = pool.h2.iter().find(|h2| h2.has_room()) {
            return Some(Idle::H2(Rc::clone(h2)));
        }
        pool.h1.pop().map(Idle::H1)
    })
}

pub(super) fn put_h1(h1: Box<H1>) {
    if !h1.keepalive.enabled {
        return;
    }
    let rejected = POOLS.with(|pools| {
        let mut pools = pools.borrow_mut();
        let home = &h1.home;
        let Some(pool) = pools.get_mut(home.index).filter(|pool| pool.generation == home.generation) else {
            return Some(h1);
        };
        let wanted_elsewhere =
            home.limited && pool.waiting_here == 0 && home.identity.upgrade().is_some_and(|id| id.is_awaited());
        if wanted_elsewhere || pool.h1.len() >= h1.keepalive.max_idle_per_host {
            return Some(h1);
        }
        pool.h1.push(h1);
        if pool.waiting_here > 0 {
            pool.given_back.notify_one();
        }
        None
    });
    if rejected.is_none() {
        start_sweeping();
    }
}

pub(super) fn put_h2(id: &PoolId, h2: Rc<H2>) {
    with(id, |pool| pool.h2.push(h2));
    start_sweeping();
}

/// Where a connection goes after use. It does not keep the identity alive.
pub(super) struct Home {
    index: usize,
    generation: u64,
    limited: bool,
    identity: Weak<Identity>,
}

impl Home {
    pub fn of(id: &PoolId) -> Self {
        Self { index: id.index, generation: id.generation, limited: id.room.is_some(), identity: id.downgrade() }
    }
}

/// Waits until this request may dial: for another request's connection that may be shared (only if this one's may be
/// too: `share`), and for room under `max_conns`. `None` means look into the pool again.
pub(super) async fn may_dial(target: &Target, share: bool) -> Option<Turn> {
    let id = &target.pool;
    let share = share && target.may_be_h2() && target.options.keepalive.enabled;
    if share {
        let (shared, protocol) = with(id, |pool| (pool.dialing.clone(), pool.protocol));
        if let Some(dialing) = shared
            && protocol != Protocol::H1
        {
            dialing.over.notified().await;
            if !dialing.failed.get() {
                return None;
            }
        }
    }
    let permit = match &id.room {
        None => None,
        Some(room) => match room.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => Some(wait_for_room(id).await?),
        },
    };
    let dialing = share.then(|| {
        let dialing = Rc::new(Dialing { over: Notify::new(), failed: Cell::new(true) });
        with(id, |pool| pool.dialing.get_or_insert_with(|| Rc::clone(&dialing)).clone());
        DialGuard { id: id.clone(), dialing }
    });
    Some(Turn { permit, dialing })
}

/// The right to make one connection.
pub(super) struct Turn {
    pub permit: Option<OwnedSemaphorePermit>,
    /// To be kept until the connection is in the pool: dropping it lets the others go on.
    dialing: Option<DialGuard>,
}

impl Turn {
    /// Says what came of it, so that those who waited know what to do.
    pub fn connected(&self, h2: bool) {
        if let Some(guard) = &self.dialing {
            guard.dialing.failed.set(false);
            with(&guard.id, |pool| pool.protocol = if h2 { Protocol::H2 } else { Protocol::H1 });
        }
    }
}

struct DialGuard {
    id: PoolId,
    dialing: Rc<Dialing>,
}

impl Drop for DialGuard {
    fn drop(&mut self) {
        with(&self.id, |pool| {
            if pool.dialing.as_ref().is_some_and(|current| Rc::ptr_eq(current, &self.dialing)) {
                pool.dialing = None;
            }
        });
        self.dialing.over.notify_waiters();
    }
}

async fn wait_for_room(id: &PoolId) -> Option<OwnedSemaphorePermit> {
    let room = id.room.clone()?;
    let _waiting = Waiting::new(id);
    let given_back = with(id, |pool| Rc::clone(&pool.given_back));
    tokio::select! {
        permit = room.acquire_owned() => permit.ok(),
        () = given_back.notified() => None,
    }
}

struct Waiting<'a>(&'a PoolId);

impl<'a> Waiting<'a> {
    fn new(id: &'a PoolId) -> Self {
        id.waiting.fetch_add(1, Ordering::Relaxed);
        with(id, |pool| pool.waiting_here += 1);
        Self(id)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        with(self.0, |pool| pool.waiting_here = pool.waiting_here.saturating_sub(1));
    }
}

/// Closes this worker's idle connections, as a worker does before it ends.
pub fn close_idle() {
    let all = POOLS.with(|pools| {
        pools.borrow_mut().iter_mut().map(|pool| (std::mem::take(&mut pool.h1), std::mem::take(&mut pool.h2))).collect()
    });
    drop::<Vec<_>>(all);
}

/// This worker's idle HTTP/1 and open HTTP/2 connections to a target.
pub fn idle_count(target: &Target) -> usize {
    with(&target.pool, |pool| pool.h1.len() + pool.h2.iter().filter(|h2| !h2.is_closed()).count())
}

fn with<T>(id: &PoolId, act: impl FnOnce(&mut Pool) -> T) -> T {
    let mut stale = None;
    let result = POOLS.with(|pools| {
        let mut pools = pools.borrow_mut();
        if pools.len() <= id.index {
            pools.resize_with(id.index + 1, Pool::default);
        }
        let pool = &mut pools[id.index];
        if pool.generation != id.generation {
            let fresh = Pool { generation: id.generation, identity: id.downgrade(), ..Pool::default() };
            stale = Some(std::mem::replace(pool, fresh));
        }
        act(pool)
    });
    drop(stale);
    result
}

fn start_sweeping() {
    if !SWEEPING.replace(true) {
        tokio::task::spawn_local(async {
            let _sweeping = Sweeping;
            loop {
                tokio::time::sleep(SWEEP).await;
                if sweep(Instant::now()) == 0 {
                    return;
                }
            }
        });
    }
}

/// Says that the timer stopped, also when its runtime is dropped.
struct Sweeping;

impl Drop for Sweeping {
    fn drop(&mut self) {
        let _ = SWEEPING.try_with(|sweeping| sweeping.set(false));
    }
}

/// Closes what should not stay; returns how many stay.
fn sweep(now: Instant) -> usize {
    let mut closed_h1 = Vec::new();
    let mut closed_h2 = Vec::new();
    let left = POOLS.with(|pools| {
        let mut left = 0;
        for pool in pools.borrow_mut().iter_mut() {
            let identity = pool.identity.upgrade();
            let awaited = identity.as_ref().is_some_and(|identity| identity.is_awaited());
            let orphaned = identity.is_none();
            closed_h1.extend(pool.h1.extract_if(.., |h1| {
                let old = now.duration_since(h1.idle_since) >= h1.keepalive.idle;
                old || awaited || orphaned || !h1.is_idle()
            }));
            closed_h2.extend(pool.h2.extract_if(.., |h2| {
                let old = h2.is_unused() && now.duration_since(h2.idle_since.get()) >= h2.idle;
                h2.is_closed() || old || (h2.is_unused() && (awaited || orphaned))
            }));
            left += pool.h1.len() + pool.h2.len();
        }
        left
    });
    drop((closed_h1, closed_h2)); // closing releases permits and identities: not under the borrow
    left
}
