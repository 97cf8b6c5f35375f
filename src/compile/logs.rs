//! `logging` and the servers' `logs` → the logs of a runtime.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::log_types::{self as config, ActionKind as ConfigAction, LineFormat, Writer};
use crate::config::types::{Log as LogConfig, Logging, Module, ServerLogs, module_id};
use crate::http::placeholder::Template;
use crate::http::regexp;
use crate::telemetry::Layout;
use crate::telemetry::access::{AccessLogs, AccessOptions};
use crate::telemetry::encoder::{Appended, Encoder, LevelFormat, TimeFormat};
use crate::telemetry::file::{FileOptions, Roll};
use crate::telemetry::filter::{Action, ActionKind, FieldFilters, Filter};
use crate::telemetry::level::Level;
use crate::telemetry::line::DurationFormat;
use crate::telemetry::log::{DEFAULT, Log, Logs, Sampler};
use crate::telemetry::sink::Target;

const CODE: &str = "invalid-log";

/// The logs of a configuration. The default log is added when there is none: standard error, `info`.
///
/// Opens nothing: `Logs::open` does when the runtime goes live.
pub fn logs(logging: Option<&Logging>, cx: &mut CompileCx<'_>) -> Logs {
    let none = BTreeMap::new();
    let given = logging.map_or(&none, |l| &l.logs);
    if logging.is_some_and(|l| l.sink.is_some()) {
        cx.at("sink", |cx| cx.report(CompileError::not_supported("the `sink` of Go's standard logger")));
    }
    let mut out = Vec::with_capacity(given.len() + 1);
    if !given.contains_key(DEFAULT) {
        out.push(Arc::new(default_log()));
    }
    cx.at("logs", |cx| {
        for (name, log) in given {
            cx.at(name, |cx| out.push(Arc::new(compile_log(name, log, cx))));
        }
    });
    Logs(out)
}

/// The default log as it is when nothing is said about it.
#[must_use]
pub fn default_log() -> Log {
    Log::new(DEFAULT, Some(Target::Stderr), default_encoder(Some(&Target::Stderr)))
}

/// The access log of a server, `logs` being those of the configuration.
pub fn access(server: Option<&ServerLogs>, logs: &Logs, cx: &mut CompileCx<'_>) -> AccessLogs {
    let Some(server) = server else { return AccessLogs::new(None, logs) };
    if server.trace {
        cx.at("trace", |cx| cx.report(CompileError::not_supported("server option `trace`")));
    }
    let names = |value: &Value| -> Option<Vec<String>> {
        match value {
            Value::String(name) => Some(vec![name.clone()]),
            Value::Array(names) => names.iter().map(|n| n.as_str().map(str::to_owned)).collect(),
            _ => None,
        }
    };
    let mut hosts = Vec::with_capacity(server.logger_names.len());
    for (host, value) in &server.logger_names {
        match names(value) {
            Some(names) => hosts.push((host.clone(), names)),
            None => {
                let error =
                    CompileError::new("invalid-json-config", "expected the name of a logger, or a list of them");
                cx.at("logger_names", |cx| cx.at(host, |cx| cx.report(error)));
            }
        }
    }
    let options = AccessOptions {
        default_logger: server.default_logger_name.clone(),
        hosts,
        skip_hosts: server.skip_hosts.clone(),
        skip_unmapped: server.skip_unmapped_hosts,
    };
    AccessLogs::new(Some(&options), logs)
}

fn compile_log(name: &str, log: &LogConfig, cx: &mut CompileCx<'_>) -> Log {
    for (option, present) in [
        ("core", log.core.is_some()),
        ("with_caller", log.with_caller),
        ("with_stacktrace", !log.with_stacktrace.is_empty()),
    ] {
        if present {
            cx.at(option, |cx| cx.report(CompileError::not_supported(format_args!("log option `{option}`"))));
        }
    }
    let target = cx.at("writer", |cx| report(cx, target(log.writer.as_ref()))).unwrap_or(None);
    let encoder = match &log.encoder {
        None => default_encoder(target.as_ref()),
        Some(module) => cx.at("encoder", |cx| report(cx, encoder(module, target.as_ref()))).unwrap_or_default(),
    };
    let mut out = Log::new(name, target, encoder);
    match placeholders(&log.level).as_deref().and_then(Level::parse) {
        Some(level) => out.level = level,
        None => {
            let error = CompileError::new(CODE, format!("`{}` is not a log level", log.level))
                .help("levels are DEBUG, INFO, WARN, ERROR, PANIC and FATAL");
            cx.at("level", |cx| cx.report(error));
        }
    }
    out.include.clone_from(&log.include);
    out.exclude.clone_from(&log.exclude);
    check_namespaces(log, cx);
    if let Some(sampling) = &log.sampling {
        out.sampler = cx.at("sampling", |cx| report(cx, sampler(sampling)));
    }
    out
}

