//! `output` of a log: where its entries go.

use super::line::{Line, duration, integer};
use crate::base::diagnostic::Diagnostic;
use crate::config::directive_cx::Parsed;
use crate::config::log_types::{FileWriter, NetWriter, Plain, Writer};
use crate::config::nanos::Nanos;
use crate::syntax::token::Token;

const WRITERS: &[&str] = &["stdout", "stderr", "discard", "file", "net"];
const FILE_OPTIONS: &[&str] = &[
    "mode",
    "dir_mode",
    "roll_disabled",
    "roll_size",
    "roll_interval",
    "roll_minutes",
    "roll_at",
    "roll_uncompressed",
    "roll_compression",
    "roll_local_time",
    "roll_keep",
    "roll_keep_for",
    "backup_time_format",
];
const MIB: i64 = 1 << 20;
const DAY: i64 = 24 * 3600 * 1_000_000_000;

/// `line` begins with the writer's name.
pub fn read(line: &Line<'_>, diagnostics: &mut Vec<Diagnostic>) -> Parsed<Writer> {
    match line.name() {
        "stdout" => plain(line).map(Writer::Stdout),
        "stderr" => plain(line).map(Writer::Stderr),
        "discard" => plain(line).map(Writer::Discard),
        "file" => file(line, diagnostics).map(Writer::File),
        "net" => net(line, diagnostics).map(Writer::Net),
        _ => Err(line.unknown_module("log output", WRITERS)),
    }
}

fn plain(line: &Line<'_>) -> Parsed<Plain> {
    line.none()?;
    line.no_block()?;
    Ok(Plain {})
}

fn file(line: &Line<'_>, diagnostics: &mut Vec<Diagnostic>) -> Parsed<FileWriter> {
    let mut out = FileWriter { filename: line.text()?, ..FileWriter::default() };
    line.each(diagnostics, |option, _| {
        match option.name() {
            "mode" => out.mode = file_mode(option.one()?)?,
            "dir_mode" => out.dir_mode = dir_mode(option.one()?)?,
            "roll_disabled" => {
                option.none()?;
                out.roll = Some(false);
            }
            "roll_size" => out.roll_size_mb = div_up(option.size()?, MIB),
            "roll_interval" => out.roll_interval = Nanos(option.duration()?),
            "roll_minutes" => out.roll_minutes = items(&option)?.iter().map(minutes).collect::<Parsed<_>>()?,
            "roll_at" => out.roll_at = items(&option)?.into_iter().map(|(text, _)| text).collect(),
            "roll_uncompressed" => {
                option.none()?;
                out.roll_gzip = Some(false);
            }
            "roll_compression" => {
                let token = option.one()?;
                if !matches!(token.text(), "none" | "gzip" | "zstd") {
                    return Err(option.error("invalid-value", "`roll_compression` is `none`, `gzip` or `zstd`"));
                }
                token.text().clone_into(&mut out.roll_compression);
            }
            "roll_local_time" => {
                option.none()?;
                out.roll_local_time = true;
            }
            "roll_keep" => out.roll_keep = option.integer()?,
            "roll_keep_for" => {
                let nanos = option.duration()?;
                if nanos < 0 {
                    return Err(option.error("invalid-duration", "`roll_keep_for` cannot be negative"));
                }
                out.roll_keep_days = div_up(nanos, DAY);
            }
            "backup_time_format" => out.backup_time_format = option.text()?,
            _ => return Err(option.unknown("output file", FILE_OPTIONS)),
        }
        Ok(())
    });
    Ok(out)
}

fn net(line: &Line<'_>, diagnostics: &mut Vec<Diagnostic>) -> Parsed<NetWriter> {
    let mut out = NetWriter { address: line.text()?, ..NetWriter::default() };
    line.each(diagnostics, |option, _| {
        match option.name() {
            "dial_timeout" => out.dial_timeout = Nanos(duration(option.one()?)?),
            "soft_start" => {
                option.none()?;
                out.soft_start = true;
            }
            _ => return Err(option.unknown("output net", &["dial_timeout", "soft_start"])),
        }
        Ok(())
    });
    Ok(out)
}

/// Octal digits, written with four of them; zero is the default.
fn file_mode(token: &Token) -> Parsed<String> {
    match u32::from_str_radix(token.text(), 8) {
        Ok(0) => Ok(String::new()),
        Ok(mode) => Ok(format!("{mode:04o}")),
        Err(_) => Err(not_a_mode(token, "is not a file mode")),
    }
}

/// Kept as written.
fn dir_mode(token: &Token) -> Parsed<String> {
    let text = token.text();
    if matches!(text, "inherit" | "from_file") || u32::from_str_radix(text, 8).is_ok() {
        return Ok(text.to_owned());
    }
    Err(not_a_mode(token, "is not a mode for folders"))
}

fn not_a_mode(token: &Token, what: &str) -> Box<Diagnostic> {
    let d = Diagnostic::error("invalid-value", format!("`{}` {what}", token.shown())).at(token.span, "");
    Box::new(d.help("octal digits as for chmod, such as `0640`"))
}

/// Items between commas and spaces.
fn items<'n>(option: &Line<'n>) -> Parsed<Vec<(String, &'n Token)>> {
    option.some()?;
    let split = |token: &'n Token| token.text().split(',').map(move |item| (item.trim().to_owned(), token));
    Ok(option.args.iter().flat_map(split).filter(|(item, _)| !item.is_empty()).collect())
}

fn minutes((text, token): &(String, &Token)) -> Parsed<i64> {
    text.parse().map_err(|_| integer(token).err().unwrap_or_else(|| not_a_number(token)))
}

fn not_a_number(token: &Token) -> Box<Diagnostic> {
    Box::new(Diagnostic::error("invalid-number", "not a list of minutes").at(token.span, ""))
}

fn div_up(n: i64, by: i64) -> i64 {
    n / by + i64::from(n % by > 0)
}
