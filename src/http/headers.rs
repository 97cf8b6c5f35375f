//! Operations on header fields: add, set, delete, replace. One typed form (Caddy's `HeaderOps`), one reader of
//! `[+|-|?|>]field [value [replacement]]` and one way of applying them, shared by `header`, `request_header`,
//! `reverse_proxy` and `forward_auth`.
//!
//! Whatever the text order, operations run: delete all (`-*`), add, set, delete, replace. A value never carries a line
//! break or another control character to the wire, wherever it came from: each becomes a space.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::header::{Entry, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::exchange::Exchange;
use super::placeholder::{Scope, Template, Unknown};
use super::regexp;
use super::response_matcher::ResponseMatcher;

/// Caddy's `headers.HeaderOps`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderOps {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Vec<String>>,
    /// Names; `*` at the start, the end or both is a wildcard, alone it means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<String>,
    /// By field; `*` means every field.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub replace: BTreeMap<String, Vec<Replacement>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replacement {
    /// Plain text to find; not used when there is a regular expression.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub search: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub search_regexp: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub replace: String,
}

/// Caddy's `headers.RespHeaderOps`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "ResponseWire", into = "ResponseWire")]
pub struct ResponseHeaderOps {
    pub ops: HeaderOps,
    /// Apply only to responses that match.
    pub require: Option<ResponseMatcher>,
    /// Apply when the response is written, not before.
    pub deferred: bool,
}

/// Caddy's `headers.Handler`: request and response operations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadersConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<HeaderOps>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseHeaderOps>,
}

/// `?field` on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultOnRequest;

impl DefaultOnRequest {
    pub const CODE: &'static str = "default-on-request-header";
    pub const MESSAGE: &'static str = "`?` sets a default on response headers only";
}

impl HeaderOps {
    /// Takes in one operation on a request's headers as written.
    pub fn add_line(&mut self, field: &str, value: &str, replacement: Option<&str>) -> Result<(), DefaultOnRequest> {
        add_line(self, None, field, value, replacement)
    }

    pub fn compile(&self) -> Result<CompiledHeaderOps, HeaderOpsError> {
        let mut deletes = Vec::new();
        let mut delete_all = false;
        for name in &self.delete {
            let template = Template::parse(name);
            match template.as_static() {
                Some("*") => delete_all = true,
                Some(fixed) => deletes.push(Delete::new(fixed)),
                None => deletes.push(Delete::Rendered(template)),
            }
        }
        Ok(CompiledHeaderOps {
            delete_all,
            add: compile_values(&self.add)?,
            set: compile_values(&self.set)?,
            delete: deletes.into(),
            replace: compile_replacements(&self.replace)?,
        })
    }
}

impl ResponseHeaderOps {
    /// Takes in one operation on a response's headers as written: `?` becomes a requirement that the field be absent,
    /// `>` and deletions are deferred.
    pub fn add_line(&mut self, field: &str, value: &str, replacement: Option<&str>) {
        let Self { ops, require, deferred } = self;
        // Only a request refuses anything.
        let _ = add_line(ops, Some((require, deferred)), field, value, replacement);
    }
}

/// Operations ready to run; names, values and patterns that do not change are made once.
#[derive(Debug, Clone, Default)]
pub struct CompiledHeaderOps {
    delete_all: bool,
    add: Box<[(Name, Box<[Value]>)]>,
    set: Box<[(Name, Box<[Value]>)]>,
    delete: Box<[Delete]>,
    replace: Box<[(Name, Box<[CompiledReplacement]>)]>,
}

/// What cannot be compiled, with the JSON pointer inside the operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderOpsError {
    pub code: &'static str,
    pub message: String,
    pub pointer: String,
}

