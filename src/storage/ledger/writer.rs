//! The thread that writes: one transaction for the calls of a flush interval, with what budgets were charged for them and
//! the sums of the day.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use time::OffsetDateTime;

use super::Shared;
use super::queue::{Owed, Work};
use super::row::{Charge, Row, count, cut, millis};
use super::schema::{self, Fault};
use crate::llm::usage::Certainty;

/// How long until what failed is tried again, and at most.
const RETRY: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 1000 });
const RETRY_AT_MOST: Duration = Duration::from_secs(30);
/// How often a lasting failure is told.
const TELL_AGAIN: Duration = Duration::from_mins(1);
/// How often what is too old is removed, and how many calls in one transaction.
const CLEAN: Duration = Duration::from_mins(10);
const CLEANED_AT_ONCE: usize = 10_000;
/// Sums of budgets are kept for so long after their period began, and no shorter than the calls.
const SPEND_KEPT: Duration = Duration::from_hours(400 * 24);
/// Sums stop here, short of what an integer holds: SQLite would go on in floating point.
const MOST: i64 = 4_000_000_000_000_000_000;

pub fn run(shared: &Shared, first: Option<Connection>) {
    let mut writer =
        Writer { shared, connection: first, file: identity(&shared.path), failing: None, told: None, cleaned: None };
    loop {
        let settings = *shared.settings();
        let Some(work) = shared.queue.next(settings.flush, CLEAN) else {
            writer.clean();
            continue;
        };
        writer.write(&work);
        shared.queue.finish(work.ticket);
        if work.closed {
            // Closing takes the log over into the file, which is then one file again.
            drop(writer.connection.take());
            return shared.queue.end();
        }
        if writer.cleaned.is_none_or(|at| at.elapsed() >= CLEAN) {
            writer.clean();
        }
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    connection: Option<Connection>,
    /// Device and inode of the file that is open.
    file: Option<(u64, u64)>,
    /// Since when nothing can be written.
    failing: Option<Instant>,
    told: Option<Instant>,
    cleaned: Option<Instant>,
}

impl Writer<'_> {
    /// Writes, and tries again until it is written; at the end of the ledger once more only.
    fn write(&mut self, work: &Work) {
        let mut pause = RETRY;
        loop {
            match self.try_write(work) {
                Ok(()) => return self.recovered(),
                Err(Fault::Row(why)) => return self.one_by_one(work, &why),
                Err(Fault::Corrupt(why)) => self.set_aside(&why),
                Err(Fault::Passing(why) | Fault::Refused(why)) => {
                    // What holds it open may be what fails.
                    self.connection = None;
                    self.failed(&why, work.rows.len());
                }
            }
            if work.closed || !self.shared.queue.pause(pause) {
                if self.try_write(work).is_err() {
                    self.lose(work, "the program ends");
                }
                return;
            }
            pause = (pause * 2).min(RETRY_AT_MOST);
        }
    }

    fn try_write(&mut self, work: &Work) -> Result<(), Fault> {
        self.transaction(|transaction| {
            insert(transaction, &work.rows)?;
            pay(transaction, &work.owed)
        })
    }

    fn transaction(&mut self, f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> Result<(), Fault> {
        if identity(&self.shared.path) != self.file
            && let Some(old) = self.connection.take()
        {
            // Closing does not take the log of a file over that was moved.
            let _ = old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            // Closed first: what belongs to the old file stands under names that the new one takes.
            drop(old);
            tracing::warn!(ledger = %self.shared.path.display(), "the ledger was removed or moved away: a new one begins");
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => {
                let opened = empty.insert(schema::open(&self.shared.path)?);
                self.file = identity(&self.shared.path);
                opened
            }
        };
        if let Some(pages) = self.shared.settings().max_pages {
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        f(&transaction)?;
        transaction.commit()?;
        Ok(())
    }

    /// Something in the batch is refused by the database: the rest of it is written.
    fn one_by_one(&mut self, work: &Work, why: &str) {
        tracing::error!(ledger = %self.shared.path.display(), error = why, "a call cannot be written to the ledger");
        for row in &work.rows {
            let row = std::slice::from_ref(row);
            if let Err(fault) = self.transaction(|transaction| insert(transaction, row)) {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                tracing::error!(ledger = %self.shared.path.display(), error = %fault, "a call is missing from the ledger");
            }
        }
        if let Err(fault) = self.transaction(|transaction| pay(transaction, &work.owed)) {
            tracing::error!(ledger = %self.shared.path.display(), error = %fault, "charges are missing from the ledger");
        }
    }

    fn set_aside(&mut self, why: &str) {
        self.connection = None;
        match set_aside(&self.shared.path, why) {
            Ok(connection) => {
                self.connection = Some(connection);
                self.file = identity(&self.shared.path);
            }
            Err(fault) => self.failed(&fault.to_string(), 0),
        }
    }

    fn failed(&mut self, why: &str, waiting: usize) {
        let now = Instant::now();
        let since = *self.failing.get_or_insert(now);
        *self.shared.failing() = Some(why.to_owned());
        if self.told.is_none_or(|told| now.duration_since(told) >= TELL_AGAIN) {
            self.told = Some(now);
            tracing::error!(
                ledger = %self.shared.path.display(),
                error = why,
                waiting,
                seconds = since.elapsed().as_secs(),
                "calls cannot be written to the ledger; requests go on, and calls are kept in memory until there is no room"
            );
        }
    }

    fn recovered(&mut self) {
        let Some(since) = self.failing.take() else { return };
        *self.shared.failing() = None;
        self.told = None;
        let lost = self.shared.lost.load(Ordering::Relaxed);
        let path = self.shared.path.display();
        tracing::info!(ledger = %path, seconds = since.elapsed().as_secs(), lost, "the ledger is written again");
    }

    fn lose(&self, work: &Work, why: &str) {
        let calls = work.rows.len();
        if calls > 0 {
            self.shared.lost.fetch_add(calls as u64, Ordering::Relaxed);
            tracing::error!(ledger = %self.shared.path.display(), calls, "calls are missing from the ledger: {why}");
        }
    }

    /// Removes what is older than it is to be kept; the sums of the days stay.
    fn clean(&mut self) {
        self.cleaned = Some(Instant::now());
        let Some(retention) = self.shared.settings().retention else { return };
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let before = |kept: Duration| now.saturating_sub_unsigned(kept.as_secs());
        loop {
            let mut removed = 0;
            let result = self.transaction(|transaction| {
                let old = format!("SELECT id FROM calls WHERE at < ? ORDER BY at LIMIT {CLEANED_AT_ONCE}");
                let at = before(retention).saturating_mul(1000);
                transaction.execute(&format!("DELETE FROM charges WHERE call IN ({old})"), [at])?;
                removed = transaction.execute(&format!("DELETE FROM calls WHERE id IN ({old})"), [at])?;
                let kept = before(retention.max(SPEND_KEPT));
                transaction.execute("DELETE FROM spend WHERE per <> 'total' AND period < ?", [kept])?;
                transaction
                    .execute("DELETE FROM charges WHERE call IS NULL AND per <> 'total' AND period < ?", [kept])?;
                Ok(())
            });
            if let Err(fault) = result {
                return tracing::warn!(ledger = %self.shared.path.display(), error = %fault, "old calls cannot be removed");
            }
            if removed < CLEANED_AT_ONCE {
                break;
            }
        }
        if let Some(connection) = &self.connection {
            let _ = connection.execute_batch("PRAGMA incremental_vacuum(2000)");
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Opens the ledger; one that is broken is set aside, and a new one made in its place.
pub fn open(path: &Path) -> Result<Connection, Fault> {
    match schema::open(path) {
        Err(Fault::Corrupt(why)) => set_aside(path, &why),
        other => other,
    }
}

fn set_aside(path: &Path, why: &str) -> Result<Connection, Fault> {
    let aside = schema::set_aside(path, OffsetDateTime::now_utc())?;
    let connection = schema::open(path)?;
    let sums = schema::take_over_spend(&aside, &connection);
    tracing::error!(
        ledger = %path.display(),
        error = why,
        kept = %aside.display(),
        budget_sums_taken_over = sums,
        "the ledger is broken: it is kept under another name, and a new one begins"
    );
    Ok(connection)
}

fn insert(transaction: &Transaction<'_>, rows: &[Box<Row>]) -> rusqlite::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut call = transaction.prepare(
        "INSERT INTO calls (at, request_id, user, team, app, tags, model, served, endpoint, route, upstream, status, stream, \
         certainty, input, cached, cache_write, cache_write_1h, audio_input, output, reasoning, audio_output, service_tier, \
         cost, first_byte_ms, duration_ms, retries) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    let mut charged = transaction.prepare("INSERT INTO charges VALUES (?, ?, ?, ?, ?, ?, ?)")?;
    let mut spent: HashMap<(&str, &str, &str, i64), (i128, i128)> = HashMap::new();
    let mut days: HashMap<Day<'_>, Sums> = HashMap::new();
    for row in rows {
        let t = &row.tokens;
        call.execute(params![
            row.unix_ms,
            cut(&row.request_id),
            row.user.as_deref().map(cut),
            row.team.as_deref().map(cut),
            row.app.as_deref().map(cut),
            tags(row),
            row.model.as_deref().map(cut),
            row.served.as_deref().map(cut),
            row.endpoint,
            cut(&row.route),
            cut(&row.upstream),
            row.status,
            row.stream,
            row.certainty.word(),
            count(t.input),
            count(t.cached),
            count(t.cache_write),
            count(t.cache_write_1h),
            count(t.audio_input),
            count(t.output),
            count(t.reasoning),
            count(t.audio_output),
            row.service_tier.as_deref().map(cut),
            row.cost.map(|cost| cost.0),
            row.first_byte.map(millis),
            millis(row.duration),
            row.retries,
        ])?;
        let id = transaction.last_insert_rowid();
        for charge in &row.charges {
            let Charge { budget, key, per, period, cost, tokens } = charge;
            charged.execute(params![id, budget, key, per, period, cost.0, count(*tokens)])?;
            let sum = spent.entry((budget, key, per, *period)).or_default();
            sum.0 += i128::from(cost.0);
            sum.1 += i128::from(count(*tokens));
        }
        days.entry(Day::of(row)).or_default().add(row);
    }
    for ((budget, key, per, period), (cost, tokens)) in spent {
        spend(transaction, budget, key, per, period, cost, tokens)?;
    }
    roll_up(transaction, days)
}

/// Charges of calls that are not kept.
fn pay(transaction: &Transaction<'_>, owed: &Owed) -> rusqlite::Result<()> {
    for ((budget, key, per, period), (cost, tokens)) in &owed.sums {
        let (cost_, tokens_) = (bounded(*cost), bounded(*tokens));
        let charge = "INSERT INTO charges VALUES (NULL, ?, ?, ?, ?, ?, ?)";
        transaction.execute(charge, params![budget, key, per, period, cost_, tokens_])?;
        spend(transaction, budget, key, per, *period, *cost, *tokens)?;
    }
    if owed.calls > 0 {
        let lost = "INSERT INTO meta VALUES ('calls_lost', ?) ON CONFLICT DO UPDATE SET value = value + excluded.value";
        transaction.execute(lost, [i64::try_from(owed.calls).unwrap_or(i64::MAX)])?;
    }
    Ok(())
}

fn spend(
    transaction: &Transaction<'_>,
    budget: &str,
    key: &str,
    per: &str,
    period: i64,
    cost: i128,
    tokens: i128,
) -> rusqlite::Result<()> {
    let upsert = format!(
        "INSERT INTO spend VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET \
         cost = min(cost + excluded.cost, {MOST}), tokens = min(tokens + excluded.tokens, {MOST})"
    );
    transaction.execute(&upsert, params![budget, key, per, period, bounded(cost), bounded(tokens)]).map(drop)
}

fn bounded(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(MOST).min(MOST)
}

fn tags(row: &Row) -> Option<String> {
    if row.tags.is_empty() {
        return None;
    }
    let tags = row.tags.iter().map(|(name, value)| (cut(name).to_owned(), cut(value).into()));
    serde_json::to_string(&tags.collect::<serde_json::Map<String, serde_json::Value>>()).ok()
}

/// What a sum of a day is of. Tags are not in it: there may be as many of them as calls.
#[derive(PartialEq, Eq, Hash)]
struct Day<'a> {
    /// Days since 1970.
    day: i64,
    user: &'a str,
    team: &'a str,
    app: &'a str,
    model: &'a str,
    endpoint: &'static str,
    route: &'a str,
    upstream: &'a str,
}

impl<'a> Day<'a> {
    fn of(row: &'a Row) -> Self {
        let text = |text: &'a Option<String>| text.as_deref().map_or("", cut);
        // What no upstream took for a model is whatever somebody typed.
        let failed = row.status >= 400 && row.tokens.total() == 0;
        Self {
            day: row.unix_ms.div_euclid(86_400_000),
            user: text(&row.user),
            team: text(&row.team),
            app: text(&row.app),
            model: if failed { "" } else { row.model.as_deref().or(row.served.as_deref()).map_or("", cut) },
            endpoint: row.endpoint,
            route: cut(&row.route),
            upstream: cut(&row.upstream),
        }
    }
}

#[derive(Default)]
struct Sums {
    calls: i64,
    failed: i64,
    estimated: i64,
    aborted: i64,
    unpriced: i64,
    input: i64,
    cached: i64,
    cache_write: i64,
    output: i64,
    reasoning: i64,
    cost: i128,
}

impl Sums {
    fn add(&mut self, row: &Row) {
        let t = &row.tokens;
        self.calls += 1;
        self.failed += i64::from(row.status >= 400);
        self.estimated += i64::from(row.certainty == Certainty::Estimated);
        self.aborted += i64::from(row.certainty == Certainty::Aborted);
        self.unpriced += i64::from(row.cost.is_none() && t.total() > 0);
        self.input += count(t.input);
        self.cached += count(t.cached);
        self.cache_write += count(t.cache_write) + count(t.cache_write_1h);
        self.output += count(t.output);
        self.reasoning += count(t.reasoning);
        self.cost += i128::from(row.cost.unwrap_or_default().0);
    }
}

fn roll_up(transaction: &Transaction<'_>, days: HashMap<Day<'_>, Sums>) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare(&format!(
        "INSERT INTO days VALUES (date(? * 86400, 'unixepoch'), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, failed = failed + excluded.failed, \
         estimated = estimated + excluded.estimated, aborted = aborted + excluded.aborted, \
         unpriced = unpriced + excluded.unpriced, input = input + excluded.input, cached = cached + excluded.cached, \
         cache_write = cache_write + excluded.cache_write, output = output + excluded.output, \
         reasoning = reasoning + excluded.reasoning, cost = min(cost + excluded.cost, {MOST})"
    ))?;
    for (day, sums) in days {
        upsert.execute(params![
            // A clock beyond the calendar of SQLite has no day.
            day.day.clamp(-719_162, 2_932_896),
            day.user,
            day.team,
            day.app,
            day.model,
            day.endpoint,
            day.route,
            day.upstream,
            sums.calls,
            sums.failed,
            sums.estimated,
            sums.aborted,
            sums.unpriced,
            sums.input,
            sums.cached,
            sums.cache_write,
            sums.output,
            sums.reasoning,
            bounded(sums.cost),
        ])?;
    }
    Ok(())
}
