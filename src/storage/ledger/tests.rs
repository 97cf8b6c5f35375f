//! What the ledger promises: sums that agree, nothing lost but what is said, no file of others touched.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use super::report::{By, Question, Reader};
use super::row::testing::{charge, row};
use super::*;
use crate::llm::usage::{Certainty, Tokens};

const LONG: Duration = Duration::from_secs(20);
const DAY: i64 = 1_795_219_200;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("usage.db");
    (folder, path)
}

/// Written when asked to only.
fn slow() -> Settings {
    Settings { flush: Duration::from_hours(1), ..Settings::default() }
}

fn numbers(path: &Path, question: &str) -> Vec<i64> {
    let connection = schema::open_to_read(path).unwrap();
    let mut statement = connection.prepare(question).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn calls_charges_spend_and_days_agree() {
    let (_folder, path) = folder();
    let ledger = Ledger::open(&path, slow()).unwrap();
    for n in 0..10 {
        let mut call = row(if n % 2 == 0 { "ann" } else { "bob" }, "gpt-4o", Some(1_000 + n));
        call.charges = vec![charge("ann", 1_000 + n), charge("all", 1_000 + n)];
        ledger.record(call);
    }
    assert_eq!(numbers(&path, "SELECT count(*) FROM calls"), [0], "nothing is written before it is due");
    let spent = ledger.spent("team", DAY).unwrap();
    let find = |key: &str| spent.iter().find(|sum| sum.key == key).map(|sum| (sum.cost.0, sum.tokens, sum.per.clone()));
    assert_eq!(find("ann"), Some((10_045, 1_100, "day".into())));
    assert_eq!(find("all"), find("ann"));
    assert_eq!(ledger.spent("team", DAY + 1).unwrap(), []);
    assert_eq!(ledger.spent("other", 0).unwrap(), []);
    assert_eq!(numbers(&path, "SELECT sum(cost) FROM charges GROUP BY key"), [10_045, 10_045]);
    assert_eq!(numbers(&path, "SELECT sum(cost) FROM calls"), [10_045]);
    assert_eq!(numbers(&path, "SELECT sum(cost) FROM days WHERE day = '2026-11-21'"), [10_045]);
    assert_eq!(numbers(&path, "SELECT calls FROM days ORDER BY user"), [5, 5]);
    // What is opened anew goes on from there, whoever held it before.
    let again = Ledger::open(&path, Settings::default()).unwrap();
    assert!(Arc::ptr_eq(&ledger, &again));
    drop((ledger, again));
    let again = Ledger::open(&path, slow()).unwrap();
    again.record(Row { charges: vec![charge("ann", 5)], ..row("ann", "gpt-4o", Some(5)) });
    assert_eq!(again.spent("team", 0).unwrap().iter().map(|sum| sum.cost.0).max(), Some(10_050));
}

#[test]
fn what_was_recorded_is_written_when_the_last_lets_go() {
    let (_folder, path) = folder();
    let ledger = Ledger::open(&path, slow()).unwrap();
    let shared = Arc::downgrade(&ledger.shared);
    ledger.record(row("ann", "gpt-4o", Some(1)));
    drop(ledger);
    let began = Instant::now();
    while shared.strong_count() > 0 && began.elapsed() < LONG {
        std::thread::yield_now();
    }
    assert!(!path.with_extension("db-wal").exists(), "it is one file again");
    assert_eq!(numbers(&path, "SELECT count(*) FROM calls"), [1]);
}

#[test]
fn a_full_disk_costs_nothing_but_time() {
    let (_folder, path) = folder();
    let ledger = Ledger::open(&path, slow()).unwrap();
    ledger.record(row("ann", "gpt-4o", Some(1)));
    assert!(ledger.flush(LONG));
    let pages = u32::try_from(numbers(&path, "PRAGMA page_count")[0]).unwrap();
    ledger.shared.settings().max_pages = Some(pages);
    for n in 0..1_000 {
        let route = format!("{n}{}", "x".repeat(400));
        ledger.record(Row { route, charges: vec![charge("ann", 2)], ..row("ann", "gpt-4o", Some(2)) });
    }
    assert!(!ledger.flush(Duration::from_millis(200)));
    let status = ledger.status();
    assert!(status.error.as_deref().is_some_and(|error| error.contains("full")), "{status:?}");
    assert_eq!(numbers(&path, "SELECT count(*) FROM calls"), [1], "all of a batch or nothing");
    ledger.shared.settings().max_pages = Some(1_000_000);
    assert!(ledger.flush(LONG));
    assert_eq!(numbers(&path, "SELECT count(*) FROM calls"), [1_001]);
    assert_eq!(ledger.status(), LedgerStatus { path: path.display().to_string(), error: None, lost: 0 });
    assert_eq!(ledger.spent("team", 0).unwrap()[0].cost, Nano(2_000));
}

#[test]
fn a_broken_ledger_is_kept_and_a_new_one_begun() {
    let (folder, path) = folder();
    let ledger = Ledger::open(&path, slow()).unwrap();
    for n in 0..500 {
        let charges = vec![charge("ann", 2)];
        ledger.record(Row { route: format!("{n}{}", "x".repeat(400)), charges, ..row("ann", "m", Some(2)) });
    }
    assert!(ledger.flush(LONG));
    let shared = Arc::downgrade(&ledger.shared);
    drop(ledger);
    while shared.strong_count() > 0 {
        std::thread::yield_now();
    }
    // The pages behind the first few, where the many calls are; what budgets have spent stands before them.
    let size = path.metadata().unwrap().len();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0xa5; 4096 * 20], size - 4096 * 40).unwrap();
    drop(file);
    let ledger = Ledger::open(&path, slow()).unwrap();
    let kept: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("usage.db.corrupt-") && name.ends_with('Z'))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(numbers(&path, "SELECT count(*) FROM calls"), [0]);
    // Budgets go on where they were.
    assert_eq!(ledger.spent("team", 0).unwrap()[0].cost, Nano(1_000));
    ledger.record(row("ann", "m", Some(2)));
    assert!(ledger.flush(LONG));
    assert_eq!(numbers(&path, "SELECT count(*) FROM calls"), [1]);
}

