//! What budgets have been spent: money and tokens by key and period, set aside before a call and settled after it.
//!
//! The rule of admission: a call may go when something is left behind all that is spent and all that is set aside, and
//! what it costs for certain (its input) fits into that. Then the most it may cost is set aside. So at any moment what is
//! spent and set aside is at most the limit and one call's worth, however many calls begin at once; and as long as no
//! call costs more than was set aside for it, that is the most that is ever spent.
//!
//! A call is charged to the period it was set aside in, also when it ends in a later one. The clock may jump: a period
//! that was left keeps its sums, so that a clock that goes back finds them; where sums have been dropped, calls count in
//! the period behind those. No clock opens a spent period anew.

use std::borrow::Cow;
use std::collections::HashMap;

use sha2::Digest;
use smallvec::SmallVec;

use super::period::Period;

use crate::base::hex::hex;

/// Money (billionths of a dollar) and tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub nano: u64,
    pub tokens: u64,
}

impl Amount {
    fn plus(self, other: Self) -> Self {
        Self { nano: self.nano.saturating_add(other.nano), tokens: self.tokens.saturating_add(other.tokens) }
    }

    fn minus(self, other: Self) -> Self {
        Self { nano: self.nano.saturating_sub(other.nano), tokens: self.tokens.saturating_sub(other.tokens) }
    }

    fn most(self, other: Self) -> Self {
        Self { nano: self.nano.max(other.nano), tokens: self.tokens.max(other.tokens) }
    }

    fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Money => self.nano,
            Unit::Tokens => self.tokens,
        }
    }
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Money,
    Tokens,
}

/// The most of one unit in one period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub unit: Unit,
    pub most: u64,
    pub period: Period,
}

/// What was set aside for one call. Must be settled or released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    key: Box<str>,
    /// Where it is charged: each period once, with its start.
    pub periods: SmallVec<[(Period, i64); 2]>,
    set_aside: Amount,
    /// What the call is known to have cost so far.
    used: Amount,
    /// Which book it is of, where there are several.
    part: usize,
}

impl Hold {
    #[must_use]
    pub(super) fn of_part(self, part: usize) -> Self {
        Self { part, ..self }
    }

    #[must_use]
    pub(super) fn part(&self) -> usize {
        self.part
    }

    /// Whom it is charged to.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Why a call may not go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub limit: Limit,
    /// Spent for good, without what is set aside.
    pub spent: u64,
    /// The limit is not spent: other calls hold what is left, and may give some back.
    pub held: bool,
    /// When the next period begins; `None` when there is none.
    pub renews: Option<i64>,
}

/// What a key has of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub limit: Limit,
    pub spent: u64,
    /// Of the period that `spent` is in.
    pub start: i64,
}

/// One settled call: what each limit stood at before and stands at now, for those who warn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    pub limit: Limit,
    pub before: u64,
    pub after: u64,
}

impl Moved {
    /// Per mille of the limit before and now.
    #[must_use]
    pub fn share(&self) -> [u32; 2] {
        let most = u128::from(self.limit.most.max(1));
        [self.before, self.after].map(|part| u32::try_from(u128::from(part) * 1000 / most).unwrap_or(u32::MAX))
    }

    /// Whether this call made it reach a share of its limit.
    #[must_use]
    pub fn reached(&self, per_mille: u32) -> bool {
        let [before, after] = self.share();
        before < per_mille && after >= per_mille
    }
}

/// Longer keys are kept by their digest.
const LONGEST_KEY: usize = 256;

/// Keys of one book beyond these share one account, so that nobody fills the memory with names.
const MOST_KEYS: usize = 1 << 16;

/// Keys that a book always has room for, before it looks for idle ones.
const FEW_KEYS: usize = 1 << 10;

/// Whom those are charged to.
pub const OTHERS: &str = "(others)";

/// Sums kept for one key and kind of period: now, before, and one that a jumping clock made.
const KEPT: usize = 3;

