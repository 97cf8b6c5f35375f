//! Questions to a ledger: sums by user, model, day and so on, and single calls.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use std::path::Path;

use super::schema::{self, Fault};

/// By what sums are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    User,
    Team,
    App,
    Model,
    Endpoint,
    Route,
    Upstream,
    Day,
    Hour,
    /// A label of this name.
    Tag(String),
}

impl By {
    pub const NAMES: [&'static str; 10] =
        ["user", "team", "app", "model", "endpoint", "route", "upstream", "day", "hour", "tag.NAME"];

    /// From its name; `key` is another word for the user.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "user" | "key" => Self::User,
            "team" => Self::Team,
            "app" => Self::App,
            "model" => Self::Model,
            "endpoint" => Self::Endpoint,
            "route" => Self::Route,
            "upstream" => Self::Upstream,
            "day" => Self::Day,
            "hour" => Self::Hour,
            name => Self::Tag(name.strip_prefix("tag.").filter(|tag| !tag.is_empty())?.to_owned()),
        })
    }

    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::User => "user".into(),
            Self::Team => "team".into(),
            Self::App => "app".into(),
            Self::Model => "model".into(),
            Self::Endpoint => "endpoint".into(),
            Self::Route => "route".into(),
            Self::Upstream => "upstream".into(),
            Self::Day => "day".into(),
            Self::Hour => "hour".into(),
            Self::Tag(name) => format!("tag.{name}"),
        }
    }

    /// Whether the sums of days tell it, which are kept for ever.
    fn in_days(&self) -> bool {
        !matches!(self, Self::Hour | Self::Tag(_))
    }

    /// The column or expression, with `?` for the name of a tag.
    fn of_calls(&self) -> &'static str {
        match self {
            Self::User => "ifnull(user, '')",
            Self::Team => "ifnull(team, '')",
            Self::App => "ifnull(app, '')",
            // As in the sums of days: what no upstream took for a model is whatever somebody typed.
            Self::Model => "iif(status >= 400 AND input + output = 0, '', coalesce(model, served, ''))",
            Self::Endpoint => "endpoint",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Day => "strftime('%Y-%m-%d', at / 1000, 'unixepoch')",
            Self::Hour => "strftime('%Y-%m-%dT%H:00Z', at / 1000, 'unixepoch')",
            Self::Tag(_) => "ifnull((SELECT value FROM json_each(tags) WHERE key = ?), '')",
        }
    }
}

/// Which calls, by what.
#[derive(Debug, Clone, Default)]
pub struct Question {
    pub by: Vec<By>,
    /// Unix milliseconds; calls that came then or later.
    pub since: Option<i64>,
    /// Unix milliseconds; calls that came before.
    pub until: Option<i64>,
}

/// Sums of the calls that have these things in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    /// One a [`By`] of the question; empty where a call has none.
    pub names: Vec<String>,
    pub calls: i64,
    /// Answered with an error.
    pub failed: i64,
    /// Counts that are ours, not the upstream's.
    pub estimated: i64,
    /// Cut before their end.
    pub aborted: i64,
    /// Took tokens of a model whose price nobody knows: not in `cost`.
    pub unpriced: i64,
    pub input: i64,
    pub cached: i64,
    pub cache_write: i64,
    pub output: i64,
    pub reasoning: i64,
    /// Nanodollars.
    pub cost: i128,
}

/// A ledger that is read.
pub struct Reader(Connection);

impl Reader {
    pub fn open(path: &Path) -> Result<Self, Fault> {
        schema::open_to_read(path).map(Self)
    }

    /// The sums, the dearest first; those by day or hour in the order of time.
    pub fn sums(&self, question: &Question) -> Result<Vec<Sum>, Fault> {
        let whole_days = |at: Option<i64>| at.is_none_or(|at| at.rem_euclid(DAY) == 0);
        let from_days = question.by.iter().all(By::in_days) && whole_days(question.since) && whole_days(question.until);
        let (text, values) = if from_days { of_days(question) } else { of_calls(question) };
        let mut statement = self.0.prepare(&text)?;
        let names = question.by.len();
        let rows = statement.query_map(params_from_iter(values), |row| {
            let number = |at: usize| row.get::<_, Option<i64>>(names + at).map(Option::unwrap_or_default);
            Ok(Sum {
                names: (0..names).map(|at| row.get(at)).collect::<Result<_, _>>()?,
                calls: number(0)?,
                failed: number(1)?,
                estimated: number(2)?,
                aborted: number(3)?,
                unpriced: number(4)?,
                input: number(5)?,
                cached: number(6)?,
                cache_write: number(7)?,
                output: number(8)?,
                reasoning: number(9)?,
                cost: i128::from(number(10)?) * GIGA + i128::from(number(11)?),
            })
        })?;
        let mut sums: Vec<Sum> = rows.collect::<Result<_, _>>()?;
        let in_time = question.by.iter().any(|by| matches!(by, By::Day | By::Hour));
        if in_time {
            sums.sort_by(|a, b| a.names.cmp(&b.names));
        } else {
            let weight = |sum: &Sum| (sum.cost, sum.input.saturating_add(sum.output), sum.calls);
            sums.sort_by(|a, b| weight(b).cmp(&weight(a)).then_with(|| a.names.cmp(&b.names)));
        }
        // A sum of nothing by nothing is a line of zeros.
        sums.retain(|sum| sum.calls > 0);
        Ok(sums)
    }

