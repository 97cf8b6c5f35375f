//! Conditions in words: `spend over 1h > 3x baseline 7d`.

use super::seconds;
use crate::llm::price::Nano;
use crate::state::baseline::{Bar, MOST_WINDOWS};

/// When an alert is due.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// So much of something within a window.
    Much {
        what: What,
        window: u64,
        bar: Bar,
    },
    /// A call made a budget reach this share of a limit.
    Budget {
        name: Box<str>,
        per_mille: u32,
    },
    NewNetwork,
}

/// What is counted of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Dollars.
    Spend,
    Tokens,
    Errors,
    RateLimited,
}

/// What is wrong with a condition.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Index of the word; of the last one when one is missing.
    pub word: usize,
    pub message: String,
}

/// Calls that a share is of, at least.
const AT_LEAST: u64 = 20;

const HOUR: u64 = 3600;

/// Longest window and baseline.
const LONGEST: u64 = 366 * 24 * HOUR;

impl Condition {
    pub fn parse(words: &[&str]) -> Result<Self, Wrong> {
        let last = words.len().saturating_sub(1);
        let wrong = |word: usize, message: String| Wrong { word: word.min(last), message };
        let what = match words.first().copied() {
            Some("new_network") if words.len() == 1 => return Ok(Self::NewNetwork),
            Some("new_network") => return Err(wrong(1, "`new_network` stands alone".to_owned())),
            Some("budget") => return Self::budget(words),
            Some("spend") => What::Spend,
            Some("tokens") => What::Tokens,
            Some("errors") => What::Errors,
            Some("rate_limited") => What::RateLimited,
            Some(other) => return Err(wrong(0, format!("`{other}` is nothing that is watched: {KINDS}"))),
            None => return Err(wrong(0, format!("a condition is missing: {KINDS}"))),
        };
        let shares = matches!(what, What::Errors | What::RateLimited);
        let (window, at) = match words.get(1) {
            Some(&"over") => {
                let text = words.get(2).copied().unwrap_or_default();
                let window = seconds(text).filter(|window| *window <= LONGEST);
                (window.ok_or_else(|| wrong(2, format!("`{text}` is not a time such as `5m` or `1h`")))?, 3)
            }
            _ => (if shares { 300 } else { HOUR }, 1),
        };
        if words.get(at) != Some(&">") {
            return Err(wrong(at, format!("`{}` needs `>` and what is too much", words[0])));
        }
        let text = words.get(at + 1).copied().unwrap_or_default();
        let rest = words.get(at + 2..).unwrap_or_default();
        let bar = match (text.strip_suffix('x'), rest) {
            _ if shares => percent(text).map(|share| Bar::Share { share, of_at_least: AT_LEAST }),
            (Some(times), ["baseline", length]) => {
                let baseline = seconds(length).filter(|length| *length <= LONGEST);
                let baseline =
                    baseline.ok_or_else(|| wrong(at + 3, format!("`{length}` is not a time such as `7d`")))?;
                if baseline < window.saturating_mul(2) || baseline / window > MOST_WINDOWS {
                    let message = format!("a baseline is 2 to {MOST_WINDOWS} times as long as what is measured by it");
                    return Err(wrong(at + 3, message));
                }
                let times = times.parse::<f64>().ok().filter(|times| *times >= 1.0 && *times <= 1e6);
                return match times {
                    Some(times) => Ok(Self::Much { what, window, bar: Bar::Usual { times, baseline } }),
                    None => Err(wrong(at + 1, format!("`{text}` is not a multiple such as `3x`"))),
                };
            }
            (Some(_), _) => {
                let message = format!("`{text}` of what: `{text} baseline 7d` is {text} of the usual");
                return Err(wrong(at + 1, message));
            }
            (None, _) if what == What::Spend => dollars(text).map(Bar::Sum),
            (None, _) => count(text).map(Bar::Sum),
        };
        let bar = bar.ok_or_else(|| {
            let example = match what {
                What::Spend => "`$10` or `3x baseline 7d`",
                What::Tokens => "`2M` or `3x baseline 7d`",
                What::Errors | What::RateLimited => "`5%`",
            };
            wrong(at + 1, format!("`{text}` is not how much `{}` is too much: {example}", words[0]))
        })?;
        match rest.first() {
            None => Ok(Self::Much { what, window, bar }),
            Some(more) => Err(wrong(at + 2, format!("`{more}` is one word too many"))),
        }
    }

