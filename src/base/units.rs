//! Durations and sizes as an admin writes them: Go's duration syntax with days, go-humanize's byte sizes.

/// Nanoseconds of a duration such as `300ms`, `1.5h`, `2h45m`, `1d12h`, `-1s` or `0`. A number needs its unit.
/// `None` when it is not a duration or does not fit. Source: Go `time.ParseDuration`, Caddy `ParseDuration`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() || text.len() > 1024 {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (nanos, after) = duration_part(rest)?;
        total = total.checked_add(nanos)?;
        rest = after;
    }
    if negative {
        return 0_i64.checked_sub_unsigned(total);
    }
    i64::try_from(total).ok()
}

/// As [`parse_duration`], but a bare integer counts nanoseconds: the few options where Caddy allows it, `-1` among
/// them.
#[must_use]
pub fn parse_duration_or_nanoseconds(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| parse_duration(text))
}

/// As Go prints it: `1m30s`, `1.5s`, `100ms`, `0s`, `1h0m0s`.
#[must_use]
pub fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let abs = nanos.unsigned_abs();
    match abs {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{abs}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(abs, 3)),
        1_000_000..NANOS_PER_SECOND => format!("{sign}{}ms", decimal(abs, 6)),
        _ => {
            let seconds = abs / NANOS_PER_SECOND;
            let in_minute = decimal(seconds % 60 * NANOS_PER_SECOND + abs % NANOS_PER_SECOND, 9);
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{sign}{in_minute}s"),
                (0, minutes) => format!("{sign}{minutes}m{in_minute}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{in_minute}s"),
            }
        }
    }
}

/// Bytes of a size such as `512`, `10MB` (decimal), `10MiB` (binary), `1.5 GB` or `1,000k`.
/// `None` when it is not a size or does not fit. Source: go-humanize `ParseBytes`.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ',')).unwrap_or(text.len());
    let number: f64 = text[..end].replace(',', "").parse().ok()?;
    let unit = text[end..].trim().to_lowercase();
    let (base, power): (f64, i32) = match unit.as_str() {
        "" | "b" => (1.0, 0),
        "k" | "kb" => (1e3, 1),
        "m" | "mb" => (1e3, 2),
        "g" | "gb" => (1e3, 3),
        "t" | "tb" => (1e3, 4),
        "p" | "pb" => (1e3, 5),
        "e" | "eb" => (1e3, 6),
        "ki" | "kib" => (1024.0, 1),
        "mi" | "mib" => (1024.0, 2),
        "gi" | "gib" => (1024.0, 3),
        "ti" | "tib" => (1024.0, 4),
        "pi" | "pib" => (1024.0, 5),
        "ei" | "eib" => (1024.0, 6),
        _ => return None,
    };
    let bytes = number * base.powi(power);
    // 2^64, which a float holds exactly; everything below it fits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (0.0..18_446_744_073_709_551_616.0).contains(&bytes).then_some(bytes as u64)
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// One `number unit` at the start of the text, in nanoseconds, and what follows.
fn duration_part(text: &str) -> Option<(u64, &str)> {
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let whole_len = digits(text);
    let after_whole = &text[whole_len..];
    let fraction_len = after_whole.strip_prefix('.').map_or(0, digits);
    if whole_len + fraction_len == 0 {
        return None;
    }
    let fraction = if after_whole.starts_with('.') { &after_whole[1..=fraction_len] } else { "" };
    let rest = after_whole.strip_prefix('.').map_or(after_whole, |r| &r[fraction_len..]);
    let unit_len = rest.bytes().take_while(|b| !b.is_ascii_digit() && *b != b'.').count();
    let unit: u64 = match &rest[..unit_len] {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3600 * NANOS_PER_SECOND,
        "d" => 24 * 3600 * NANOS_PER_SECOND,
        _ => return None,
    };
    let whole: u64 = if whole_len == 0 { 0 } else { text[..whole_len].parse().ok()? };
    Some((whole.checked_mul(unit)?.checked_add(fraction_of(fraction, unit))?, &rest[unit_len..]))
}

/// `0.fraction` of a unit, rounded down. Digits beyond the eighteenth cannot matter.
fn fraction_of(fraction: &str, unit: u64) -> u64 {
    let digits = &fraction[..fraction.len().min(18)];
    let Ok(value) = digits.parse::<u64>() else { return 0 };
    let scale = 10_u128.pow(u32::try_from(digits.len()).unwrap_or(0));
    u64::try_from(u128::from(value) * u128::from(unit) / scale).unwrap_or(0)
}

/// A number with `places` decimal places, without trailing zeros.
fn decimal(value: u64, places: u32) -> String {
    let scale = 10_u64.pow(places);
    let (whole, fraction) = (value / scale, value % scale);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = places as usize;
    format!("{whole}.{fraction:0width$}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        let s = 1_000_000_000_i64;
        for (text, expected) in [
            ("300ms", s / 1000 * 300),
            ("1.5h", 5400 * s),
            ("2h45m", 9900 * s),
            ("1d", 86400 * s),
            ("1.5d1h", 133_200 * s),
            ("-1s", -s),
            ("0", 0),
            (".5s", s / 2),
            ("1.s", s),
            ("1us", 1000),
            ("3µs", 3000),
            ("7ns", 7),
            ("+1m", 60 * s),
        ] {
            assert_eq!(parse_duration(text), Some(expected), "{text}");
        }
        for text in ["", "1", "-1", "s", ".", "1x", "1 s", "-", "--1s", "300y", "9999999999h", "1h-1m", "1,5s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_duration_or_nanoseconds("-1"), Some(-1));
        assert_eq!(parse_duration_or_nanoseconds("10s"), Some(10 * s));
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for text in ["1m30s", "1.5s", "100ms", "0s", "1h0m0s", "2h45m0.5s", "1.5µs", "3ns", "-1m0s", "24h0m0s"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", 0),
            ("512", 512),
            ("10MB", 10_000_000),
            ("10MiB", 10 << 20),
            ("1.5 gb", 1_500_000_000),
            ("1,000k", 1_000_000),
            ("4Ki", 4096),
            ("2B", 2),
        ] {
            assert_eq!(parse_size(text), Some(expected), "{text}");
        }
        for text in ["", "MB", "-1", "10XB", "1.2.3", "99EB", "unlimited"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_reading_agree(nanos in any::<i64>()) {
            prop_assert_eq!(parse_duration(&format_duration(nanos)), Some(nanos));
        }
    }
}
