//! Zones against the plugin's rules, with seeds: never above a limit, never more memory than is allowed.

use super::*;
use std::collections::HashMap;
use std::sync::Arc;

const SECOND: u64 = 1_000_000_000;

fn limits() -> Limits {
    Limits { window: SECOND, keys: 1_000_000, ..Limits::default() }
}

fn events(n: u64) -> Limits {
    Limits { events: Some(n), ..limits() }
}

fn now<T>(answer: Answer<T>) -> T {
    match answer {
        Answer::Now(value) => value,
        Answer::Later(_) => panic!("memory does not wait"),
    }
}

fn ask(zone: &MemoryZone, key: &str, limits: &Limits, tokens: u64, at: u64) -> Result<Admission, Refusal> {
    match now(zone.admit(Key::of(key), limits, Ask { tokens }, Moment(at))) {
        Verdict::Admitted(admission) => Ok(admission),
        Verdict::Refused(refusal) => Err(refusal),
    }
}

/// mholt/caddy-ratelimit as its `ringbuffer.go` has it: a ring of the last N moments for each key.
#[derive(Default)]
struct Plugin {
    rings: HashMap<u64, (Vec<Option<u64>>, usize)>,
}

impl Plugin {
    /// How long to wait; zero when it may go on.
    fn when(&mut self, key: u64, max_events: usize, window: u64, now: u64) -> u64 {
        let (ring, cursor) = self.rings.entry(key).or_insert_with(|| (vec![None; max_events], 0));
        resize(ring, cursor, max_events);
        match ring[*cursor] {
            // The plugin lets an event at exactly the window's end pass as well, by its zero wait.
            Some(at) if now - at < window => at + window - now,
            _ => {
                ring[*cursor] = Some(now);
                *cursor = (*cursor + 1) % max_events;
                0
            }
        }
    }
}

/// `SetMaxEvents`: the newest are kept.
fn resize(ring: &mut Vec<Option<u64>>, cursor: &mut usize, max_events: usize) {
    if ring.len() == max_events {
        return;
    }
    let len = ring.len();
    let mut oldest_first: Vec<_> = (0..len).map(|n| ring[(*cursor + n) % len]).collect();
    oldest_first.drain(..len.saturating_sub(max_events));
    oldest_first.resize(max_events, None);
    // A ring's free places are its oldest.
    let free = oldest_first.iter().filter(|at| at.is_none()).count();
    oldest_first.sort_by_key(Option::is_some);
    debug_assert!(oldest_first.iter().take(free).all(Option::is_none));
    (*ring, *cursor) = (oldest_first, 0);
}

#[test]
fn it_counts_as_the_plugin_does_also_when_limits_change() {
    let mut random = fastrand::Rng::with_seed(42);
    for history in 0..200 {
        let (zone, mut plugin) = (MemoryZone::default(), Plugin::default());
        let (mut max_events, mut window, mut at) = (random.usize(1..8), SECOND, 5 * SECOND);
        for _ in 0..400 {
            at += random.u64(0..SECOND / 4);
            if random.u8(..) < 4 {
                max_events = random.usize(1..8);
                window = window * random.u64(50..=100) / 100;
            }
            let key = random.u64(0..3);
            let limits = Limits { window, ..events(max_events as u64) };
            let ours = ask(&zone, &key.to_string(), &limits, 0, at);
            let wait = ours.map_or_else(|refusal| super::super::moment::nanos(refusal.wait.unwrap()), |_| 0);
            assert_eq!(wait, plugin.when(key, max_events, window, at), "history {history} at {at}");
        }
    }
}

#[test]
fn refused_requests_are_not_counted_and_make_no_key() {
    let zone = MemoryZone::default();
    let limits = Limits { tokens: Some(10), ..events(5) };
    assert!(ask(&zone, "a", &limits, 11, 1).is_err());
    assert_eq!(zone.len(), 0);
    assert!(ask(&zone, "a", &limits, 10, 1).is_ok());
    let refusal = ask(&zone, "a", &limits, 1, 2).unwrap_err();
    assert_eq!((refusal.limit, refusal.never), (Limit::Tokens, false));
    assert_eq!(refusal.standing.requests.map(|left| left.remaining), Some(4));
    assert_eq!(ask(&zone, "a", &limits, 11, 2).unwrap_err().wait, None, "never");
}

#[test]
fn the_limit_that_takes_longest_is_told() {
    let zone = MemoryZone::default();
    let rate = Rate { interval: SECOND / 10, burst: 0, at_once: 0 };
    let limits = Limits { rate: Some(rate), concurrent: Some(1), ..events(1) };
    let first = ask(&zone, "a", &limits, 0, 10).unwrap();
    let told = ask(&zone, "a", &limits, 0, 10).unwrap_err();
    assert_eq!((told.limit, told.wait), (Limit::Events, Some(Duration::from_secs(1))));
    let told = ask(&zone, "a", &Limits { events: None, ..limits }, 0, 10).unwrap_err();
    assert_eq!((told.limit, told.wait), (Limit::Rate, Some(Duration::from_millis(100))));
    let told = ask(&zone, "a", &limits, 0, 10 + SECOND).unwrap_err();
    assert_eq!((told.limit, told.wait), (Limit::Concurrent, None));
    now(zone.release(&first.ticket, &limits, Moment(10)));
    assert!(ask(&zone, "a", &limits, 0, 10 + SECOND).is_ok());
}

