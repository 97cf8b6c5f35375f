//! Matching by header fields, and matchers of responses: `@name { status 2xx 404; header Field value }` as written in
//! `reverse_proxy`, `intercept`, `encode` and `header`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};

use super::exchange::Exchange;
use super::headers::canonical_name;
use super::placeholder::{Template, Unknown};
use crate::base::diagnostic::Diagnostic;
use crate::base::span::Span;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

/// Fields and the values they may have: `None` = the field must be absent, no values = it must be present.
pub type HeaderConditions = BTreeMap<String, Option<Vec<String>>>;

/// Caddy's `ResponseMatcher`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResponseMatcher {
    /// One of these statuses; a single digit stands for its class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<Vec<u16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeaderConditions>,
}

/// The same, ready to run.
#[derive(Debug, Clone, Default)]
pub struct CompiledResponseMatcher {
    status: Option<Box<[u16]>>,
    headers: CompiledHeaderConditions,
}

/// Conditions on header fields; all must hold.
#[derive(Debug, Clone, Default)]
pub struct CompiledHeaderConditions(Box<[(HeaderName, Condition)]>);

#[derive(Debug, Clone)]
enum Condition {
    Absent,
    Present,
    OneOf(Box<[Wanted]>),
}

#[derive(Debug, Clone)]
enum Wanted {
    Static(TextPattern),
    Rendered(Template),
}

/// A text with a wildcard at its start, its end, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextPattern {
    Any,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
}

impl ResponseMatcher {
    /// Reads `NAME status …`, `NAME header …` or `NAME { lines }`; the node's own name is not looked at.
    pub fn parse(node: &Node) -> Result<Self, Box<Diagnostic>> {
        let mut matcher = Self::default();
        if let [kind, args @ ..] = node.args.as_slice() {
            matcher.add(kind, args)?;
        }
        for line in node.lines() {
            if let Some(block) = &line.block {
                return Err(wrong(block.open, "unexpected-block", "response matchers take no block here"));
            }
            matcher.add(&line.name, &line.args)?;
        }
        Ok(matcher)
    }

    fn add(&mut self, kind: &Token, args: &[Token]) -> Result<(), Box<Diagnostic>> {
        match kind.text() {
            "header" => add_header_condition(self.headers.get_or_insert_default(), kind, args),
            "status" if args.is_empty() => {
                Err(wrong(kind.span, "wrong-argument-count", "`status` needs at least one status"))
            }
            "status" => {
                let codes = self.status_code.get_or_insert_default();
                for arg in args {
                    let text = arg.text();
                    let digits = if text.len() == 3 { text.strip_suffix("xx").unwrap_or(text) } else { text };
                    let code = digits.parse().map_err(|_| {
                        let message = format!("`{}` is not a status or a class such as `4xx`", arg.shown());
                        wrong(arg.span, "invalid-status", message)
                    })?;
                    codes.push(code);
                }
                Ok(())
            }
            _ => {
                let message = format!("there is no response matcher `{}`", kind.shown());
                Err(Box::new(
                    Diagnostic::error("unknown-response-matcher", message)
                        .at(kind.span, "")
                        .help("response matchers are `status` and `header`"),
                ))
            }
        }
    }

    /// An error is the field whose name no header can have.
    pub fn compile(&self) -> Result<CompiledResponseMatcher, InvalidField> {
        let headers = match &self.headers {
            Some(headers) => CompiledHeaderConditions::compile(headers, false)?,
            None => CompiledHeaderConditions::default(),
        };
        Ok(CompiledResponseMatcher { status: self.status_code.as_deref().map(Into::into), headers })
    }
}

impl CompiledResponseMatcher {
    #[must_use]
    pub fn matches(&self, status: u16, headers: &HeaderMap) -> bool {
        let status_fits = self.status.as_ref().is_none_or(|codes| codes.iter().any(|c| status_matches(status, *c)));
        status_fits && self.headers.match_response(headers)
    }
}

/// True when the status is the configured one or of the configured class (`4` = 400 to 499).
#[must_use]
pub fn status_matches(status: u16, configured: u16) -> bool {
    status == configured || (configured < 100 && status / 100 == configured)
}

/// Reads the arguments of a `header` line: `Field value`, `!Field`.
pub fn add_header_condition(
    conditions: &mut HeaderConditions,
    line: &Token,
    args: &[Token],
) -> Result<(), Box<Diagnostic>> {
    let shape = "shape: `header FIELD VALUE` or `header !FIELD`; `header FIELD *` asks for any value";
    let malformed = |span: Span, message: &str| {
        Err(Box::new(Diagnostic::error("malformed-matcher", message).at(span, "").help(shape)))
    };
    match args {
        [] => malformed(line.span, "`header` needs a field"),
        [field] => match field.text().strip_prefix('!') {
            Some("") => malformed(field.span, "no field name follows `!`"),
            // Not made canonical, as in Caddy; a list of allowed values for this field is forgotten.
            Some(name) => {
                conditions.insert(name.to_owned(), None);
                Ok(())
            }
            None => malformed(field.span, "`header` needs both field and value"),
        },
        [field, value] if field.text().starts_with('!') => malformed(value.span, "an absent field has no value"),
        [field, value] => {
            let values = conditions.entry(canonical_name(field.text())).or_default();
            values.get_or_insert_default().push(value.text().to_owned());
            Ok(())
        }
        [_, _, rest @ ..] => malformed(rest[0].span, "`header` takes one value on a line; repeat the line for more"),
    }
}

