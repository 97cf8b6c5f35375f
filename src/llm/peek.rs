//! Finds top-level fields of a JSON object without parsing the rest, so that one value can be read, or replaced in
//! place, while every other byte stays as it came.
//!
//! The rest is skipped by structure alone: strings, brackets and their nesting. What is not well-formed in a way that
//! could hide a field is a [`Flaw`]; what is wrong inside a skipped number or word is for the upstream to say.

use std::ops::Range;

use smallvec::{SmallVec, smallvec};

/// Nesting allowed: far above any real request, far below what exhausts a parser's stack.
pub const MAX_DEPTH: usize = 512;

/// Why fields cannot be told for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Not JSON, as far as the structure goes: byte offset.
    Malformed(usize),
    /// JSON, but no object.
    NotAnObject,
    /// One of the wanted names comes twice: parsers differ on which one counts.
    Duplicate,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
}

/// Places of the values of `names`, in their order, `None` for a name that is absent.
///
/// A name counts in any letter case and with escapes (Go's parsers take `"Model"` for `"model"`), so that what a check
/// saw is what an upstream sees. Cost: one pass, at the speed of a byte search through strings.
pub fn top_level<const N: usize>(json: &[u8], names: [&str; N]) -> Result<[Option<Range<usize>>; N], Flaw> {
    let mut found = [const { None }; N];
    let mut scan = Scan { json, at: 0 };
    scan.blank();
    match scan.byte() {
        Some(b'{') => scan.at += 1,
        Some(b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => return Err(Flaw::NotAnObject),
        _ => return Err(scan.flaw()),
    }
    scan.blank();
    if scan.byte() == Some(b'}') {
        scan.at += 1;
        return scan.end().map(|()| found);
    }
    loop {
        scan.blank();
        let key = scan.string()?;
        let wanted = position(&json[key.start + 1..key.end - 1], &names);
        scan.blank();
        scan.expect(b':')?;
        scan.blank();
        let value = scan.value()?;
        if let Some(index) = wanted
            && found[index].replace(value).is_some()
        {
            return Err(Flaw::Duplicate);
        }
        scan.blank();
        match scan.byte() {
            Some(b',') => scan.at += 1,
            Some(b'}') => {
                scan.at += 1;
                return scan.end().map(|()| found);
            }
            _ => return Err(scan.flaw()),
        }
    }
}

/// Which of the names a key's inner text means.
fn position(key: &[u8], names: &[&str]) -> Option<usize> {
    let is = |text: &[u8]| names.iter().position(|name| name.as_bytes().eq_ignore_ascii_case(text));
    if memchr::memchr(b'\\', key).is_none() {
        return is(key);
    }
    // An escaped letter takes six bytes at most.
    let longest = names.iter().map(|n| n.len() * 6).max().unwrap_or(0);
    if key.len() > longest {
        return None;
    }
    let mut quoted: SmallVec<[u8; 64]> = smallvec![b'"'];
    quoted.extend_from_slice(key);
    quoted.push(b'"');
    serde_json::from_slice::<String>(&quoted).ok().and_then(|text| is(text.as_bytes()))
}

/// Where the next quote or backslash is. The nearest bytes are looked at one by one: keys, and what stands between the
/// escapes of code, are shorter than a search with wide registers takes to begin.
pub(super) fn quote_or_backslash(rest: &[u8]) -> Option<usize> {
    let near = rest.get(..8).unwrap_or(rest);
    near.iter().position(|b| matches!(b, b'"' | b'\\')).or_else(|| memchr::memchr2(b'"', b'\\', rest))
}

/// Steps through JSON by structure.
pub(super) struct Scan<'a> {
    pub(super) json: &'a [u8],
    pub(super) at: usize,
}