/// The keys of one budget, or a part of them: whoever holds it locks it.
#[derive(Debug)]
pub struct Book {
    keys: HashMap<Box<str>, Account>,
    floor: Floor,
    /// How many keys make it look for those that are idle.
    sweep_at: usize,
    most_keys: usize,
}

impl Default for Book {
    fn default() -> Self {
        Self::with_room_for(MOST_KEYS)
    }
}

/// The sums of one key: of a few periods of each kind.
type Account = SmallVec<[Sheet; 2]>;

/// By kind of period, the first that can be charged: sums of those before have been dropped.
#[derive(Debug, Default)]
struct Floor([i64; Period::ALL.len()]);

impl Floor {
    /// The start of the period that a call at `now` belongs to.
    fn start(&self, period: Period, now: i64) -> i64 {
        period.start(now).max(self.0[period as usize])
    }

    fn dropped(&mut self, sheet: &Sheet) {
        let floor = &mut self.0[sheet.period as usize];
        *floor = sheet.period.end(sheet.start).map_or(*floor, |end| end.max(*floor));
    }
}

/// The sums of one period.
#[derive(Debug, Clone, Copy)]
struct Sheet {
    period: Period,
    start: i64,
    spent: Amount,
    set_aside: Amount,
    /// What calls under way are known to have cost so far, a part of what is set aside.
    used: Amount,
}

impl Sheet {
    fn is_of(&self, (period, start): (Period, i64)) -> bool {
        self.period == period && self.start == start
    }
}

impl Book {
    #[must_use]
    pub fn with_room_for(most_keys: usize) -> Self {
        Self { keys: HashMap::new(), floor: Floor::default(), sweep_at: FEW_KEYS.min(most_keys), most_keys }
    }

    /// Sums from before this process began.
    pub fn load(&mut self, key: &str, period: Period, start: i64, spent: Amount) {
        let account = self.keys.entry(canonical(key).into()).or_default();
        let sheet = sheet(account, &mut self.floor, period, start);
        sheet.spent = sheet.spent.plus(spent);
    }

    /// Sets `most` aside for a call that costs at least `least`, at `now` (Unix seconds).
    ///
    /// # Errors
    /// The first limit that has no room for it.
    pub fn reserve(
        &mut self,
        limits: &[Limit],
        key: &str,
        now: i64,
        least: Amount,
        most: Amount,
    ) -> Result<Hold, Refused> {
        let key = self.key_for(key, now);
        let account = self.keys.entry(key.clone()).or_default();
        let mut periods: SmallVec<[(Period, i64); 2]> = SmallVec::new();
        for limit in limits {
            let sheet = sheet(account, &mut self.floor, limit.period, now);
            let fits = |taken: u64| taken < limit.most && taken.saturating_add(least.of(limit.unit)) <= limit.most;
            let spent = sheet.spent.of(limit.unit);
            if !fits(spent.saturating_add(sheet.set_aside.of(limit.unit))) {
                let renews = limit.period.end(sheet.start);
                return Err(Refused { limit: *limit, spent, held: fits(spent), renews });
            }
            let place = (limit.period, sheet.start);
            if !periods.contains(&place) {
                periods.push(place);
            }
        }
        let set_aside = most.most(least);
        for sheet in account.iter_mut().filter(|sheet| periods.iter().any(|place| sheet.is_of(*place))) {
            sheet.set_aside = sheet.set_aside.plus(set_aside);
        }
        Ok(Hold { key, periods, set_aside, used: Amount::default(), part: 0 })
    }

