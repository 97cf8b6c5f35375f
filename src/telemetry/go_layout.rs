//! Go time layouts (`2006-01-02T15:04:05.000Z07:00`), compiled once and printed in UTC.
//!
//! Source: Go `time.Layout`, `time.nextStdChunk`.

use std::io::Write;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A compiled layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout(Box<[Piece]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Part(Part),
    /// A point or comma and so many digits of the second; trailing zeros left out when `trimmed`.
    Fraction {
        mark: char,
        digits: usize,
        trimmed: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Year,
    ShortYear,
    Month,
    PaddedMonth,
    MonthName,
    ShortMonthName,
    Day,
    PaddedDay,
    SpacedDay,
    DayOfYear,
    SpacedDayOfYear,
    Weekday,
    ShortWeekday,
    Hour,
    Hour12,
    PaddedHour12,
    Minute,
    PaddedMinute,
    Second,
    PaddedSecond,
    UpperHalf,
    LowerHalf,
    ZoneName,
    /// UTC shown as `Z`.
    ZuluOffset,
    /// UTC shown as this text.
    Offset(&'static str),
}

/// Words of a layout; of two that match at a place the one listed first counts.
const WORDS: &[(&str, Part)] = &[
    ("January", Part::MonthName),
    ("Jan", Part::ShortMonthName),
    ("Monday", Part::Weekday),
    ("Mon", Part::ShortWeekday),
    ("MST", Part::ZoneName),
    ("002", Part::DayOfYear),
    ("01", Part::PaddedMonth),
    ("02", Part::PaddedDay),
    ("03", Part::PaddedHour12),
    ("04", Part::PaddedMinute),
    ("05", Part::PaddedSecond),
    ("06", Part::ShortYear),
    ("15", Part::Hour),
    ("1", Part::Month),
    ("2006", Part::Year),
    ("2", Part::Day),
    ("__2", Part::SpacedDayOfYear),
    ("_2", Part::SpacedDay),
    ("3", Part::Hour12),
    ("4", Part::Minute),
    ("5", Part::Second),
    ("PM", Part::UpperHalf),
    ("pm", Part::LowerHalf),
    ("-070000", Part::Offset("+000000")),
    ("-07:00:00", Part::Offset("+00:00:00")),
    ("-0700", Part::Offset("+0000")),
    ("-07:00", Part::Offset("+00:00")),
    ("-07", Part::Offset("+00")),
    ("Z070000", Part::ZuluOffset),
    ("Z07:00:00", Part::ZuluOffset),
    ("Z0700", Part::ZuluOffset),
    ("Z07:00", Part::ZuluOffset),
    ("Z07", Part::ZuluOffset),
];

impl Layout {
    #[must_use]
    pub fn parse(layout: &str) -> Self {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = layout;
        while let Some(first) = rest.chars().next() {
            let Some((piece, length)) = word(rest).or_else(|| fraction(rest)) else {
                text.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text).into()));
            }
            pieces.push(piece);
            rest = &rest[length..];
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.into()));
        }
        Self(pieces.into())
    }

    /// Appends the time, given in nanoseconds since 1970.
    pub fn write(&self, unix_nanos: i64, out: &mut Vec<u8>) {
        let seconds = unix_nanos.div_euclid(1_000_000_000);
        let nanos = unix_nanos.rem_euclid(1_000_000_000);
        let date = Date::of(seconds);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Part(part) => date.write(*part, out),
                Piece::Fraction { mark, digits, trimmed } => {
                    let all = format!("{nanos:09}");
                    let mut shown = &all[..*digits];
                    if *trimmed {
                        shown = shown.trim_end_matches('0');
                    }
                    if !shown.is_empty() {
                        let _ = write!(out, "{mark}{shown}");
                    }
                }
            }
        }
    }
}

fn word(rest: &str) -> Option<(Piece, usize)> {
    let (text, part) = WORDS.iter().find(|(text, _)| rest.starts_with(text))?;
    // `_2006` is an underscore and a year; `Jan` in a longer word such as `Janet` is text.
    let after = &rest[text.len()..];
    match part {
        Part::SpacedDay if rest.starts_with("_2006") => None,
        Part::ShortMonthName | Part::ShortWeekday if after.starts_with(|c: char| c.is_ascii_lowercase()) => None,
        part => Some((Piece::Part(*part), text.len())),
    }
}

/// `.000`, `,999` and the like, when no digit follows.
fn fraction(rest: &str) -> Option<(Piece, usize)> {
    let mark = rest.chars().next().filter(|c| matches!(c, '.' | ','))?;
    let digit = rest[1..].chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let digits = rest[1..].chars().take_while(|c| *c == digit).count();
    if rest[1 + digits..].starts_with(|c: char| c.is_ascii_digit()) || digits > 9 {
        return None;
    }
    Some((Piece::Fraction { mark, digits, trimmed: digit == '9' }, 1 + digits))
}

