//! Sums as a table for a person, as CSV and as JSON.

use serde_json::{Map, Value, json};

use super::cells::csv_text;
use crate::cli::show::safe;
use crate::storage::ledger::report::{By, Sum};

const GIGA: i128 = 1_000_000_000;

/// A table with its totals and what there is to say about it.
pub fn table(by: &[By], sums: &[Sum], unpriced: &[(String, i64)], lost: i64) -> String {
    if sums.is_empty() {
        return "no calls\n".to_owned();
    }
    let mut rows = vec![heads(by, &["calls", "failed", "input", "cached", "output", "cost"])];
    rows.extend(sums.iter().map(|sum| row(sum, sum.names.iter().map(|name| shown(name)).collect())));
    let total = total(sums);
    if sums.len() > 1 {
        let names = (0..by.len()).map(|at| if at == 0 { "total".to_owned() } else { String::new() });
        rows.push(row(&total, names.collect()));
    }
    let mut out = aligned(&rows, by.len());
    let mut say = |word: &str, n: i64, what: &str| {
        if n > 0 {
            out += &format!("{word}: {} {}{what}\n", thousands(n), if n == 1 { "call" } else { "calls" });
        }
    };
    say("estimated", total.estimated, " whose upstreams told no counts");
    say("broke off", total.aborted, ", counted up to there");
    say("missing", lost, " for which there was no room while the disk stood still");
    for (model, calls) in unpriced {
        let model = shown(model);
        say("no price", *calls, &format!(" of {model}, in no cost; `price {model} in … out …` sets one"));
    }
    out
}

pub fn csv(by: &[By], sums: &[Sum]) -> String {
    let mut out = heads(
        by,
        &[
            "calls",
            "failed",
            "estimated",
            "aborted",
            "unpriced",
            "input",
            "cached",
            "cache_write",
            "output",
            "reasoning",
            "cost_usd",
        ],
    )
    .join(",")
        + "\n";
    for sum in sums {
        let mut cells: Vec<String> = sum.names.iter().map(|name| csv_text(name)).collect();
        let numbers = [sum.calls, sum.failed, sum.estimated, sum.aborted, sum.unpriced, sum.input, sum.cached];
        cells.extend(numbers.iter().map(i64::to_string));
        cells.extend([sum.cache_write, sum.output, sum.reasoning].iter().map(i64::to_string));
        cells.push(if is_unknown(sum) { String::new() } else { exact(sum.cost) });
        out += &(cells.join(",") + "\n");
    }
    out
}

pub fn json(by: &[By], sums: &[Sum]) -> String {
    let object = |sum: &Sum| {
        let mut object: Map<String, Value> =
            by.iter().map(By::name).zip(sum.names.iter().cloned().map(Value::from)).collect();
        for (name, n) in [
            ("calls", sum.calls),
            ("failed", sum.failed),
            ("estimated", sum.estimated),
            ("aborted", sum.aborted),
            ("unpriced", sum.unpriced),
            ("input", sum.input),
            ("cached", sum.cached),
            ("cache_write", sum.cache_write),
            ("output", sum.output),
            ("reasoning", sum.reasoning),
        ] {
            object.insert(name.to_owned(), n.into());
        }
        let cost = if is_unknown(sum) {
            Value::Null
        } else {
            exact(sum.cost).parse::<f64>().map_or(Value::Null, |cost| json!(cost))
        };
        object.insert("cost_usd".to_owned(), cost);
        Value::Object(object)
    };
    safe::json(&serde_json::to_string_pretty(&sums.iter().map(object).collect::<Vec<_>>()).unwrap_or_default()) + "\n"
}

fn heads(by: &[By], numbers: &[&str]) -> Vec<String> {
    by.iter().map(By::name).chain(numbers.iter().map(|name| (*name).to_owned())).collect()
}

fn row(sum: &Sum, mut names: Vec<String>) -> Vec<String> {
    names.extend([sum.calls, sum.failed, sum.input, sum.cached, sum.output].map(thousands));
    names.push(match (is_unknown(sum), sum.unpriced) {
        (true, _) => "unpriced".to_owned(),
        (false, 0) => dollars(sum.cost),
        (false, n) => format!("{} + {} unpriced", dollars(sum.cost), thousands(n)),
    });
    names
}

/// Nothing in it has a price: what it cost is not known, and not zero.
fn is_unknown(sum: &Sum) -> bool {
    sum.unpriced > 0 && sum.cost == 0
}