use super::super::limit::Rate;

#[test]
fn tokens_are_reserved_and_reconciled() {
    let zone = MemoryZone::default();
    let limits = Limits { tokens: Some(100), ..limits() };
    let first = ask(&zone, "a", &limits, 60, 1).unwrap();
    assert!(ask(&zone, "a", &limits, 60, 2).is_err());
    now(zone.adjust(&first.ticket, &limits, 30, Moment(3)));
    let second = ask(&zone, "a", &limits, 60, 4).unwrap();
    assert_eq!(second.standing.tokens.map(|left| (left.limit, left.remaining)), Some((100, 10)));
    now(zone.adjust(&second.ticket, &limits, 75, Moment(SECOND / 2)));
    let refusal = ask(&zone, "a", &limits, 1, SECOND / 2).unwrap_err();
    assert_eq!(refusal.standing.tokens.map(|left| left.remaining), Some(0));
    // What was underestimated counts from when it was known.
    assert_eq!(refusal.standing.tokens.map(|left| left.reset), Some(Duration::from_secs(1)));
    assert!(ask(&zone, "a", &limits, 85, SECOND + 10).is_ok());
    assert!(ask(&zone, "a", &limits, 1, SECOND + 10).is_err());
}

/// Calls that end late, in any order, with less than was set aside: no window holds more tokens than the limit. With more than
/// was set aside, it holds more by that alone.
#[test]
fn tokens_of_no_window_are_above_the_limit() {
    let mut random = fastrand::Rng::with_seed(23);
    for history in 0..200 {
        let (zone, limit) = (MemoryZone::default(), random.u64(20..200));
        let limits = Limits { tokens: Some(limit), ..limits() };
        let underestimates = history % 2 == 1;
        let (mut at, mut open, mut calls) = (SECOND, Vec::new(), Vec::new());
        for _ in 0..300 {
            at += random.u64(0..SECOND / 10);
            let asked = random.u64(0..30);
            if let Ok(admission) = ask(&zone, "a", &limits, asked, at) {
                open.push((at, admission.ticket));
            }
            while !open.is_empty() && random.u8(..) < 110 {
                let (from, ticket) = open.swap_remove(random.usize(0..open.len()));
                let most = if underestimates { ticket.tokens * 2 } else { ticket.tokens };
                let took = random.u64(0..=most);
                now(zone.adjust(&ticket, &limits, took, Moment(at)));
                calls.push((from, ticket.tokens, took));
            }
        }
        calls.extend(open.iter().map(|(from, ticket)| (*from, ticket.tokens, ticket.tokens)));
        calls.sort_unstable();
        for (i, (from, ..)) in calls.iter().enumerate() {
            let within = calls[i..].iter().take_while(|(at, ..)| *at < from + SECOND);
            let (took, over) =
                within.fold((0, 0), |sum, (_, asked, took)| (sum.0 + took, sum.1 + took.saturating_sub(*asked)));
            assert!(took <= limit + over, "history {history}: {took} of {limit}, {over} not foreseen");
        }
    }
}

#[test]
fn what_a_long_call_took_beyond_its_reservation_counts_though_its_key_is_forgotten() {
    let zone = MemoryZone::default();
    let limits = Limits { tokens: Some(100), keys: 1, ..limits() };
    let first = ask(&zone, "a", &limits, 10, 1).unwrap();
    let shard = zone.shard(first.ticket.key).forget_idle(LOOK, Moment(2 * SECOND));
    zone.keys.fetch_sub(shard, Ordering::Relaxed);
    now(zone.adjust(&first.ticket, &limits, 80, Moment(2 * SECOND)));
    assert!(ask(&zone, "a", &limits, 40, 2 * SECOND).is_err());
    assert_eq!(zone.len(), 1);
}

/// Never more open than allowed, each released once, also by those that share a count.
#[test]
fn open_requests_are_bounded() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..50 {
        let zone = MemoryZone::default();
        let limits = Limits { concurrent: Some(random.u32(1..5)), keys: 3, ..limits() };
        let mut open: HashMap<String, Vec<Ticket>> = HashMap::new();
        for at in 1..400_u64 {
            let key = random.u8(0..9).to_string();
            let mine = open.entry(key.clone()).or_default();
            if random.bool() {
                if let Some(ticket) = mine.pop() {
                    now(zone.release(&ticket, &limits, Moment(at)));
                }
            } else if let Ok(admission) = ask(&zone, &key, &limits, 0, at) {
                mine.push(admission.ticket);
                assert!(mine.len() <= limits.concurrent.unwrap() as usize);
            }
            assert!(zone.len() <= 3);
        }
        for ticket in open.into_values().flatten() {
            now(zone.release(&ticket, &limits, Moment(500)));
        }
        for shard in &zone.shards {
            let shard = shard.lock().unwrap();
            assert!(shard.shared.open == 0 && shard.slots.iter().all(|slot| slot.counts.open == 0));
        }
    }
}