struct Date {
    year: i64,
    month: i64,
    day: i64,
    day_of_year: i64,
    weekday: i64,
    second_of_day: i64,
}

impl Date {
    fn of(unix_seconds: i64) -> Self {
        let days = unix_seconds.div_euclid(86_400);
        // Days to civil date: years begin in March, eras are 400 years (Hinnant, "chrono-Compatible Low-Level Date
        // Algorithms").
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * from_march + 2) / 153;
        let day = from_march - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        // March 1 is day 60, in leap years 61.
        let march = 60 + i64::from(leap);
        let day_of_year = if from_march < 306 { from_march + march } else { from_march - 305 };
        let weekday = (days + 4).rem_euclid(7);
        Self { year, month, day, day_of_year, weekday, second_of_day: unix_seconds.rem_euclid(86_400) }
    }

    fn write(&self, part: Part, out: &mut Vec<u8>) {
        let name = |names: &[&'static str], index: i64| {
            usize::try_from(index).ok().and_then(|i| names.get(i)).copied().unwrap_or_default()
        };
        let (hour, minute, second) = (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60);
        let hour12 = (hour + 11) % 12 + 1;
        let _ = match part {
            Part::Year => write!(out, "{:04}", self.year),
            Part::ShortYear => write!(out, "{:02}", self.year.rem_euclid(100)),
            Part::Month => write!(out, "{}", self.month),
            Part::PaddedMonth => write!(out, "{:02}", self.month),
            Part::MonthName => write!(out, "{}", name(&MONTHS, self.month - 1)),
            Part::ShortMonthName => write!(out, "{:.3}", name(&MONTHS, self.month - 1)),
            Part::Day => write!(out, "{}", self.day),
            Part::PaddedDay => write!(out, "{:02}", self.day),
            Part::SpacedDay => write!(out, "{:2}", self.day),
            Part::DayOfYear => write!(out, "{:03}", self.day_of_year),
            Part::SpacedDayOfYear => write!(out, "{:3}", self.day_of_year),
            Part::Weekday => write!(out, "{}", name(&DAYS, self.weekday)),
            Part::ShortWeekday => write!(out, "{:.3}", name(&DAYS, self.weekday)),
            Part::Hour => write!(out, "{hour:02}"),
            Part::Hour12 => write!(out, "{hour12}"),
            Part::PaddedHour12 => write!(out, "{hour12:02}"),
            Part::Minute => write!(out, "{minute}"),
            Part::PaddedMinute => write!(out, "{minute:02}"),
            Part::Second => write!(out, "{second}"),
            Part::PaddedSecond => write!(out, "{second:02}"),
            Part::UpperHalf => write!(out, "{}", if hour >= 12 { "PM" } else { "AM" }),
            Part::LowerHalf => write!(out, "{}", if hour >= 12 { "pm" } else { "am" }),
            Part::ZoneName => write!(out, "UTC"),
            Part::ZuluOffset => write!(out, "Z"),
            Part::Offset(text) => write!(out, "{text}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(layout: &str, nanos: i64) -> String {
        let mut out = Vec::new();
        Layout::parse(layout).write(nanos, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn layouts_print_as_in_go() {
        // 2026-11-21 12:32:05.3518, a Saturday.
        let t = 1_795_264_325_351_800_000;
        for (layout, expected) in [
            ("2006-01-02T15:04:05Z07:00", "2026-11-21T12:32:05Z"),
            ("2006-01-02T15:04:05.999999999Z07:00", "2026-11-21T12:32:05.3518Z"),
            ("2006-01-02T15:04:05.000Z0700", "2026-11-21T12:32:05.351Z"),
            ("2006/01/02 15:04:05.000", "2026/11/21 12:32:05.351"),
            ("02/Jan/2006:15:04:05 -0700", "21/Nov/2026:12:32:05 +0000"),
            ("Monday, 2 January 06 3:4:5 pm MST", "Saturday, 21 November 26 12:32:5 pm UTC"),
            ("Mon Jan _2 03PM 002 x", "Sat Nov 21 12PM 325 x"),
            ("_2006 Janet 15h", "_2026 Janet 12h"),
            ("05,000000000", "05,351800000"),
        ] {
            assert_eq!(shown(layout, t), expected, "{layout}");
        }
        assert_eq!(shown("2006-01-02 002 Mon", 951_782_400_000_000_000), "2000-02-29 060 Tue");
        assert_eq!(shown("2006-01-02 002", 1_798_675_200_000_000_000), "2026-12-31 365");
        assert_eq!(shown("2006-01-02 002", 0), "1970-01-01 001");
    }
}
