//! Writes the fields of one entry as JSON, through the field filters, into a buffer.

use std::borrow::Cow;
use std::time::Duration;

use super::filter::{FieldFilters, Filter, filter_cookies};
use super::json::{write_number, write_seconds, write_text};
use crate::base::units::format_duration;

/// How durations are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DurationFormat {
    /// Seconds with a fraction.
    #[default]
    Seconds,
    Millis,
    Nanos,
    /// `1.5ms`.
    Text,
}

/// A field's value.
#[derive(Debug, Clone, Copy)]
pub enum Value<'v> {
    /// Text that should be UTF-8; what is not becomes `U+FFFD`.
    Text(&'v [u8]),
    /// Text that needs no escapes.
    Plain(&'v [u8]),
    Number(u64),
    Bool(bool),
    Duration(Duration),
    List(&'v [&'v [u8]]),
    /// Valid JSON.
    Json(&'v [u8]),
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(text.as_bytes())
    }
}

/// A field's name. One of the program's own is made by `key!` with the punctuation around it.
#[derive(Debug, Clone, Copy)]
pub struct Key<'k> {
    pub name: &'k str,
    /// `,"name":`; empty when the name is not known before.
    pub json: &'static str,
}

impl<'k> From<&'k str> for Key<'k> {
    fn from(name: &'k str) -> Self {
        Self { name, json: "" }
    }
}

/// The key of this name, which needs no escapes.
macro_rules! key {
    ($name:literal) => {
        $crate::telemetry::line::Key { name: $name, json: concat!(",\"", $name, "\":") }
    };
}
pub(crate) use key;

/// The fields of an object being written.
pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    filters: &'a [FieldFilters],
    duration: DurationFormat,
    /// A space after colons and commas, as in zap's console format.
    spaced: bool,
    first: bool,
    /// Path of the object, each level followed by `>`; kept only where there are filters.
    path: String,
}

impl<'a> Line<'a> {
    /// Goes on in an object whose brace is open; `first` when it is empty so far.
    pub(super) fn new(
        out: &'a mut Vec<u8>,
        filters: &'a [FieldFilters],
        duration: DurationFormat,
        spaced: bool,
        first: bool,
    ) -> Self {
        Self { out, filters, duration, spaced, first, path: String::new() }
    }

    /// An object of the JSON format without filters, whose brace is open.
    pub fn plain(out: &'a mut Vec<u8>) -> Self {
        Self::new(out, &[], DurationFormat::default(), false, true)
    }

