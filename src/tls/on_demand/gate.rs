//! Who may wait for a certificate, and for which names one is to be had now: the bounds on what strangers can ask for.
//!
//! Pure: it holds names, counts and times, and is told what time it is. The work itself is a *flight*: one for a name
//! at a time, however many wait for it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Certificates held in memory; beyond, those least in use are let go (Caddy's cache has room for as many).
pub const MAX_HELD: usize = 10_000;
/// Names for which something is being asked or obtained at one moment.
const MAX_FLIGHTS: usize = 128;
/// Of those, how many one client may have caused.
const MAX_FLIGHTS_OF_CLIENT: usize = 32;
/// Handshakes that wait at one moment.
const MAX_WAITING: usize = 2048;
/// Of those, how many may wait for one name, and how many of one client.
const MAX_WAITING_FOR_NAME: usize = 512;
const MAX_WAITING_OF_CLIENT: usize = 256;
/// Names that are remembered as refused. More than those are asked about again.
const MAX_REFUSED: usize = 10_000;
/// Names that are remembered as failed. A stranger cannot fill this: each was permitted.
const MAX_FAILED: usize = 10_000;

/// How long a refusal stands before permission is asked again: short, as a customer may just have been added.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// The same when nobody could say.
const UNKNOWN_FOR: Duration = Duration::from_secs(3);
/// Wait after a first failure to obtain; doubled by each further one.
const FAILED_FOR: Duration = Duration::from_secs(30);
const FAILED_FOR_AT_MOST: Duration = Duration::from_hours(1);
/// An issuer that wants to be left alone for longer than this is asked all the same.
const LONGEST_REST: Duration = Duration::from_hours(24);
/// A certificate used again so long after it came is one in use: those go last when room is made.
const IN_USE_AFTER: Duration = Duration::from_secs(30);
/// Share of the certificates held that is let go at once when room is made.
const LET_GO: usize = 16;

/// What time it is: by the clock that never jumps, for waits, and by the calendar, for certificates.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub instant: Instant,
    /// Seconds since 1970.
    pub unix: i64,
}

/// Where handshakes go that find no good certificate.
#[derive(Debug, Default)]
pub struct Gate {
    held: HashMap<Arc<str>, Held>,
    flights: HashMap<Arc<str>, Flight>,
    refused: Refused,
    failed: HashMap<Arc<str>, Failed>,
    clients: HashMap<IpAddr, Client>,
    waiting: usize,
}

/// When a certificate should be renewed and when it is of no use any more; seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub due: i64,
    pub expires: i64,
}

#[derive(Debug)]
struct Held {
    terms: Terms,
    since: Instant,
    used: Instant,
}

#[derive(Debug)]
struct Flight {
    landed: watch::Sender<bool>,
    client: IpAddr,
    waiting: usize,
}

#[derive(Debug)]
struct Failed {
    count: usize,
    until: Instant,
}

#[derive(Debug, Default)]
struct Client {
    flights: usize,
    waiting: usize,
}

/// What a handshake is to do.
#[derive(Debug)]
pub enum Entry {
    /// A good certificate is there.
    Serve,
    /// The same, and it is time to renew it: the caller starts a flight for which nobody waits.
    Renew(Start),
    /// A flight is under way.
    Join(Seat),
    /// The caller starts a flight, and waits.
    Start(Start, Seat),
    /// Nothing is to be had now.
    Refuse(Why),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Refused, or failed, a short while ago.
    Lately,
    /// Too much is going on.
    Full,
}

/// A flight to be started; it must be landed in the end.
#[derive(Debug, PartialEq, Eq)]
pub struct Start {
    pub name: Arc<str>,
    /// How often it has failed before.
    pub failures: usize,
}

/// A place among those that wait; to be given back.
#[derive(Debug)]
pub struct Seat {
    pub name: Arc<str>,
    client: IpAddr,
    /// True once the flight has landed; closed when it was lost.
    pub landed: watch::Receiver<bool>,
}

/// How a flight ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landing {
    /// There is a certificate now.
    Held(Terms),
    /// It may not be had; what is held is let go.
    Denied,
    /// Nobody could say whether it may be had; what is held goes on.
    Unknown,
    /// It may be had, and could not be. With how long the issuers want to be left alone, when they said so.
    Failed(Option<Duration>),
}

