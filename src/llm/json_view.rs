//! Looks into JSON and edits it in place: what is not asked for is never parsed, and what is not edited keeps its bytes,
//! the order of fields and the spelling of numbers included.
//!
//! [`Value`] is a place in a text; members and items are found when they are iterated, so that a large body costs no
//! memory beside itself. [`Rewriter`] takes edits in the order of the text.

use std::borrow::Cow;
use std::ops::Range;

use super::peek::{Flaw, Scan};

/// A JSON value where it stands.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    text: &'a [u8],
    start: usize,
    end: usize,
}

/// A member of an object.
#[derive(Clone)]
pub struct Member<'a> {
    key: Value<'a>,
    pub value: Value<'a>,
    /// Where the next member begins.
    next: Option<usize>,
}

/// An item of an array.
#[derive(Clone)]
pub struct Item<'a> {
    pub value: Value<'a>,
    next: Option<usize>,
}

impl<'a> Value<'a> {
    /// The one value of a text.
    pub fn parse(text: &'a [u8]) -> Result<Self, Flaw> {
        let mut scan = Scan { json: text, at: 0 };
        scan.blank();
        let span = scan.value()?;
        scan.end()?;
        Ok(Self::at(text, span))
    }

    /// The value at a place that is known to hold one.
    #[must_use]
    pub fn at(text: &'a [u8], span: Range<usize>) -> Self {
        Self { text, start: span.start, end: span.end }
    }

    #[must_use]
    pub fn span(self) -> Range<usize> {
        self.start..self.end
    }

    #[must_use]
    pub fn raw(self) -> &'a [u8] {
        &self.text[self.start..self.end]
    }

    #[must_use]
    pub fn is_object(self) -> bool {
        self.raw().starts_with(b"{")
    }

    #[must_use]
    pub fn is_array(self) -> bool {
        self.raw().starts_with(b"[")
    }

    #[must_use]
    pub fn is_null(self) -> bool {
        self.raw() == b"null"
    }

    #[must_use]
    pub fn is_true(self) -> bool {
        self.raw() == b"true"
    }

    /// An array or an object with nothing in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        matches!(self.raw(), [b'[' | b'{', inner @ .., _] if inner.trim_ascii().is_empty())
    }

    /// What stands between the quotes of a string, escapes as they are.
    #[must_use]
    pub fn inner(self) -> Option<&'a [u8]> {
        match self.raw() {
            [b'"', inner @ .., b'"'] => Some(inner),
            _ => None,
        }
    }

    /// The text of a string; `None` for other values, and for strings that are no Unicode.
    #[must_use]
    pub fn text(self) -> Option<Cow<'a, str>> {
        let inner = self.inner()?;
        if memchr::memchr(b'\\', inner).is_none() {
            return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
        }
        serde_json::from_slice(self.raw()).ok().map(Cow::Owned)
    }

    /// True for the string of this text.
    #[must_use]
    pub fn is(self, text: &str) -> bool {
        match self.inner() {
            Some(inner) if inner == text.as_bytes() => true,
            Some(inner) => memchr::memchr(b'\\', inner).is_some() && self.text().is_some_and(|t| t == text),
            None => false,
        }
    }

    /// A whole number.
    #[must_use]
    pub fn number(self) -> Option<u64> {
        std::str::from_utf8(self.raw()).ok()?.parse().ok()
    }

    /// The members of an object; of anything else none.
    #[must_use]
    pub fn members(self) -> Members<'a> {
        Members(Steps::new(self, b'{'))
    }

    /// The items of an array; of anything else none.
    #[must_use]
    pub fn items(self) -> Items<'a> {
        Items(Steps::new(self, b'['))
    }

    /// The first member of this name.
    pub fn get(self, name: &str) -> Result<Option<Value<'a>>, Flaw> {
        for member in self.members() {
            let member = member?;
            if member.is(name) {
                return Ok(Some(member.value));
            }
        }
        Ok(None)
    }

    /// The first member of this name, unless it is null.
    pub fn known(self, name: &str) -> Result<Option<Value<'a>>, Flaw> {
        Ok(self.get(name)?.filter(|v| !v.is_null()))
    }
}

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.raw()))
    }
}

impl<'a> Member<'a> {
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.key.is(name)
    }

    #[must_use]
    pub fn is_one_of(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.is(name))
    }

    /// `"key":value`, as it stands.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        &self.value.text[self.span()]
    }

    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.key.start..self.value.end
    }
}

/// Where an iteration over an object or an array is.
struct Steps<'a> {
    scan: Scan<'a>,
    end: usize,
    done: bool,
}

impl<'a> Steps<'a> {
    fn new(value: Value<'a>, open: u8) -> Self {
        let mut scan = Scan { json: value.text, at: value.start + 1 };
        scan.blank();
        let done = !value.raw().starts_with(&[open]) || scan.at + 1 >= value.end;
        Self { scan, end: value.end, done }
    }

