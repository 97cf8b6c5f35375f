//! Periods of budgets: days, ISO weeks and months of UTC, and the one that never ends.

use time::{Date, Duration, OffsetDateTime};

/// The length of a budget. Moments are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    Day,
    /// From Monday on (ISO 8601).
    Week,
    Month,
    /// Has no end.
    Total,
}

impl Period {
    pub const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Total];

    /// As it is written in a configuration and in the ledger.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Total => "total",
        }
    }

    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.word() == word)
    }

    /// The first second of the period that `unix` is in.
    #[must_use]
    pub fn start(self, unix: i64) -> i64 {
        let day = day_of(unix);
        let first = match self {
            Self::Day => day,
            Self::Week => day - Duration::days(i64::from(day.weekday().number_days_from_monday())),
            Self::Month => day.replace_day(1).unwrap_or(day),
            Self::Total => return 0,
        };
        first.midnight().assume_utc().unix_timestamp()
    }

    /// The first second behind the period that begins at `start`; `None` when it has no end.
    #[must_use]
    pub fn end(self, start: i64) -> Option<i64> {
        const DAY: i64 = 86_400;
        match self {
            Self::Day => Some(start.saturating_add(DAY)),
            Self::Week => Some(start.saturating_add(7 * DAY)),
            // Every month has 28 days and none has more than 31.
            Self::Month => Some(self.start(start.saturating_add(31 * DAY))),
            Self::Total => None,
        }
    }
}

/// The day of a moment. What no calendar has counts as the first or last day of it: a clock that wrong has no right day.
fn day_of(unix: i64) -> Date {
    // Room on both sides, so that the arithmetic of weeks and months stays within the calendar.
    const FIRST: i64 = -60_000_000_000;
    const LAST: i64 = 250_000_000_000;
    OffsetDateTime::from_unix_timestamp(unix.clamp(FIRST, LAST)).map_or(Date::MIN, OffsetDateTime::date)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn days_weeks_and_months_begin_at_midnight_of_utc() {
        let at = |t: OffsetDateTime| t.unix_timestamp();
        // Friday the 1st of January 2027 is in the ISO week that began in December.
        let moment = at(datetime!(2027-01-01 23:59:59 UTC));
        for (period, start, end) in [
            (Period::Day, datetime!(2027-01-01 0:00 UTC), datetime!(2027-01-02 0:00 UTC)),
            (Period::Week, datetime!(2026-12-28 0:00 UTC), datetime!(2027-01-04 0:00 UTC)),
            (Period::Month, datetime!(2027-01-01 0:00 UTC), datetime!(2027-02-01 0:00 UTC)),
        ] {
            assert_eq!(period.start(moment), at(start), "{period:?}");
            assert_eq!(period.end(at(start)), Some(at(end)), "{period:?}");
            assert_eq!(period.start(at(end) - 1), at(start), "{period:?}");
            assert_eq!(period.start(at(end)), at(end), "{period:?}");
        }
        assert_eq!((Period::Total.start(moment), Period::Total.end(0)), (0, None));
        // A leap year's February.
        let february = at(datetime!(2028-02-01 0:00 UTC));
        assert_eq!(Period::Month.end(february), Some(at(datetime!(2028-03-01 0:00 UTC))));
    }

    #[test]
    fn moments_that_no_calendar_has_are_in_some_period() {
        for unix in [i64::MIN, i64::MIN / 2, -1, i64::MAX / 2, i64::MAX] {
            for period in Period::ALL {
                let start = period.start(unix);
                assert_eq!(period.start(start), start, "{period:?} {unix}");
            }
        }
    }
}
