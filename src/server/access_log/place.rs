//! Where an exchange lies while handlers are at work on it: so large that moving it about is felt, and allocating its
//! room for each request too. The room of ended ones serves those to come.

use crate::base::spare::Spare;
use crate::http::exchange::Exchange;

/// Kept by a worker.
const MOST: usize = 64;

thread_local! {
    static SPARE: Spare<Box<Option<Exchange>>> = const { Spare::new(MOST) };
}

/// `None` only while it is dropped.
pub struct Place(Option<Box<Option<Exchange>>>);

impl Place {
    pub fn new(ex: Exchange) -> Self {
        let mut room = SPARE.with(Spare::take).unwrap_or_default();
        *room = Some(ex);
        Self(Some(room))
    }

    /// The exchange, until it was taken or dropped.
    pub fn get(&mut self) -> Option<&mut Exchange> {
        self.0.as_deref_mut()?.as_mut()
    }

    pub fn take(&mut self) -> Option<Exchange> {
        // Asked first: even to take nothing is to copy as much.
        self.get()?;
        self.0.as_deref_mut()?.take()
    }

    /// Drops the exchange where it lies.
    pub fn clear(&mut self) {
        if let Some(room) = &mut self.0 {
            **room = None;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clear();
        if let Some(room) = self.0.take() {
            let _ = SPARE.try_with(|spare| spare.keep(room));
        }
    }
}
