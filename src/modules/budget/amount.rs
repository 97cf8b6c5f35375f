//! Amounts as they are written: `$100`, `2M tokens`, `80%`.

use crate::llm::price::Nano;
use crate::state::period::Period;
use crate::state::spend::{Limit, Unit};

/// A limit from its two words; else the code of what is wrong and a message.
pub fn limit(amount: &str, period: &str) -> Result<Limit, (&'static str, String)> {
    let (unit, most) = match amount.strip_suffix("tokens").map(str::trim_end) {
        Some(count) => (Unit::Tokens, tokens(count)),
        None => (Unit::Money, money(amount)),
    };
    let most = most.ok_or_else(|| ("invalid-amount", format!("`{amount}` is no amount of money or tokens")))?;
    let period = Period::named(period).ok_or_else(|| ("invalid-period", format!("`{period}` is no period")))?;
    Ok(Limit { unit, most, period })
}

/// Billionths of a dollar of `$12.50`.
fn money(text: &str) -> Option<u64> {
    let text = text.strip_prefix('$')?;
    Nano::parse(text).and_then(|nano| u64::try_from(nano.0).ok()).filter(|n| *n > 0)
}

/// A count such as `500`, `500k`, `1.5M` or `2G`.
pub fn tokens(text: &str) -> Option<u64> {
    let (number, scale) = match text.bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1_000),
        b'M' => (&text[..text.len() - 1], 1_000_000),
        b'G' => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| !text.is_empty() && text.len() <= 12 && text.bytes().all(|c| c.is_ascii_digit());
    if !digits(whole) || number.contains('.') && !digits(part) {
        return None;
    }
    let mut count = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    if !part.is_empty() {
        let parts = 10_u64.checked_pow(u32::try_from(part.len()).ok()?)?;
        let scaled = part.parse::<u64>().ok()?.checked_mul(scale)?;
        count = count.checked_add((scaled % parts == 0).then_some(scaled / parts)?)?;
    }
    Some(count).filter(|n| *n > 0)
}

/// Per mille of a percentage above 0 and up to 100.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within 0 to 1000
pub fn per_mille(percent: f64) -> Option<u32> {
    (percent > 0.0 && percent <= 100.0).then(|| ((percent * 10.0).round() as u32).max(1))
}

/// The number before the `%`.
pub fn percentage(text: &str) -> Option<f64> {
    let number: f64 = text.strip_suffix('%')?.parse().ok()?;
    per_mille(number).map(|_| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_with_their_unit() {
        for (text, most) in [
            ("$100", Some((Unit::Money, 100_000_000_000))),
            ("$0.005", Some((Unit::Money, 5_000_000))),
            ("2M tokens", Some((Unit::Tokens, 2_000_000))),
            ("1.5M tokens", Some((Unit::Tokens, 1_500_000))),
            ("500ktokens", Some((Unit::Tokens, 500_000))),
            ("7 tokens", Some((Unit::Tokens, 7))),
            ("100", None),
            ("$", None),
            ("$0", None),
            ("$-1", None),
            ("$1e9", None),
            ("$10000000000", None),
            ("0 tokens", None),
            ("-1 tokens", None),
            ("1.2345k tokens", None),
            ("1. tokens", None),
            (".5M tokens", None),
            ("99999999999G tokens", None),
            ("tokens", None),
            ("", None),
        ] {
            let read = limit(text, "day").ok().map(|limit| (limit.unit, limit.most));
            assert_eq!(read, most, "{text}");
        }
        assert_eq!(limit("$1", "year").unwrap_err().0, "invalid-period");
    }

    #[test]
    fn percentages() {
        for (text, read) in [("80%", Some(800)), ("99.9%", Some(999)), ("100%", Some(1000)), ("0.01%", Some(1))] {
            assert_eq!(percentage(text).and_then(per_mille), read, "{text}");
        }
        for text in ["", "%", "80", "0%", "100.1%", "-1%", "NaN%", "inf%"] {
            assert_eq!(percentage(text), None, "{text}");
        }
    }
}
