//! The engine for one machine: everything in memory, for as long as the process lives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Store;
use super::limit::Zone;
use super::purse::{Purse, Purses};
use super::zone::MemoryZone;

#[derive(Default)]
pub struct Memory {
    zones: Mutex<HashMap<Box<str>, Weak<MemoryZone>>>,
    purses: Purses,
}

impl Store for Memory {
    fn waits(&self) -> bool {
        false
    }

    fn zone(&self, name: &str) -> Arc<dyn Zone> {
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(zone) = zones.get(name).and_then(Weak::upgrade) {
            return zone;
        }
        zones.retain(|_, zone| zone.strong_count() > 0);
        let zone = Arc::new(MemoryZone::default());
        zones.insert(name.into(), Arc::downgrade(&zone));
        zone
    }

    fn purse(&self, name: &str) -> Arc<dyn Purse> {
        self.purses.adopt(name)
    }
}