fn total(sums: &[Sum]) -> Sum {
    let add = |f: fn(&Sum) -> i64| sums.iter().map(f).fold(0_i64, i64::saturating_add);
    Sum {
        names: Vec::new(),
        calls: add(|sum| sum.calls),
        failed: add(|sum| sum.failed),
        estimated: add(|sum| sum.estimated),
        aborted: add(|sum| sum.aborted),
        unpriced: add(|sum| sum.unpriced),
        input: add(|sum| sum.input),
        cached: add(|sum| sum.cached),
        cache_write: add(|sum| sum.cache_write),
        output: add(|sum| sum.output),
        reasoning: add(|sum| sum.reasoning),
        cost: sums.iter().map(|sum| sum.cost).sum(),
    }
}

/// Names are strangers' words: nothing in them may move the cursor.
fn shown(name: &str) -> String {
    const LONGEST: usize = 60;
    if name.is_empty() {
        return "-".to_owned();
    }
    let name = safe::line(name);
    if name.chars().count() <= LONGEST {
        return name;
    }
    name.chars().take(LONGEST - 1).chain(['…']).collect()
}

/// Names to the left, numbers to the right.
fn aligned(rows: &[Vec<String>], names: usize) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells =
            row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
                if at < names { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
        let line = cells.collect::<Vec<_>>().join("  ");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn thousands(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if n < 0 { format!("-{out}") } else { out }
}

/// With four digits behind the point, rounded.
fn dollars(nanos: i128) -> String {
    let units = (nanos + 50_000) / 100_000;
    if units == 0 && nanos > 0 {
        return "<$0.0001".to_owned();
    }
    let whole = thousands(i64::try_from(units / 10_000).unwrap_or(i64::MAX));
    format!("${whole}.{:04}", units % 10_000)
}

/// With as many digits as it has.
fn exact(nanos: i128) -> String {
    let text = format!("{}.{:09}", nanos / GIGA, nanos % GIGA);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums() -> Vec<Sum> {
        let sum = |user: &str, model: &str| Sum { names: vec![user.into(), model.into()], ..Sum::default() };
        vec![
            Sum {
                calls: 1_200,
                failed: 3,
                input: 12_345_678,
                cached: 5,
                output: 900,
                cost: 1_234_567_890_000,
                ..sum("ann", "gpt-4o")
            },
            Sum { calls: 2, unpriced: 1, input: 10, cost: 12_000, estimated: 2, ..sum("bob", "\u{1b}[31mred") },
            Sum { calls: 1, unpriced: 1, input: 10, aborted: 1, ..sum("", "house") },
        ]
    }

    #[test]
    fn a_table_tells_what_is_not_known() {
        let by = [By::User, By::Model];
        let unpriced = [("house".to_owned(), 1)];
        let text = table(&by, &sums(), &unpriced, 0);
        let expected = "\
user   model          calls  failed       input  cached  output                      cost
ann    gpt-4o         1,200       3  12,345,678       5     900               $1,234.5679
bob    \\u{1b}[31mred      2       0          10       0       0     <$0.0001 + 1 unpriced
-      house              1       0          10       0       0                  unpriced
total                 1,203       3  12,345,698       5     900  $1,234.5679 + 2 unpriced
estimated: 2 calls whose upstreams told no counts
broke off: 1 call, counted up to there
no price: 1 call of house, in no cost; `price house in … out …` sets one
";
        assert_eq!(text, expected, "\n{text}");
        assert_eq!(table(&by, &[], &[], 0), "no calls\n");
    }

    #[test]
    fn programs_get_exact_numbers() {
        let by = [By::User, By::Model];
        let lines: Vec<String> = csv(&by, &sums()).lines().map(str::to_owned).collect();
        assert_eq!(
            lines[0],
            "user,model,calls,failed,estimated,aborted,unpriced,input,cached,cache_write,output,reasoning,cost_usd"
        );
        assert_eq!(lines[1], "ann,gpt-4o,1200,3,0,0,0,12345678,5,0,900,0,1234.56789");
        assert!(lines[3].ends_with(",0,0,0,"), "{}", lines[3]);
        let value: Value = serde_json::from_str(&json(&by, &sums())).unwrap();
        assert_eq!(value[0]["cost_usd"], 1234.56789);
        assert_eq!((&value[1]["model"], &value[1]["unpriced"]), (&json!("\u{1b}[31mred"), &json!(1)));
        assert_eq!(value[2]["cost_usd"], Value::Null);
    }
}