impl Scan<'_> {
    pub(super) fn byte(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }

    pub(super) fn flaw(&self) -> Flaw {
        Flaw::Malformed(self.at.min(self.json.len()))
    }

    pub(super) fn blank(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Flaw> {
        if self.byte() != Some(byte) {
            return Err(self.flaw());
        }
        self.at += 1;
        Ok(())
    }

    /// Nothing but blanks is left.
    pub(super) fn end(&mut self) -> Result<(), Flaw> {
        self.blank();
        if self.at == self.json.len() { Ok(()) } else { Err(self.flaw()) }
    }

    /// A string with its quotes.
    pub(super) fn string(&mut self) -> Result<Range<usize>, Flaw> {
        let start = self.at;
        self.expect(b'"')?;
        while let Some(next) = quote_or_backslash(self.json.get(self.at..).unwrap_or_default()) {
            self.at += next;
            // Escapes often come in runs: `\r\n`, `\n\n`, `\"\"`.
            while self.byte() == Some(b'\\') {
                self.at += 2;
            }
            if self.byte() == Some(b'"') {
                self.at += 1;
                return Ok(start..self.at);
            }
        }
        self.at = self.json.len();
        Err(self.flaw())
    }

    /// A number or a word: up to what may follow one.
    fn scalar(&mut self) -> Result<(), Flaw> {
        let start = self.at;
        while matches!(self.byte(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'+' | b'.')) {
            self.at += 1;
        }
        if self.at == start { Err(self.flaw()) } else { Ok(()) }
    }

    pub(super) fn value(&mut self) -> Result<Range<usize>, Flaw> {
        let start = self.at;
        match self.byte() {
            Some(b'"') => return self.string(),
            Some(b'{' | b'[') => self.nested()?,
            _ => self.scalar()?,
        }
        Ok(start..self.at)
    }

    /// An object or an array with all that is in it. Brackets must pair; commas and colons are not looked at.
    fn nested(&mut self) -> Result<(), Flaw> {
        // One bit a level: set for an object.
        let mut kinds = [0_u64; MAX_DEPTH / 64];
        let mut depth = 0;
        loop {
            match self.byte() {
                Some(open @ (b'{' | b'[')) => {
                    let Some(word) = kinds.get_mut(depth / 64) else { return Err(Flaw::TooDeep) };
                    let bit = 1 << (depth % 64);
                    *word = if open == b'{' { *word | bit } else { *word & !bit };
                    depth += 1;
                    self.at += 1;
                }
                Some(close @ (b'}' | b']')) => {
                    depth -= 1;
                    let is_object = kinds.get(depth / 64).is_some_and(|word| word >> (depth % 64) & 1 == 1);
                    if is_object != (close == b'}') {
                        return Err(self.flaw());
                    }
                    self.at += 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(b',' | b':' | b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(_) => self.scalar()?,
                None => return Err(self.flaw()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn model(json: &str) -> Result<Option<&str>, Flaw> {
        top_level(json.as_bytes(), ["model"]).map(|[range]| range.map(|r| &json[r]))
    }

    #[test]
    fn fields_are_found_wherever_they_stand() {
        assert_eq!(model(r#"{"model":"a"}"#), Ok(Some("\"a\"")));
        assert_eq!(model(" \n{ \"x\" : [1,{\"model\":\"no\"}] , \"model\" : \"a\\\"b\" } "), Ok(Some("\"a\\\"b\"")));
        assert_eq!(model(r#"{"x":"\\","model":{"y":[]}}"#), Ok(Some(r#"{"y":[]}"#)));
        assert_eq!(model(r#"{"model":null,"t":-1.5e3}"#), Ok(Some("null")));
        assert_eq!(model("{}"), Ok(None));
        let [stream, name] = top_level(br#"{"stream":true,"n":1}"#, ["stream", "name"]).unwrap();
        assert_eq!((stream, name), (Some(10..14), None));
    }

    #[test]
    fn other_spellings_of_a_name_are_the_name() {
        assert_eq!(model(r#"{"Model":"a"}"#), Ok(Some("\"a\"")));
        assert_eq!(model(r#"{"mod\u0065l":"a"}"#), Ok(Some("\"a\"")));
        assert_eq!(model(r#"{"\u006d\u006f\u0064\u0065\u006c":"a"}"#), Ok(Some("\"a\"")));
        for twice in
            [r#"{"model":"a","model":"b"}"#, r#"{"model":"a","MODEL":"b"}"#, r#"{"mod\u0065l":"a","model":"b"}"#]
        {
            assert_eq!(model(twice), Err(Flaw::Duplicate), "{twice}");
        }
    }

    #[test]
    fn what_is_no_object_is_told() {
        for other in ["[1]", "\"x\"", "12", "true", "null"] {
            assert_eq!(model(other), Err(Flaw::NotAnObject), "{other}");
        }
        for bad in [
            "",
            "x",
            "{",
            "{\"",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":[}",
            "{\"a\":[1}]}",
            "{\"a\":1}x",
            "{\"a\":\"\\",
            "{\"a\" 1}",
            "\u{feff}{}",
            "{\"a\":[\u{1}]}",
        ] {
            assert!(matches!(model(bad), Err(Flaw::Malformed(_))), "{bad:?}: {:?}", model(bad));
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert_eq!(model(&nested(MAX_DEPTH)), Ok(None));
        assert_eq!(model(&nested(MAX_DEPTH + 1)), Err(Flaw::TooDeep));
        assert_eq!(model(&format!("{{\"a\":{}", "{\"a\":[".repeat(1 << 20))), Err(Flaw::TooDeep));
    }

    #[test]
    fn bytes_that_are_not_utf8_pass_in_strings() {
        let [found] = top_level(b"{\"p\":\"\xff\xfe\",\"model\":\"a\"}", ["model"]).unwrap();
        assert_eq!(found, Some(18..21));
    }

    #[test]
    fn strings_end_at_the_first_bare_quote_at_any_distance() {
        for length in 0..24 {
            for filler in ["x", "\\\"", "\\\\", "x\\\"", "\\\\x"] {
                let text = format!("{{\"a\":\"{}\",\"model\":\"m\"}}", filler.repeat(length));
                assert_eq!(model(&text), Ok(Some("\"m\"")), "{text}");
                let cut = &text[..text.len() - 13];
                assert_eq!(model(cut), Err(Flaw::Malformed(cut.len())), "{cut}");
            }
        }
    }

    #[test]
    #[ignore = "prints times: cargo test --release --lib peek -- --ignored --nocapture"]
    fn what_a_mebibyte_costs() {
        use std::time::Instant;

        let size = 1 << 20;
        for (what, piece) in [
            ("plain text", "words without anything special in them "),
            ("code", "    if found {\\n        return \\\"yes\\\";\\n    }\\n"),
            ("letters as \\uXXXX", "\\u0431\\u044b\\u0441\\u0442\\u0440\\u043e "),
            ("nothing but escapes", "\\n"),
            ("every other byte escaped", "\\nx"),
        ] {
            let body = format!("{{\"input\":\"{}\",\"model\":\"m\"}}", piece.repeat(size / piece.len()));
            let best = (0..20).map(|_| {
                let began = Instant::now();
                assert!(matches!(top_level(body.as_bytes(), ["model"]), Ok([Some(_)])));
                began.elapsed()
            });
            eprintln!("{what}: {:?} a MiB", best.min().unwrap());
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(".{0,6}", inner, 0..5).prop_map(|m| json!(m)),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_real_parser(fields in prop::collection::btree_map("[a-z\"\\\\é]{0,6}", value(), 0..6), pretty: bool) {
            let object = json!(fields);
            let text = if pretty { serde_json::to_string_pretty(&object).unwrap() } else { object.to_string() };
            for name in fields.keys() {
                let [range] = top_level(text.as_bytes(), [name.as_str()]).unwrap();
                let read: Value = serde_json::from_str(&text[range.unwrap()]).unwrap();
                prop_assert_eq!(&read, &object[name]);
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut object = b"{\"model\":\"m\",\"x\":".to_vec();
            object.extend(&bytes);
            let _ = top_level(&object, ["model"]);
            let _ = top_level(&bytes, ["model", "stream"]);
        }
    }
}
