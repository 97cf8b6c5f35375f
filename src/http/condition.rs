//! Conditions over placeholders: the part of the Common Expression Language that configurations of Caddy use to decide
//! about answers and errors.
//!
//! ```text
//! {http.reverse_proxy.status_code} in [502, 503] || {http.reverse_proxy.header.X-Retry} == "yes"
//! ```
//!
//! Numbers are compared where the placeholder is one (status codes), texts elsewhere. What is not known here (functions,
//! arithmetic, ternaries, placeholders of another type) is [`Unsupported`], never guessed.

use super::exchange::Exchange;
use super::placeholder::{Template, Unknown};

/// Nesting allowed.
const MAX_DEPTH: usize = 32;

/// Not in the part of the language that runs.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsupported;

#[derive(Debug)]
pub enum Condition {
    Any(Vec<Self>),
    All(Vec<Self>),
    Not(Box<Self>),
    Constant(bool),
    /// A placeholder that is true or false.
    Truth(Template),
    Number(Template, NumberTest),
    Text(Template, TextTest),
}

#[derive(Debug)]
pub enum NumberTest {
    In(Vec<i64>),
    NotEqual(i64),
    Below(i64),
    Above(i64),
}

#[derive(Debug)]
pub enum TextTest {
    In(Vec<String>),
    NotEqual(String),
    Contains(String),
    StartsWith(String),
    EndsWith(String),
}

impl Condition {
    pub fn parse(text: &str) -> Result<Self, Unsupported> {
        let mut parser = Parser { rest: text, depth: 0 };
        let condition = parser.any()?;
        parser.blank();
        if parser.rest.is_empty() { Ok(condition) } else { Err(Unsupported) }
    }

    #[must_use]
    pub fn holds(&self, ex: &Exchange) -> bool {
        let text = |template: &Template| template.render(ex, Unknown::Empty).into_owned();
        match self {
            Self::Any(parts) => parts.iter().any(|part| part.holds(ex)),
            Self::All(parts) => parts.iter().all(|part| part.holds(ex)),
            Self::Not(part) => !part.holds(ex),
            Self::Constant(value) => *value,
            Self::Truth(of) => text(of) == "true",
            // Without a status (no answer yet) nothing holds of it.
            Self::Number(of, test) => text(of).parse().is_ok_and(|number: i64| match test {
                NumberTest::In(list) => list.contains(&number),
                NumberTest::NotEqual(other) => number != *other,
                NumberTest::Below(limit) => number < *limit,
                NumberTest::Above(limit) => number > *limit,
            }),
            Self::Text(of, test) => {
                let text = text(of);
                match test {
                    TextTest::In(list) => list.contains(&text),
                    TextTest::NotEqual(other) => text != *other,
                    TextTest::Contains(part) => text.contains(part),
                    TextTest::StartsWith(start) => text.starts_with(start),
                    TextTest::EndsWith(end) => text.ends_with(end),
                }
            }
        }
    }
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Kind {
    Number,
    Truth,
    Text,
}

/// What the placeholder is; `None` = it may be of several types.
fn kind_of(name: &str) -> Option<Kind> {
    match name {
        "http.reverse_proxy.status_code" | "http.error.status_code" => Some(Kind::Number),
        "http.reverse_proxy.is_transport_error" => Some(Kind::Truth),
        "http.request.method"
        | "http.request.host"
        | "http.request.hostport"
        | "http.request.scheme"
        | "http.request.proto"
        | "http.request.uri"
        | "http.request.uri.path"
        | "http.error.message"
        | "http.error.status_text" => Some(Kind::Text),
        _ => ["http.reverse_proxy.header.", "http.request.header.", "http.request.uri.query."]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            .then_some(Kind::Text),
    }
}

struct Parser<'t> {
    rest: &'t str,
    depth: usize,
}

