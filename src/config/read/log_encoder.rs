//! `format` of a log: how its entries look, and the filters on their fields.

use std::collections::BTreeMap;

use super::line::{Line, integer};
use crate::base::diagnostic::Diagnostic;
use crate::config::directive_cx::Parsed;
use crate::config::log_types::{
    ActionKind, AppendEncoder, CookieAction, CookieFilter, Encoder, Filter, FilterEncoder, IpMaskFilter,
    JournaldEncoder, LineFormat, MultiRegexpFilter, Plain, QueryAction, QueryFilter, RegexpFilter, RenameFilter,
    ReplaceFilter,
};
use crate::config::scalar::scalar;

const ENCODERS: &[&str] = &["console", "json", "filter", "append", "journald"];
const LINE_OPTIONS: &[&str] = &[
    "message_key",
    "level_key",
    "time_key",
    "name_key",
    "caller_key",
    "stacktrace_key",
    "line_ending",
    "time_format",
    "time_local",
    "duration_format",
    "level_format",
];
const FILTERS: &[&str] =
    &["delete", "rename", "replace", "ip_mask", "query", "cookie", "set_cookie", "regexp", "multi_regexp", "hash"];

type Diagnostics = Vec<Diagnostic>;

/// `line` begins with the encoder's name.
pub fn read(line: &Line<'_>, diagnostics: &mut Diagnostics) -> Parsed<Encoder> {
    match line.name() {
        "console" => line_format(line, diagnostics).map(Encoder::Console),
        "json" => line_format(line, diagnostics).map(Encoder::Json),
        "filter" => Ok(Encoder::Filter(filter_encoder(line, diagnostics))),
        "append" => Ok(Encoder::Append(append_encoder(line, diagnostics))),
        "journald" => journald(line, diagnostics).map(Encoder::Journald),
        "single_field" => {
            let d = line.unknown_module("log format", &[]);
            Err(Box::new(d.help("Caddy dropped it; use `format console` or `format json`")))
        }
        _ => Err(line.unknown_module("log format", ENCODERS)),
    }
}

fn line_format(line: &Line<'_>, diagnostics: &mut Diagnostics) -> Parsed<LineFormat> {
    line.none()?;
    let mut out = LineFormat::default();
    line.each(diagnostics, |option, _| {
        if option.name() == "time_local" {
            option.none()?;
            out.time_local = true;
            return Ok(());
        }
        if !LINE_OPTIONS.contains(&option.name()) {
            return Err(option.unknown(line.name(), LINE_OPTIONS));
        }
        let value = option.text()?;
        match option.name() {
            "message_key" => out.message_key = Some(value),
            "level_key" => out.level_key = Some(value),
            "time_key" => out.time_key = Some(value),
            "name_key" => out.name_key = Some(value),
            "caller_key" => out.caller_key = Some(value),
            "stacktrace_key" => out.stacktrace_key = Some(value),
            "line_ending" => out.line_ending = Some(value),
            "time_format" => out.time_format = value,
            "duration_format" => out.duration_format = value,
            _ => out.level_format = value,
        }
        Ok(())
    });
    Ok(out)
}

fn journald(line: &Line<'_>, diagnostics: &mut Diagnostics) -> Parsed<JournaldEncoder> {
    line.none()?;
    let mut out = JournaldEncoder::default();
    line.each(diagnostics, |option, diagnostics| match option.name() {
        "wrap" => {
            out.wrap = Some(Box::new(read(&option.module()?, diagnostics)?));
            Ok(())
        }
        _ => Err(option.unknown("journald", &["wrap"])),
    });
    Ok(out)
}

fn append_encoder(line: &Line<'_>, diagnostics: &mut Diagnostics) -> AppendEncoder {
    let mut out = AppendEncoder::default();
    if !line.args.is_empty() {
        line.warn_ignored(0, true, diagnostics);
        return out;
    }
    let mut fields = BTreeMap::new();
    let mut field = |option: Line<'_>| {
        let token = option.one()?;
        let value = scalar(token).ok_or_else(|| option.error("invalid-number", "not a number that JSON can hold"))?;
        fields.insert(option.name().to_owned(), value);
        Ok(())
    };
    line.each(diagnostics, |option, diagnostics| {
        match option.name() {
            "wrap" => out.wrap = Some(Box::new(read(&option.module()?, diagnostics)?)),
            "fields" => option.each(diagnostics, |option, _| field(option)),
            _ => field(option)?,
        }
        Ok(())
    });
    out.fields = fields;
    out
}

fn filter_encoder(line: &Line<'_>, diagnostics: &mut Diagnostics) -> FilterEncoder {
    let mut out = FilterEncoder::default();
    if !line.args.is_empty() {
        line.warn_ignored(0, true, diagnostics);
        return out;
    }
    let mut fields = Fields::default();
    line.each(diagnostics, |option, diagnostics| {
        match option.name() {
            "wrap" => out.wrap = Some(Box::new(read(&option.module()?, diagnostics)?)),
            "fields" => option.each(diagnostics, |option, diagnostics| fields.read(option, diagnostics)),
            _ => fields.read(option, diagnostics)?,
        }
        Ok(())
    });
    out.fields = fields.finish();
    out
}

/// Filters by field as they are read.
#[derive(Default)]
struct Fields {
    filters: BTreeMap<String, Filter>,
    /// Several expressions on one field are applied in turn.
    regexps: BTreeMap<String, Vec<RegexpFilter>>,
}