    #[inline]
    pub fn text<'k>(&mut self, key: impl Into<Key<'k>>, value: &str) {
        self.field(key, value.into());
    }

    /// A number as a text.
    pub fn number_text<'k>(&mut self, key: impl Into<Key<'k>>, value: u64) {
        self.field(key, Value::Plain(itoa::Buffer::new().format(value).as_bytes()));
    }

    #[inline]
    pub fn number<'k>(&mut self, key: impl Into<Key<'k>>, value: u64) {
        self.field(key, Value::Number(value));
    }

    #[inline]
    pub fn bool<'k>(&mut self, key: impl Into<Key<'k>>, value: bool) {
        self.field(key, Value::Bool(value));
    }

    #[inline]
    pub fn duration<'k>(&mut self, key: impl Into<Key<'k>>, value: Duration) {
        self.field(key, Value::Duration(value));
    }

    #[inline]
    pub fn field<'k>(&mut self, key: impl Into<Key<'k>>, value: Value<'_>) {
        let key = key.into();
        if self.filters.is_empty() {
            self.key(key);
            self.value(value);
        } else {
            self.filtered_field(key.name, value);
        }
    }

    fn filtered_field(&mut self, key: &str, value: Value<'_>) {
        let mut state = Filtered { key: Cow::Borrowed(key), changed: None };
        for layer in self.filters {
            if !state.pass(layer, &self.path, value) {
                return;
            }
        }
        self.key((&*state.key).into());
        match state.changed {
            None => self.value(value),
            Some(Changed::Text(text)) => self.value(text.as_str().into()),
            Some(Changed::List(list)) => {
                let list: Vec<&[u8]> = list.iter().map(String::as_bytes).collect();
                self.value(Value::List(&list));
            }
        }
    }

    /// An object, whose fields `write` gives.
    pub fn object<'k>(&mut self, key: impl Into<Key<'k>>, write: impl FnOnce(&mut Line<'_>)) {
        let key = key.into();
        if self.filters.is_empty() {
            self.key(key);
        } else if !self.filtered_object(key.name) {
            return;
        }
        self.out.push(b'{');
        let path = if self.filters.is_empty() { String::new() } else { format!("{}{}>", self.path, key.name) };
        let mut inner = Line {
            out: self.out,
            filters: self.filters,
            duration: self.duration,
            spaced: self.spaced,
            first: true,
            path,
        };
        write(&mut inner);
        self.out.push(b'}');
    }

    /// Begins an object; false when there is none to fill.
    fn filtered_object(&mut self, key: &str) -> bool {
        let mut state = Filtered { key: Cow::Borrowed(key), changed: None };
        for layer in self.filters {
            if !state.pass(layer, &self.path, Value::Bool(true)) {
                return false;
            }
        }
        self.key((&*state.key).into());
        if let Some(Changed::Text(text)) = state.changed {
            self.value(text.as_str().into());
            return false;
        }
        true
    }

    /// Fields that were written before, in the plain form, into an object that has none yet.
    pub fn written(&mut self, fields: &[u8]) {
        self.out.extend_from_slice(fields);
        self.first &= fields.is_empty();
    }

    /// An object of the fields of a head, of which the plain form is written.
    pub fn head_fields<'h>(&mut self) -> HeadFields<'_, 'h> {
        debug_assert!(self.filters.is_empty() && !self.spaced, "for objects of the plain form");
        HeadFields { out: self.out, open: None, first: &mut self.first }
    }

    #[inline]
    fn key(&mut self, key: Key<'_>) {
        if self.spaced || key.json.is_empty() {
            return self.odd_key(key.name);
        }
        self.out.extend_from_slice(key.json.as_bytes().get(usize::from(self.first)..).unwrap_or(b""));
        self.first = false;
    }

    fn odd_key(&mut self, key: &str) {
        if !self.first {
            self.out.extend_from_slice(if self.spaced { b", " } else { b"," });
        }
        self.first = false;
        write_text(key.as_bytes(), self.out);
        self.out.extend_from_slice(if self.spaced { b": " } else { b":" });
    }

    #[inline]
    fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Text(text) => write_text(text, self.out),
            Value::Plain(text) => {
                self.out.push(b'"');
                self.out.extend_from_slice(text);
                self.out.push(b'"');
            }
            Value::Number(n) => write_number(n, self.out),
            Value::Bool(b) => self.out.extend_from_slice(if b { b"true" } else { b"false" }),
            Value::Duration(d) => write_duration(d, self.duration, self.out),
            Value::Json(json) => self.out.extend_from_slice(json),
            Value::List(list) => {
                self.out.push(b'[');
                for (i, text) in list.iter().enumerate() {
                    if i > 0 {
                        self.out.extend_from_slice(if self.spaced { b", " } else { b"," });
                    }
                    write_text(text, self.out);
                }
                self.out.push(b']');
            }
        }
    }
}

/// Lists of texts under the names of header fields, in Go's form. To be closed by [`HeadFields::end`].
pub struct HeadFields<'l, 'h> {
    out: &'l mut Vec<u8>,
    /// The name whose list is open.
    open: Option<&'h str>,
    first: &'l mut bool,
}

impl<'h> HeadFields<'_, 'h> {
    /// The values of a name come one after the other; of those that are `once` only the first is written.
    #[inline]
    pub fn add(&mut self, name: &'h str, value: &[u8], once: &str) {
        if self.open == Some(name) {
            if value == once.as_bytes() {
                return;
            }
            self.out.push(b',');
        } else {
            let before: &[u8] = match (self.open, &self.first) {
                (Some(_), _) => b"],\"",
                (None, false) => b",\"",
                (None, true) => b"\"",
            };
            self.out.extend_from_slice(before);
            *self.first = false;
            write_field_name(name, self.out);
            self.out.extend_from_slice(b"\":[");
            self.open = Some(name);
        }
        write_text(value, self.out);
    }

    pub fn end(self) {
        if self.open.is_some() {
            self.out.push(b']');
        }
    }
}

/// A field on its way through the filters.
struct Filtered<'k> {
    key: Cow<'k, str>,
    changed: Option<Changed>,
}

enum Changed {
    Text(String),
    List(Vec<String>),
}