    /// Models that took tokens and have no price, with their calls.
    pub fn unpriced(&self, question: &Question) -> Result<Vec<(String, i64)>, Fault> {
        let question = Question { by: vec![By::Model], ..question.clone() };
        let sums = self.sums(&question)?.into_iter().filter(|sum| sum.unpriced > 0);
        Ok(sums.map(|mut sum| (sum.names.pop().unwrap_or_default(), sum.unpriced)).collect())
    }

    /// Names of the columns of a call.
    pub fn call_columns(&self) -> Result<Vec<String>, Fault> {
        let statement = self.0.prepare("SELECT * FROM calls LIMIT 0")?;
        Ok(statement.column_names().map(str::to_owned).collect())
    }

    /// Hands every call to `each`, oldest first, until it answers false.
    pub fn calls(&self, question: &Question, mut each: impl FnMut(&[Value]) -> bool) -> Result<(), Fault> {
        let mut statement = self
            .0
            .prepare("SELECT * FROM calls WHERE at >= ifnull(?, at) AND at < ifnull(?, at + 1) ORDER BY at, id")?;
        let columns = statement.column_count();
        let mut rows = statement.query((question.since, question.until))?;
        while let Some(row) = rows.next()? {
            let values: Vec<Value> = (0..columns).map(|at| row.get(at)).collect::<Result<_, _>>()?;
            if !each(&values) {
                break;
            }
        }
        Ok(())
    }

    /// Calls that were never kept because the disk stood still.
    pub fn lost(&self) -> i64 {
        let lost = "SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'calls_lost'";
        self.0.query_row(lost, [], |row| row.get(0)).unwrap_or(0)
    }
}

/// Milliseconds.
const DAY: i64 = 86_400_000;
const GIGA: i128 = 1_000_000_000;

/// Dollars and the rest apart: their sums cannot overflow.
const COST: &str = "sum(cost / 1000000000), sum(cost % 1000000000)";

fn of_days(question: &Question) -> (String, Vec<Value>) {
    let names: Vec<String> = question.by.iter().map(By::name).collect();
    let mut values = Vec::new();
    let mut when = Vec::new();
    for (at, compare) in [(question.since, ">="), (question.until, "<")] {
        if let Some(at) = at {
            when.push(format!("day {compare} date(?, 'unixepoch')"));
            values.push(Value::from(at / 1000));
        }
    }
    let sums = "sum(calls), sum(failed), sum(estimated), sum(aborted), sum(unpriced), sum(input), sum(cached), \
                sum(cache_write), sum(output), sum(reasoning)";
    (select(&names, &format!("{sums}, {COST}"), "days", &when), values)
}

fn of_calls(question: &Question) -> (String, Vec<Value>) {
    let names: Vec<String> = question.by.iter().map(|by| by.of_calls().to_owned()).collect();
    let mut values: Vec<Value> = question
        .by
        .iter()
        .filter_map(|by| if let By::Tag(name) = by { Some(Value::from(name.clone())) } else { None })
        .collect();
    let mut when = Vec::new();
    for (at, compare) in [(question.since, ">="), (question.until, "<")] {
        if let Some(at) = at {
            when.push(format!("at {compare} ?"));
            values.push(Value::from(at));
        }
    }
    let sums = "count(*), sum(status >= 400), sum(certainty = 'estimated'), sum(certainty = 'aborted'), \
                sum(cost IS NULL AND input + output > 0), sum(input), sum(cached), sum(cache_write + cache_write_1h), \
                sum(output), sum(reasoning)";
    (select(&names, &format!("{sums}, {COST}"), "calls", &when), values)
}

fn select(names: &[String], sums: &str, table: &str, when: &[String]) -> String {
    let named: String = names.iter().map(|name| format!("{name}, ")).collect();
    let when = if when.is_empty() { String::new() } else { format!(" WHERE {}", when.join(" AND ")) };
    let group: Vec<String> = (1..=names.len()).map(|n| n.to_string()).collect();
    let group = if group.is_empty() { String::new() } else { format!(" GROUP BY {}", group.join(", ")) };
    format!("SELECT {named}{sums} FROM {table}{when}{group}")
}