/// A field name that no header can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidField(pub String);

impl std::fmt::Display for InvalidField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is not a valid header field name", self.0)
    }
}

impl CompiledHeaderConditions {
    /// `placeholders`: whether values may hold placeholders (request matchers) or are taken as written.
    pub fn compile(conditions: &HeaderConditions, placeholders: bool) -> Result<Self, InvalidField> {
        let mut out = Vec::with_capacity(conditions.len());
        for (field, values) in conditions {
            let name: HeaderName = field.parse().map_err(|_| InvalidField(field.clone()))?;
            let condition = match values.as_deref() {
                None => Condition::Absent,
                Some([]) => Condition::Present,
                Some(values) => Condition::OneOf(values.iter().map(|v| Wanted::new(v, placeholders)).collect()),
            };
            out.push((name, condition));
        }
        Ok(Self(out.into()))
    }

    #[must_use]
    pub fn match_request(&self, ex: &Exchange) -> bool {
        self.hold(&ex.headers, |template| template.render(ex, Unknown::Empty))
    }

    #[must_use]
    pub fn match_response(&self, headers: &HeaderMap) -> bool {
        self.hold(headers, |template| template.source().into())
    }

    fn hold<'a>(&'a self, headers: &HeaderMap, render: impl Fn(&'a Template) -> std::borrow::Cow<'a, str>) -> bool {
        self.0.iter().all(|(name, condition)| match condition {
            Condition::Absent => !headers.contains_key(name),
            Condition::Present => headers.contains_key(name),
            Condition::OneOf(wanted) => headers.get_all(name).iter().any(|value| {
                wanted.iter().any(|w| match w {
                    Wanted::Static(pattern) => pattern.matches(value.as_bytes()),
                    Wanted::Rendered(template) => TextPattern::new(&render(template)).matches(value.as_bytes()),
                })
            }),
        })
    }
}

impl Wanted {
    fn new(text: &str, placeholders: bool) -> Self {
        if !placeholders {
            return Self::Static(TextPattern::new(text));
        }
        let template = Template::parse(text);
        match template.as_static() {
            Some(fixed) => Self::Static(TextPattern::new(fixed)),
            None => Self::Rendered(template),
        }
    }
}

impl TextPattern {
    #[must_use]
    pub fn new(text: &str) -> Self {
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            _ if text == "*" => Self::Any,
            (Some(inner), Some(_)) => Self::Contains(inner.strip_suffix('*').unwrap_or("").into()),
            (Some(suffix), None) => Self::Suffix(suffix.into()),
            (None, Some(prefix)) => Self::Prefix(prefix.into()),
            (None, None) => Self::Exact(text.into()),
        }
    }

    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(t) => value == t.as_bytes(),
            Self::Prefix(t) => value.starts_with(t.as_bytes()),
            Self::Suffix(t) => value.ends_with(t.as_bytes()),
            Self::Contains(t) => memchr::memmem::find(value, t.as_bytes()).is_some(),
        }
    }
}

fn wrong(span: Span, code: &'static str, message: impl Into<String>) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(code, message).at(span, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::exchange::testing::exchange;

    fn compiled(json: &str) -> CompiledResponseMatcher {
        serde_json::from_str::<ResponseMatcher>(json).unwrap().compile().unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    #[test]
    fn a_digit_is_a_class_and_fields_are_all_needed() {
        let matcher = compiled(r#"{"status_code":[2,404],"headers":{"X-A":["a*","b"],"X-No":null,"X-Any":[]}}"#);
        let good = headers(&[("x-a", "other"), ("x-any", "")]);
        assert!(!matcher.matches(200, &good), "no allowed value");
        let mut good = headers(&[("x-any", ""), ("x-a", "zz")]);
        good.append("x-a", "abc".parse().unwrap());
        assert!(matcher.matches(204, &good) && matcher.matches(404, &good));
        assert!(!matcher.matches(500, &good));
        good.insert("x-no", "1".parse().unwrap());
        assert!(!matcher.matches(200, &good));
        assert!(compiled("{}").matches(500, &HeaderMap::new()));
        assert!(!compiled(r#"{"status_code":[]}"#).matches(200, &HeaderMap::new()));
    }

    #[test]
    fn wildcards() {
        for (pattern, yes, no) in
            [("*b*", "abc", "ac"), ("b*", "bc", "ab"), ("*b", "ab", "bc"), ("b", "b", "B"), ("**", "", "\0none")]
        {
            assert!(TextPattern::new(pattern).matches(yes.as_bytes()), "{pattern}");
            assert!(no == "\0none" || !TextPattern::new(pattern).matches(no.as_bytes()), "{pattern}");
        }
    }

    #[test]
    fn request_values_may_hold_placeholders_and_response_values_not() {
        let conditions: HeaderConditions = serde_json::from_str(r#"{"X-Host":["{http.request.host}"]}"#).unwrap();
        let ex = exchange("GET", "/", &[("host", "a.test"), ("x-host", "a.test")]);
        assert!(CompiledHeaderConditions::compile(&conditions, true).unwrap().match_request(&ex));
        assert!(!CompiledHeaderConditions::compile(&conditions, false).unwrap().match_response(&ex.headers));
        let bad: HeaderConditions = serde_json::from_str(r#"{"a b":["x"]}"#).unwrap();
        assert_eq!(CompiledHeaderConditions::compile(&bad, true).unwrap_err(), InvalidField("a b".into()));
    }
}