fn report<T>(cx: &mut CompileCx<'_>, result: Result<T, CompileError>) -> Option<T> {
    result.map_err(|error| cx.report(error)).ok()
}

/// Where both are given, each included namespace must lie within an excluded one or the other way round.
fn check_namespaces(log: &LogConfig, cx: &mut CompileCx<'_>) {
    if log.include.is_empty() || log.exclude.is_empty() {
        return;
    }
    let within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
    for name in &log.include {
        if !log.exclude.iter().any(|other| within(name, other) || within(other, name)) {
            let message = format!("`{name}` is included, but has nothing to do with what is excluded");
            let error = CompileError::new(CODE, message).help(
                "where both are given, one must be an exception to the other, as `http.log.access` is to `http.log`",
            );
            cx.at("include", |cx| cx.report(error));
        }
    }
}

fn sampler(value: &Value) -> Result<Sampler, CompileError> {
    let sampling: config::Sampling = read_value(value)?;
    let or_hundred = |n: i64| if n == 0 { 100 } else { u64::try_from(n).unwrap_or(0) };
    let interval = sampling.interval.positive().unwrap_or(Duration::from_secs(1));
    Ok(Sampler::new(interval, or_hundred(sampling.first), or_hundred(sampling.thereafter)))
}

/// `None` inside is `discard`.
fn target(writer: Option<&Module>) -> Result<Option<Target>, CompileError> {
    let Some(module) = writer else { return Ok(Some(Target::Stderr)) };
    known(module, "output", &["stdout", "stderr", "discard", "file", "net"])?;
    Ok(match read_value(&Value::Object(module.clone()))? {
        Writer::Stdout(_) => Some(Target::Stdout),
        Writer::Stderr(_) => Some(Target::Stderr),
        Writer::Discard(_) => None,
        Writer::File(file) => Some(Target::File(file_options(&file)?)),
        Writer::Net(_) => {
            return Err(CompileError::not_supported("log output `net`")
                .help("write to a file or to `stderr`, and let a log shipper or systemd forward it"));
        }
    })
}

/// A module that we do not know is refused by its name.
fn known(module: &Module, key: &str, ids: &[&str]) -> Result<(), CompileError> {
    let id = module_id(module, key);
    if ids.contains(&id) {
        return Ok(());
    }
    Err(CompileError::not_supported(format_args!("log {key} `{id}`")))
}

fn file_options(file: &config::FileWriter) -> Result<FileOptions, CompileError> {
    let Some(path) = placeholders(&file.filename).filter(|p| !p.is_empty()).map(PathBuf::from) else {
        let message = "the log file's name is empty, or holds a placeholder that is unknown here";
        return Err(CompileError::new(CODE, message).within("filename"));
    };
    let mode = match file.mode.as_str() {
        "" => None,
        text => Some(octal(text).ok_or_else(|| not_a_mode(text).within("mode"))?).filter(|mode| *mode != 0),
    };
    let dir_mode = match file.dir_mode.as_str() {
        "" => 0o700,
        "inherit" => nearest_mode(&path),
        // Whoever may read the file may enter its directory.
        "from_file" => mode.map_or(0o700, |mode| mode | (mode & 0o444) >> 2),
        text => octal(text).ok_or_else(|| not_a_mode(text).within("dir_mode"))?,
    };
    if file.roll == Some(false) {
        return Ok(FileOptions { path, mode, dir_mode, roll: None });
    }
    if file.roll_local_time {
        return Err(CompileError::not_supported("`roll_local_time`").within("roll_local_time"));
    }
    let default = Roll::default();
    let compress = match file.roll_compression.as_str() {
        "" => file.roll_gzip.unwrap_or(true),
        "gzip" => true,
        "none" => false,
        other => {
            let what = format!("compression `{other}` of rolled log files");
            return Err(CompileError::not_supported(what).within("roll_compression"));
        }
    };
    let positive = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
    let roll = Roll {
        size: positive(file.roll_size_mb).map_or(default.size, |mb| mb.saturating_mul(1 << 20)),
        interval: file.roll_interval.positive(),
        at: roll_times(file)?,
        compress,
        keep: positive(file.roll_keep).map_or(default.keep, |n| usize::try_from(n).unwrap_or(usize::MAX)),
        keep_for: positive(file.roll_keep_days)
            .map_or(default.keep_for, |days| Duration::from_secs(days.saturating_mul(86_400))),
        name_time: match file.backup_time_format.as_str() {
            "" => default.name_time,
            layout => Layout::parse(layout),
        },
    };
    Ok(FileOptions { path, mode, dir_mode, roll: Some(roll) })
}