    /// Notes what a call under way has cost so far; sets more aside when that is more than was. False when a limit is
    /// spent by what all calls under way have really cost.
    pub fn running(&mut self, limits: &[Limit], hold: &mut Hold, used: Amount) -> bool {
        let used = used.most(hold.used);
        let more = used.minus(hold.used);
        let growth = used.minus(hold.set_aside);
        let mut room = true;
        for place in &hold.periods {
            let Some(sheet) = self.sheet_of(&hold.key, *place) else { continue };
            sheet.set_aside = sheet.set_aside.plus(growth);
            sheet.used = sheet.used.plus(more);
            let now = sheet.spent.plus(sheet.used);
            room &= limits.iter().all(|limit| limit.period != place.0 || now.of(limit.unit) < limit.most);
        }
        hold.used = used;
        hold.set_aside = hold.set_aside.plus(growth);
        room
    }

    /// The call has ended and cost `spent`. Says how each limit moved, where the sums of its period are still kept.
    pub fn settle(&mut self, limits: &[Limit], hold: &Hold, spent: Amount) -> SmallVec<[Moved; 2]> {
        self.release(hold);
        self.charge(limits, hold, spent)
    }

    /// The same, with what was set aside kept for another call under the same hold.
    pub fn charge(&mut self, limits: &[Limit], hold: &Hold, spent: Amount) -> SmallVec<[Moved; 2]> {
        let mut moved = SmallVec::new();
        for place in &hold.periods {
            let Some(sheet) = self.sheet_of(&hold.key, *place) else { continue };
            let before = sheet.spent;
            sheet.spent = before.plus(spent);
            let after = sheet.spent;
            let of_this = limits.iter().filter(|limit| limit.period == place.0);
            moved.extend(of_this.map(|limit| Moved {
                limit: *limit,
                before: before.of(limit.unit),
                after: after.of(limit.unit),
            }));
        }
        moved
    }

    /// The call was not made, and costs nothing.
    pub fn release(&mut self, hold: &Hold) {
        for place in &hold.periods {
            let Some(sheet) = self.sheet_of(&hold.key, *place) else { continue };
            sheet.set_aside = sheet.set_aside.minus(hold.set_aside);
            sheet.used = sheet.used.minus(hold.used);
        }
    }

    /// What a key has of each limit at `now`.
    #[must_use]
    pub fn standing(&self, limits: &[Limit], key: &str, now: i64) -> SmallVec<[Standing; 2]> {
        let account = self.keys.get(canonical(key).as_ref());
        let of = |limit: &Limit| {
            let start = self.floor.start(limit.period, now);
            let sheet = account.and_then(|all| all.iter().find(|sheet| sheet.is_of((limit.period, start))));
            Standing { limit: *limit, spent: sheet.map_or(0, |sheet| sheet.spent.of(limit.unit)), start }
        };
        limits.iter().map(of).collect()
    }

    /// How many keys it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn sheet_of(&mut self, key: &str, place: (Period, i64)) -> Option<&mut Sheet> {
        self.keys.get_mut(key)?.iter_mut().find(|sheet| sheet.is_of(place))
    }

    /// The key as it is kept, or the one that all share when there are too many.
    fn key_for(&mut self, key: &str, now: i64) -> Box<str> {
        let key = canonical(key);
        if self.keys.len() >= self.sweep_at && !self.keys.contains_key(key.as_ref()) {
            self.sweep(now);
            self.sweep_at = self.keys.len().saturating_mul(2).clamp(FEW_KEYS.min(self.most_keys), self.most_keys);
            if self.keys.len() >= self.most_keys {
                return OTHERS.into();
            }
        }
        key.into()
    }

    /// Drops keys that were charged in past periods only, and have nothing set aside.
    fn sweep(&mut self, now: i64) {
        let floor = &mut self.floor;
        self.keys.retain(|_, account| {
            let past = |sheet: &Sheet| sheet.period.end(sheet.start).is_some_and(|end| end <= now);
            let kept = account.iter().any(|sheet| !past(sheet) || sheet.set_aside != Amount::default());
            if !kept {
                account.iter().for_each(|sheet| floor.dropped(sheet));
            }
            kept
        });
    }
}