impl Gate {
    /// What a handshake of `client` for this name is to do. `fits`: whether what is held is of use to it.
    pub fn enter(&mut self, name: &str, client: IpAddr, fits: bool, now: Now) -> Entry {
        let client = block(client);
        if let Some(held) = self.held.get_mut(name)
            && fits
            && held.terms.expires > now.unix
        {
            held.used = now.instant;
            let is_due = held.terms.due <= now.unix && !self.flights.contains_key(name);
            if is_due && self.flights.len() < MAX_FLIGHTS && !self.is_held_back(name, now.instant) {
                return Entry::Renew(self.start(name, client));
            }
            return Entry::Serve;
        }
        let (flights, waiting) = self.clients.get(&client).map_or((0, 0), |c| (c.flights, c.waiting));
        if self.waiting >= MAX_WAITING || waiting >= MAX_WAITING_OF_CLIENT {
            return Entry::Refuse(Why::Full);
        }
        if let Some(flight) = self.flights.get(name) {
            if flight.waiting >= MAX_WAITING_FOR_NAME {
                return Entry::Refuse(Why::Full);
            }
            let landed = flight.landed.subscribe();
            return Entry::Join(self.sit(name.into(), client, landed));
        }
        if self.is_held_back(name, now.instant) {
            return Entry::Refuse(Why::Lately);
        }
        if self.flights.len() >= MAX_FLIGHTS || flights >= MAX_FLIGHTS_OF_CLIENT {
            return Entry::Refuse(Why::Full);
        }
        let start = self.start(name, client);
        let landed = self.flights.get(name).map_or_else(closed, |flight| flight.landed.subscribe());
        let seat = self.sit(Arc::clone(&start.name), client, landed);
        Entry::Start(start, seat)
    }

    /// Ends a flight. The answer: names whose certificates are to be let go, and those of which nothing is to be told any
    /// more.
    pub fn land(&mut self, name: &str, landing: Landing, now: Now) -> Vec<Arc<str>> {
        let Some((name, flight)) = self.flights.remove_entry(name) else { return Vec::new() };
        self.client(flight.client, |client| client.flights = client.flights.saturating_sub(1));
        let gone = match landing {
            Landing::Held(terms) => {
                self.failed.remove(&name);
                self.refused.remove(&name);
                let gone = if self.held.contains_key(&name) { Vec::new() } else { self.make_room() };
                let since = self.held.get(&name).map_or(now.instant, |held| held.since);
                self.held.insert(name, Held { terms, since, used: now.instant });
                gone
            }
            Landing::Denied => {
                self.failed.remove(&name);
                self.refused.insert(Arc::clone(&name), now.instant + REFUSED_FOR, now.instant);
                self.held.remove(&name);
                vec![name]
            }
            Landing::Unknown => {
                // What is still held is not asked about at each handshake either.
                self.refused.insert(name, now.instant + UNKNOWN_FOR, now.instant);
                Vec::new()
            }
            Landing::Failed(rest) => {
                let count = self.failed.get(&name).map_or(0, |failed| failed.count);
                let gone = self.forget_failures(now.instant);
                let wait = FAILED_FOR.saturating_mul(1 << count.min(16)).min(FAILED_FOR_AT_MOST);
                let wait = wait.max(rest.unwrap_or_default().min(LONGEST_REST));
                self.failed.insert(name, Failed { count: count + 1, until: now.instant + wait });
                gone
            }
        };
        let _ = flight.landed.send(true);
        gone
    }

    /// Ends a flight of which nothing more is heard; who waits for it goes away.
    pub fn lose(&mut self, name: &str) {
        if let Some(flight) = self.flights.remove(name) {
            self.client(flight.client, |client| client.flights = client.flights.saturating_sub(1));
        }
    }

    /// Gives a place back.
    pub fn leave(&mut self, seat: &Seat) {
        self.waiting = self.waiting.saturating_sub(1);
        if let Some(flight) = self.flights.get_mut(&seat.name) {
            flight.waiting = flight.waiting.saturating_sub(1);
        }
        self.client(seat.client, |client| client.waiting = client.waiting.saturating_sub(1));
    }