    /// Where the next begins, after one has been read.
    fn next(&mut self) -> Result<Option<usize>, Flaw> {
        self.scan.blank();
        if self.scan.at + 1 == self.end {
            self.done = true;
            return Ok(None);
        }
        self.scan.expect(b',')?;
        self.scan.blank();
        Ok(Some(self.scan.at))
    }
}

pub struct Members<'a>(Steps<'a>);

impl<'a> Members<'a> {
    fn read(&mut self) -> Result<Member<'a>, Flaw> {
        let scan = &mut self.0.scan;
        let text = scan.json;
        let key = Value::at(text, scan.string()?);
        scan.blank();
        scan.expect(b':')?;
        scan.blank();
        let value = Value::at(text, scan.value()?);
        Ok(Member { key, value, next: self.0.next()? })
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<Member<'a>, Flaw>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.done {
            return None;
        }
        let member = self.read();
        self.0.done |= member.is_err();
        Some(member)
    }
}

pub struct Items<'a>(Steps<'a>);

impl<'a> Items<'a> {
    fn read(&mut self) -> Result<Item<'a>, Flaw> {
        let text = self.0.scan.json;
        let value = Value::at(text, self.0.scan.value()?);
        Ok(Item { value, next: self.0.next()? })
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Flaw>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.done {
            return None;
        }
        let item = self.read();
        self.0.done |= item.is_err();
        Some(item)
    }
}

/// Takes edits of a value in the order of the text, each behind the last.
pub struct Rewriter<'a> {
    text: &'a [u8],
    /// Up to here the text is in `out`.
    at: usize,
    end: usize,
    out: Vec<u8>,
    changed: bool,
}

/// What becomes of a member or an item.
pub enum Edit {
    /// Stays; its inside may have been edited.
    Keep,
    Remove,
    /// These bytes stand in its place, which may be several members or items.
    Replace(Vec<u8>),
}

impl<'a> Rewriter<'a> {
    #[must_use]
    pub fn new(value: Value<'a>) -> Self {
        Self { text: value.text, at: value.start, end: value.end, out: Vec::new(), changed: false }
    }

    pub fn replace(&mut self, span: Range<usize>, with: &[u8]) {
        debug_assert!(span.start >= self.at && span.end <= self.end);
        if !self.changed {
            self.out.reserve(self.end - self.at + with.len());
            self.changed = true;
        }
        self.out.extend_from_slice(&self.text[self.at..span.start.max(self.at)]);
        self.out.extend_from_slice(with);
        self.at = span.end.max(self.at);
    }

    /// Walks an object; the commas follow what is removed.
    pub fn members(
        &mut self,
        object: Value<'a>,
        mut edit: impl FnMut(&mut Self, &Member<'a>) -> Result<Edit, Flaw>,
    ) -> Result<(), Flaw> {
        let mut commas = Commas::default();
        for member in object.members() {
            let member = member?;
            let edit = edit(self, &member)?;
            commas.apply(self, edit, member.span(), member.next);
        }
        Ok(())
    }

    /// Walks an array; the commas follow what is removed.
    pub fn items(
        &mut self,
        array: Value<'a>,
        mut edit: impl FnMut(&mut Self, Value<'a>) -> Result<Edit, Flaw>,
    ) -> Result<(), Flaw> {
        let mut commas = Commas::default();
        for item in array.items() {
            let item = item?;
            let edit = edit(self, item.value)?;
            commas.apply(self, edit, item.value.span(), item.next);
        }
        Ok(())
    }

    /// The edited value; `None` when nothing was changed.
    #[must_use]
    pub fn finish(mut self) -> Option<Vec<u8>> {
        self.changed.then(|| {
            self.out.extend_from_slice(&self.text[self.at..self.end]);
            self.out
        })
    }
}

#[derive(Default)]
struct Commas {
    /// The end of the one before, once one stays.
    kept: Option<usize>,
}

impl Commas {
    fn apply(&mut self, rewriter: &mut Rewriter<'_>, edit: Edit, span: Range<usize>, next: Option<usize>) {
        match (edit, self.kept) {
            (Edit::Keep, _) => self.kept = Some(span.end),
            (Edit::Replace(with), _) => {
                self.kept = Some(span.end);
                rewriter.replace(span, &with);
            }
            // With its comma: the one before it, or behind it where nothing stays before.
            (Edit::Remove, Some(before)) => {
                rewriter.replace(before..span.end, b"");
                self.kept = Some(span.end);
            }
            (Edit::Remove, None) => rewriter.replace(span.start..next.unwrap_or(span.end), b""),
        }
    }
}

/// Appends the text as it stands inside a JSON string.
pub fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
}

/// Appends the text as a JSON string.
pub fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    escape(out, text);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The members of these names taken out.
    fn without(json: &str, names: &[&str]) -> String {
        let value = Value::parse(json.as_bytes()).unwrap();
        let mut rewriter = Rewriter::new(value);
        rewriter.members(value, |_, m| Ok(if m.is_one_of(names) { Edit::Remove } else { Edit::Keep })).unwrap();
        rewriter.finish().map_or_else(|| json.to_owned(), |out| String::from_utf8(out).unwrap())
    }

