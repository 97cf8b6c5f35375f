//! Amounts of money.

use std::fmt;

/// Billionths of a US dollar. Sums of many are to be made in `i128`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nano(pub i64);

impl Nano {
    /// The most that one call is said to cost: a million dollars. A wrong count of tokens cannot spoil sums with more.
    pub const MOST: Self = Self(1_000_000 * Self::PER_DOLLAR);
    pub const PER_DOLLAR: i64 = 1_000_000_000;

    /// From an amount as people write it: `20`, `0.5`, `$1.25`; nine digits behind the point at most. `None` for
    /// anything else, a sign among it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('$').unwrap_or(text);
        decimal(text, 9).and_then(|n| i64::try_from(n).ok()).map(Self)
    }

    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// Dollars, with as many digits as they need: `0.0125`.
impl fmt::Display for Nano {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        let (whole, part) = (nanos / Self::PER_DOLLAR.unsigned_abs(), nanos % Self::PER_DOLLAR.unsigned_abs());
        let sign = if self.0 < 0 { "-" } else { "" };
        if part == 0 {
            return write!(f, "{sign}{whole}");
        }
        let part = format!("{part:09}");
        write!(f, "{sign}{whole}.{}", part.trim_end_matches('0'))
    }
}

/// A decimal number in units of its `digits`-th digit behind the point. `None` when it has more digits there, or is not
/// one.
pub(super) fn decimal(text: &str, digits: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(part) || part.len() > digits || text.ends_with('.') {
        return None;
    }
    let scale = 10_u64.checked_pow(u32::try_from(digits).ok()?)?;
    let rest = 10_u64.checked_pow(u32::try_from(digits - part.len()).ok()?)?;
    let part = if part.is_empty() { 0 } else { part.parse::<u64>().ok()?.checked_mul(rest)? };
    whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written() {
        for (text, nano) in [
            ("0", Some(0)),
            ("20", Some(20_000_000_000)),
            ("$1.25", Some(1_250_000_000)),
            ("0.000000001", Some(1)),
            ("0.0000000001", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            (".5", None),
            ("5.", None),
            ("", None),
            ("nan", None),
            ("9223372036.854775807", Some(i64::MAX)),
            ("9223372036.854775808", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(Nano::parse(text).map(|n| n.0), nano, "{text}");
        }
        for (nano, text) in [(0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5"), (-25_000_000, "-0.025")] {
            assert_eq!(Nano(nano).to_string(), text);
        }
        assert_eq!(Nano(i64::MIN).to_string(), "-9223372036.854775808");
    }
}