impl Filtered<'_> {
    /// False when the field goes.
    fn pass(&mut self, layer: &FieldFilters, path: &str, original: Value<'_>) -> bool {
        let filter =
            if path.is_empty() { layer.get(&*self.key) } else { layer.get(format!("{path}{}", self.key).as_str()) };
        match filter {
            None => {}
            Some(Filter::Delete) => return false,
            Some(Filter::Rename(name)) => self.key = Cow::Owned(name.to_string()),
            Some(Filter::Replace(with)) => self.changed = Some(Changed::Text(with.to_string())),
            Some(Filter::Map(f)) => match self.current(original) {
                Some(Changed::Text(text)) => self.changed = Some(Changed::Text(f(&text))),
                Some(Changed::List(list)) => {
                    self.changed = Some(Changed::List(list.iter().map(|text| f(text)).collect()));
                }
                None => {}
            },
            Some(Filter::Cookie(actions)) => {
                if let Some(Changed::List(list)) = self.current(original) {
                    self.changed = Some(Changed::List(filter_cookies(&list, actions)));
                }
            }
        }
        true
    }

    fn current(&mut self, original: Value<'_>) -> Option<Changed> {
        if let Some(changed) = self.changed.take() {
            return Some(changed);
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match original {
            Value::Text(bytes) | Value::Plain(bytes) => Some(Changed::Text(text(bytes))),
            Value::List(list) => Some(Changed::List(list.iter().map(|b| text(b)).collect())),
            _ => None,
        }
    }
}

/// The name of a header field, which is in lower case, as Go writes it.
pub fn write_field_name(name: &str, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(name.as_bytes());
    let mut upper = true;
    for byte in out.get_mut(start..).unwrap_or_default() {
        if upper {
            byte.make_ascii_uppercase();
        }
        upper = *byte == b'-';
    }
}

fn write_duration(duration: Duration, format: DurationFormat, out: &mut Vec<u8>) {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    match format {
        DurationFormat::Seconds => write_seconds(nanos, out),
        DurationFormat::Millis => write_number(nanos / 1_000_000, out),
        DurationFormat::Nanos => write_number(nanos, out),
        DurationFormat::Text => {
            write_text(format_duration(i64::try_from(nanos).unwrap_or(i64::MAX)).as_bytes(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(filters: &[FieldFilters], write: impl FnOnce(&mut Line<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Line::new(&mut out, filters, DurationFormat::Seconds, false, true));
        String::from_utf8(out).unwrap()
    }

    fn sample(line: &mut Line<'_>) {
        line.text("host", "a.test");
        line.object("headers", |line| {
            line.field("A", Value::List(&[b"x1", b"x2"]));
            line.field("Cookie", Value::List(&[b"a=1; b=2"]));
        });
        line.number("size", 5);
    }

    #[test]
    fn fields_are_json() {
        let expected = r#""host":"a.test","headers":{"A":["x1","x2"],"Cookie":["a=1; b=2"]},"size":5"#;
        assert_eq!(written(&[], sample), expected);
        let line = written(&[], |line| {
            line.field("k\"", Value::Text(b"a\"\\\n\r\t\x01\xff<\xc3\xa9"));
            line.duration("d", Duration::from_nanos(99_469));
            line.bool("b", true);
            line.field("j", Value::Json(b"null"));
        });
        assert_eq!(line, r#""k\"":"a\"\\\n\r\t\u0001\ufffd<é","d":0.000099469,"b":true,"j":null"#);
    }

    #[test]
    fn filters_see_fields_by_path_and_layers_follow_each_other() {
        let first = FieldFilters::from([
            ("host".into(), Filter::Rename("site".into())),
            ("headers>A".into(), Filter::map(str::to_uppercase)),
            ("headers>Cookie".into(), Filter::Cookie(Box::new([]))),
            ("size".into(), Filter::map(|_| "a number stays".into())),
        ]);
        let second = FieldFilters::from([
            ("site".into(), Filter::Replace("S".into())),
            ("headers>A".into(), Filter::map(|t| format!("{t}!"))),
        ]);
        let layers = [first, second];
        assert_eq!(
            written(&layers, sample),
            r#""site":"S","headers":{"A":["X1!","X2!"],"Cookie":["a=1; b=2"]},"size":5"#
        );
        let gone = [FieldFilters::from([("headers".into(), Filter::Delete), ("host".into(), Filter::Delete)])];
        assert_eq!(written(&gone, sample), r#""size":5"#);
    }
}