    /// Takes over a new configuration: what it does not vouch for is let go, and what was refused may be asked again.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.held.retain(|name, _| wanted(name));
        self.failed.retain(|name, _| wanted(name));
        self.refused = Refused::default();
    }

    /// Names of which there is something to tell: held, or failed.
    #[must_use]
    pub fn names(&self) -> HashSet<Arc<str>> {
        self.held.keys().chain(self.failed.keys()).cloned().collect()
    }

    fn start(&mut self, name: &str, client: IpAddr) -> Start {
        let name: Arc<str> = name.into();
        let flight = Flight { landed: watch::Sender::new(false), client, waiting: 0 };
        self.flights.insert(Arc::clone(&name), flight);
        self.clients.entry(client).or_default().flights += 1;
        let failures = self.failed.get(&name).map_or(0, |failed| failed.count);
        Start { name, failures }
    }

    fn sit(&mut self, name: Arc<str>, client: IpAddr, landed: watch::Receiver<bool>) -> Seat {
        self.waiting += 1;
        self.clients.entry(client).or_default().waiting += 1;
        if let Some(flight) = self.flights.get_mut(&name) {
            flight.waiting += 1;
        }
        Seat { name, client, landed }
    }

    fn client(&mut self, client: IpAddr, change: impl FnOnce(&mut Client)) {
        if let Some(found) = self.clients.get_mut(&client) {
            change(found);
            if found.flights == 0 && found.waiting == 0 {
                self.clients.remove(&client);
            }
        }
    }

    fn is_held_back(&self, name: &str, now: Instant) -> bool {
        self.refused.until(name).is_some_and(|until| until > now)
            || self.failed.get(name).is_some_and(|failed| failed.until > now)
    }

    /// Lets some go when all places are taken: first those that were never used again, of these the longest unused. A
    /// flood of new names pushes out its own kind.
    fn make_room(&mut self) -> Vec<Arc<str>> {
        if self.held.len() < MAX_HELD {
            return Vec::new();
        }
        let mut all: Vec<(bool, Instant, Arc<str>)> = self
            .held
            .iter()
            .map(|(name, held)| (held.used >= held.since + IN_USE_AFTER, held.used, Arc::clone(name)))
            .collect();
        all.sort_unstable();
        let gone: Vec<Arc<str>> = all.into_iter().take(MAX_HELD / LET_GO).map(|(_, _, name)| name).collect();
        for name in &gone {
            self.held.remove(name);
        }
        gone
    }

    /// Keeps the memory of failures within its bound: what could be tried again longest goes first.
    fn forget_failures(&mut self, now: Instant) -> Vec<Arc<str>> {
        if self.failed.len() < MAX_FAILED {
            return Vec::new();
        }
        let mut all: Vec<(Instant, Arc<str>)> =
            self.failed.iter().map(|(name, failed)| (failed.until, Arc::clone(name))).collect();
        all.sort_unstable();
        let over = all.iter().take_while(|(until, _)| *until <= now).count();
        let gone: Vec<Arc<str>> = all.into_iter().take(over.max(MAX_FAILED / LET_GO)).map(|(_, name)| name).collect();
        for name in &gone {
            self.failed.remove(name);
        }
        gone.into_iter().filter(|name| !self.held.contains_key(name)).collect()
    }
}

/// Refusals, the oldest forgotten first. Apart from failures: a flood of refused names must not make a name that fails
/// at the CA be tried again sooner.
#[derive(Debug, Default)]
struct Refused {
    until: HashMap<Arc<str>, Instant>,
    order: VecDeque<(Instant, Arc<str>)>,
}

impl Refused {
    fn until(&self, name: &str) -> Option<Instant> {
        self.until.get(name).copied()
    }

    fn insert(&mut self, name: Arc<str>, until: Instant, now: Instant) {
        while let Some((first, _)) = self.order.front()
            && (*first <= now || self.order.len() >= MAX_REFUSED)
        {
            if let Some((first, name)) = self.order.pop_front()
                && self.until.get(&name).is_some_and(|until| *until <= first)
            {
                self.until.remove(&name);
            }
        }
        self.until.insert(Arc::clone(&name), until);
        self.order.push_back((until, name));
    }

    fn remove(&mut self, name: &str) {
        // Its place in the order stays until its time, and does nothing then.
        self.until.remove(name);
    }
}