impl Fields {
    /// `FIELD FILTER args…`.
    fn read(&mut self, line: Line<'_>, diagnostics: &mut Diagnostics) -> Parsed<()> {
        let field = line.name();
        let new = filter(&line.module()?, diagnostics)?;
        let taken =
            |message: &str| Err(line.error("duplicate-option", format!("the field `{}` {message}", line.name.shown())));
        match new {
            Filter::Regexp(regexp) => {
                if self.filters.remove(field).is_some() {
                    // Caddy drops the other filter without a word.
                    let message = format!("the filter given before for `{}` has no effect", line.name.shown());
                    let d = Diagnostic::warning("ignored-words", message).at(line.span(), "this one takes its place");
                    diagnostics.push(d.help("use `multi_regexp`, or filter another field"));
                }
                self.regexps.entry(field.to_owned()).or_default().push(regexp);
            }
            _ if self.regexps.contains_key(field) => return taken("has a `regexp` filter, which mixes with no other"),
            _ if self.filters.contains_key(field) => return taken("has a filter already"),
            other => {
                self.filters.insert(field.to_owned(), other);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> BTreeMap<String, Filter> {
        for (field, mut operations) in self.regexps {
            let filter = match operations.pop() {
                Some(only) if operations.is_empty() => Filter::Regexp(only),
                Some(last) => {
                    operations.push(last);
                    Filter::MultiRegexp(MultiRegexpFilter { operations })
                }
                None => continue,
            };
            self.filters.insert(field, filter);
        }
        self.filters
    }
}

/// `line` begins with the filter's name.
fn filter(line: &Line<'_>, diagnostics: &mut Diagnostics) -> Parsed<Filter> {
    let word = |index: usize| line.args.get(index).map(|token| token.text().to_owned()).unwrap_or_default();
    match line.name() {
        "delete" | "hash" => line.warn_ignored(0, true, diagnostics),
        "rename" | "replace" => line.warn_ignored(1, true, diagnostics),
        "regexp" => line.warn_ignored(2, true, diagnostics),
        "ip_mask" if line.args.len() > 2 => return Err(line.wrong_count()),
        "ip_mask" => {}
        _ => line.warn_ignored(0, !line.args.is_empty(), diagnostics),
    }
    Ok(match line.name() {
        "delete" => Filter::Delete(Plain {}),
        "hash" => Filter::Hash(Plain {}),
        "rename" => Filter::Rename(RenameFilter { name: word(0) }),
        "replace" => Filter::Replace(ReplaceFilter { value: word(0) }),
        "regexp" => Filter::Regexp(RegexpFilter { regexp: word(0), value: word(1) }),
        "ip_mask" => Filter::IpMask(ip_mask(line)?),
        "multi_regexp" => Filter::MultiRegexp(multi_regexp(line)?),
        "query" => Filter::Query(QueryFilter {
            actions: actions(line, |kind, parameter, value| QueryAction { kind, parameter, value })?,
        }),
        "cookie" => Filter::Cookie(CookieFilter { actions: actions(line, cookie_action)? }),
        "set_cookie" => Filter::SetCookie(CookieFilter { actions: actions(line, cookie_action)? }),
        _ => return Err(line.unknown_module("log filter", FILTERS)),
    })
}

fn ip_mask(line: &Line<'_>) -> Parsed<IpMaskFilter> {
    let bits = |index: usize| line.args.get(index).map_or(Ok(0), integer);
    let mut out = IpMaskFilter { ipv4_cidr: bits(0)?, ipv6_cidr: bits(1)? };
    for option in line.lines() {
        match option.name() {
            "ipv4" => out.ipv4_cidr = option.integer()?,
            "ipv6" => out.ipv6_cidr = option.integer()?,
            _ => return Err(option.unknown("ip_mask", &["ipv4", "ipv6"])),
        }
    }
    Ok(out)
}

fn multi_regexp(line: &Line<'_>) -> Parsed<MultiRegexpFilter> {
    let mut operations = Vec::new();
    for option in own_lines(line) {
        if option.name() != "regexp" {
            return Err(option.unknown("multi_regexp", &["regexp"]));
        }
        let (regexp, value) = option.two()?;
        operations.push(RegexpFilter { regexp: regexp.text().to_owned(), value: value.text().to_owned() });
    }
    if operations.is_empty() {
        return Err(line.error("wrong-argument-count", "`multi_regexp` needs at least one `regexp` line in its block"));
    }
    Ok(MultiRegexpFilter { operations })
}

fn cookie_action(kind: ActionKind, name: String, value: String) -> CookieAction {
    CookieAction { kind, name, value }
}

/// `None` = no action, which Caddy writes as null.
fn actions<T>(line: &Line<'_>, make: fn(ActionKind, String, String) -> T) -> Parsed<Option<Vec<T>>> {
    let mut out = Vec::new();
    for option in own_lines(line) {
        out.push(match option.name() {
            "replace" => {
                let (name, value) = option.two()?;
                make(ActionKind::Replace, name.text().to_owned(), value.text().to_owned())
            }
            "hash" => make(ActionKind::Hash, option.text()?, String::new()),
            "delete" => make(ActionKind::Delete, option.text()?, String::new()),
            _ => return Err(option.unknown(line.name(), &["replace", "hash", "delete"])),
        });
    }
    Ok((!out.is_empty()).then_some(out))
}

/// Words on the line hide the block from Caddy.
fn own_lines<'n>(line: &Line<'n>) -> impl Iterator<Item = Line<'n>> + use<'n> {
    let block = line.block.filter(|_| line.args.is_empty());
    Line { block, ..*line }.lines()
}
