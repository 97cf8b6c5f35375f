//! One entry as one line: JSON or zap's console format, with the keys and formats that were configured.

use std::time::SystemTime;

use super::filter::FieldFilters;
use super::go_layout::Layout;
use super::json::{write_escaped, write_float, write_number, write_text, write_unix_seconds};
use super::level::Level;
use super::line::{DurationFormat, Line, Value};

/// What every entry has.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'e> {
    pub level: Level,
    /// Nanoseconds since 1970.
    pub unix_nanos: i64,
    /// Namespace such as `http.log.access.log0`; may be empty.
    pub logger: &'e str,
    pub message: &'e str,
}

/// Nanoseconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Console,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeFormat {
    /// Seconds since 1970 with a fraction.
    Seconds,
    Millis,
    Nanos,
    Layout(Layout),
}

impl TimeFormat {
    /// A name that Caddy knows, or a Go layout.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let layout = match text {
            "" | "unix_seconds_float" => return Self::Seconds,
            "unix_milli_float" => return Self::Millis,
            "unix_nano" => return Self::Nanos,
            "iso8601" => "2006-01-02T15:04:05.000Z0700",
            "rfc3339" => "2006-01-02T15:04:05Z07:00",
            "rfc3339_nano" => "2006-01-02T15:04:05.999999999Z07:00",
            "wall" => "2006/01/02 15:04:05",
            "wall_milli" => "2006/01/02 15:04:05.000",
            "wall_nano" => "2006/01/02 15:04:05.000000000",
            "common_log" => "02/Jan/2006:15:04:05 -0700",
            layout => layout,
        };
        Self::Layout(Layout::parse(layout))
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LevelFormat {
    #[default]
    Lower,
    Upper,
    Colour,
}

/// A field that every entry gets.
#[derive(Debug, Clone)]
pub struct Appended {
    pub key: String,
    /// Valid JSON.
    pub json: String,
    /// How many of the encoder's filter layers it does not pass.
    pub after_filters: usize,
}

/// Turns entries into lines. An empty key leaves that part out.
#[derive(Clone)]
pub struct Encoder {
    pub format: Format,
    pub message_key: String,
    pub level_key: String,
    pub time_key: String,
    pub name_key: String,
    pub line_ending: String,
    pub time: TimeFormat,
    pub duration: DurationFormat,
    pub level: LevelFormat,
    /// Layers of filters, the outermost first.
    pub filters: Vec<FieldFilters>,
    pub appended: Vec<Appended>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            format: Format::Json,
            message_key: "msg".into(),
            level_key: "level".into(),
            time_key: "ts".into(),
            name_key: "logger".into(),
            line_ending: "\n".into(),
            time: TimeFormat::Seconds,
            duration: DurationFormat::Seconds,
            level: LevelFormat::Lower,
            filters: Vec::new(),
            appended: Vec::new(),
        }
    }
}

/// The keys of the JSON format as they stand in a line, `,"key":`; empty for what is left out.
#[derive(Debug, Clone)]
pub struct Keys {
    level: Box<[u8]>,
    time: Box<[u8]>,
    name: Box<[u8]>,
    message: Box<[u8]>,
}

impl Encoder {
    /// To be made once, for [`Self::encode`].
    #[must_use]
    pub fn keys(&self) -> Keys {
        let key = |name: &str| {
            let mut key = Vec::new();
            if !name.is_empty() {
                key.push(b',');
                write_text(name.as_bytes(), &mut key);
                key.push(b':');
            }
            key.into()
        };
        Keys {
            level: key(&self.level_key),
            time: key(&self.time_key),
            name: key(&self.name_key),
            message: key(&self.message_key),
        }
    }

    /// The console format as it is without options.
    #[must_use]
    pub fn console(colour: bool) -> Self {
        Self {
            format: Format::Console,
            time: TimeFormat::parse("wall_milli"),
            level: if colour { LevelFormat::Colour } else { LevelFormat::Upper },
            ..Self::default()
        }
    }