/// Seconds of the day at which the file is rolled, sorted.
fn roll_times(file: &config::FileWriter) -> Result<Vec<u32>, CompileError> {
    let mut times = Vec::new();
    for minute in &file.roll_minutes {
        let minute = u32::try_from(*minute).ok().filter(|m| *m < 60).ok_or_else(|| {
            CompileError::new(CODE, format!("`{minute}` is not a minute of the hour (0 to 59)")).within("roll_minutes")
        })?;
        times.extend((0..24).map(|hour| hour * 3600 + minute * 60));
    }
    for text in &file.roll_at {
        let parsed = text.split_once(':').and_then(|(hour, minute)| {
            let (hour, minute) = (hour.parse::<u32>().ok()?, minute.parse::<u32>().ok()?);
            (hour < 24 && minute < 60).then_some(hour * 3600 + minute * 60)
        });
        times.push(parsed.ok_or_else(|| {
            CompileError::new(CODE, format!("`{text}` is not a time of day such as `15:04`")).within("roll_at")
        })?);
    }
    times.sort_unstable();
    times.dedup();
    Ok(times)
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

fn not_a_mode(text: &str) -> CompileError {
    CompileError::new(CODE, format!("`{text}` is not a file mode")).help("a mode is octal digits, such as `0640`")
}

/// Permissions of the nearest directory above the file that exists.
fn nearest_mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    let found = path.ancestors().skip(1).find_map(|dir| {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        std::fs::metadata(dir).ok()
    });
    found.map_or(0o700, |m| m.permissions().mode() & 0o7777)
}

/// The text with `{env.*}` and the like replaced; `None` when it holds one that needs a request.
fn placeholders(text: &str) -> Option<String> {
    Template::parse(text).as_static().map(str::to_owned)
}

/// Console where a person looks on, else JSON.
fn default_encoder(target: Option<&Target>) -> Encoder {
    if is_terminal(target) { Encoder::console(colour_allowed()) } else { Encoder::default() }
}

fn is_terminal(target: Option<&Target>) -> bool {
    match target {
        Some(Target::Stderr) => std::io::stderr().is_terminal(),
        Some(Target::Stdout) => std::io::stdout().is_terminal(),
        _ => false,
    }
}

fn colour_allowed() -> bool {
    let env = crate::base::env::current();
    env.get("NO_COLOR").is_none_or(str::is_empty) && env.get("TERM") != Some("xterm-mono")
}

/// Longest chain of encoders around encoders.
const MAX_WRAPS: usize = 16;

fn encoder(module: &Module, target: Option<&Target>) -> Result<Encoder, CompileError> {
    known(module, "format", &["console", "json", "filter", "append", "journald"])?;
    let mut encoder: config::Encoder = read_value(&Value::Object(module.clone()))?;
    let mut filters = Vec::new();
    let mut appended = Vec::new();
    for _ in 0..MAX_WRAPS {
        let wrap = match encoder {
            config::Encoder::Json(line) => {
                return Ok(Encoder { filters, appended, ..line_encoder(Encoder::default(), &line)? });
            }
            config::Encoder::Console(line) => {
                let colour = is_terminal(target) && colour_allowed();
                return Ok(Encoder { filters, appended, ..line_encoder(Encoder::console(colour), &line)? });
            }
            config::Encoder::Filter(layer) => {
                filters.push(field_filters(&layer)?);
                layer.wrap
            }
            config::Encoder::Append(layer) => {
                for (key, value) in layer.fields {
                    let json = appended_value(&value)?;
                    appended.push(Appended { key, json, after_filters: filters.len() });
                }
                layer.wrap
            }
            config::Encoder::Journald(_) => return Err(CompileError::not_supported("log format `journald`")),
        };
        match wrap {
            Some(inner) => encoder = *inner,
            None => return Ok(Encoder { filters, appended, ..default_encoder(target) }),
        }
    }
    Err(CompileError::new(CODE, "encoders are wrapped too deeply"))
}