    fn budget(words: &[&str]) -> Result<Self, Wrong> {
        match words {
            ["budget", name, ">", share] if *name != ">" => match percent(share) {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within 0 to 1000
                Some(part) => {
                    Ok(Self::Budget { name: (*name).into(), per_mille: ((part * 1000.0).round() as u32).max(1) })
                }
                None => Err(Wrong { word: 3, message: format!("`{share}` is not a percentage such as `80%`") }),
            },
            _ => Err(Wrong { word: words.len() - 1, message: "write it as `budget NAME > 80%`".to_owned() }),
        }
    }
}

const KINDS: &str = "`spend`, `tokens`, `errors`, `rate_limited`, `budget` or `new_network`";

/// A share from 0 to 1 of a percentage above 0 and up to 100.
fn percent(text: &str) -> Option<f64> {
    let number: f64 = text.strip_suffix('%')?.parse().ok()?;
    (number > 0.0 && number <= 100.0).then_some(number / 100.0)
}

fn dollars(text: &str) -> Option<f64> {
    text.strip_prefix('$').and_then(Nano::parse).map(in_dollars).filter(|n| *n > 0.0)
}

#[allow(clippy::cast_precision_loss)] // to be compared with a sum of many
pub fn in_dollars(nano: Nano) -> f64 {
    nano.0 as f64 / 1e9
}

/// A number of tokens: `500`, `500k`, `2M`.
fn count(text: &str) -> Option<f64> {
    let (number, scale) = match text.bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1e3),
        b'M' => (&text[..text.len() - 1], 1e6),
        b'G' => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let number = number.bytes().all(|c| c.is_ascii_digit() || c == b'.').then(|| number.parse::<f64>().ok())??;
    Some(number * scale).filter(|n| *n > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Condition, usize> {
        Condition::parse(&text.split_whitespace().collect::<Vec<_>>()).map_err(|wrong| wrong.word)
    }

    #[test]
    fn conditions_are_read() {
        let much = |what, window, bar| Ok(Condition::Much { what, window, bar });
        let day = 24 * HOUR;
        for (text, expected) in [
            ("spend > $10", much(What::Spend, HOUR, Bar::Sum(10.0))),
            ("spend over 1d > $0.5", much(What::Spend, day, Bar::Sum(0.5))),
            ("tokens over 10m > 2M", much(What::Tokens, 600, Bar::Sum(2e6))),
            ("spend over 1h > 3x baseline 7d", much(What::Spend, HOUR, Bar::Usual { times: 3.0, baseline: 7 * day })),
            ("errors > 5%", much(What::Errors, 300, Bar::Share { share: 0.05, of_at_least: AT_LEAST })),
            ("rate_limited over 1m > 50%", much(What::RateLimited, 60, Bar::Share { share: 0.5, of_at_least: 20 })),
            ("budget team > 80%", Ok(Condition::Budget { name: "team".into(), per_mille: 800 })),
            ("new_network", Ok(Condition::NewNetwork)),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        for (text, word) in [
            ("", 0),
            ("money > $1", 0),
            ("spend", 0),
            ("spend $10", 1),
            ("spend > 10", 2),
            ("spend > $0", 2),
            ("spend > $-1", 2),
            ("spend over > $1", 2),
            ("spend over 0s > $1", 2),
            ("spend over 1h > 3x", 4),
            ("spend over 1h > 0.5x baseline 7d", 4),
            ("spend over 1h > NaNx baseline 7d", 4),
            ("spend over 1h > 3x baseline 1h", 6),
            ("spend over 1s > 3x baseline 300d", 6),
            ("spend > $1 ever", 3),
            ("tokens > $1", 2),
            ("tokens > -1", 2),
            ("errors > 5", 2),
            ("errors > 101%", 2),
            ("budget > 80%", 2),
            ("budget team > 80", 3),
            ("new_network > 1", 1),
        ] {
            assert_eq!(parse(text), Err(word), "{text}");
        }
    }
}
