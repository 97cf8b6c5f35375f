//! The counts of one zone in memory: its keys in shards, each behind a lock that is held for as long as it takes to count.
//!
//! Keys are bounded. One that says nothing any more (nothing in its windows, no open request) is forgotten when others
//! come. One that still says something is never forgotten for another's sake: a stranger who sends ever new keys cannot make
//! a zone forget what a busy one has used. When all places are taken by such keys, new ones share the count of one key
//! (one for each shard) until there is room; a key that then gets a place of its own begins with what was shared, so that
//! none is ever above its limit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashTable;

use super::Answer;
use super::key::Key;
use super::limit::{Admission, Ask, Left, Limit, Limits, Refusal, Standing, Ticket, Verdict, Zone};
use super::moment::Moment;
use super::rate::{self, Spread};
use super::window::Window;

const SHARDS: usize = 256;

/// Places that a new key looks at for one that says nothing: some always, more when the zone is full.
const LOOK: usize = 4;
const LOOK_WHEN_FULL: usize = 32;

pub struct MemoryZone {
    shards: Box<[Mutex<Shard>]>,
    /// Keys of all shards.
    keys: AtomicUsize,
}

impl Default for MemoryZone {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), keys: AtomicUsize::new(0) }
    }
}

impl Zone for MemoryZone {
    fn admit(&self, key: Key, limits: &Limits, ask: Ask, now: Moment) -> Answer<Verdict> {
        let mut guard = self.shard(key);
        let shard = &mut *guard;
        let place = self.place(shard, key, limits, now);
        let mut fresh = shard.fresh(place, limits, now);
        let open_beside = shard.shared.open;
        let counts = shard.counts(place, &mut fresh);
        let admitted = counts.admit(limits, ask, open_beside, now);
        // A refused request makes no key.
        if admitted.is_ok() && matches!(place, Place::New) {
            self.keys.fetch_add(1, Ordering::Relaxed);
            shard.insert(key, fresh);
        }
        Answer::Now(match admitted {
            Ok(Taken { delay, at, standing }) => {
                let shared = matches!(place, Place::Shared);
                let ticket = Ticket { key, at, tokens: ask.tokens, shared };
                Verdict::Admitted(Admission { delay, standing, ticket })
            }
            Err(refusal) => Verdict::Refused(refusal),
        })
    }

    fn adjust(&self, ticket: &Ticket, limits: &Limits, tokens: u64, now: Moment) -> Answer<()> {
        let mut guard = self.shard(ticket.key);
        let shard = &mut *guard;
        let over = tokens.saturating_sub(ticket.tokens);
        let place = match shard.find(ticket.key) {
            _ if ticket.shared => Place::Shared,
            Some(at) => Place::Own(at),
            // It has been forgotten meanwhile, and what it took beyond its reservation counts all the same.
            None if over > 0 => self.place(shard, ticket.key, limits, now),
            None => return Answer::Now(()),
        };
        let mut fresh = shard.fresh(place, limits, now);
        shard.counts(place, &mut fresh).adjust(ticket, limits, tokens, now);
        if matches!(place, Place::New) {
            self.keys.fetch_add(1, Ordering::Relaxed);
            shard.insert(ticket.key, fresh);
        }
        Answer::Now(())
    }

    fn release(&self, ticket: &Ticket, _: &Limits, _: Moment) -> Answer<()> {
        let mut shard = self.shard(ticket.key);
        let counts = match shard.find(ticket.key) {
            _ if ticket.shared => Some(&mut *shard.shared),
            // A key with an open request is not forgotten.
            found => found.and_then(|at| shard.slots.get_mut(at)).map(|slot| &mut slot.counts),
        };
        if let Some(counts) = counts {
            counts.open = counts.open.saturating_sub(1);
        }
        Answer::Now(())
    }
}

impl MemoryZone {
    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        #[allow(clippy::cast_possible_truncation)] // some bits of it
        let at = key.0[1] as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a key is counted, after making room if it is new.
    fn place(&self, shard: &mut Shard, key: Key, limits: &Limits, now: Moment) -> Place {
        if let Some(at) = shard.find(key) {
            return Place::Own(at);
        }
        let most = limits.keys as usize;
        let full = self.keys.load(Ordering::Relaxed) >= most;
        let forgotten = shard.forget_idle(if full { LOOK_WHEN_FULL } else { LOOK }, now);
        let before = self.keys.fetch_sub(forgotten, Ordering::Relaxed);
        if before - forgotten < most { Place::New } else { Place::Shared }
    }

