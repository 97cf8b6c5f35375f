//! Room 3: what is counted and outlives a reload. Limits on requests, tokens and open streams by zone and key, and what
//! has been spent. It knows nothing of HTTP, files or the configuration: features say what is allowed and what has come.
//!
//! ```text
//! feature ─ zone(name) ─▶ Zone ─ admit(key, limits, ask, now) ─▶ Answer<Verdict>
//!                                adjust(…) when it is known what a call took      (tokens)
//!                                release(…) when the answer has ended             (open requests)
//!         └ purse(name) ▶ Purse ─ reserve(key, limits, …) ─▶ Hold, settled when it is known what the call cost   (budgets)
//! ```
//!
//! [`Store`] is the one interface. [`Memory`](memory::Memory) is its engine for one machine and answers at once; an engine
//! that several machines share would answer [`Later`](Answer::Later), and no feature would notice. What a zone allows
//! comes with every question, so a reload that changes it needs nothing here: the counts go on under the zone's name.

pub mod alarm;
pub mod baseline;
pub mod key;
pub mod limit;
pub mod memory;
pub mod moment;
mod networks;
pub mod period;
pub mod purse;
mod rate;
pub mod spend;
pub mod tally;
mod window;
mod zone;

use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use self::limit::Zone;
use self::purse::Purse;

/// What an operation answers: at once from memory, or later from another machine.
pub enum Answer<T> {
    Now(T),
    Later(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T> Answer<T> {
    /// Waits when it has to. Dropping the future gives the answer up, not the operation.
    pub async fn get(self) -> T {
        match self {
            Self::Now(value) => value,
            Self::Later(future) => future.await,
        }
    }
}

impl Answer<()> {
    /// Lets it be done, for those who cannot wait for it.
    pub fn detach(self) {
        if let Self::Later(future) = self
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(future);
        }
    }
}

/// An engine that counts.
pub trait Store: Send + Sync {
    /// Whether answers may come [later](Answer::Later): whoever cannot wait must not ask then.
    fn waits(&self) -> bool;

    /// The counts of the zone of this name. They live for as long as somebody holds the zone, so that the configuration
    /// that takes another's place finds them; handlers that name one zone share its counts.
    fn zone(&self, name: &str) -> Arc<dyn Zone>;

    /// What the budget of this name has been spent; likewise.
    fn purse(&self, name: &str) -> Arc<dyn Purse>;
}

/// The store of this process.
#[must_use]
pub fn process() -> Arc<dyn Store> {
    static STORE: LazyLock<Arc<dyn Store>> = LazyLock::new(|| Arc::new(memory::Memory::default()));
    Arc::clone(&STORE)
}