/// A text that is one placeholder becomes its value, `null` when it has none here.
fn appended_value(value: &Value) -> Result<String, CompileError> {
    let placeholder = value.as_str().filter(|s| s.starts_with('{') && s.ends_with('}') && s.matches('{').count() == 1);
    let value = match placeholder {
        Some(text) => placeholders(text).filter(|v| v != text).map_or(Value::Null, Value::String),
        None => value.clone(),
    };
    serde_json::to_string(&value).map_err(|e| CompileError::new(CODE, e.to_string()))
}

fn line_encoder(base: Encoder, line: &LineFormat) -> Result<Encoder, CompileError> {
    if line.time_local {
        return Err(CompileError::not_supported("`time_local` of a log format").within("time_local"));
    }
    let key = |given: &Option<String>, default: String| given.clone().unwrap_or(default);
    Ok(Encoder {
        message_key: key(&line.message_key, base.message_key),
        level_key: key(&line.level_key, base.level_key),
        time_key: key(&line.time_key, base.time_key),
        name_key: key(&line.name_key, base.name_key),
        line_ending: line.line_ending.clone().filter(|e| !e.is_empty()).unwrap_or(base.line_ending),
        time: if line.time_format.is_empty() { base.time } else { TimeFormat::parse(&line.time_format) },
        duration: match line.duration_format.as_str() {
            "ns" | "nano" | "nanos" => DurationFormat::Nanos,
            "ms" | "milli" | "millis" => DurationFormat::Millis,
            "string" => DurationFormat::Text,
            // Whatever else is seconds, as in Caddy.
            _ => DurationFormat::Seconds,
        },
        level: match line.level_format.as_str() {
            "upper" => LevelFormat::Upper,
            "color" => LevelFormat::Colour,
            "" => base.level,
            _ => LevelFormat::Lower,
        },
        format: base.format,
        filters: Vec::new(),
        appended: Vec::new(),
    })
}

fn field_filters(layer: &config::FilterEncoder) -> Result<FieldFilters, CompileError> {
    let compiled = layer.fields.iter().map(|(field, filter)| {
        let within = |e: CompileError| e.within(field.replace('~', "~0").replace('/', "~1")).within("fields");
        Ok((field.as_str().into(), compile_filter(filter).map_err(within)?))
    });
    compiled.collect()
}

fn compile_filter(filter: &config::Filter) -> Result<Filter, CompileError> {
    use config::Filter as F;
    Ok(match filter {
        F::Delete(_) => Filter::Delete,
        F::Rename(rename) => Filter::Rename(rename.name.as_str().into()),
        F::Replace(replace) => Filter::Replace(replace.value.as_str().into()),
        F::Hash(_) => Filter::hash(),
        F::IpMask(mask) => {
            let bits = |n: i64| u8::try_from(n).unwrap_or(128);
            Filter::ip_mask(bits(mask.ipv4_cidr), bits(mask.ipv6_cidr))
        }
        F::Query(query) => {
            Filter::query(query.actions.iter().flatten().map(|a| action(&a.parameter, a.kind, &a.value)).collect())
        }
        F::Cookie(cookie) => {
            Filter::Cookie(cookie.actions.iter().flatten().map(|a| action(&a.name, a.kind, &a.value)).collect())
        }
        F::SetCookie(_) => return Err(CompileError::not_supported("log filter `set_cookie`")),
        F::Regexp(one) => replacing(std::slice::from_ref(one))?,
        F::MultiRegexp(many) => replacing(&many.operations)?,
    })
}

fn action(name: &str, kind: ConfigAction, value: &str) -> Action {
    let kind = match kind {
        ConfigAction::Replace => ActionKind::Replace(value.into()),
        ConfigAction::Hash => ActionKind::Hash,
        ConfigAction::Delete => ActionKind::Delete,
    };
    Action { name: name.into(), kind }
}

