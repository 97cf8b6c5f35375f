//! An even rate as an admin writes it: `10r/s`, `30r/m`, `100r/h`.

use crate::state::limit::Rate;

/// Nanoseconds from one request to the next, rounded up: never faster than it says. `None` when it is no such rate.
pub fn interval(text: &str) -> Option<u64> {
    let (number, unit) = text.split_once("r/")?;
    let unit: u64 = match unit {
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok().filter(|n| (1..=1_000_000_000).contains(n))?;
    Some(unit.div_ceil(number))
}

/// `at_once`: how many of the burst do not wait.
pub fn rate(interval: u64, burst: u32, at_once: u32) -> Rate {
    Rate { interval, burst, at_once: at_once.min(burst) }
}

#[cfg(test)]
mod tests {
    use super::interval;

    #[test]
    fn rates_are_read_as_nginx_reads_them() {
        assert_eq!(interval("10r/s"), Some(100_000_000));
        assert_eq!(interval("3r/s"), Some(333_333_334));
        assert_eq!(interval("30r/m"), Some(2_000_000_000));
        assert_eq!(interval("1r/h"), Some(3_600_000_000_000));
        for wrong in ["", "10", "r/s", "0r/s", "-1r/s", "+1r/s", "1.5r/s", "10r/d", "10 r/s", "99999999999r/s"] {
            assert_eq!(interval(wrong), None, "{wrong}");
        }
    }
}
