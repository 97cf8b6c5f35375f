//! The text of one part of a `multipart/form-data` body (RFC 7578), found without copying the rest.

use std::ops::Range;

use super::peek::Flaw;

/// Headers of one part longer than this are not real.
const MAX_PART_HEAD: usize = 8 << 10;

/// The `boundary` of a content type, when it is multipart and there is one only.
#[must_use]
pub fn boundary(content_type: &str) -> Option<&str> {
    let (kind, rest) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = parameter(rest, "boundary").ok()??;
    // RFC 2046 section 5.1.1: one to seventy characters.
    (1..=70).contains(&value.len()).then_some(value)
}

/// The place of the content of the part called `name`; `None` when there is none.
///
/// # Errors
/// [`Flaw::Duplicate`] when two parts have the name, [`Flaw::Malformed`] when the parts cannot be told apart, or not in a
/// way that every parser agrees with.
pub fn part(body: &[u8], boundary: &str, name: &str) -> Result<Option<Range<usize>>, Flaw> {
    let delimiter = [b"--", boundary.as_bytes()].concat();
    // A preamble may stand before the first delimiter. No client writes one, and a server that takes every body for JSON
    // would read nothing else.
    let lead = if body.starts_with(b"\r\n") { 2 } else { 0 };
    if !body[lead..].starts_with(&delimiter) {
        return Err(Flaw::Malformed(0));
    }
    let mut found = None;
    let mut at = lead + delimiter.len();
    let [between, after_lf, after_cr] = [&b"\r\n"[..], b"\n", b"\r"].map(|end| [end, &delimiter].concat());
    let finder = memchr::memmem::Finder::new(&between);
    let lenient = [&after_lf, &after_cr].map(memchr::memmem::Finder::new);
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
        let place = content..end.max(content);
        // Some parsers take a delimiter behind half a line end for one.
        if lenient.iter().any(|finder| finder.find(&body[place.clone()]).is_some()) {
            return Err(Flaw::Malformed(content));
        }
        if is_named(&body[head_start..head_start + head_end], name)? && found.replace(place).is_some() {
            return Err(Flaw::Duplicate);
        }
        at = end + between.len();
    }
}

/// Whether a part's head gives it the name.
fn is_named(head: &[u8], name: &str) -> Result<bool, Flaw> {
    let Ok(head) = std::str::from_utf8(head) else { return Err(Flaw::Malformed(0)) };
    let mut named = None;
    for line in head.split("\r\n") {
        // Half line ends and folded lines are one line to some and two to others.
        if line.contains(['\r', '\n']) || line.starts_with([' ', '\t']) {
            return Err(Flaw::Malformed(0));
        }
        let Some((field, value)) = line.split_once(':') else { continue };
        if !field.trim().eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        let rest = value.split_once(';').map_or("", |(_, rest)| rest);
        // RFC 7578 section 4.2 forbids the extended form; who reads it could see another name.
        if parameter(rest, "name*")?.is_some() {
            return Err(Flaw::Malformed(0));
        }
        let is_it = parameter(rest, "name")?.is_some_and(|n| n.eq_ignore_ascii_case(name));
        if named.replace(is_it).is_some() {
            return Err(Flaw::Malformed(0));
        }
    }
    Ok(named.unwrap_or(false))
}

/// A parameter of a header value, quotes taken off. An error where parsers could part the parameters differently: one that
/// comes twice, an escaped quote, a word without a value.
fn parameter<'a>(mut rest: &'a str, name: &str) -> Result<Option<&'a str>, Flaw> {
    const UNCLEAR: Flaw = Flaw::Malformed(0);
    if rest.contains("\\\"") {
        return Err(UNCLEAR);
    }
    let mut found = None;
    loop {
        rest = rest.trim_start_matches([';', ' ', '\t']);
        if rest.is_empty() {
            return Ok(found);
        }
        let (key, after) = rest.split_once('=').ok_or(UNCLEAR)?;
        if key.contains([';', '"']) {
            return Err(UNCLEAR);
        }
        let (value, next) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or(UNCLEAR)?,
            None => after.split_at(after.find(';').unwrap_or(after.len())),
        };
        if !matches!(next.trim_start().bytes().next(), None | Some(b';')) {
            return Err(UNCLEAR);
        }
        if key.trim().eq_ignore_ascii_case(name) && found.replace(value.trim()).is_some() {
            return Err(UNCLEAR);
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
            "--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nx",
        ] {
            assert!(matches!(model(bad), Err(Flaw::Malformed(_))), "{bad:?}: {:?}", model(bad));
        }
    }

    #[test]
    fn what_another_parser_would_part_differently_is_refused() {
        const ALLOWED: &str = "--XX\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nallowed\r\n";
        let second =
            |disposition: &str| format!("{ALLOWED}--XX\r\ncontent-disposition: {disposition}\r\n\r\nother\r\n--XX--");
        assert_eq!(model(&format!("\r\n{ALLOWED}--XX--")), Ok(Some("allowed")));
        assert_eq!(model(&second("form-data; name=\"file\"; filename=\"C:\\a.wav\";")), Ok(Some("allowed")));
        for body in [
            // Ollama takes the first JSON value of any body, whatever its type.
            format!("{{\"model\":\"other\"}}\r\n{ALLOWED}--XX--"),
            second("form-data; filename=\"a\\\"; name=\"file\"; name=\"model\""),
            second("form-data; name=\"file\"; name=\"model\""),
            second("form-data; x; name=\"model\""),
            second("form-data; x=\"y\"z; name=\"model\""),
            second("form-data;\r\n name=\"model\""),
            second("form-data; name=\"file\"\r\ncontent-disposition: form-data; name=\"model\""),
            second("form-data; name=\"file\"\ncontent-disposition: form-data; name=\"model\""),
            second("form-data; name=\"file\"\r\n\r\n\n--XX\ncontent-disposition: form-data; name=\"model\"\n\nother"),
            second("form-data; name=\"file\"\r\n\r\nx\r--XX\rcontent-disposition: form-data; name=\"model\"\r\rother"),
        ] {
            assert!(matches!(model(&body), Err(Flaw::Malformed(_))), "{body:?}: {:?}", model(&body));
        }
    }

    #[test]
    fn the_boundary_is_a_parameter_of_the_content_type() {
        assert_eq!(boundary("multipart/form-data; boundary=XX"), Some("XX"));
        assert_eq!(boundary("Multipart/Form-Data; charset=utf-8; Boundary=\"a b\""), Some("a b"));
        assert_eq!(boundary("multipart/form-data"), None);
        assert_eq!(boundary("multipart/form-data; boundary=A; boundary=B"), None);
        assert_eq!(boundary("multipart/form-data; boundary=A; Boundary=\"A\""), None);
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