    /// Whether an object may be written before its line is: as JSON, past no filter.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.format == Format::Json && self.filters.is_empty()
    }

    /// Appends one line. `keys` are its own.
    pub fn encode(&self, keys: &Keys, entry: &Entry<'_>, fields: impl FnOnce(&mut Line<'_>), out: &mut Vec<u8>) {
        match self.format {
            Format::Json => self.encode_json(keys, entry, fields, out),
            Format::Console => self.encode_console(entry, fields, out),
        }
        out.extend_from_slice(self.line_ending.as_bytes());
    }

    fn encode_json(&self, keys: &Keys, entry: &Entry<'_>, fields: impl FnOnce(&mut Line<'_>), out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&keys.level);
        if !keys.level.is_empty() {
            write_text(self.level_name(entry.level).as_bytes(), out);
        }
        if !keys.time.is_empty() {
            out.extend_from_slice(&keys.time);
            self.write_time(entry.unix_nanos, true, out);
        }
        if !keys.name.is_empty() && !entry.logger.is_empty() {
            out.extend_from_slice(&keys.name);
            write_text(entry.logger.as_bytes(), out);
        }
        if !keys.message.is_empty() {
            out.extend_from_slice(&keys.message);
            write_text(entry.message.as_bytes(), out);
        }
        let first = out.len() == start;
        match out.get_mut(start) {
            // Each key has a comma before it.
            Some(before) => *before = b'{',
            None => out.push(b'{'),
        }
        self.write_fields(fields, first, out);
        out.push(b'}');
    }

    fn encode_console(&self, entry: &Entry<'_>, fields: impl FnOnce(&mut Line<'_>), out: &mut Vec<u8>) {
        let start = out.len();
        let tab = |out: &mut Vec<u8>| {
            if out.len() > start {
                out.push(b'\t');
            }
        };
        if !self.time_key.is_empty() {
            self.write_time(entry.unix_nanos, false, out);
        }
        if !self.level_key.is_empty() {
            tab(out);
            out.extend_from_slice(self.level_name(entry.level).as_bytes());
        }
        if !self.name_key.is_empty() && !entry.logger.is_empty() {
            tab(out);
            write_escaped(entry.logger.as_bytes(), out);
        }
        if !self.message_key.is_empty() {
            tab(out);
            // A stranger may have a hand in an error's text: it must not begin a line of its own.
            write_plain(entry.message, out);
        }
        tab(out);
        let brace = out.len();
        out.push(b'{');
        self.write_fields(fields, true, out);
        if out.len() == brace + 1 {
            out.truncate(if brace > start { brace - 1 } else { brace });
        } else {
            out.push(b'}');
        }
    }

    fn write_fields(&self, fields: impl FnOnce(&mut Line<'_>), first: bool, out: &mut Vec<u8>) {
        let spaced = self.format == Format::Console;
        let start = out.len();
        fields(&mut Line::new(out, &self.filters, self.duration, spaced, first));
        for field in &self.appended {
            let filters = self.filters.get(field.after_filters..).unwrap_or(&[]);
            let first = first && out.len() == start;
            Line::new(out, filters, self.duration, spaced, first)
                .field(&*field.key, Value::Json(field.json.as_bytes()));
        }
    }

    fn level_name(&self, level: Level) -> &'static str {
        match self.level {
            LevelFormat::Lower => level.lower(),
            LevelFormat::Upper => level.upper(),
            LevelFormat::Colour => level.coloured(),
        }
    }

    #[allow(clippy::cast_precision_loss)] // as zap does
    fn write_time(&self, unix_nanos: i64, quoted: bool, out: &mut Vec<u8>) {
        match &self.time {
            TimeFormat::Seconds => write_unix_seconds(unix_nanos, out),
            TimeFormat::Millis => write_float(unix_nanos as f64 / 1e6, out),
            TimeFormat::Nanos => write_number(u64::try_from(unix_nanos).unwrap_or(0), out),
            TimeFormat::Layout(layout) => {
                if quoted {
                    out.push(b'"');
                }
                layout.write(unix_nanos, out);
                if quoted {
                    out.push(b'"');
                }
            }
        }
    }
}