impl CompiledHeaderOps {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.delete_all
            && self.add.is_empty()
            && self.set.is_empty()
            && self.delete.is_empty()
            && self.replace.is_empty()
    }

    /// Edits the request itself (`request_header`). The last `host` that remains is the request's.
    pub fn apply_request(&self, ex: &mut Exchange) {
        self.run(&mut RequestHead(ex));
        let mut hosts = ex.headers.get_all(HOST).iter();
        if let (Some(_), Some(last)) = (hosts.next(), hosts.next_back()) {
            let last = last.clone();
            ex.headers.insert(HOST, last);
        }
    }

    /// Edits the headers that the response will begin with (`header` that is not deferred).
    pub fn apply_early(&self, ex: &mut Exchange) {
        self.run(&mut EarlyHead(ex));
    }

    /// Edits a copy of the request's headers (`header_up`): placeholders show the request, not the copy.
    pub fn apply(&self, headers: &mut HeaderMap, ex: &Exchange) {
        self.run(&mut Detached { headers, ex, response: false });
    }

    /// Edits a response (`header_down`, deferred `header`).
    pub fn apply_response(&self, headers: &mut HeaderMap, ex: &Exchange) {
        self.run(&mut Detached { headers, ex, response: true });
    }

    fn run(&self, head: &mut impl Head) {
        if self.delete_all || self.delete.iter().any(|d| d.is_all(head.scope())) {
            head.headers().clear();
        }
        for (name, values) in &self.add {
            for value in values {
                if let Some(name) = name.get(head.scope()) {
                    let value = value.get(head.scope());
                    // Fails only beyond the map's own limit of fields, which a request's bounded head cannot reach.
                    let _ = head.headers().try_append(name, value);
                }
            }
        }
        for (name, values) in &self.set {
            if let Some(name) = name.get(head.scope()) {
                let value = joined(values, head.scope());
                let _ = head.headers().try_insert(name, value);
            }
        }
        for delete in &self.delete {
            delete.run(head);
        }
        for (name, replacements) in &self.replace {
            for replacement in replacements {
                replacement.run(name, head);
            }
        }
    }
}

/// `CanonicalMIMEHeaderKey`: `x-api-key` → `X-Api-Key`; a text that is no field name stays as it is.
#[must_use]
pub fn canonical_name(name: &str) -> String {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !name.bytes().all(token) {
        return name.to_owned();
    }
    let mut upper = true;
    name.chars()
        .map(|c| {
            let c = if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            upper = c == '-';
            c
        })
        .collect()
}

/// A value that may go on the wire: control characters become spaces, spaces at the ends go (as Go's server does).
#[must_use]
pub fn safe_value(text: &str) -> HeaderValue {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    HeaderValue::from_bytes(text.as_bytes()).unwrap_or_else(|_| {
        let spaced: String = text.chars().map(|c| if c.is_ascii_control() && c != '\t' { ' ' } else { c }).collect();
        HeaderValue::from_bytes(spaced.trim().as_bytes()).unwrap_or(HeaderValue::from_static(""))
    })
}

type ResponseParts<'a> = (&'a mut Option<ResponseMatcher>, &'a mut bool);

fn add_line(
    ops: &mut HeaderOps,
    response: Option<ResponseParts<'_>>,
    field: &str,
    value: &str,
    replacement: Option<&str>,
) -> Result<(), DefaultOnRequest> {
    let set = |ops: &mut HeaderOps, field: &str| {
        ops.set.insert(canonical_name(field), vec![value.to_owned()]);
    };
    if let Some(field) = field.strip_prefix('+') {
        ops.add.entry(canonical_name(field)).or_default().push(value.to_owned());
    } else if let Some(field) = field.strip_prefix('-') {
        ops.delete.push(field.to_owned());
        if let Some((_, deferred)) = response {
            *deferred = true;
        }
    } else if let Some(field) = field.strip_prefix('?') {
        let Some((require, _)) = response else { return Err(DefaultOnRequest) };
        require.get_or_insert_default().headers.get_or_insert_default().insert(field.to_owned(), None);
        set(ops, field);
    } else {
        let late = field.starts_with('>');
        if let Some((_, deferred)) = response {
            *deferred |= late;
        }
        match replacement {
            Some(replacement) => {
                let field = field.trim_start_matches(['+', '-', '?', '>']);
                let replacement = Replacement {
                    search_regexp: value.to_owned(),
                    replace: replacement.to_owned(),
                    ..Replacement::default()
                };
                ops.replace.entry(field.to_owned()).or_default().push(replacement);
            }
            None => set(ops, field.strip_prefix('>').unwrap_or(field)),
        }
    }
    Ok(())
}

