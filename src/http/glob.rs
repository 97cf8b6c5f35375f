//! Go's `path.Match`: `*` and `?` stay within a segment, `[a-z]` and `[^a]` are classes, a backslash escapes.

/// True when the whole text matches; a malformed pattern matches nothing.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern = pattern.as_bytes();
    let text = text.as_bytes();
    let (mut p, mut t) = (0, 0);
    // The latest star: the pattern behind it, and how far it reaches now. Going back to the latest one is enough, as a
    // star cannot pass a slash: an earlier one could never make more of the same segment.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        if p == pattern.len() && t == text.len() {
            return true;
        }
        if let Some((next_p, next_t)) = step(pattern, p, text, t) {
            (p, t) = (next_p, next_t);
            continue;
        }
        match star {
            Some((after, reach)) if reach < text.len() && text[reach] != b'/' => {
                star = Some((after, reach + 1));
                (p, t) = (after, reach + 1);
            }
            _ => return false,
        }
    }
}

/// True when the pattern has a sign with a meaning.
#[must_use]
pub fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '\\'])
}

/// Matches one element of the pattern against one character; the positions behind both.
fn step(pattern: &[u8], p: usize, text: &[u8], t: usize) -> Option<(usize, usize)> {
    let here = *text.get(t)?;
    match *pattern.get(p)? {
        b'?' => (here != b'/').then(|| (p + 1, t + char_len(here))),
        b'[' => class(pattern, p + 1, text, t),
        b'\\' => (*pattern.get(p + 1)? == here).then_some((p + 2, t + 1)),
        literal => (literal == here).then_some((p + 1, t + 1)),
    }
}

fn class(pattern: &[u8], mut p: usize, text: &[u8], t: usize) -> Option<(usize, usize)> {
    let end = t + char_len(text[t]);
    let c = decode(text.get(t..end)?)?;
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut inside = false;
    let mut first = true;
    loop {
        if pattern.get(p) == Some(&b']') && !first {
            return (inside != negated).then_some((p + 1, end));
        }
        first = false;
        let (low, after) = class_char(pattern, p)?;
        p = after;
        let mut high = low;
        if pattern.get(p) == Some(&b'-') {
            (high, p) = class_char(pattern, p + 1)?;
        }
        inside |= (low..=high).contains(&c);
    }
}

fn class_char(pattern: &[u8], mut p: usize) -> Option<(char, usize)> {
    match *pattern.get(p)? {
        b'-' | b']' => return None,
        b'\\' => p += 1,
        _ => {}
    }
    let end = p + char_len(*pattern.get(p)?);
    Some((decode(pattern.get(p..end)?)?, end))
}

fn char_len(first: u8) -> usize {
    match first {
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0.. => 4,
        _ => 1,
    }
}

fn decode(bytes: &[u8]) -> Option<char> {
    std::str::from_utf8(bytes).ok()?.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_pattern_and_text(pattern in r"[a-c*?\[\]\\^/é-]{0,10}", text in "[a-cé/]{0,10}") {
            let _ = matches(&pattern, &text);
        }
    }

    #[test]
    fn matching_is_that_of_go() {
        // From the documentation and tests of Go's path package.
        for (pattern, text, want) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[^b-d]", "abc", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("a?b", "a/b", false),
            ("[]a]", "]", false),
            ("[-]", "-", false),
            ("[\\]a]", "]", true),
            ("[x\\-]", "-", true),
            ("[a", "a", false),
            ("a[", "a", false),
            ("*x", "xxx", true),
            ("/u/*/info", "/u/1/2/info", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
        assert!(!matches(&"*a".repeat(1000), &"a".repeat(900)));
    }
}
