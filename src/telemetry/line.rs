//! Writes the fields of one entry as JSON, through the field filters, into a buffer.

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use super::filter::{FieldFilters, Filter, filter_cookies};
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
    Number(u64),
    Bool(bool),
    Duration(Duration),
    List(&'v [&'v [u8]]),
    /// Valid JSON.
    Json(&'v str),
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(text.as_bytes())
    }
}

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

    pub fn text(&mut self, key: &str, value: &str) {
        self.field(key, value.into());
    }

    /// A number as a text.
    pub fn number_text(&mut self, key: &str, value: u64) {
        self.text(key, itoa::Buffer::new().format(value));
    }

    pub fn number(&mut self, key: &str, value: u64) {
        self.field(key, Value::Number(value));
    }

    pub fn bool(&mut self, key: &str, value: bool) {
        self.field(key, Value::Bool(value));
    }

    pub fn duration(&mut self, key: &str, value: Duration) {
        self.field(key, Value::Duration(value));
    }

    pub fn field(&mut self, key: &str, value: Value<'_>) {
        if self.filters.is_empty() {
            self.key(key);
            self.value(value);
            return;
        }
        let mut state = Filtered { key: Cow::Borrowed(key), changed: None };
        for layer in self.filters {
            if !state.pass(layer, &self.path, value) {
                return;
            }
        }
        self.key(&state.key);
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
    pub fn object(&mut self, key: &str, write: impl FnOnce(&mut Line<'_>)) {
        let mut state = Filtered { key: Cow::Borrowed(key), changed: None };
        for layer in self.filters {
            if !state.pass(layer, &self.path, Value::Bool(true)) {
                return;
            }
        }
        self.key(&state.key);
        if let Some(Changed::Text(text)) = state.changed {
            self.value(text.as_str().into());
            return;
        }
        self.out.push(b'{');
        let path = if self.filters.is_empty() { String::new() } else { format!("{}{key}>", self.path) };
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

    fn key(&mut self, key: &str) {
        if !self.first {
            self.out.extend_from_slice(if self.spaced { b", " } else { b"," });
        }
        self.first = false;
        write_text(key.as_bytes(), self.out);
        self.out.extend_from_slice(if self.spaced { b": " } else { b":" });
    }

    fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Text(text) => write_text(text, self.out),
            Value::Number(n) => write_number(n, self.out),
            Value::Bool(b) => self.out.extend_from_slice(if b { b"true" } else { b"false" }),
            Value::Duration(d) => write_duration(d, self.duration, self.out),
            Value::Json(json) => self.out.extend_from_slice(json.as_bytes()),
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
            Value::Text(bytes) => Some(Changed::Text(text(bytes))),
            Value::List(list) => Some(Changed::List(list.iter().map(|b| text(b)).collect())),
            _ => None,
        }
    }
}

/// A JSON string, escaped as zap does.
pub(super) fn write_text(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    write_escaped(text, out);
    out.push(b'"');
}

/// The inside of a JSON string.
pub(super) fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
    // Nearly every text is plain ASCII: asked of the whole without a branch in between, which compiles to vectors.
    #[allow(clippy::needless_bitwise_bool)]
    let plain = text.iter().fold(true, |plain, b| plain & (*b >= 0x20) & (*b < 0x80) & (*b != b'"') & (*b != b'\\'));
    if plain {
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
fn write_seconds(nanos: u64, out: &mut Vec<u8>) {
    if nanos >= 1_000_000_000_000_000 {
        return write_float(nanos as f64 / 1e9, out);
    }
    write_number(nanos / 1_000_000_000, out);
    let mut fraction = nanos % 1_000_000_000;
    if fraction == 0 {
        return;
    }
    let mut digits = *b".000000000";
    for digit in digits.iter_mut().skip(1).rev() {
        *digit += u8::try_from(fraction % 10).unwrap_or(0);
        fraction /= 10;
    }
    let shown = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    out.extend_from_slice(digits.get(..shown).unwrap_or(&digits));
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
            line.field("j", Value::Json("null"));
        });
        assert_eq!(line, r#""k\"":"a\"\\\n\r\t\u0001\ufffd<é","d":0.000099469,"b":true,"j":null"#);
    }

    #[test]
    fn seconds_are_the_shortest_decimal_of_the_float() {
        let mut nanos =
            vec![0, 1, 10, 999_999_999, 1_000_000_000, 1_500_000_000, 999_999_999_999_999, 1_000_000_000_000_001];
        nanos.extend((0..5_000).map(|i| fastrand::Rng::with_seed(i).u64(..2_000_000_000_000_000)));
        for n in nanos {
            let (mut own, mut float) = (Vec::new(), Vec::new());
            write_seconds(n, &mut own);
            #[allow(clippy::cast_precision_loss)]
            write_float(n as f64 / 1e9, &mut float);
            assert_eq!(String::from_utf8(own), String::from_utf8(float), "{n}");
        }
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