/// The sheet that a call at `now` belongs to.
fn sheet<'a>(account: &'a mut Account, floor: &mut Floor, period: Period, now: i64) -> &'a mut Sheet {
    let start = floor.start(period, now);
    let found = account.iter().position(|sheet| sheet.is_of((period, start)));
    let at = found.unwrap_or_else(|| {
        make_room(account, floor, period);
        let zero = Amount::default();
        account.push(Sheet { period, start, spent: zero, set_aside: zero, used: zero });
        account.len() - 1
    });
    &mut account[at]
}

/// Drops the earliest sheet when there are as many as are kept. A call that is still under way since then is charged to
/// its period in the ledger alone.
fn make_room(account: &mut Account, floor: &mut Floor, period: Period) {
    let of_kind = || account.iter().enumerate().filter(|(_, sheet)| sheet.period == period);
    if of_kind().count() >= KEPT
        && let Some(at) = of_kind().min_by_key(|(_, sheet)| sheet.start).map(|(at, _)| at)
    {
        floor.dropped(&account.remove(at));
    }
}

/// A key as it is kept: as it is, or by its digest when it is long. Nobody's key is the name of the others.
fn canonical(key: &str) -> Cow<'_, str> {
    if key.len() <= LONGEST_KEY && key != OTHERS {
        return key.into();
    }
    format!("sha256:{}", hex(&sha2::Sha256::digest(key.as_bytes()))).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    const DAY: i64 = 86_400;
    const NOW: i64 = 1_795_219_200;

    fn money(nano: u64) -> Amount {
        Amount { nano, tokens: 0 }
    }

    fn per(period: Period, most: u64) -> Limit {
        Limit { unit: Unit::Money, most, period }
    }

    fn spent(book: &Book, limits: &[Limit], key: &str, now: i64) -> u64 {
        book.standing(limits, key, now)[0].spent
    }

    fn spend(book: &mut Book, limits: &[Limit], now: i64, nano: u64) -> Result<(), Refused> {
        let hold = book.reserve(limits, "k", now, Amount::default(), money(nano))?;
        book.settle(limits, &hold, money(nano));
        Ok(())
    }

    #[test]
    fn what_is_set_aside_leaves_no_room_for_others_and_comes_back() {
        let (mut book, limits) = (Book::default(), [per(Period::Day, 100)]);
        let first = book.reserve(&limits, "k", NOW, money(10), money(60)).unwrap();
        let second = book.reserve(&limits, "k", NOW, money(10), money(60)).unwrap();
        let refused = book.reserve(&limits, "k", NOW, money(10), money(10)).unwrap_err();
        assert!(refused.held && refused.spent == 0);
        assert_eq!(refused.renews, Some(NOW + DAY));
        assert!(book.reserve(&limits, "other", NOW, money(10), money(10)).is_ok());
        book.release(&second);
        // 40 are left: an input of 41 is certain not to fit.
        assert!(book.reserve(&limits, "k", NOW, money(41), money(41)).is_err());
        let moved = book.settle(&limits, &first, money(100));
        assert_eq!((moved[0].before, moved[0].after), (0, 100));
        assert!(!book.reserve(&limits, "k", NOW, Amount::default(), money(1)).unwrap_err().held);
        assert!(book.reserve(&limits, "k", NOW + DAY, money(1), money(1)).is_ok());
    }

    #[test]
    fn all_limits_count_at_once() {
        let tokens = |most| Limit { unit: Unit::Tokens, most, period: Period::Day };
        let limits = [per(Period::Month, 100), tokens(1000), per(Period::Day, 50)];
        let mut book = Book::default();
        let call = |nano, tokens| Amount { nano, tokens };
        let hold = book.reserve(&limits, "k", NOW, Amount::default(), call(10, 990)).unwrap();
        assert_eq!(hold.periods.len(), 2, "a day and a month");
        let refused = book.reserve(&limits, "k", NOW, call(1, 11), call(1, 11)).unwrap_err();
        assert_eq!(refused.limit, limits[1]);
        book.settle(&limits, &hold, call(49, 500));
        let stands: Vec<u64> = book.standing(&limits, "k", NOW).iter().map(|s| s.spent).collect();
        assert_eq!(stands, [49, 500, 49]);
        assert_eq!(book.reserve(&limits, "k", NOW, call(2, 0), call(2, 0)).unwrap_err().limit, limits[2]);
    }

    #[test]
    fn a_call_counts_where_it_was_set_aside() {
        let (mut book, limits) = (Book::default(), [per(Period::Day, 100)]);
        let evening = NOW + DAY - 1;
        let hold = book.reserve(&limits, "k", evening, money(1), money(50)).unwrap();
        assert_eq!(hold.periods[0], (Period::Day, NOW));
        spend(&mut book, &limits, evening + 1, 7).unwrap();
        book.settle(&limits, &hold, money(40));
        assert_eq!(spent(&book, &limits, "k", evening), 40);
        assert_eq!(spent(&book, &limits, "k", evening + 1), 7);
    }

    #[test]
    fn a_running_call_takes_more_and_is_told_when_nothing_is_left() {
        let (mut book, limits) = (Book::default(), [per(Period::Day, 100)]);
        let mut a = book.reserve(&limits, "k", NOW, money(1), money(20)).unwrap();
        let mut b = book.reserve(&limits, "k", NOW, money(1), money(20)).unwrap();
        assert!(book.running(&limits, &mut a, money(70)));
        // 70 and 20 are set aside now.
        assert!(book.reserve(&limits, "k", NOW, money(11), money(11)).is_err());
        assert!(book.running(&limits, &mut b, money(29)));
        assert!(!book.running(&limits, &mut b, money(30)), "70 and 30 have really been used");
        book.settle(&limits, &a, money(70));
        book.settle(&limits, &b, money(30));
        assert_eq!(spent(&book, &limits, "k", NOW), 100);
        let sheet = book.keys["k"][0];
        assert_eq!((sheet.set_aside, sheet.used), (Amount::default(), Amount::default()));
    }

    #[test]
    fn a_share_is_reached_once() {
        let (mut book, limits) = (Book::default(), [per(Period::Day, 100)]);
        let mut reached = Vec::new();
        for nano in [79, 1, 5, 40] {
            let hold = book.reserve(&limits, "k", NOW, Amount::default(), money(nano)).unwrap();
            reached.push(book.settle(&limits, &hold, money(nano))[0].reached(800));
        }
        assert_eq!(reached, [false, true, false, false]);
    }

    #[test]
    fn no_jump_of_the_clock_opens_a_spent_period_anew() {
        let limits = [per(Period::Day, 100)];
        let mut book = Book::default();
        spend(&mut book, &limits, NOW, 100).unwrap();
        // A year ahead and back: the day is as spent as it was, and the next is open.
        spend(&mut book, &limits, NOW + 365 * DAY, 100).unwrap();
        assert!(spend(&mut book, &limits, NOW, 1).is_err());
        for day in 1..10 {
            spend(&mut book, &limits, NOW + day * DAY, 100).unwrap();
            assert!(spend(&mut book, &limits, NOW + day * DAY, 1).is_err(), "day {day}");
        }
        // Back to where sums have been dropped: what counts is the first day that is known.
        assert!(spend(&mut book, &limits, NOW, 1).is_err());
        assert!(spend(&mut book, &limits, i64::MIN, 1).is_err());
    }

    #[test]
    fn idle_keys_are_dropped_and_too_many_share_one_account() {
        let limits = [per(Period::Day, 100)];
        let mut book = Book::with_room_for(50);
        for day in 0..40 {
            for n in 0..45 {
                let hold = book.reserve(&limits, &format!("{day}/{n}"), NOW + day * DAY, money(1), money(1)).unwrap();
                book.settle(&limits, &hold, money(1));
            }
            assert!(book.len() <= 50, "{}", book.len());
        }
        let mut book = Book::with_room_for(50);
        let mut shared = 0;
        for n in 0..1000 {
            match book.reserve(&limits, &n.to_string(), NOW, money(1), money(60)) {
                Ok(hold) => shared += usize::from(hold.key() == OTHERS),
                Err(refused) => assert!(refused.held && n >= 50),
            }
        }
        assert_eq!((book.len(), shared), (51, 2), "strangers share one limit");
    }

    #[test]
    fn long_keys_are_kept_by_their_digest_and_no_key_is_the_others() {
        let (mut book, limits) = (Book::default(), [per(Period::Total, 100)]);
        let long = "x".repeat(1 << 20);
        let hold = book.reserve(&limits, &long, NOW, money(1), money(1)).unwrap();
        assert!(hold.key().len() < 80 && hold.key().starts_with("sha256:"));
        book.settle(&limits, &hold, money(1));
        assert_eq!(spent(&book, &limits, &long, NOW), 1);
        assert_ne!(book.reserve(&limits, OTHERS, NOW, money(1), money(1)).unwrap().key(), OTHERS);
    }

    #[test]
    fn loaded_sums_count() {
        let limits = [per(Period::Month, 100)];
        let mut book = Book::default();
        book.load("k", Period::Month, Period::Month.start(NOW), money(90));
        book.load("k", Period::Month, Period::Month.start(NOW - 31 * DAY), money(5));
        assert_eq!(spent(&book, &limits, "k", NOW), 90);
        assert!(book.reserve(&limits, "k", NOW, money(11), money(11)).is_err());
    }

    /// Any history of calls that begin, run, end and are given up, with a clock that jumps: what was spent in a period is
    /// never more than its limit and one call's worth, and when all have ended nothing is set aside.
    #[test]
    fn no_history_spends_more_than_the_limit_and_one_call() {
        for seed in 0..200 {
            let mut rng = Rng::with_seed(seed);
            let limits = [per(Period::Day, 1000), per(Period::Week, 3000)];
            let mut book = Book::default();
            let mut open: Vec<(Hold, u64)> = Vec::new();
            let mut sums: HashMap<(Box<str>, Period, i64), u64> = HashMap::new();
            let mut now = NOW;
            for _ in 0..3000 {
                match rng.u8(..) {
                    0..100 => {
                        let key = ["a", "b"][usize::from(rng.bool())];
                        let most = rng.u64(1..300);
                        let least = rng.u64(0..=most);
                        if let Ok(hold) = book.reserve(&limits, key, now, money(least), money(most)) {
                            open.push((hold, rng.u64(least..=most)));
                        }
                    }
                    100..230 if !open.is_empty() => {
                        let (hold, cost) = open.swap_remove(rng.usize(..open.len()));
                        if rng.u8(..) < 60 {
                            book.release(&hold);
                            continue;
                        }
                        book.settle(&limits, &hold, money(cost));
                        for (period, start) in &hold.periods {
                            *sums.entry((hold.key().into(), *period, *start)).or_default() += cost;
                        }
                    }
                    230..240 if !open.is_empty() => {
                        let at = rng.usize(..open.len());
                        let (hold, cost) = &mut open[at];
                        book.running(&limits, hold, money(rng.u64(..=*cost)));
                    }
                    240..254 => now += rng.i64(0..DAY / 4),
                    254 => now -= rng.i64(0..3 * DAY),
                    _ => now += rng.i64(0..20 * DAY),
                }
            }
            for (hold, _) in open {
                book.release(&hold);
            }
            for ((key, period, start), sum) in sums {
                let most = if period == Period::Day { 1000 } else { 3000 };
                assert!(sum <= most + 300, "seed {seed}: {sum} of {key} in the {period:?} from {start}");
            }
            let left = book.keys.values().flatten().all(|s| s.set_aside == money(0) && s.used == money(0));
            assert!(left, "seed {seed}");
        }
    }
}
