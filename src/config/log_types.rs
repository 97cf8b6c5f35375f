//! Logging in its typed form: writers, encoders, field filters and sampling, as they stand in `logging.logs.*`.
//!
//! The `log` directive and option write these; the compiler reads them back and decides which of them run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::nanos::Nanos;
use super::types::{is_false, is_zero};

/// Where entries go: `logging.logs.*.writer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "output", rename_all = "snake_case")]
pub enum Writer {
    Stdout(Plain),
    Stderr(Plain),
    Discard(Plain),
    File(FileWriter),
    Net(NetWriter),
}

/// A module without settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plain {}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileWriter {
    /// May hold placeholders such as `{env.HOME}`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filename: String,
    /// Octal digits, as for `chmod`; empty = 0600.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Mode of directories that must be made: octal digits, `inherit` or `from_file`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dir_mode: String,
    /// `None` = true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roll: Option<bool>,
    /// MiB; zero = 100.
    #[serde(skip_serializing_if = "is_zero")]
    pub roll_size_mb: i64,
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub roll_interval: Nanos,
    /// Minutes of the hour.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roll_minutes: Vec<i64>,
    /// Times of day, `15:04`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roll_at: Vec<String>,
    /// `None` = true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roll_gzip: Option<bool>,
    /// `none`, `gzip` or `zstd`; empty = as `roll_gzip` says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub roll_compression: String,
    #[serde(skip_serializing_if = "is_false")]
    pub roll_local_time: bool,
    /// Rolled files kept; zero = 10.
    #[serde(skip_serializing_if = "is_zero")]
    pub roll_keep: i64,
    /// Zero = 90.
    #[serde(skip_serializing_if = "is_zero")]
    pub roll_keep_days: i64,
    /// Go time layout in the names of rolled files.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backup_time_format: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetWriter {
    /// Network address; `tcp` when it names no network.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Zero = 10 s.
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub dial_timeout: Nanos,
    /// Start also when the address cannot be reached, writing to stderr meanwhile.
    #[serde(skip_serializing_if = "is_false")]
    pub soft_start: bool,
}

/// How entries look: `logging.logs.*.encoder`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "snake_case")]
pub enum Encoder {
    Console(LineFormat),
    Json(LineFormat),
    Filter(FilterEncoder),
    Append(AppendEncoder),
    Journald(JournaldEncoder),
}

/// Keys and formats that the console and JSON encoders share. A key that is absent has Caddy's name (`msg`, `level`,
/// `ts`, `logger`, …); an empty one leaves the field out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LineFormat {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stacktrace_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_ending: Option<String>,
    /// `unix_seconds_float`, `unix_milli_float`, `unix_nano`, `iso8601`, `rfc3339`, `rfc3339_nano`, `wall`,
    /// `wall_milli`, `wall_nano`, `common_log` or a Go time layout; empty = the encoder's own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub time_format: String,
    #[serde(skip_serializing_if = "is_false")]
    pub time_local: bool,
    /// `s`/`second`/`seconds`, `ns`/`nano`/`nanos`, `ms`/`milli`/`millis` or `string`; empty = seconds.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub duration_format: String,
    /// `lower`, `upper` or `color`; empty = the encoder's own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub level_format: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterEncoder {
    /// `None` = the default encoder of the writer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrap: Option<Box<Encoder>>,
    /// By field; `>` steps into an object (`request>headers>Cookie`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Filter>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AppendEncoder {
    /// `None` = the default encoder of the writer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrap: Option<Box<Encoder>>,
    /// Texts may hold global placeholders.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournaldEncoder {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrap: Option<Box<Encoder>>,
}

/// What happens to a field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "filter", rename_all = "snake_case")]
pub enum Filter {
    Delete(Plain),
    Rename(RenameFilter),
    Replace(ReplaceFilter),
    IpMask(IpMaskFilter),
    Query(QueryFilter),
    Cookie(CookieFilter),
    SetCookie(CookieFilter),
    Regexp(RegexpFilter),
    MultiRegexp(MultiRegexpFilter),
    /// The first four bytes of SHA-256 in hexadecimal.
    Hash(Plain),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RenameFilter {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplaceFilter {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// Prefix lengths; zero masks the whole address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IpMaskFilter {
    #[serde(skip_serializing_if = "is_zero")]
    pub ipv4_cidr: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub ipv6_cidr: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    Replace,
    Hash,
    Delete,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueryFilter {
    pub actions: Option<Vec<QueryAction>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryAction {
    #[serde(rename = "type")]
    pub kind: ActionKind,
    pub parameter: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CookieFilter {
    pub actions: Option<Vec<CookieAction>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CookieAction {
    #[serde(rename = "type")]
    pub kind: ActionKind,
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegexpFilter {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub regexp: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultiRegexpFilter {
    /// Applied in order, each to the result of the one before.
    pub operations: Vec<RegexpFilter>,
}

/// Of equal messages within an interval the first ones are kept, then every n-th: `logging.logs.*.sampling`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Zero = 1 s.
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    pub interval: Nanos,
    /// Zero = 100.
    #[serde(skip_serializing_if = "is_zero")]
    pub first: i64,
    /// Zero = 100.
    #[serde(skip_serializing_if = "is_zero")]
    pub thereafter: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_json_is_caddys() {
        for (value, text) in [
            (json!({"output": "stdout"}), ""),
            (json!({"output": "file", "filename": "/x", "roll": false, "roll_size_mb": 5, "roll_minutes": [0]}), ""),
            (json!({"output": "net", "address": "localhost:1", "soft_start": true}), ""),
            (json!({"output": "stdout", "color": true}), "unknown field"),
            (json!({"output": "paper"}), "unknown variant"),
        ] {
            match serde_json::from_value::<Writer>(value.clone()) {
                Ok(writer) => assert_eq!(serde_json::to_value(writer).unwrap(), value),
                Err(e) => assert!(!text.is_empty() && e.to_string().contains(text), "{e}"),
            }
        }
        let encoder = json!({"format": "filter", "wrap": {"format": "console", "time_format": "wall"}, "fields": {
            "a": {"filter": "delete"},
            "b": {"filter": "ip_mask", "ipv4_cidr": 16},
            "c": {"filter": "query", "actions": [{"type": "replace", "parameter": "p", "value": "v"}]},
            "d": {"filter": "cookie", "actions": null},
            "e": {"filter": "multi_regexp", "operations": [{"regexp": "x", "value": "y"}]},
        }});
        let read: Encoder = serde_json::from_value(encoder.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), encoder);
        let wrong = json!({"format": "filter", "fields": {"a": {"filter": "delete", "value": 1}}});
        assert!(serde_json::from_value::<Encoder>(wrong).is_err());
    }
}
