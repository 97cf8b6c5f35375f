//! Operations on the query: rename, set, add, replace, delete, in this order. What comes out has its keys sorted, as
//! Go encodes queries.

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::QueryValues;
use crate::http::exchange::Exchange;
use crate::http::placeholder::{Template, Unknown};
use crate::http::regexp;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueryOps {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rename: Vec<QueryArgument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<QueryArgument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<QueryArgument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replace: Vec<QueryReplacement>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueryArgument {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub val: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueryReplacement {
    /// `*` = every key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub search: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub search_regexp: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub replace: String,
}

pub(super) struct CompiledOps {
    rename: Vec<(Template, Template)>,
    set: Vec<(Template, Template)>,
    add: Vec<(Template, Template)>,
    replace: Vec<(Template, Search, Template)>,
    delete: Vec<Template>,
}

enum Search {
    Text(Template),
    Pattern(Regex),
}

impl CompiledOps {
    pub(super) fn compile(ops: &QueryOps) -> Result<Self, String> {
        let pairs = |list: &[QueryArgument]| -> Vec<_> {
            list.iter().map(|a| (Template::parse(&a.key), Template::parse(&a.val))).collect()
        };
        let mut replace = Vec::with_capacity(ops.replace.len());
        for r in &ops.replace {
            let search = if r.search_regexp.is_empty() {
                Search::Text(Template::parse(&r.search))
            } else {
                Search::Pattern(regexp::compile(&r.search_regexp).map_err(|e| e.to_string())?)
            };
            replace.push((Template::parse(&r.key), search, Template::parse(&r.replace)));
        }
        Ok(Self {
            rename: pairs(&ops.rename),
            set: pairs(&ops.set),
            add: pairs(&ops.add),
            replace,
            delete: ops.delete.iter().map(|d| Template::parse(d)).collect(),
        })
    }

    pub(super) fn apply(&self, ex: &Exchange, query: &str) -> String {
        let mut values = QueryValues::parse(query);
        for (from, to) in &self.rename {
            let (from, to) = (from.render(ex, Unknown::Empty), to.render(ex, Unknown::Empty));
            if !from.is_empty()
                && !to.is_empty()
                && from != to
                && let Some(moved) = values.0.remove(&*from)
            {
                values.0.insert(to.into_owned(), moved);
            }
        }
        for (key, value) in &self.set {
            let key = key.render(ex, Unknown::Empty);
            if !key.is_empty() {
                values.set(&key, value.render(ex, Unknown::Empty).into_owned());
            }
        }
        for (key, value) in &self.add {
            let key = key.render(ex, Unknown::Empty);
            if !key.is_empty() {
                values.add(&key, value.render(ex, Unknown::Empty).into_owned());
            }
        }
        for (key, search, replace) in &self.replace {
            let key = key.render(ex, Unknown::Empty);
            let replace = replace.render(ex, Unknown::Literal);
            for (_, list) in values.0.iter_mut().filter(|(k, _)| key == "*" || **k == *key) {
                for value in list {
                    *value = match search {
                        Search::Text(text) => value.replace(&*text.render(ex, Unknown::Literal), &replace),
                        Search::Pattern(regex) => regex.replace_all(value, &*replace).into_owned(),
                    };
                }
            }
        }
        for key in &self.delete {
            values.0.remove(&*key.render(ex, Unknown::Empty));
        }
        values.encode()
    }
}
