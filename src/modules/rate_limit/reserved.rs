//! Tokens that were set aside for a call: what it really took takes their place when it has ended.

use std::sync::Arc;
use std::time::Instant;

use super::gate::ZoneGate;
use crate::http::metering::{Call, Reservation};
use crate::state::limit::{Limits, Ticket, Zone};
use crate::state::moment::Moment;

/// Dropped without a call, it gives all back.
pub struct Reserved {
    zone: Arc<dyn Zone>,
    limits: Arc<Limits>,
    ticket: Ticket,
    /// Of calls that were made under it so far.
    took: u64,
}

impl Reserved {
    pub fn new(zone: &ZoneGate, ticket: Ticket) -> Self {
        Self { zone: Arc::clone(&zone.zone), limits: Arc::clone(&zone.limits), ticket, took: 0 }
    }

    fn count(&mut self, call: &Call) {
        self.took = self.took.saturating_add(call.tokens.input).saturating_add(call.tokens.output);
    }
}

impl Reservation for Reserved {
    fn settle(mut self: Box<Self>, call: &mut Call) {
        self.count(call);
    }

    fn release(self: Box<Self>) {}

    fn spent(&mut self, call: &mut Call) {
        self.count(call);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.zone.adjust(&self.ticket, &self.limits, self.took, Moment::of(Instant::now())).detach();
    }
}