#[test]
fn new_keys_never_push_out_one_that_counts() {
    let zone = MemoryZone::default();
    let limits = Limits { keys: 1000, ..events(2) };
    for n in 0..2 {
        ask(&zone, "busy", &limits, 0, 1 + n).unwrap();
    }
    let mut admitted = 0;
    for n in 0..100_000 {
        admitted += usize::from(ask(&zone, &format!("new{n}"), &limits, 0, 10 + n).is_ok());
    }
    assert!(ask(&zone, "busy", &limits, 0, 500_000).is_err(), "still remembered");
    assert_eq!(zone.len(), 1000);
    // 999 of their own, and two for each shared count.
    assert!(admitted <= 999 + 2 * SHARDS, "{admitted}");
    // Later there is room again.
    for n in 0..5000 {
        ask(&zone, &format!("later{n}"), &limits, 0, 3 * SECOND + n).ok();
    }
    assert_eq!(zone.len(), 1000);
    assert!(ask(&zone, "busy", &limits, 0, 5 * SECOND).is_ok());
}

/// Whatever place a key is counted at, it is never above its limit.
#[test]
fn keys_that_change_places_stay_below_their_limit() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..100 {
        let zone = MemoryZone::default();
        let limits = Limits { keys: random.u32(1..6), ..events(random.u64(1..5)) };
        let mut admitted: HashMap<u8, Vec<u64>> = HashMap::new();
        for at in (0..500).map(|n| SECOND + n * SECOND / 40) {
            let key = random.u8(0..12);
            if ask(&zone, &key.to_string(), &limits, 0, at).is_ok() {
                let times = admitted.entry(key).or_default();
                times.push(at);
                let within = times.iter().filter(|time| at - **time < SECOND).count();
                assert!(within as u64 <= limits.events.unwrap());
            }
        }
    }
}

#[test]
fn places_are_found_again_when_others_are_removed() {
    let mut random = fastrand::Rng::with_seed(5);
    let zone = MemoryZone::default();
    let limits = Limits { keys: 500, ..events(1) };
    let mut used: HashMap<u32, u64> = HashMap::new();
    for step in 0..20_000_u64 {
        let at = step * SECOND / 300;
        let key = random.u32(0..400);
        let free = used.get(&key).is_none_or(|last| at - last >= SECOND);
        assert_eq!(ask(&zone, &key.to_string(), &limits, 0, at).is_ok(), free, "step {step}");
        if free {
            used.insert(key, at);
        }
    }
}

/// All limits at once, from several threads: what each counted is never above the limit.
#[test]
fn threads_together_stay_below_the_limit() {
    let zone = Arc::new(MemoryZone::default());
    let limits = Limits { tokens: Some(1000), concurrent: Some(7), ..events(500) };
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            let zone = Arc::clone(&zone);
            std::thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let (mut admitted, mut tokens) = (0, 0);
                for _ in 0..2000 {
                    let asked = random.u64(1..10);
                    if let Ok(admission) = ask(&zone, "k", &limits, asked, 77) {
                        let took = random.u64(0..=asked);
                        now(zone.adjust(&admission.ticket, &limits, took, Moment(77)));
                        now(zone.release(&admission.ticket, &limits, Moment(77)));
                        (admitted, tokens) = (admitted + 1, tokens + took);
                    }
                }
                (admitted, tokens)
            })
        })
        .collect();
    let told: Vec<(u64, u64)> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let (admitted, tokens) = told.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(admitted <= 500 && tokens <= 1000, "{admitted} {tokens}");
    assert!(admitted == 500 || tokens > 980, "{admitted} {tokens}");
}

/// Ten million strangers, each once, against a zone of a million keys, and ten million that all count.
#[test]
#[ignore = "takes a gigabyte and a minute: `./test --long`"]
fn ten_million_keys() {
    for (keys, most) in [(1_000_000, 1_000_000), (20_000_000, 10_000_000)] {
        let zone = MemoryZone::default();
        let limits = Limits { keys, ..events(3) };
        let before = resident();
        let begun = std::time::Instant::now();
        let mut slowest = Duration::ZERO;
        for n in 0..10_000_000_u64 {
            let one = std::time::Instant::now();
            now(zone.admit(Key::of_bytes(&n.to_le_bytes()), &limits, Ask::default(), Moment(n)));
            slowest = slowest.max(one.elapsed());
        }
        let (took, grown) = (begun.elapsed(), resident().saturating_sub(before));
        println!(
            "{keys} keys allowed: {} counted one by one, {} MB, {} ns each, slowest {slowest:?}",
            zone.len(),
            grown >> 20,
            took.as_nanos() / 10_000_000
        );
        assert_eq!(zone.len(), most);
        assert!(grown < 250 * most, "{grown} bytes");
    }
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