enum Literal {
    Number(i64),
    Text(String),
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Condition, Unsupported> {
        let mut parts = vec![self.all()?];
        while self.take("||") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::Any(parts) })
    }

    fn all(&mut self) -> Result<Condition, Unsupported> {
        let mut parts = vec![self.one()?];
        while self.take("&&") {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::All(parts) })
    }

    fn one(&mut self) -> Result<Condition, Unsupported> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Unsupported);
        }
        let condition = if !self.begins("!=") && self.take("!") {
            Condition::Not(Box::new(self.one()?))
        } else if self.take("(") {
            let inner = self.any()?;
            self.expect(")")?;
            inner
        } else if let Some(value) = self.truth() {
            Condition::Constant(value)
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    /// A placeholder, and what is asked of it.
    fn test(&mut self) -> Result<Condition, Unsupported> {
        self.expect("{")?;
        let (name, rest) = self.rest.split_once('}').ok_or(Unsupported)?;
        let kind = kind_of(name).ok_or(Unsupported)?;
        let of = Template::parse(&format!("{{{name}}}"));
        self.rest = rest;
        if kind == Kind::Truth {
            let told = if self.take("==") { self.truth().ok_or(Unsupported)? } else { true };
            let truth = Condition::Truth(of);
            return Ok(if told { truth } else { Condition::Not(Box::new(truth)) });
        }
        if kind == Kind::Text && self.take(".") {
            let test = [
                ("contains", TextTest::Contains as fn(String) -> TextTest),
                ("startsWith", TextTest::StartsWith),
                ("endsWith", TextTest::EndsWith),
            ];
            let (_, test) = test.into_iter().find(|(name, _)| self.take(name)).ok_or(Unsupported)?;
            self.expect("(")?;
            let Literal::Text(part) = self.literal()? else { return Err(Unsupported) };
            self.expect(")")?;
            return Ok(Condition::Text(of, test(part)));
        }
        let (op, values) = self.comparison()?;
        match kind {
            Kind::Number => {
                let numbers = values.into_iter().map(|value| match value {
                    Literal::Number(n) => Ok(n),
                    Literal::Text(_) => Err(Unsupported),
                });
                let numbers = numbers.collect::<Result<Vec<i64>, _>>()?;
                let first = numbers.first().copied().unwrap_or_default();
                let test = |test| Condition::Number(of, test);
                Ok(match op {
                    "in" | "==" => test(NumberTest::In(numbers)),
                    "!=" => test(NumberTest::NotEqual(first)),
                    "<" => test(NumberTest::Below(first)),
                    "<=" => test(NumberTest::Below(first.saturating_add(1))),
                    ">" => test(NumberTest::Above(first)),
                    _ => test(NumberTest::Above(first.saturating_sub(1))),
                })
            }
            Kind::Text | Kind::Truth => {
                let texts = values.into_iter().map(|value| match value {
                    Literal::Text(text) => Ok(text),
                    Literal::Number(_) => Err(Unsupported),
                });
                let mut texts = texts.collect::<Result<Vec<String>, _>>()?;
                match op {
                    "in" | "==" => Ok(Condition::Text(of, TextTest::In(texts))),
                    "!=" => Ok(Condition::Text(of, TextTest::NotEqual(texts.pop().unwrap_or_default()))),
                    _ => Err(Unsupported),
                }
            }
        }
    }

    /// One value, or the list after `in`.
    fn comparison(&mut self) -> Result<(&'static str, Vec<Literal>), Unsupported> {
        let op = ["==", "!=", "<=", ">=", "<", ">", "in"].into_iter().find(|op| self.take(op)).ok_or(Unsupported)?;
        if op != "in" {
            return Ok((op, vec![self.literal()?]));
        }
        self.expect("[")?;
        let mut list = vec![self.literal()?];
        while self.take(",") {
            list.push(self.literal()?);
        }
        self.expect("]")?;
        Ok((op, list))
    }

    fn literal(&mut self) -> Result<Literal, Unsupported> {
        self.blank();
        let quote = self.rest.chars().next().ok_or(Unsupported)?;
        if matches!(quote, '"' | '\'') {
            let (text, rest) = self.rest[1..].split_once(quote).ok_or(Unsupported)?;
            // Escapes are left to configurations that need them.
            if text.contains('\\') {
                return Err(Unsupported);
            }
            self.rest = rest;
            return Ok(Literal::Text(text.to_owned()));
        }
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let number = self.rest[..end].parse().map_err(|_| Unsupported)?;
        self.rest = &self.rest[end..];
        Ok(Literal::Number(number))
    }

    fn truth(&mut self) -> Option<bool> {
        self.blank();
        for (word, value) in [("true", true), ("false", false)] {
            let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '(');
            if let Some(rest) = self.rest.strip_prefix(word).filter(|rest| ends(rest)) {
                self.rest = rest;
                return Some(value);
            }
        }
        None
    }

    fn blank(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn begins(&mut self, what: &str) -> bool {
        self.blank();
        self.rest.starts_with(what)
    }

    fn take(&mut self, what: &str) -> bool {
        self.blank();
        match self.rest.strip_prefix(what) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, what: &str) -> Result<(), Unsupported> {
        if self.take(what) { Ok(()) } else { Err(Unsupported) }
    }
}