/// Headers under edit and what placeholders see meanwhile.
trait Head {
    fn scope(&self) -> Scope<'_>;
    fn headers(&mut self) -> &mut HeaderMap;
}

struct RequestHead<'a>(&'a mut Exchange);

impl Head for RequestHead<'_> {
    fn scope(&self) -> Scope<'_> {
        Scope::from(&*self.0)
    }

    fn headers(&mut self) -> &mut HeaderMap {
        &mut self.0.headers
    }
}

struct EarlyHead<'a>(&'a mut Exchange);

impl Head for EarlyHead<'_> {
    fn scope(&self) -> Scope<'_> {
        Scope::from(&*self.0)
    }

    fn headers(&mut self) -> &mut HeaderMap {
        &mut self.0.early_headers
    }
}

struct Detached<'a> {
    headers: &'a mut HeaderMap,
    ex: &'a Exchange,
    /// The headers are the response's own, for `{http.response.header.*}`.
    response: bool,
}

impl Head for Detached<'_> {
    fn scope(&self) -> Scope<'_> {
        Scope { exchange: self.ex, response_headers: self.response.then_some(&*self.headers) }
    }

    fn headers(&mut self) -> &mut HeaderMap {
        self.headers
    }
}

#[derive(Debug, Clone)]
enum Name {
    Static(HeaderName),
    /// `*` in replacements.
    Every,
    Rendered(Template),
}

impl Name {
    fn compile(text: &str) -> Result<Self, HeaderOpsError> {
        let template = Template::parse(text);
        match template.as_static() {
            None => Ok(Self::Rendered(template)),
            Some(name) => name.parse().map(Self::Static).map_err(|_| HeaderOpsError {
                code: "invalid-header-field",
                message: format!("`{text}` is not a valid header field name"),
                pointer: String::new(),
            }),
        }
    }

    /// `None` when it renders to what no header can be called: the operation is then left out, as Go's server does.
    fn get(&self, scope: Scope<'_>) -> Option<HeaderName> {
        match self {
            Self::Static(name) => Some(name.clone()),
            Self::Every => None,
            Self::Rendered(template) => template.render_in(scope, Unknown::Literal).parse().ok(),
        }
    }
}

#[derive(Debug, Clone)]
enum Value {
    Static(HeaderValue),
    Rendered(Template),
}

impl Value {
    fn compile(text: &str) -> Self {
        let template = Template::parse(text);
        match template.as_static() {
            Some(fixed) => Self::Static(safe_value(fixed)),
            None => Self::Rendered(template),
        }
    }

    fn get(&self, scope: Scope<'_>) -> HeaderValue {
        match self {
            Self::Static(value) => value.clone(),
            Self::Rendered(template) => safe_value(&template.render_in(scope, Unknown::Literal)),
        }
    }
}

/// Several values of one `set` become one, joined by commas.
fn joined(values: &[Value], scope: Scope<'_>) -> HeaderValue {
    match values {
        [one] => one.get(scope),
        several => {
            let rendered: Vec<HeaderValue> = several.iter().map(|v| v.get(scope)).collect();
            let bytes: Vec<&[u8]> = rendered.iter().map(HeaderValue::as_bytes).collect();
            HeaderValue::from_bytes(&bytes.join(&b',')).unwrap_or(HeaderValue::from_static(""))
        }
    }
}

fn compile_values(fields: &BTreeMap<String, Vec<String>>) -> Result<Box<[(Name, Box<[Value]>)]>, HeaderOpsError> {
    fields
        .iter()
        .map(|(name, values)| Ok((Name::compile(name)?, values.iter().map(|v| Value::compile(v)).collect())))
        .collect()
}

#[derive(Debug, Clone)]
enum Delete {
    Exact(HeaderName),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    /// A name that no header has.
    Nothing,
    Rendered(Template),
}