    #[test]
    fn removing_keeps_every_other_byte() {
        let json = r#"{ "a": 1, "b" :2 ,"c":[ 1.50 ] }"#;
        assert_eq!(without(json, &[]), json);
        assert_eq!(without(json, &["a"]), r#"{ "b" :2 ,"c":[ 1.50 ] }"#);
        assert_eq!(without(json, &["b"]), r#"{ "a": 1 ,"c":[ 1.50 ] }"#);
        assert_eq!(without(json, &["c"]), r#"{ "a": 1, "b" :2 }"#);
        assert_eq!(without(json, &["a", "b"]), r#"{ "c":[ 1.50 ] }"#);
        assert_eq!(without(json, &["a", "c"]), r#"{ "b" :2 }"#);
        assert_eq!(without(json, &["a", "b", "c"]), "{  }");
        assert_eq!(without(r#"{"\u0061":1}"#, &["a"]), "{}");
    }

    #[test]
    fn edits_inside_and_around_go_together() {
        let json = br#"{"gone":1,"list":[1,{"x":null,"y":2},3],"end":0}"#;
        let root = Value::parse(json).unwrap();
        let mut rewriter = Rewriter::new(root);
        let edited = rewriter.members(root, |rw, m| {
            if m.is("gone") {
                return Ok(Edit::Remove);
            }
            if m.is("end") {
                return Ok(Edit::Replace(b"\"end\":9,\"more\":1".to_vec()));
            }
            rw.items(m.value, |rw, item| {
                rw.members(item, |_, m| Ok(if m.value.is_null() { Edit::Remove } else { Edit::Keep }))?;
                Ok(if item.number() == Some(3) { Edit::Remove } else { Edit::Keep })
            })?;
            Ok(Edit::Keep)
        });
        assert_eq!(edited, Ok(()));
        assert_eq!(rewriter.finish().unwrap(), br#"{"list":[1,{"y":2}],"end":9,"more":1}"#);
    }

    #[test]
    fn values_tell_what_they_are() {
        let json = br#"{"s":"a\"b","n":12,"z":null,"t":true,"e":[ ],"o":{"k":"v"}}"#;
        let root = Value::parse(json).unwrap();
        let get = |name: &str| root.get(name).unwrap().unwrap();
        assert_eq!(get("s").text().as_deref(), Some("a\"b"));
        assert!(get("s").is("a\"b") && !get("s").is("a"));
        assert_eq!((get("n").number(), get("s").number()), (Some(12), None));
        assert!(get("z").is_null() && get("t").is_true() && get("e").is_empty() && !get("o").is_empty());
        assert!(root.known("z").unwrap().is_none());
        assert_eq!(get("s").members().count() + get("s").items().count() + get("e").items().count(), 0);
    }

    #[test]
    fn what_is_malformed_is_told_where_it_is_looked_at() {
        for json in ["{\"a\":1 \"b\":2}", "{\"a\" 1}", "{1:2}", "{,}", "{\"a\":1,}"] {
            let root = Value::parse(json.as_bytes()).unwrap();
            assert!(root.get("none").is_err(), "{json}");
        }
        for json in ["", "{", "[1", "{}x", "[}"] {
            assert!(Value::parse(json.as_bytes()).is_err(), "{json}");
        }
        assert!(Value::parse(b"[1 2]").unwrap().items().any(|item| item.is_err()));
    }

    #[test]
    fn strings_are_escaped() {
        let text = "a\"\\\n\r\t\u{1}ü";
        let mut out = Vec::new();
        string(&mut out, text.as_bytes());
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    proptest! {
        #[test]
        fn removing_is_what_a_parser_would_do(
            fields in prop::collection::btree_map("[a-e]", any::<Option<i32>>(), 0..6),
            gone in prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "d", "e"]), 0..5),
            pretty: bool,
        ) {
            let text = if pretty { serde_json::to_string_pretty(&fields) } else { serde_json::to_string(&fields) }.unwrap();
            let left: std::collections::BTreeMap<String, Option<i32>> =
                serde_json::from_str(&without(&text, &gone)).unwrap();
            let mut expected = fields;
            expected.retain(|name, _| !gone.contains(&name.as_str()));
            prop_assert_eq!(left, expected);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(prop::sample::select(b"{}[]\",:\\ 1n".to_vec()), 0..40)) {
            if let Ok(root) = Value::parse(&bytes) {
                let mut rewriter = Rewriter::new(root);
                let _ = rewriter.members(root, |rw, m| {
                    rw.items(m.value, |_, _| Ok(Edit::Remove))?;
                    Ok(Edit::Keep)
                });
                let _ = rewriter.finish();
            }
        }
    }
}