/// Clients are counted by address, those of IPv6 by network: one host has a whole one.
fn block(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

fn closed() -> watch::Receiver<bool> {
    watch::channel(false).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that is held, with the gate.
    struct World {
        gate: Gate,
        began: Instant,
        seconds: u64,
    }

    impl World {
        fn new() -> Self {
            Self { gate: Gate::default(), began: Instant::now(), seconds: 0 }
        }

        fn now(&self) -> Now {
            let unix = 1_800_000_000 + i64::try_from(self.seconds).unwrap();
            Now { instant: self.began + Duration::from_secs(self.seconds), unix }
        }

        fn enter(&mut self, name: &str, client: &str) -> Entry {
            let now = self.now();
            self.gate.enter(name, client.parse().unwrap(), true, now)
        }

        fn land(&mut self, name: &str, landing: Landing) -> Vec<Arc<str>> {
            let now = self.now();
            self.gate.land(name, landing, now)
        }

        /// A whole flight for which one client waits.
        fn fly(&mut self, name: &str, client: &str, landing: Landing) -> Vec<Arc<str>> {
            let Entry::Start(_, seat) = self.enter(name, client) else { panic!("no flight for {name}") };
            let gone = self.land(name, landing);
            self.gate.leave(&seat);
            gone
        }

        fn good_for(&self, seconds: i64) -> Landing {
            let now = self.now().unix;
            Landing::Held(Terms { due: now + seconds * 2 / 3, expires: now + seconds })
        }

        fn is_empty(&self) -> bool {
            self.gate.flights.is_empty() && self.gate.clients.is_empty() && self.gate.waiting == 0
        }
    }

    #[test]
    fn many_that_wait_for_a_name_share_one_flight() {
        let mut world = World::new();
        let Entry::Start(start, first) = world.enter("a.test", "192.0.2.1") else { panic!() };
        assert_eq!((&*start.name, start.failures), ("a.test", 0));
        let mut seats = vec![first];
        for i in 0..50 {
            let Entry::Join(seat) = world.enter("a.test", &format!("192.0.2.{i}")) else { panic!("{i}") };
            seats.push(seat);
        }
        assert!(!*seats[7].landed.borrow());
        let held = world.good_for(100);
        world.land("a.test", held);
        assert!(seats.iter().all(|seat| *seat.landed.borrow()));
        for seat in &seats {
            world.gate.leave(seat);
        }
        assert!(world.is_empty());
        assert!(matches!(world.enter("a.test", "192.0.2.1"), Entry::Serve));
    }

    #[test]
    fn who_leaves_does_not_end_the_flight_of_others() {
        let mut world = World::new();
        let Entry::Start(_, first) = world.enter("a.test", "192.0.2.1") else { panic!() };
        let Entry::Join(second) = world.enter("a.test", "192.0.2.2") else { panic!() };
        world.gate.leave(&first);
        drop(first);
        let held = world.good_for(100);
        world.land("a.test", held);
        assert!(*second.landed.borrow());
        world.gate.leave(&second);
        assert!(world.is_empty());
    }

    #[test]
    fn a_lost_flight_wakes_who_waits() {
        let mut world = World::new();
        let Entry::Start(_, seat) = world.enter("a.test", "192.0.2.1") else { panic!() };
        world.gate.lose("a.test");
        assert!(seat.landed.has_changed().is_err());
        world.gate.leave(&seat);
        assert!(world.is_empty());
    }

    #[test]
    fn refusals_stand_for_seconds_and_failures_ever_longer() {
        let mut world = World::new();
        world.fly("no.test", "192.0.2.1", Landing::Denied);
        assert!(matches!(world.enter("no.test", "192.0.2.9"), Entry::Refuse(Why::Lately)));
        world.seconds += 11;
        world.fly("no.test", "192.0.2.1", Landing::Unknown);
        world.seconds += 4;
        world.fly("no.test", "192.0.2.1", Landing::Denied);
        for (failures, wait) in [(0, 30), (1, 60), (2, 120)] {
            let Entry::Start(start, seat) = world.enter("bad.test", "192.0.2.1") else { panic!("{failures}") };
            assert_eq!(start.failures, failures);
            world.land("bad.test", Landing::Failed(None));
            world.gate.leave(&seat);
            world.seconds += wait - 1;
            assert!(matches!(world.enter("bad.test", "192.0.2.1"), Entry::Refuse(Why::Lately)), "{failures}");
            world.seconds += 2;
        }
        for _ in 0..40 {
            world.fly("bad.test", "192.0.2.1", Landing::Failed(None));
            world.seconds += 3601;
        }
    }

    #[test]
    fn a_certificate_is_renewed_once_when_it_is_used_and_due_and_waited_for_when_expired() {
        let mut world = World::new();
        let terms = world.good_for(90);
        world.fly("a.test", "192.0.2.1", terms);
        world.seconds += 61;
        let Entry::Renew(_) = world.enter("a.test", "192.0.2.1") else { panic!() };
        assert!(matches!(world.enter("a.test", "192.0.2.1"), Entry::Serve));
        world.land("a.test", Landing::Failed(None));
        assert!(matches!(world.enter("a.test", "192.0.2.1"), Entry::Serve), "tried again at once");
        world.seconds += 30;
        let Entry::Start(start, seat) = world.enter("a.test", "192.0.2.1") else { panic!("expired") };
        assert_eq!(start.failures, 1);
        let terms = world.good_for(90);
        world.land("a.test", terms);
        world.gate.leave(&seat);
        assert!(matches!(world.enter("a.test", "192.0.2.1"), Entry::Serve));
    }

    #[test]
    fn what_is_held_goes_when_it_is_denied_and_stays_when_nobody_can_say() {
        let mut world = World::new();
        let terms = world.good_for(90);
        world.fly("a.test", "192.0.2.1", terms);
        world.seconds += 61;
        let Entry::Renew(_) = world.enter("a.test", "192.0.2.1") else { panic!() };
        assert!(world.land("a.test", Landing::Unknown).is_empty());
        assert!(matches!(world.enter("a.test", "192.0.2.1"), Entry::Serve));
        world.seconds += 4;
        let Entry::Renew(_) = world.enter("a.test", "192.0.2.1") else { panic!() };
        assert_eq!(world.land("a.test", Landing::Denied), ["a.test".into()]);
        assert!(matches!(world.enter("a.test", "192.0.2.1"), Entry::Refuse(Why::Lately)));
    }

    #[test]
    fn one_client_cannot_take_all_places() {
        let mut world = World::new();
        let mut seats = Vec::new();
        let mut count = |world: &mut World, client: &str, names: std::ops::Range<usize>| {
            let entries: Vec<Entry> = names.map(|i| world.enter(&format!("{i}.test"), client)).collect();
            let started: Vec<Entry> = entries.into_iter().filter(|e| matches!(e, Entry::Start(..))).collect();
            let n = started.len();
            seats.extend(started);
            n
        };
        assert_eq!(count(&mut world, "2001:db8::1", 0..100), MAX_FLIGHTS_OF_CLIENT);
        assert_eq!(count(&mut world, "2001:db8::2", 100..200), 0, "the same network");
        assert_eq!(count(&mut world, "2001:db8:0:1::2", 200..300), MAX_FLIGHTS_OF_CLIENT);
        for i in 0..10 {
            count(&mut world, &format!("192.0.2.{i}"), 1000 * i..1000 * i + 100);
        }
        assert_eq!(world.gate.flights.len(), MAX_FLIGHTS);
        for i in 0..MAX_WAITING {
            let client = format!("198.51.{}.{}", i / 100, i % 100);
            if let Entry::Join(seat) = world.enter(&format!("{}.test", i % 32), &client) {
                seats.push(Entry::Join(seat));
            }
        }
        assert!(world.gate.waiting <= MAX_WAITING);
        assert!(matches!(world.enter("1.test", "203.0.113.1"), Entry::Refuse(Why::Full)));
    }

    #[test]
    fn a_flood_of_names_stays_within_its_bounds_and_does_not_push_out_what_is_used() {
        let mut world = World::new();
        let good = world.good_for(1_000_000);
        world.fly("good.test", "192.0.2.1", good);
        world.fly("bad.test", "192.0.2.1", Landing::Failed(None));
        world.seconds += 31;
        assert!(matches!(world.enter("good.test", "192.0.2.1"), Entry::Serve));
        world.fly("bad.test", "192.0.2.1", Landing::Failed(None));
        let mut gone = 0;
        for i in 0..3 * MAX_HELD {
            world.fly(&format!("no{i}.test"), "192.0.2.1", Landing::Denied);
            let good = world.good_for(1_000_000);
            gone += world.fly(&format!("yes{i}.test"), "192.0.2.1", good).len();
        }
        assert!(world.gate.refused.until.len() <= MAX_REFUSED && world.gate.refused.order.len() <= MAX_REFUSED);
        assert!(world.gate.held.len() <= MAX_HELD);
        assert_eq!(world.gate.held.len() + gone, 3 * MAX_HELD + 1);
        assert!(matches!(world.enter("good.test", "192.0.2.1"), Entry::Serve), "pushed out");
        assert!(matches!(world.enter("bad.test", "192.0.2.1"), Entry::Refuse(Why::Lately)), "forgotten");
        for i in 0..2 * MAX_FAILED {
            world.fly(&format!("bad{i}.test"), "192.0.2.1", Landing::Failed(None));
        }
        assert!(world.gate.failed.len() <= MAX_FAILED);
        assert!(world.is_empty());
    }

    #[test]
    fn a_new_configuration_keeps_what_it_vouches_for() {
        let mut world = World::new();
        for name in ["a.test", "b.test"] {
            let good = world.good_for(100);
            world.fly(name, "192.0.2.1", good);
        }
        world.fly("no.test", "192.0.2.1", Landing::Denied);
        world.gate.retain(|name| name == "a.test");
        assert_eq!(world.gate.names(), HashSet::from(["a.test".into()]));
        assert!(matches!(world.enter("b.test", "192.0.2.1"), Entry::Start(..)));
        assert!(matches!(world.enter("no.test", "192.0.2.1"), Entry::Start(..)), "asked again");
    }
}
