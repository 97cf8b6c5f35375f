//! Changes of method and URI: what `rewrite`, `uri`, `method`, `handle_path` and the proxy's own `rewrite` do.
//!
//! Follows Caddy's rewrite handler. A path is changed in its escaped form, so that an escaped byte the change does not
//! speak about stays escaped. Whatever comes out is a path that begins with `/`, without control bytes.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{Method, Uri};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::error::HandlerError;
use super::exchange::Exchange;
use super::path::{QueryValues, clean_path, decode_path, escape_path, escaped_path, is_valid_escaped, query_escape};
use super::placeholder::{Template, Unknown};
use super::regexp;
use target::Target;

mod query;
mod strip;
mod target;

pub use query::{QueryArgument, QueryOps, QueryReplacement};

/// The `rewrite` handler's JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewriteConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub strip_path_prefix: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub strip_path_suffix: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uri_substring: Vec<Substring>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path_regexp: Vec<PathRegexp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<QueryOps>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Substring {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub find: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub replace: String,
    /// Most replacements; zero or less = no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PathRegexp {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub find: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub replace: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// A rewrite, compiled.
pub struct Rewrite {
    method: Option<Template>,
    target: Option<Target>,
    prefix: Option<Template>,
    suffix: Option<Template>,
    substrings: Vec<(Template, Template, Option<usize>)>,
    regexps: Vec<(Regex, Template)>,
    query: Option<query::CompiledOps>,
}

impl Rewrite {
    /// `Err` holds the field and the reason of what cannot be compiled.
    pub fn compile(config: &RewriteConfig) -> Result<Self, (&'static str, String)> {
        let template = |text: &str| (!text.is_empty()).then(|| Template::parse(text));
        let substrings = config.uri_substring.iter().filter(|s| !s.find.is_empty()).map(|s| {
            let limit = usize::try_from(s.limit).ok().filter(|n| *n > 0);
            (Template::parse(&s.find), Template::parse(&s.replace), limit)
        });
        let mut regexps = Vec::with_capacity(config.path_regexp.len());
        for r in &config.path_regexp {
            if r.find.is_empty() {
                return Err(("path_regexp", "the expression to find is empty".into()));
            }
            let regex = regexp::compile(&r.find).map_err(|e| ("path_regexp", e.to_string()))?;
            regexps.push((regex, Template::parse(&r.replace)));
        }
        let query = config.query.as_ref().map(query::CompiledOps::compile).transpose().map_err(|e| ("query", e))?;
        Ok(Self {
            method: template(&config.method),
            target: (!config.uri.is_empty()).then(|| Target::compile(&config.uri)),
            prefix: template(&config.strip_path_prefix),
            suffix: template(&config.strip_path_suffix),
            substrings: substrings.collect(),
            regexps,
            query,
        })
    }

    /// Changes the exchange's own method and URI.
    pub fn apply(&self, ex: &mut Exchange) -> Result<(), HandlerError> {
        if let Some(method) = self.method(ex)? {
            ex.method = method;
        }
        if let Some(uri) = self.uri(ex)? {
            ex.uri = uri;
        }
        Ok(())
    }

    /// The method to use instead; `None` when the rewrite does not speak of it.
    pub fn method(&self, ex: &Exchange) -> Result<Option<Method>, HandlerError> {
        let Some(template) = &self.method else { return Ok(None) };
        let text = template.render(ex, Unknown::Empty);
        if text.is_empty() {
            return Ok(Some(Method::GET));
        }
        Method::from_bytes(text.to_ascii_uppercase().as_bytes())
            .map(Some)
            .map_err(|_| HandlerError::new(502, "rewrite", "the rewritten method is not a method"))
    }

