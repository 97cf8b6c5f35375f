//! Times as the formats write them: Unix seconds at OpenAI, RFC 3339 at Anthropic and Ollama.

use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

/// Unix seconds of `2026-01-31` or `2026-01-31T12:00:00Z` (RFC 3339, with a fraction or an offset); `None` when it is
/// neither.
#[must_use]
pub fn unix_seconds(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let [year, month, day] = numbers(date, '-', &[4, 2, 2])?;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(year, month, u8::try_from(day).ok()?).ok()?;
    if rest.is_empty() {
        return Some(date.midnight().assume_utc().unix_timestamp());
    }
    let (clock, zone) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let [hour, minute, second] = numbers(clock, ':', &[2, 2, 2])?.map(|n| u8::try_from(n).unwrap_or(u8::MAX));
    // A leap second is the second before it.
    let clock = Time::from_hms(hour, minute, if second == 60 { 59 } else { second }).ok()?;
    let zone = match zone.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => zone,
    };
    Some(date.with_time(clock).assume_offset(offset(zone)?).unix_timestamp())
}

/// `2026-01-31T12:00:00Z`; the first second of 1970 for what no calendar has.
#[must_use]
pub fn rfc3339(unix_seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix_seconds)
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

fn offset(zone: &str) -> Option<UtcOffset> {
    let sign = match zone.as_bytes().first()? {
        b'Z' | b'z' if zone.len() == 1 => return Some(UtcOffset::UTC),
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let [hours, minutes] = numbers(&zone[1..], ':', &[2, 2])?.map(|n| i8::try_from(n).unwrap_or(i8::MAX));
    UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()
}

/// Numbers of so many digits each.
fn numbers<const N: usize>(text: &str, between: char, digits: &[usize; N]) -> Option<[i32; N]> {
    let mut out = [0; N];
    let mut parts = text.split(between);
    for (slot, digits) in out.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != *digits || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_read_and_written() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2026-01-01", 1_767_225_600),
            ("2025-02-19T00:00:00Z", 1_739_923_200),
            ("2025-02-19T00:00:00.123456Z", 1_739_923_200),
            ("2025-02-19T01:30:00+01:30", 1_739_923_200),
            ("2025-02-18T22:00:00-02:00", 1_739_923_200),
            ("2016-12-31T23:59:60Z", 1_483_228_799),
        ] {
            assert_eq!(unix_seconds(text), Some(seconds), "{text}");
        }
        assert_eq!(rfc3339(1_739_923_200), "2025-02-19T00:00:00Z");
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn what_is_no_date_is_told() {
        for text in ["", "2026", "2026-13-01", "2026-02-30", "26-01-01", "2026-01-01T", "2026-01-01T10:00:00"] {
            assert_eq!(unix_seconds(text), None, "{text}");
        }
        for text in ["2026-01-01Tx", "2026-01-01T25:00:00Z", "2026-01-01T10:00:00+99:99", "2026-01-01é", "+026-01-01"]
        {
            assert_eq!(unix_seconds(text), None, "{text}");
        }
    }
}
