//! The text of one part of a `multipart/form-data` body (RFC 7578), found without copying the rest.

use std::ops::Range;

use super::peek::Flaw;

/// Headers of one part longer than this are not real.
const MAX_PART_HEAD: usize = 8 << 10;

/// The `boundary` of a content type, when it is multipart.
#[must_use]
pub fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = parameter(parameters, "boundary")?;
    // RFC 2046 section 5.1.1: one to seventy characters.
    (1..=70).contains(&value.len()).then_some(value)
}

/// The place of the content of the part called `name`; `None` when there is none.
///
/// # Errors
/// [`Flaw::Duplicate`] when two parts have the name, [`Flaw::Malformed`] when the parts cannot be told apart.
pub fn part(body: &[u8], boundary: &str, name: &str) -> Result<Option<Range<usize>>, Flaw> {
    let delimiter = [b"--", boundary.as_bytes()].concat();
    let mut found = None;
    // What stands before the first delimiter is a preamble.
    let mut at = match memchr::memmem::find(body, &delimiter) {
        Some(0) => delimiter.len(),
        Some(first) if body[..first].ends_with(b"\r\n") => first + delimiter.len(),
        _ => return Err(Flaw::Malformed(0)),
    };
    let between = [b"\r\n", delimiter.as_slice()].concat();
    let finder = memchr::memmem::Finder::new(&between);
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Ok(found);
        }
        // Blanks may pad the delimiter's line.
        let line = memchr::memmem::find(rest, b"\r\n").ok_or(Flaw::Malformed(at))?;
        if !rest[..line].iter().all(|b| matches!(b, b' ' | b'\t')) {
            return Err(Flaw::Malformed(at));
        }
        // Kept: an empty head begins with the empty line at once.
        let head_start = at + line;
        let head_end = memchr::memmem::find(&body[head_start..], b"\r\n\r\n")
            .filter(|n| *n <= MAX_PART_HEAD)
            .ok_or(Flaw::Malformed(head_start))?;
        let content = head_start + head_end + 4;
        // The delimiter's own line end may be that of the empty line.
        let end = finder.find(&body[content - 2..]).ok_or(Flaw::Malformed(content))? + content - 2;
        if is_named(&body[head_start..head_start + head_end], name)?
            && found.replace(content..end.max(content)).is_some()
        {
            return Err(Flaw::Duplicate);
        }
        at = end + between.len();
    }
}

/// Whether a part's head gives it the name.
fn is_named(head: &[u8], name: &str) -> Result<bool, Flaw> {
    let Ok(head) = std::str::from_utf8(head) else { return Err(Flaw::Malformed(0)) };
    for line in head.split("\r\n") {
        let Some((field, value)) = line.split_once(':') else { continue };
        if !field.trim().eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        let Some((_, parameters)) = value.split_once(';') else { continue };
        // RFC 7578 section 4.2 forbids the extended form; who reads it could see another name.
        if parameter(parameters, "name*").is_some() {
            return Err(Flaw::Malformed(0));
        }
        return Ok(parameter(parameters, "name").is_some_and(|n| n.eq_ignore_ascii_case(name)));
    }
    Ok(false)
}

/// A parameter of a header value, quotes taken off.
fn parameter<'a>(mut rest: &'a str, name: &str) -> Option<&'a str> {
    loop {
        rest = rest.trim_start_matches([';', ' ', '\t']);
        let (key, after) = rest.split_once('=')?;
        let (value, next) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(';').map_or((after.trim(), ""), |(v, next)| (v.trim(), next)),
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(body: &str) -> Result<Option<&str>, Flaw> {
        part(body.as_bytes(), "XX", "model").map(|r| r.map(|r| &body[r]))
    }

    const FILE: &str =
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a; name=model.wav\"\r\n\r\n\0\r\n--X\r\n";

    #[test]
    fn a_part_is_found_before_or_after_the_file() {
        let model_part = "--XX\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n";
        assert_eq!(model(&format!("{FILE}\r\n{model_part}--XX--\r\n")), Ok(Some("whisper-1")));
        assert_eq!(model(&format!("{model_part}{FILE}\r\n--XX--")), Ok(Some("whisper-1")));
        assert_eq!(model(&format!("{FILE}\r\n--XX--")), Ok(None));
        assert_eq!(model(&format!("{model_part}{model_part}--XX--")), Err(Flaw::Duplicate));
        assert_eq!(model("--XX\r\ncontent-disposition: form-data; name=model\r\n\r\n\r\n--XX--"), Ok(Some("")));
    }

    #[test]
    fn broken_bodies_are_told() {
        for bad in [
            "",
            "--X",
            "--XX",
            "--XX\r\n",
            "x--XX--",
            "--XXyy\r\n\r\n\r\n--XX--",
            "--XX\r\nA: b\r\n\r\nnever ends",
            "--XX\r\nContent-Disposition: form-data; name*=utf-8''model\r\n\r\nx\r\n--XX--",
        ] {
            assert!(matches!(model(bad), Err(Flaw::Malformed(_))), "{bad:?}: {:?}", model(bad));
        }
    }

    #[test]
    fn the_boundary_is_a_parameter_of_the_content_type() {
        assert_eq!(boundary("multipart/form-data; boundary=XX"), Some("XX"));
        assert_eq!(boundary("Multipart/Form-Data; charset=utf-8; Boundary=\"a b\""), Some("a b"));
        assert_eq!(boundary("multipart/form-data"), None);
        assert_eq!(boundary("application/json; boundary=XX"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let mut body = b"--XX\r\n".to_vec();
            body.extend(&bytes);
            let _ = part(&body, "XX", "model");
            body.extend(b"\r\n--XX--");
            let _ = part(&body, "XX", "model");
        }
    }
}
