//! What a request has learnt of upstreams by trying them.

use std::sync::Arc;

use smallvec::SmallVec;

use super::state::HostState;

/// The upstreams that failed a request, in its attempts so far.
#[derive(Debug, Default)]
pub(super) struct Tried(SmallVec<[(Arc<HostState>, Outlook); 4]>);

/// What a failure says about asking the same upstream again.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// It may answer next time; others come first where the rules say so.
    MayRecover,
    /// It will say the same to this request: its account has no quota, its key is not accepted.
    Hopeless,
}

impl Tried {
    pub fn add(&mut self, state: &Arc<HostState>, outlook: Outlook) {
        match self.0.iter_mut().find(|(known, _)| Arc::ptr_eq(known, state)) {
            Some((_, known)) if outlook == Outlook::Hopeless => *known = outlook,
            Some(_) => {}
            None => self.0.push((Arc::clone(state), outlook)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `None` = it has not failed this request.
    pub fn outlook(&self, state: &Arc<HostState>) -> Option<Outlook> {
        self.0.iter().find(|(known, _)| Arc::ptr_eq(known, state)).map(|(_, outlook)| *outlook)
    }
}