    /// Keys that are counted one by one.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Copy)]
enum Place {
    Own(usize),
    Shared,
    New,
}

#[derive(Default)]
struct Shard {
    /// Places in `slots` by key.
    index: HashTable<u32>,
    slots: Vec<Slot>,
    /// The next place to look at for a key that says nothing.
    hand: usize,
    /// What is counted of keys that found no place.
    shared: Box<Counts>,
}

struct Slot {
    key: [u64; 2],
    counts: Counts,
}

impl Shard {
    fn find(&self, key: Key) -> Option<usize> {
        let same = |at: &u32| self.slots.get(*at as usize).is_some_and(|slot| slot.key == key.0);
        self.index.find(key.0[0], same).map(|at| *at as usize)
    }

    /// What a new key begins with.
    fn fresh(&self, place: Place, limits: &Limits, now: Moment) -> Counts {
        match place {
            Place::New if !self.shared.is_idle(now) => self.shared.inherited(limits, now),
            _ => Counts::default(),
        }
    }

    fn counts<'a>(&'a mut self, place: Place, fresh: &'a mut Counts) -> &'a mut Counts {
        match place {
            Place::Own(at) => self.slots.get_mut(at).map_or(fresh, |slot| &mut slot.counts),
            Place::Shared => &mut self.shared,
            Place::New => fresh,
        }
    }

    fn insert(&mut self, key: Key, counts: Counts) {
        // More keys than that are not allowed (`Limits::keys`).
        let Ok(at) = u32::try_from(self.slots.len()) else { return };
        self.slots.push(Slot { key: key.0, counts });
        let slots = &self.slots;
        self.index.insert_unique(key.0[0], at, |at| slots.get(*at as usize).map_or(0, |slot| slot.key[0]));
    }

    /// Looks at some places, in turn, and forgets keys that say nothing. How many those were.
    fn forget_idle(&mut self, look: usize, now: Moment) -> usize {
        let mut forgotten = 0;
        for _ in 0..look.min(self.slots.len()) {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            if self.slots.get(self.hand).is_some_and(|slot| slot.counts.is_idle(now)) {
                self.remove(self.hand);
                forgotten += 1;
            } else {
                self.hand += 1;
            }
        }
        if forgotten > 0 && self.slots.len() < self.slots.capacity() / 4 {
            let slots = &self.slots;
            self.index.shrink_to_fit(|at| slots.get(*at as usize).map_or(0, |slot| slot.key[0]));
            self.slots.shrink_to_fit();
        }
        forgotten
    }

    fn remove(&mut self, at: usize) {
        let gone = self.slots.swap_remove(at);
        if let Ok(entry) = self.index.find_entry(gone.key[0], |place| *place as usize == at) {
            entry.remove();
        }
        // The last one has taken its place.
        let from = self.slots.len();
        if let (Some(moved), Ok(to)) = (self.slots.get(at), u32::try_from(at))
            && let Some(place) = self.index.find_mut(moved.key[0], |place| *place as usize == from)
        {
            *place = to;
        }
    }
}

/// What is counted of one key.
#[derive(Default)]
struct Counts {
    events: Window,
    tokens: Option<Box<Window>>,
    /// Until when the rate is used up.
    used_until: Moment,
    /// From when on it says nothing, if no request is open.
    until: Moment,
    open: u32,
    /// Some of its requests may be open among the shared ones.
    shared_before: bool,
}

/// A request that was counted.
struct Taken {
    delay: Duration,
    /// Under which its tokens stand.
    at: Moment,
    standing: Standing,
}

impl Counts {
    fn is_idle(&self, now: Moment) -> bool {
        self.open == 0 && self.until <= now
    }

    /// What a key begins with that may have shared this count.
    fn inherited(&self, limits: &Limits, now: Moment) -> Self {
        let mut counts = Self {
            events: self.events.summed(),
            tokens: self.tokens.as_ref().map(|tokens| Box::new(tokens.summed())),
            shared_before: self.open > 0,
            ..*self
        };
        counts.open = 0;
        counts.advance(limits, now);
        counts
    }