impl Delete {
    fn new(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        match (name.strip_prefix('*'), name.strip_suffix('*')) {
            (Some(inner), Some(_)) => Self::Contains(inner.strip_suffix('*').unwrap_or("").into()),
            (Some(suffix), None) => Self::Suffix(suffix.into()),
            (None, Some(prefix)) => Self::Prefix(prefix.into()),
            (None, None) => name.parse().map_or(Self::Nothing, Self::Exact),
        }
    }

    fn is_all(&self, scope: Scope<'_>) -> bool {
        matches!(self, Self::Rendered(template) if template.render_in(scope, Unknown::Literal) == "*")
    }

    fn run(&self, head: &mut impl Head) {
        match self {
            Self::Exact(name) => remove(head.headers(), name),
            Self::Prefix(text) => retain_not(head.headers(), |name| name.starts_with(&**text)),
            Self::Suffix(text) => retain_not(head.headers(), |name| name.ends_with(&**text)),
            Self::Contains(text) => retain_not(head.headers(), |name| name.contains(&**text)),
            Self::Nothing => {}
            Self::Rendered(template) => {
                let name = template.render_in(head.scope(), Unknown::Literal).into_owned();
                // All has been deleted first; what was added since stays.
                if name != "*" {
                    Self::new(&name).run(head);
                }
            }
        }
    }
}

fn remove(headers: &mut HeaderMap, name: &HeaderName) {
    if let Entry::Occupied(entry) = headers.entry(name) {
        entry.remove_entry_mult();
    }
}

fn retain_not(headers: &mut HeaderMap, gone: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|n| gone(n.as_str())).cloned().collect();
    for name in &names {
        remove(headers, name);
    }
}

#[derive(Debug, Clone)]
struct CompiledReplacement {
    search: Search,
    replace: Template,
}

#[derive(Debug, Clone)]
enum Search {
    Text(Template),
    Pattern(Regex),
    /// A pattern with placeholders in it.
    Rendered(Template),
}

fn compile_replacements(
    fields: &BTreeMap<String, Vec<Replacement>>,
) -> Result<Box<[(Name, Box<[CompiledReplacement]>)]>, HeaderOpsError> {
    let mut out = Vec::with_capacity(fields.len());
    for (field, replacements) in fields {
        let name = if field == "*" { Name::Every } else { Name::compile(field)? };
        let mut compiled = Vec::with_capacity(replacements.len());
        for (i, r) in replacements.iter().enumerate() {
            let search = Search::compile(r).map_err(|e| HeaderOpsError {
                code: "invalid-regexp",
                message: format!("regular expression for header `{field}`: {e}"),
                pointer: format!("/replace/{}/{i}/search_regexp", field.replace('~', "~0").replace('/', "~1")),
            })?;
            compiled.push(CompiledReplacement { search, replace: Template::parse(&r.replace) });
        }
        out.push((name, compiled.into()));
    }
    Ok(out.into())
}

impl Search {
    fn compile(r: &Replacement) -> Result<Self, regexp::PatternError> {
        if r.search_regexp.is_empty() {
            return Ok(Self::Text(Template::parse(&r.search)));
        }
        // A repetition such as `a{2}` is no placeholder: only a name that is known makes the pattern a template.
        if holds_placeholder(&r.search_regexp) {
            return Ok(Self::Rendered(Template::parse(&r.search_regexp)));
        }
        regexp::compile(&r.search_regexp).map(Self::Pattern)
    }
}

fn holds_placeholder(pattern: &str) -> bool {
    let mut rest = pattern;
    while let Some(start) = rest.find('{') {
        rest = &rest[start + 1..];
        let Some(end) = rest.find('}') else { return false };
        if rest[..end].contains('.') && rest[..end].starts_with(|c: char| c.is_ascii_alphabetic()) {
            return true;
        }
    }
    false
}