    /// The URI to use instead; `None` when it stays as it is.
    pub fn uri(&self, ex: &Exchange) -> Result<Option<Uri>, HandlerError> {
        if self.target.is_none()
            && self.prefix.is_none()
            && self.suffix.is_none()
            && self.substrings.is_empty()
            && self.regexps.is_empty()
            && self.query.is_none()
        {
            return Ok(None);
        }
        let mut parts = Parts { path: escaped_path(ex.uri.path()), query: ex.uri.query().unwrap_or("").into() };
        if let Some(target) = &self.target {
            target.apply(ex, &mut parts);
        }
        if let Some(prefix) = &self.prefix {
            let prefix = prefix.render(ex, Unknown::Empty);
            parts.strip(&with_slash(&prefix), strip::prefix);
        }
        if let Some(suffix) = &self.suffix {
            parts.strip(&suffix.render(ex, Unknown::Empty), strip::suffix);
        }
        for (find, replace, limit) in &self.substrings {
            let merge_slashes = !find.source().contains("//");
            let (find, replace) = (find.render(ex, Unknown::Empty), replace.render(ex, Unknown::Empty));
            let replaced = |text: &str| match limit {
                Some(n) => text.replacen(&*find, &replace, *n),
                None => text.replace(&*find, &replace),
            };
            parts.change_path(|path| replaced(&clean_path(path, merge_slashes)));
            parts.query = replaced(&parts.query).into();
        }
        for (regex, replace) in &self.regexps {
            let replace = replace.render(ex, Unknown::Empty);
            parts.change_path(|path| regex.replace_all(path, &*replace).into_owned());
        }
        if let Some(ops) = &self.query {
            parts.query = ops.apply(ex, &parts.query).into();
        }
        parts.into_uri().map(Some)
    }
}

/// A URI being changed.
struct Parts<'a> {
    /// Escaped.
    path: Cow<'a, str>,
    /// Raw, without the question mark.
    query: Cow<'a, str>,
}

impl Parts<'_> {
    /// Changes the escaped path. When the outcome is no valid encoding, the decoded path is changed instead.
    fn change_path(&mut self, change: impl Fn(&str) -> String) {
        let changed = change(&self.path);
        self.path = if !changed.is_empty() && is_valid_escaped(&changed) {
            Cow::Owned(escaped_path(&changed).into_owned())
        } else {
            Cow::Owned(escape_path(&change(&decode_path(&self.path))))
        };
    }

    /// Takes something off an end of the path; when it was there, what is left is cleaned and rooted again.
    fn strip(&mut self, what: &str, strip: fn(&str, &str) -> Option<String>) {
        let cleaned = clean_path(&self.path, !what.contains("//"));
        match strip(&cleaned, what) {
            Some(rest) => {
                let rest = with_slash(&rest);
                // Dot segments that come to light are resolved before anybody else reads them in their own way.
                let decoded = decode_path(&rest);
                let safe = clean_path(&decoded, false);
                self.path = if safe == decoded { escaped_path(&rest).into_owned() } else { escape_path(&safe) }.into();
            }
            None => self.path = cleaned.into_owned().into(),
        }
    }

    fn into_uri(self) -> Result<Uri, HandlerError> {
        let invalid = |_| HandlerError::internal("rewrite", "the rewritten URI is not a URI");
        let mut text = String::with_capacity(self.path.len() + self.query.len() + 2);
        if self.path == "*" {
            text.push('*');
        } else {
            text.push_str(&with_slash(&self.path));
        }
        if !self.query.is_empty() {
            text.push('?');
            push_query(&self.query, &mut text);
        }
        PathAndQuery::from_maybe_shared(bytes::Bytes::from(text)).map(Uri::from).map_err(invalid)
    }
}

/// Bytes that cannot stand in a request line are escaped; a fragment cannot be part of a request.
fn push_query(query: &str, out: &mut String) {
    for c in query.chars() {
        if c.is_ascii_graphic() && !matches!(c, '#' | '<' | '>' | '"') {
            out.push(c);
        } else {
            let mut utf8 = [0; 4];
            for byte in c.encode_utf8(&mut utf8).bytes() {
                out.push_str(percent_encoding::percent_encode_byte(byte));
            }
        }
    }
}

fn with_slash(path: &str) -> Cow<'_, str> {
    if path.starts_with('/') { Cow::Borrowed(path) } else { Cow::Owned(format!("/{path}")) }
}