/// Text for a person, control characters shown.
fn write_plain(text: &str, out: &mut Vec<u8>) {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        out.extend_from_slice(text.escape_debug().to_string().as_bytes());
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const ENTRY: Entry<'static> = Entry {
        level: Level::Info,
        unix_nanos: 1_795_264_325_331_256_400,
        logger: "http.log.access.log0",
        message: "handled request",
    };

    fn fields(line: &mut Line<'_>) {
        line.object("request", |line| {
            line.text("host", "a.test");
            line.object("headers", |line| line.field("Accept", Value::List(&[b"*/*", b"x"])));
        });
        line.duration("duration", Duration::from_nanos(78_648));
        line.number("status", 200);
    }

    fn encoded(encoder: &Encoder) -> String {
        let mut out = Vec::new();
        encoder.encode(&encoder.keys(), &ENTRY, fields, &mut out);
        String::from_utf8(out).unwrap()
    }

    // Lines in the shape of the real Caddy 2.11.7.

    #[test]
    fn json() {
        assert_eq!(
            encoded(&Encoder::default()),
            concat!(
                r#"{"level":"info","ts":1795264325.3312564,"logger":"http.log.access.log0","msg":"handled request","#,
                r#""request":{"host":"a.test","headers":{"Accept":["*/*","x"]}},"duration":0.000078648,"status":200}"#,
                "\n"
            )
        );
    }

    #[test]
    fn console() {
        assert_eq!(
            encoded(&Encoder::console(true)),
            concat!(
                "2026/11/21 12:32:05.331\t\x1b[34mINFO\x1b[0m\thttp.log.access.log0\thandled request\t",
                r#"{"request": {"host": "a.test", "headers": {"Accept": ["*/*", "x"]}}, "duration": 0.000078648, "#,
                "\"status\": 200}\n"
            )
        );
        let mut out = Vec::new();
        let entry = Entry { logger: "", message: "two\nlines", level: Level::Warn, ..ENTRY };
        let encoder = Encoder::console(false);
        encoder.encode(&encoder.keys(), &entry, |_| {}, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "2026/11/21 12:32:05.331\tWARN\ttwo\\nlines\n");
    }

    #[test]
    fn keys_and_formats() {
        let encoder = Encoder {
            message_key: "m".into(),
            level_key: "l".into(),
            time_key: "t".into(),
            name_key: String::new(),
            line_ending: "\r\n".into(),
            time: TimeFormat::parse("rfc3339_nano"),
            duration: DurationFormat::Text,
            level: LevelFormat::Upper,
            filters: vec![FieldFilters::from([("request".into(), super::super::filter::Filter::Delete)])],
            appended: vec![
                Appended { key: "foo".into(), json: "\"bar\"".into(), after_filters: 1 },
                Appended { key: "request".into(), json: "1".into(), after_filters: 0 },
            ],
            ..Encoder::default()
        };
        assert_eq!(
            encoded(&encoder),
            "{\"l\":\"INFO\",\"t\":\"2026-11-21T12:32:05.3312564Z\",\"m\":\"handled request\",\"duration\":\"78.648µs\",\
             \"status\":200,\"foo\":\"bar\"}\r\n"
        );
        let bare = Encoder {
            message_key: String::new(),
            level_key: String::new(),
            time_key: String::new(),
            name_key: String::new(),
            ..Encoder::default()
        };
        assert!(encoded(&bare).starts_with("{\"request\":"));
    }

    #[test]
    fn times() {
        let shown = |format: &str| {
            let mut out = Vec::new();
            let encoder = Encoder { time: TimeFormat::parse(format), ..Encoder::default() };
            encoder.write_time(ENTRY.unix_nanos, true, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(""), "1795264325.3312564");
        assert_eq!(shown("unix_milli_float"), "1795264325331.2563");
        assert_eq!(shown("unix_nano"), "1795264325331256400");
        assert_eq!(shown("iso8601"), "\"2026-11-21T12:32:05.331Z\"");
        assert_eq!(shown("common_log"), "\"21/Nov/2026:12:32:05 +0000\"");
        assert_eq!(shown("06-1-2"), "\"26-11-21\"");
    }
}