#[test]
fn a_ledger_that_is_moved_away_is_begun_anew() {
    let (folder, path) = folder();
    let ledger = Ledger::open(&path, slow()).unwrap();
    ledger.record(row("ann", "m", Some(1)));
    assert!(ledger.flush(LONG));
    let moved = folder.path().join("november.db");
    std::fs::rename(&path, &moved).unwrap();
    ledger.record(row("bob", "m", Some(2)));
    ledger.record(row("bob", "m", Some(2)));
    assert!(ledger.flush(LONG));
    assert_eq!(numbers(&path, "SELECT count(*) FROM calls"), [2]);
    assert_eq!(numbers(&moved, "SELECT count(*) FROM calls"), [1]);
    std::fs::remove_file(&path).unwrap();
    ledger.record(row("bob", "m", Some(2)));
    assert!(ledger.flush(LONG));
    assert_eq!(numbers(&path, "SELECT count(*) FROM calls"), [1]);
}

#[test]
fn old_calls_go_and_the_sums_of_their_days_stay() {
    let (_folder, path) = folder();
    let ledger = Ledger::open(&path, Settings { retention: Some(Duration::from_hours(1)), ..slow() }).unwrap();
    let now = time::OffsetDateTime::now_utc().unix_timestamp() * 1000;
    ledger.record(Row { charges: vec![charge("ann", 7)], ..row("ann", "m", Some(7)) });
    ledger.record(Row { unix_ms: now, charges: vec![charge("ann", 8)], ..row("ann", "m", Some(8)) });
    assert!(ledger.flush(LONG));
    let began = Instant::now();
    while numbers(&path, "SELECT count(*) FROM calls") != [1] && began.elapsed() < LONG {
        std::thread::yield_now();
    }
    assert_eq!(numbers(&path, "SELECT cost FROM calls"), [8]);
    assert_eq!(numbers(&path, "SELECT cost FROM charges"), [8]);
    assert_eq!(numbers(&path, "SELECT cost FROM days ORDER BY day")[0], 7);
    assert_eq!(numbers(&path, "SELECT cost FROM spend"), [15]);
}