impl CompiledReplacement {
    fn run(&self, name: &Name, head: &mut impl Head) {
        let replace = self.replace.render_in(head.scope(), Unknown::Literal).into_owned();
        let finder = match &self.search {
            Search::Pattern(regex) => Finder::Pattern(Cow::Borrowed(regex)),
            Search::Text(template) => Finder::Text(template.render_in(head.scope(), Unknown::Literal).into_owned()),
            Search::Rendered(template) => {
                match regexp::compile_at_runtime(&template.render_in(head.scope(), Unknown::Literal)) {
                    Ok(regex) => Finder::Pattern(Cow::Owned(regex)),
                    Err(_) => return,
                }
            }
        };
        if let Name::Every = name {
            head.headers().values_mut().for_each(|value| finder.edit(value, &replace));
        } else if let Some(name) = name.get(head.scope())
            && let Entry::Occupied(mut entry) = head.headers().entry(name)
        {
            entry.iter_mut().for_each(|value| finder.edit(value, &replace));
        }
    }
}

enum Finder<'a> {
    Pattern(Cow<'a, Regex>),
    Text(String),
}

impl Finder<'_> {
    fn edit(&self, value: &mut HeaderValue, replace: &str) {
        let text = String::from_utf8_lossy(value.as_bytes());
        let edited = match self {
            Self::Pattern(regex) => regex.replace_all(&text, replace),
            Self::Text(search) => Cow::Owned(text.replace(search.as_str(), replace)),
        };
        if edited.as_bytes() != value.as_bytes() {
            *value = safe_value(&edited);
        }
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ResponseWire {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    add: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    set: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    delete: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    replace: BTreeMap<String, Vec<Replacement>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    require: Option<ResponseMatcher>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deferred: bool,
}

impl From<ResponseWire> for ResponseHeaderOps {
    fn from(w: ResponseWire) -> Self {
        let ops = HeaderOps { add: w.add, set: w.set, delete: w.delete, replace: w.replace };
        Self { ops, require: w.require, deferred: w.deferred }
    }
}

impl From<ResponseHeaderOps> for ResponseWire {
    fn from(r: ResponseHeaderOps) -> Self {
        let HeaderOps { add, set, delete, replace } = r.ops;
        Self { add, set, delete, replace, require: r.require, deferred: r.deferred }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::exchange::testing::exchange;
    use serde_json::json;

    fn read(lines: &[(&str, &str, Option<&str>)]) -> serde_json::Value {
        let mut ops = ResponseHeaderOps::default();
        for (field, value, replacement) in lines {
            ops.add_line(field, value, *replacement);
        }
        serde_json::to_value(ops).unwrap()
    }

    fn edited(ops: serde_json::Value, before: &[(&str, &str)]) -> Vec<(String, String)> {
        let ops: HeaderOps = serde_json::from_value(ops).unwrap();
        let mut ex = exchange("GET", "/", before);
        ops.compile().unwrap().apply_request(&mut ex);
        let show = |v: &HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
        let mut all: Vec<_> = ex.headers.iter().map(|(n, v)| (n.to_string(), show(v))).collect();
        all.sort();
        all
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn lines_are_read_as_caddy_reads_them() {
        assert_eq!(
            read(&[("x-a", "1", None), ("X-A", "2", None), ("+x", "a", None), ("+X", "b", None)]),
            json!({"set": {"X-A": ["2"]}, "add": {"X": ["a", "b"]}})
        );
        assert_eq!(read(&[("-x-a", "", Some("z"))]), json!({"delete": ["x-a"], "deferred": true}));
        assert_eq!(read(&[("?x-d", "5", None)]), json!({"set": {"X-D": ["5"]}, "require": {"headers": {"x-d": null}}}));
        assert_eq!(
            read(&[(">x-a", "re$", Some("rep"))]),
            json!({"replace": {"x-a": [{"search_regexp": "re$", "replace": "rep"}]}, "deferred": true})
        );
        assert_eq!(read(&[(">-x", "", None)]), json!({"set": {"-X": [""]}, "deferred": true}));
        assert_eq!(HeaderOps::default().add_line("?X", "a", None), Err(DefaultOnRequest));
    }

    #[test]
    fn operations_run_in_their_own_order() {
        let ops = json!({"add": {"X-A": ["1"]}, "set": {"X-A": ["2"], "X-B": ["a", "b"]}, "delete": ["X-C"],
            "replace": {"X-B": [{"search_regexp": "^a(.)", "replace": "${1}z"}]}});
        assert_eq!(edited(ops, &[("x-c", "gone")]), pairs(&[("x-a", "2"), ("x-b", ",zb")]));
        let ops = json!({"add": {"X-A": ["new"]}, "delete": ["*"]});
        assert_eq!(edited(ops, &[("x-c", "gone"), ("x-a", "old")]), pairs(&[("x-a", "new")]));
    }

    #[test]
    fn deletions_know_wildcards_and_placeholders() {
        let before = [("x-a-1", ""), ("x-a-2", ""), ("b-end", ""), ("has-mid-in", ""), ("gone", ""), ("kept", "gone")];
        let ops = json!({"delete": ["X-A-*", "*-End", "*-MID-*", "{http.request.header.kept}"]});
        assert_eq!(edited(ops, &before), pairs(&[("kept", "gone")]));
    }

    #[test]
    fn replacements_reach_every_value_or_every_field() {
        let before = [("x-a", "foo"), ("x-a", "foofoo"), ("x-b", "foo")];
        let ops = json!({"replace": {"x-a": [{"search": "foo", "replace": "{http.request.method}"}]}});
        assert_eq!(edited(ops, &before), pairs(&[("x-a", "GET"), ("x-a", "GETGET"), ("x-b", "foo")]));
        let ops = json!({"replace": {"*": [{"search_regexp": "fo{2}", "replace": "$$1"}]}});
        assert_eq!(edited(ops, &before), pairs(&[("x-a", "$1"), ("x-a", "$1$1"), ("x-b", "$1")]));
        let ops = json!({"replace": {"X-B": [{"search_regexp": "^{http.request.header.x-b}$", "replace": "bar"}]}});
        assert_eq!(edited(ops, &before[2..]), pairs(&[("x-b", "bar")]));
    }

    #[test]
    fn the_last_host_is_the_host() {
        let ops = json!({"add": {"Host": ["b.test"]}});
        assert_eq!(edited(ops, &[("host", "a.test")]), pairs(&[("host", "b.test")]));
        let ops = json!({"set": {"X-Old": ["{http.request.host}"], "Host": ["{http.request.header.X-New}"]}});
        let after = edited(ops, &[("host", "a.test"), ("x-new", "n.test")]);
        assert_eq!(after[0], ("host".to_owned(), "n.test".to_owned()));
    }

    #[test]
    fn no_control_character_reaches_a_value() {
        let mut ex = exchange("GET", "/%0d%0aSet-Cookie:%20a=b%00", &[]);
        let ops: HeaderOps = serde_json::from_value(json!({"set": {"X-A": ["p{http.request.uri.path}"]}})).unwrap();
        ops.compile().unwrap().apply_early(&mut ex);
        assert_eq!(ex.early_headers["x-a"], "p/  Set-Cookie: a=b");
        assert_eq!(safe_value("a\r\nb"), "a  b");
        assert_eq!(safe_value(" a b \n"), "a b");
        let fixed: HeaderOps = serde_json::from_value(json!({"set": {"X-A": ["a\nb"]}})).unwrap();
        fixed.compile().unwrap().apply_early(&mut ex);
        assert_eq!(ex.early_headers["x-a"], "a b");
    }

    #[test]
    fn unknown_placeholders_stay_and_wrong_names_are_refused() {
        assert_eq!(edited(json!({"set": {"X": ["{nope}"]}}), &[]), pairs(&[("x", "{nope}")]));
        let bad: HeaderOps = serde_json::from_value(json!({"set": {"X-A:": ["b"]}})).unwrap();
        assert_eq!(bad.compile().unwrap_err().code, "invalid-header-field");
        let bad: HeaderOps = serde_json::from_value(json!({"replace": {"A": [{"search_regexp": "("}]}})).unwrap();
        assert_eq!(bad.compile().unwrap_err().pointer, "/replace/A/0/search_regexp");
        assert!(serde_json::from_value::<ResponseHeaderOps>(json!({"nope": 1})).is_err());
    }
}