    /// Counts a request, or says what forbids it. `open_beside`: requests that share a count, of which some may be this key's.
    fn admit(&mut self, limits: &Limits, ask: Ask, open_beside: u32, now: Moment) -> Result<Taken, Refusal> {
        self.advance(limits, now);
        self.shared_before &= open_beside > 0;
        let open_beside = if self.shared_before { open_beside } else { 0 };
        let window = limits.window;
        let mut refusals: Option<(Limit, Option<u64>, bool)> = None;
        // Of several limits that refuse, the one that takes longest is told: coming back earlier would not help.
        let mut refuse = |limit, wait: Option<u64>, never: bool| {
            if !refusals.is_some_and(|(_, told, forever)| forever || (!never && told >= wait)) {
                refusals = Some((limit, wait, never));
            }
        };
        if limits.concurrent.is_some_and(|most| self.open.saturating_add(open_beside) >= most) {
            refuse(Limit::Concurrent, None, false);
        }
        let mut spread = (0, self.used_until);
        if let Some(rate) = &limits.rate {
            match rate::ask(rate, self.used_until, now) {
                Spread::After { delay, used_until } => spread = (delay, used_until),
                Spread::Refused { wait } => refuse(Limit::Rate, Some(wait), false),
            }
        }
        if let Some(limit) = limits.events {
            match self.events.wait(1, limit, window, now) {
                Some(0) => {}
                wait => refuse(Limit::Events, wait, wait.is_none()),
            }
        }
        if let Some(limit) = limits.tokens {
            let tokens = self.tokens.as_deref();
            match tokens.map_or(limit.checked_sub(ask.tokens).map(|_| 0), |t| t.wait(ask.tokens, limit, window, now)) {
                Some(0) => {}
                wait => refuse(Limit::Tokens, wait, wait.is_none()),
            }
        }
        if let Some((limit, wait, never)) = refusals {
            let wait = wait.map(Duration::from_nanos);
            return Err(Refusal { limit, wait, never, standing: self.standing(limits, now) });
        }
        if limits.events.is_some() {
            self.events.add(1, window, now);
        }
        let at = if limits.tokens.is_some() && ask.tokens > 0 {
            self.tokens.get_or_insert_default().add(ask.tokens, window, now)
        } else {
            now
        };
        if limits.concurrent.is_some() {
            self.open = self.open.saturating_add(1);
        }
        self.used_until = spread.1;
        self.note_until(window);
        Ok(Taken { delay: Duration::from_nanos(spread.0), at, standing: self.standing(limits, now) })
    }

    fn adjust(&mut self, ticket: &Ticket, limits: &Limits, tokens: u64, now: Moment) {
        self.advance(limits, now);
        if let Some(less) = ticket.tokens.checked_sub(tokens) {
            if let Some(window) = &mut self.tokens {
                window.take_back(ticket.at, less);
            }
        } else {
            // What came on top is known now, and counts from now.
            self.tokens.get_or_insert_default().add(tokens - ticket.tokens, limits.window, now);
            self.note_until(limits.window);
        }
    }

    fn advance(&mut self, limits: &Limits, now: Moment) {
        self.events.advance(limits.window, now);
        if let Some(tokens) = &mut self.tokens {
            tokens.advance(limits.window, now);
        }
    }

    fn note_until(&mut self, window: u64) {
        let tokens = self.tokens.as_ref().map_or(Moment(0), |tokens| tokens.until(window));
        self.until = self.events.until(window).max(tokens).max(self.used_until);
    }

    fn standing(&self, limits: &Limits, now: Moment) -> Standing {
        let left = |limit: u64, window: Option<&Window>| {
            // What was given back has no end to wait for.
            let used = window.filter(|window| window.total() > 0);
            let until = used.map_or(Moment(0), |window| window.until(limits.window));
            let remaining = limit.saturating_sub(used.map_or(0, Window::total));
            Left { limit, remaining, reset: Duration::from_nanos(until - now) }
        };
        Standing {
            requests: limits.events.map(|limit| left(limit, Some(&self.events))),
            tokens: limits.tokens.map(|limit| left(limit, self.tokens.as_deref())),
        }
    }
}

#[cfg(test)]
mod tests;
