//! Moments as people name them: a day, a time, so long ago. All of UTC.

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use crate::base::units::parse_duration;

const DAY: i64 = 86_400_000;

/// Unix milliseconds. Whole days ago mean the midnight that began that day, so that `7d` tells of whole days.
pub fn millis(text: &str, now: OffsetDateTime) -> Result<i64, String> {
    let now = now.unix_timestamp().saturating_mul(1000);
    if let Ok(day) = Date::parse(text, format_description!("[year]-[month]-[day]")) {
        return Ok(day.midnight().assume_utc().unix_timestamp() * 1000);
    }
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX));
    }
    let ago = parse_duration(text).map(|nanos| nanos / 1_000_000).filter(|ago| *ago >= 0 && *ago <= now);
    let ago = ago.ok_or_else(|| {
        format!(
            "`{text}` is no time: write a day (`2026-11-01`), a time (`2026-11-01T18:00:00Z`), or how long ago (`7d`)"
        )
    })?;
    let at = now - ago;
    Ok(if ago > 0 && ago % DAY == 0 { at - at.rem_euclid(DAY) } else { at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn moments_are_days_times_and_spans() {
        let now = datetime!(2026-11-21 18:30:00 UTC);
        let at = |time: OffsetDateTime| Ok(time.unix_timestamp() * 1000);
        for (text, time) in [
            ("2026-11-01", datetime!(2026-11-01 00:00 UTC)),
            ("2026-11-01T18:00:00+02:00", datetime!(2026-11-01 16:00 UTC)),
            ("90m", datetime!(2026-11-21 17:00 UTC)),
            ("7d", datetime!(2026-11-14 00:00 UTC)),
            ("0s", now),
        ] {
            assert_eq!(millis(text, now), at(time), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "-7d", "100000d", "7"] {
            assert!(millis(text, now).is_err(), "{text}");
        }
    }
}
