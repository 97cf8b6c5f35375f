//! Pool identities: equal keys share one [`PoolId`], so that pools survive a reload. An identity lives as long as a
//! target or a connection holds it; its index is then used again, so dynamic upstreams cannot grow the table without end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use super::target::{Address, Scheme, Versions};

/// All that two targets must agree on to share connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    pub scheme: Scheme,
    pub address: Address,
    pub server_name: Option<String>,
    pub tls: Option<[u8; 32]>,
    pub versions: Versions,
    pub proxy: Option<[u8; 32]>,
    pub local_address: Option<SocketAddr>,
    pub resolvers: Arc<[SocketAddr]>,
    pub max_conns: Option<usize>,
    pub max_response_header: Option<usize>,
    pub keepalive: bool,
}

/// Cheap to clone and to compare.
#[derive(Clone)]
pub struct PoolId(Arc<Identity>);

pub struct Identity {
    /// Where a worker keeps this pool.
    pub(super) index: usize,
    /// Tells apart two identities that used the same index one after the other.
    pub(super) generation: u64,
    /// Room for open connections, over all workers.
    pub(super) room: Option<Arc<Semaphore>>,
    /// Requests waiting for room, over all workers.
    pub(super) waiting: AtomicUsize,
    key: PoolKey,
}

impl PoolId {
    pub(super) fn intern(key: PoolKey) -> Self {
        let mut table = lock();
        if let Some(found) = table.by_key.get(&key).and_then(Weak::upgrade) {
            return Self(found);
        }
        let index = table.free.pop().unwrap_or_else(|| {
            table.used += 1;
            table.used - 1
        });
        table.generation += 1;
        let identity = Arc::new(Identity {
            index,
            generation: table.generation,
            room: key.max_conns.map(|n| Arc::new(Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS)))),
            waiting: AtomicUsize::new(0),
            key: key.clone(),
        });
        table.by_key.insert(key, Arc::downgrade(&identity));
        Self(identity)
    }

    pub(super) fn downgrade(&self) -> Weak<Identity> {
        Arc::downgrade(&self.0)
    }
}

impl std::ops::Deref for PoolId {
    type Target = Identity;
    fn deref(&self) -> &Identity {
        &self.0
    }
}

impl PartialEq for PoolId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for PoolId {}

impl std::fmt::Debug for PoolId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PoolId({})", self.0.generation)
    }
}

impl Identity {
    pub(super) fn is_awaited(&self) -> bool {
        self.room.is_some() && self.waiting.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let mut table = lock();
        table.free.push(self.index);
        // A new identity of the same key may have been made between the last drop of the Arc and here.
        if table.by_key.get(&self.key).is_some_and(|weak| weak.strong_count() == 0) {
            table.by_key.remove(&self.key);
        }
    }
}

#[derive(Default)]
struct Table {
    by_key: HashMap<PoolKey, Weak<Identity>>,
    free: Vec<usize>,
    used: usize,
    generation: u64,
}

fn lock() -> std::sync::MutexGuard<'static, Table> {
    static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(host: &str) -> PoolKey {
        PoolKey {
            scheme: Scheme::Http,
            address: Address::Tcp { host: host.into(), port: 1 },
            server_name: None,
            tls: None,
            versions: Versions::default(),
            proxy: None,
            local_address: None,
            resolvers: Arc::default(),
            max_conns: None,
            max_response_header: None,
            keepalive: true,
        }
    }

    #[test]
    fn an_unused_identity_leaves_the_table() {
        let first = PoolId::intern(key("identity.test"));
        let generation = first.generation;
        assert_eq!(first, PoolId::intern(key("identity.test")));
        drop(first);
        assert!(!lock().by_key.contains_key(&key("identity.test")));
        assert!(PoolId::intern(key("identity.test")).generation > generation);
    }
}