#[test]
fn absurd_calls_spoil_nothing() {
    let (_folder, path) = folder();
    let ledger = Ledger::open(&path, slow()).unwrap();
    let huge = "k".repeat(1 << 20);
    for unix_ms in [i64::MIN, i64::MAX, 0] {
        ledger.record(Row {
            unix_ms,
            request_id: huge.clone(),
            model: Some(huge.clone()),
            tags: vec![(huge.clone(), "é\0\u{1b}".repeat(1_000))],
            tokens: Tokens { input: u64::MAX, output: u64::MAX, ..Tokens::default() },
            cost: Some(Nano::MOST),
            duration: Duration::MAX,
            charges: vec![Charge { tokens: u64::MAX, ..charge("k", i64::MAX) }; 20],
            ..row("", "m", None)
        });
    }
    assert!(ledger.flush(LONG));
    assert_eq!(ledger.status().lost, 0);
    assert_eq!(numbers(&path, "SELECT max(length(model)) FROM calls"), [512]);
    assert_eq!(numbers(&path, "SELECT cost FROM spend"), [4_000_000_000_000_000_000]);
    let sums = Reader::open(&path).unwrap().sums(&Question::default()).unwrap();
    assert_eq!((sums[0].calls, sums[0].cost), (3, 3 * i128::from(Nano::MOST.0)));
}

#[test]
fn questions_are_answered_from_days_and_from_calls() {
    let (_folder, path) = folder();
    let ledger = Ledger::open(&path, slow()).unwrap();
    let at = DAY * 1000;
    let call =
        |hours: i64, user: &str, model: &str, cost| Row { unix_ms: at + hours * 3_600_000, ..row(user, model, cost) };
    let tagged = |project: &str, row: Row| Row { tags: vec![("project".into(), project.into())], ..row };
    ledger.record(tagged("x", call(0, "ann", "gpt-4o", Some(1_500_000_000))));
    ledger.record(tagged("y", call(1, "ann", "gpt-4o", Some(500_000_000))));
    ledger.record(tagged("x", call(25, "bob", "house", None)));
    ledger.record(Row {
        status: 404,
        tokens: Tokens::default(),
        cost: None,
        ..call(2, "bob", "\u{1b}[31mtyped", None)
    });
    ledger.record(Row { certainty: Certainty::Aborted, ..call(3, "", "gpt-4o", Some(1)) });
    assert!(ledger.flush(LONG));
    let reader = Reader::open(&path).unwrap();
    let ask = |by: &[&str], since: Option<i64>, until: Option<i64>| {
        let by = by.iter().map(|name| By::named(name).unwrap()).collect();
        let sums = reader.sums(&Question { by, since, until }).unwrap();
        sums.into_iter().map(|sum| (sum.names.join("/"), sum.calls, sum.unpriced, sum.cost)).collect::<Vec<_>>()
    };
    let named = |name: &str, calls, unpriced, cost| (name.to_owned(), calls, unpriced, cost);
    let by_user = [named("ann", 2, 0, 2_000_000_000), named("", 1, 0, 1), named("bob", 2, 1, 0)];
    assert_eq!(ask(&["user"], None, None), by_user);
    // From single calls, the same.
    assert_eq!(ask(&["user"], Some(at - 1), None), by_user);
    let models = [named("gpt-4o", 3, 0, 2_000_000_001), named("house", 1, 1, 0), named("", 1, 0, 0)];
    assert_eq!(ask(&["model"], None, None), models);
    assert_eq!(ask(&["model"], Some(at - 1), None), models);
    assert_eq!(
        ask(&["day"], None, None).iter().map(|line| line.0.as_str()).collect::<Vec<_>>(),
        ["2026-11-21", "2026-11-22"]
    );
    assert_eq!(ask(&["day", "user"], Some(at), Some(at + 86_400_000)).len(), 3);
    assert_eq!(
        ask(&["tag.project"], None, None),
        [named("x", 2, 1, 1_500_000_000), named("y", 1, 0, 500_000_000), named("", 2, 0, 1)]
    );
    assert_eq!(ask(&["hour"], Some(at + 1), Some(at + 3_600_001)), [named("2026-11-21T01:00Z", 1, 0, 500_000_000)]);
    assert_eq!(ask(&[], Some(at + 864_000_000), None), []);
    assert_eq!(reader.unpriced(&Question::default()).unwrap(), [("house".to_owned(), 1)]);
    let mut ids = Vec::new();
    reader
        .calls(&Question { since: Some(at + 1), ..Question::default() }, |call| {
            ids.push(call[0].clone());
            ids.len() < 2
        })
        .unwrap();
    assert_eq!(ids.len(), 2);
    assert_eq!(reader.call_columns().unwrap()[..3], ["id", "at", "request_id"]);
}
