//! Taking a prefix or suffix off an escaped path. Compared without regard to case and in decoded form, except where the
//! prefix or suffix itself uses an escape: there the path must use the same one.

/// What is left of the path; `None` when it does not begin with the prefix.
pub(super) fn prefix(path: &str, prefix: &str) -> Option<String> {
    let (path_bytes, prefix) = (path.as_bytes(), prefix.as_bytes());
    let mut at = 0;
    for &wanted in prefix {
        let (found, width) = byte_at(path_bytes, at, wanted)?;
        if !found.eq_ignore_ascii_case(&wanted) {
            return None;
        }
        at += width;
    }
    path.get(at..).map(str::to_owned)
}

/// What is left of the path; `None` when it does not end with the suffix.
pub(super) fn suffix(path: &str, suffix: &str) -> Option<String> {
    let (bytes, suffix) = (path.as_bytes(), suffix.as_bytes());
    let mut end = bytes.len();
    for (i, &wanted) in suffix.iter().enumerate().rev() {
        let escaped_in_suffix = i >= 2 && suffix[i - 2] == b'%';
        let (found, width) = match end.checked_sub(3) {
            Some(start) if bytes[start] == b'%' && !escaped_in_suffix => (decode(&bytes[start..end])?, 3),
            _ => (*bytes.get(end.checked_sub(1)?)?, 1),
        };
        if !found.eq_ignore_ascii_case(&wanted) {
            return None;
        }
        end -= width;
    }
    path.get(..end).map(str::to_owned)
}

/// The byte at a place of an escaped path and how many it takes there.
fn byte_at(path: &[u8], at: usize, wanted: u8) -> Option<(u8, usize)> {
    let byte = *path.get(at)?;
    if byte == b'%' && wanted != b'%' && path.len() >= at + 3 {
        return decode(&path[at..at + 3]).map(|b| (b, 3));
    }
    Some((byte, 1))
}

fn decode(sequence: &[u8]) -> Option<u8> {
    let hex = std::str::from_utf8(sequence.get(1..3)?).ok()?;
    u8::from_str_radix(hex, 16).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn prefix_in_decoded_form() {
        let strip = |p: &str, x: &str| super::prefix(p, x);
        assert_eq!(strip("/api/x", "/api").as_deref(), Some("/x"));
        assert_eq!(strip("/API/x", "/api").as_deref(), Some("/x"));
        assert_eq!(strip("/%61pi/x%2fy", "/api").as_deref(), Some("/x%2fy"));
        assert_eq!(strip("/a%2fb", "/a%2fb").as_deref(), Some(""));
        assert_eq!(strip("/a/b", "/a%2fb"), None);
        assert_eq!(strip("/ap", "/api"), None);
    }

    #[test]
    fn suffix_in_decoded_form() {
        let strip = |p: &str, x: &str| super::suffix(p, x);
        assert_eq!(strip("/m/END", "/end").as_deref(), Some("/m"));
        assert_eq!(strip("/m%2Fend", "/end").as_deref(), Some("/m"));
        assert_eq!(strip("/m%2Fend", "%2Fend").as_deref(), Some("/m"));
        assert_eq!(strip("/m", "/longer/m"), None);
        assert_eq!(strip("/mend", "/end"), None);
    }
}