/// Replacements one after the other.
fn replacing(operations: &[config::RegexpFilter]) -> Result<Filter, CompileError> {
    let compiled: Vec<_> = operations
        .iter()
        .map(|op| match regexp::compile(&op.regexp) {
            Ok(regex) => Ok((regex, op.value.clone())),
            Err(error) => Err(CompileError::new("invalid-regexp", error.to_string()).within("regexp")),
        })
        .collect::<Result<_, _>>()?;
    Ok(Filter::map(move |text| {
        let mut text = text.to_owned();
        for (regex, with) in &compiled {
            text = regex.replace_all(&text, with.as_str()).into_owned();
        }
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::registry::Registry;
    use crate::telemetry::encoder::Format;
    use serde_json::json;

    static EMPTY: Registry = Registry { directives: &[], handlers: &[], matchers: &[] };

    fn compiled(logging: Value) -> (Logs, Vec<CompileError>) {
        let logging: Logging = serde_json::from_value(logging).unwrap();
        let mut cx = CompileCx::new(&EMPTY);
        let logs = logs(Some(&logging), &mut cx);
        (logs, cx.errors)
    }

    fn line(encoder: &Encoder) -> String {
        use crate::telemetry::encoder::Entry;
        let mut out = Vec::new();
        let entry = Entry { level: Level::Info, unix_nanos: 0, logger: "l", message: "m" };
        let fields = |line: &mut crate::telemetry::line::Line<'_>| {
            line.text("a", "abcabc");
            line.text("b", "10.1.2.3");
        };
        encoder.encode(&encoder.keys(), &entry, fields, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_default_log_is_there_without_being_asked_for() {
        let (logs, errors) = compiled(json!({"logs": {"log0": {"level": "error", "writer": {"output": "discard"}}}}));
        assert!(errors.is_empty());
        let names: Vec<_> = logs.0.iter().map(|l| (l.name.as_str(), l.level, l.target.clone())).collect();
        assert_eq!(names, [("default", Level::Info, Some(Target::Stderr)), ("log0", Level::Error, None)]);
    }

    #[test]
    fn encoders_wrap_one_another() {
        let (logs, errors) = compiled(json!({"logs": {"default": {"writer": {"output": "stdout"}, "encoder": {
            "format": "filter",
            "fields": {"a": {"filter": "multi_regexp", "operations": [
                {"regexp": "(a)b", "value": "${1}x"}, {"regexp": "x", "value": "y"}]}, "n": {"filter": "delete"}},
            "wrap": {"format": "append", "fields": {"n": 1, "e": "{nothing.like.this}", "t": "x{"},
                     "wrap": {"format": "json", "time_key": "", "level_format": "upper"}},
        }}}}));
        assert!(errors.is_empty(), "{errors:?}");
        let expected = r#"{"level":"INFO","logger":"l","msg":"m","a":"aycayc","b":"10.1.2.3","e":null,"n":1,"t":"x{"}"#;
        assert_eq!(line(&logs.0[0].encoder), format!("{expected}\n"));
        assert_eq!(logs.0[0].encoder.format, Format::Json);
    }

    #[test]
    fn files_roll_as_they_are_told() {
        let file: config::FileWriter = serde_json::from_value(json!({
            "filename": "/x/y.log", "mode": "640", "dir_mode": "from_file", "roll_size_mb": 2, "roll_keep": 3,
            "roll_minutes": [30], "roll_at": ["00:30", "12:15"], "roll_gzip": false}))
        .unwrap();
        let options = file_options(&file).unwrap();
        assert_eq!((options.mode, options.dir_mode), (Some(0o640), 0o750));
        let roll = options.roll.unwrap();
        assert_eq!((roll.size, roll.keep, roll.compress), (2 << 20, 3, false));
        assert_eq!((roll.at.len(), roll.at[0]), (25, 1800));
    }

    #[test]
    fn what_cannot_run_is_refused_by_name_and_place() {
        let (_, errors) = compiled(json!({"logs": {
            "a": {"writer": {"output": "net", "address": "localhost:1"}},
            "b": {"writer": {"output": "paper"}, "level": "loud"},
            "c": {"encoder": {"format": "filter", "fields": {"x>y": {"filter": "regexp", "regexp": "("}}}},
            "d": {"include": ["http.log"], "exclude": ["tls"], "with_caller": true},
            "e": {"writer": {"output": "file", "filename": "{http.request.host}.log"}},
            "f": {"writer": {"output": "file", "filename": "x", "mode": "rw"}},
        }}));
        let places: Vec<_> = errors.iter().map(|e| (e.pointer.as_str(), e.code)).collect();
        assert_eq!(
            places,
            [
                ("/logs/a/writer", "not-supported-yet"),
                ("/logs/b/writer", "not-supported-yet"),
                ("/logs/b/level", CODE),
                ("/logs/c/encoder/fields/x>y/regexp", "invalid-regexp"),
                ("/logs/d/with_caller", "not-supported-yet"),
                ("/logs/d/include", CODE),
                ("/logs/e/writer/filename", CODE),
                ("/logs/f/writer/mode", CODE),
            ]
        );
        assert!(errors[1].message.contains("`paper`"));
    }
}
