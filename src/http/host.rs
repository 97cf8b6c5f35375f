//! Host names as they stand in requests: names beyond ASCII in their `xn--` form.

use std::borrow::Cow;

/// The name with each label beyond ASCII in Punycode (RFC 3492); borrowed when it is ASCII. Case is kept.
#[must_use]
pub fn to_ascii(name: &str) -> Cow<'_, str> {
    if name.is_ascii() {
        return Cow::Borrowed(name);
    }
    let labels: Vec<Cow<'_, str>> = name
        .split('.')
        .map(|label| {
            if label.is_ascii() {
                return Cow::Borrowed(label);
            }
            // Clients lower-case a name before they encode it.
            punycode(&label.to_lowercase()).map_or(Cow::Borrowed(label), |p| Cow::Owned(format!("xn--{p}")))
        })
        .collect();
    Cow::Owned(labels.join("."))
}

/// `None` when a number overflows, which no name of legal length makes happen.
fn punycode(label: &str) -> Option<String> {
    const BASE: u32 = 36;
    const T_MIN: u32 = 1;
    const T_MAX: u32 = 26;
    let threshold = |k: u32, bias: u32| k.saturating_sub(bias).clamp(T_MIN, T_MAX);

    let mut out: String = label.chars().filter(char::is_ascii).collect();
    let basic = u32::try_from(out.len()).ok()?;
    let total = u32::try_from(label.chars().count()).ok()?;
    let mut handled = basic;
    if basic > 0 {
        out.push('-');
    }
    let (mut n, mut delta, mut bias) = (128_u32, 0_u32, 72_u32);
    while handled < total {
        let next = label.chars().map(u32::from).filter(|c| *c >= n).min()?;
        delta = delta.checked_add((next - n).checked_mul(handled + 1)?)?;
        n = next;
        for c in label.chars().map(u32::from) {
            if c < n {
                delta = delta.checked_add(1)?;
            }
            if c == n {
                let mut q = delta;
                let mut k = BASE;
                loop {
                    let t = threshold(k, bias);
                    if q < t {
                        break;
                    }
                    out.push(digit(t + (q - t) % (BASE - t))?);
                    q = (q - t) / (BASE - t);
                    k += BASE;
                }
                out.push(digit(q)?);
                bias = adapt(delta, handled + 1, handled == basic);
                delta = 0;
                handled += 1;
            }
        }
        delta = delta.checked_add(1)?;
        n += 1;
    }
    Some(out)
}

fn adapt(delta: u32, points: u32, first: bool) -> u32 {
    let mut delta = if first { delta / 700 } else { delta / 2 };
    delta += delta / points;
    let mut k = 0;
    while delta > 455 {
        delta /= 35;
        k += 36;
    }
    k + 36 * delta / (delta + 38)
}

fn digit(d: u32) -> Option<char> {
    let alphabet = b"abcdefghijklmnopqrstuvwxyz0123456789";
    alphabet.get(d as usize).map(|b| char::from(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_ascii_are_encoded() {
        assert_eq!(to_ascii("a.test"), "a.test");
        assert_eq!(to_ascii("münchen.de"), "xn--mnchen-3ya.de");
        assert_eq!(to_ascii("*.Bücher.example"), "*.xn--bcher-kva.example");
        assert_eq!(to_ascii("例え.テスト"), "xn--r8jz45g.xn--zckzah");
    }
}
