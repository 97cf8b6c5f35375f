//! A status code that a handler answers with: fixed, or text with placeholders that is a number once rendered.

use http::StatusCode;

use super::error::HandlerError;
use super::exchange::Exchange;
use super::placeholder::{Template, Unknown};

#[derive(Debug, Clone)]
pub enum StatusSource {
    Unset,
    Fixed(StatusCode),
    Rendered(Template),
}

impl StatusSource {
    /// Reads a configured status; `Err` holds the reason when it can never be one.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Ok(Self::Unset);
        }
        let template = Template::parse(text);
        match template.as_static() {
            None => Ok(Self::Rendered(template)),
            Some(fixed) => number(fixed).map(Self::Fixed).ok_or("not a status code (100 to 999)"),
        }
    }

    /// The status for this request; `None` when none is configured. A text that is not a status code is a fault of the
    /// configuration: 500, as in Caddy.
    pub fn get(&self, ex: &Exchange, origin: &'static str) -> Result<Option<StatusCode>, HandlerError> {
        match self {
            Self::Unset => Ok(None),
            Self::Fixed(status) => Ok(Some(*status)),
            Self::Rendered(template) => number(&template.render(ex, Unknown::Empty))
                .map(Some)
                .ok_or_else(|| HandlerError::internal(origin, "configured status is not a status code")),
        }
    }
}

fn number(text: &str) -> Option<StatusCode> {
    text.parse::<u16>().ok().and_then(|n| StatusCode::from_u16(n).ok())
}

/// The standard text of a status as Go's `http.StatusText` has it; empty when it has none.
#[must_use]
pub fn status_text(status: u16) -> &'static str {
    match status {
        203 => "Non-Authoritative Information",
        413 => "Request Entity Too Large",
        414 => "Request URI Too Long",
        416 => "Requested Range Not Satisfiable",
        _ => StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_go() {
        assert_eq!(status_text(413), "Request Entity Too Large");
        assert_eq!(status_text(418), "I'm a teapot");
        assert_eq!(status_text(799), "");
    }

    #[test]
    fn a_fixed_status_is_checked_when_compiled() {
        assert!(matches!(StatusSource::parse("404"), Ok(StatusSource::Fixed(s)) if s == 404));
        assert!(matches!(StatusSource::parse(""), Ok(StatusSource::Unset)));
        assert!(StatusSource::parse("5xx").is_err());
        assert!(StatusSource::parse("99").is_err());
    }
}
