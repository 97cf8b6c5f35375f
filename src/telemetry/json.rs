//! JSON values written by hand, byte for byte as zap and Go's `strconv` write them: texts, numbers, times.

use std::io::Write;

/// A JSON string, escaped as zap does.
pub(super) fn write_text(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    write_escaped(text, out);
    out.push(b'"');
}

/// The inside of a JSON string.
pub(super) fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
    if is_plain(text) {
        out.extend_from_slice(text);
        return;
    }
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut from = 0;
        for (i, byte) in valid.iter().enumerate() {
            if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
                continue;
            }
            out.extend_from_slice(&valid[from..i]);
            from = i + 1;
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                other => {
                    let _ = write!(out, "\\u{other:04x}");
                }
            }
        }
        out.extend_from_slice(&valid[from..]);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Whether the text stands in JSON as it is: printable ASCII without quotes and backslashes, as nearly every text is.
/// Asked of eight bytes at a time; the last eight may overlap those before.
fn is_plain(text: &[u8]) -> bool {
    if let Some(last) = text.last_chunk::<8>() {
        let (words, _) = text.as_chunks::<8>();
        words.iter().fold(odd(u64::from_le_bytes(*last)), |found, word| found | odd(u64::from_le_bytes(*word))) == 0
    } else if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        odd(u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32) == 0
    } else {
        text.iter().all(|byte| matches!(byte, b' '..=0x7f) && !matches!(byte, b'"' | b'\\'))
    }
}

/// Not zero when one of the bytes is below 0x20, above 0x7f, a quote or a backslash.
fn odd(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // A borrow reaches the next byte only out of one that is found itself.
    let has_below = |word: u64, least: u64| word.wrapping_sub(EACH * least) & !word;
    let quote = has_below(word ^ (EACH * 0x22), 1);
    let backslash = has_below(word ^ (EACH * 0x5c), 1);
    (has_below(word, 0x20) | quote | backslash | word) & (EACH << 7)
}

pub(super) fn write_number(n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// The shortest decimal that is this number, without an exponent, as Go's `strconv` with `'f'`.
pub(super) fn write_float(f: f64, out: &mut Vec<u8>) {
    let _ = write!(out, "{f}");
}

/// Nanoseconds as seconds. Up to fifteen digits the shortest decimal of the nearest float is the number itself, so that
/// no float is needed; that is eleven days.
#[allow(clippy::cast_precision_loss)] // as zap does
pub(super) fn write_seconds(nanos: u64, out: &mut Vec<u8>) {
    if nanos >= 1_000_000_000_000_000 {
        return write_float(nanos as f64 / 1e9, out);
    }
    write_number(nanos / 1_000_000_000, out);
    let fraction = nanos % 1_000_000_000;
    if fraction > 0 {
        write_fraction(fraction, 1_000_000_000, out);
        let zeros = out.iter().rev().take_while(|digit| **digit == b'0').count();
        out.truncate(out.len() - zeros);
    }
}

/// A time as seconds since 1970: the shortest decimal of the nearest float.
#[allow(clippy::cast_precision_loss)] // as zap does
pub(super) fn write_unix_seconds(nanos: i64, out: &mut Vec<u8>) {
    let seconds = nanos as f64 / 1e9;
    match shortest_of_our_days(seconds) {
        Some((whole, digits, scale)) => {
            write_number(whole, out);
            if scale > 1 {
                write_fraction(digits, scale, out);
            }
        }
        None => write_float(seconds, out),
    }
}

/// For a time between 2004 and 2038 the whole seconds, the digits of the shortest fraction, and the power of ten below
/// them. Such a float counts 2⁻²² seconds, so seven digits always tell it from its neighbours, and integers do.
fn shortest_of_our_days(seconds: f64) -> Option<(u64, u64, u64)> {
    const BITS: u32 = 22;
    const HALF: u64 = 1 << (BITS - 1);
    let bits = seconds.to_bits();
    if bits >> 52 != 1023 + 30 {
        return None;
    }
    let units = bits & ((1 << 52) - 1) | 1 << 52;
    let (whole, fraction) = (units >> BITS, units & ((1 << BITS) - 1));
    // The nearest number with so many digits, unless two are as near or it is nearer to a neighbour.
    let nearest = |scale: u64| {
        let digits = (fraction * scale + HALF) >> BITS;
        let off = (digits << BITS).abs_diff(fraction * scale);
        // An even float takes the numbers half-way to its neighbours, too.
        (off != HALF && (2 * off < scale || 2 * off == scale && units.is_multiple_of(2))).then_some(digits)
    };
    let mut scale = 10_000_000;
    let mut digits = nearest(scale)?;
    while scale > 1
        && let Some(fewer) = nearest(scale / 10)
    {
        (digits, scale) = (fewer, scale / 10);
    }
    (digits < scale || scale == 1).then_some((whole + if scale == 1 { digits } else { 0 }, digits, scale))
}

/// `.` and the digits, of which there are as many as `scale` has zeros.
fn write_fraction(digits: u64, scale: u64, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(scale + digits).as_bytes();
    out.push(b'.');
    out.extend_from_slice(text.get(1..).unwrap_or(b""));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn seconds_are_the_shortest_decimal_of_the_float() {
        let mut nanos =
            vec![0, 1, 10, 999_999_999, 1_000_000_000, 1_500_000_000, 999_999_999_999_999, 1_000_000_000_000_001];
        nanos.extend((0..5_000).map(|i| fastrand::Rng::with_seed(i).u64(..2_000_000_000_000_000)));
        for n in nanos {
            #[allow(clippy::cast_precision_loss)]
            let expected = written(|out| write_float(n as f64 / 1e9, out));
            assert_eq!(written(|out| write_seconds(n, out)), expected, "{n}");
        }
    }

    #[test]
    fn times_are_the_shortest_decimal_of_the_float() {
        let second = 1_000_000_000;
        let mut times = vec![-1, 0, 1, (1 << 30) * second, (1 << 31) * second, i64::MAX];
        times.extend([1, 5, 25, 50, 100, 500, 999].map(|milli| 1_795_264_325 * second + milli * 1_000_000));
        let mut rng = fastrand::Rng::with_seed(1);
        times.extend((0..100_000).map(|_| rng.i64(900_000_000 * second..2_400_000_000 * second)));
        // Times of few digits, and those that lie where two decimals are as near.
        times.extend((0..20_000).map(|_| rng.i64(1 << 30..1 << 31) * second + rng.i64(0..1_000_000) * 1_000));
        times.extend((0..20_000).map(|_| rng.i64(1 << 30..1 << 31) * second + rng.i64(0..256) * 3_906_250));
        for time in times {
            #[allow(clippy::cast_precision_loss)]
            let expected = written(|out| write_float(time as f64 / 1e9, out));
            assert_eq!(written(|out| write_unix_seconds(time, out)), expected, "{time}");
        }
    }

    /// Against the rule, byte by byte, at every place of a text.
    #[test]
    fn what_needs_no_escape_is_found() {
        for byte in 0..=255_u8 {
            let plain = (0x20..0x80).contains(&byte) && byte != b'"' && byte != b'\\';
            for length in 1..20 {
                for at in 0..length {
                    let mut text = vec![b'a'; length];
                    text[at] = byte;
                    assert_eq!(is_plain(&text), plain, "{text:?}");
                }
            }
        }
        assert!(is_plain(b""));
    }
}
