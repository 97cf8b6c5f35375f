//! A message about the configuration, for a person: what, where, and the fix.
//!
//! Codes are stable words (`unknown-directive`), listed with their long explanation in [`codes`].

pub mod codes;
mod render;
mod suggest;

pub use render::{brief, render, to_json};
pub use suggest::nearest;

use super::span::Span;

/// The list without messages that stand in it already. A snippet that a thousand sites import holds a mistake once.
#[must_use]
pub fn without_repeats(diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut seen = std::collections::HashSet::new();
    let mut out = diagnostics;
    out.retain(|d| seen.insert((d.code, d.message.clone(), d.primary.as_ref().map(|label| label.span))));
    out
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// A further place that matters for the message ("opened here").
#[derive(Clone, Debug)]
pub struct Label {
    pub span: Span,
    pub text: String,
}

/// An exact edit that would mend the file.
#[derive(Clone, Debug)]
pub struct Replacement {
    pub span: Span,
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stable word code, one of [`codes::all`].
    pub code: &'static str,
    /// One sentence without a final stop. Never holds a secret or a value from the environment.
    pub message: String,
    /// The main place, with the text under its carets (may be empty).
    pub primary: Option<Label>,
    /// Further places.
    pub labels: Vec<Label>,
    pub help: Option<String>,
    pub replacement: Option<Replacement>,
    /// Bytes of the file that hold a secret: masked wherever their line is shown.
    pub secret: Vec<Span>,
}

impl Diagnostic {
    #[must_use]
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message.into())
    }

    #[must_use]
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message.into())
    }

    fn new(severity: Severity, code: &'static str, message: String) -> Self {
        Self {
            severity,
            code,
            message,
            primary: None,
            labels: Vec::new(),
            help: None,
            replacement: None,
            secret: Vec::new(),
        }
    }

    /// The main place. `label` is the short text beside the carets; may be empty.
    #[must_use]
    pub fn at(mut self, span: Span, label: impl Into<String>) -> Self {
        self.primary = Some(Label { span, text: label.into() });
        self
    }

    /// A further place.
    #[must_use]
    pub fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: label.into() });
        self
    }

    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// The exact replacement that mends the file, shown under the help.
    #[must_use]
    pub fn replace(mut self, span: Span, text: impl Into<String>) -> Self {
        self.replacement = Some(Replacement { span, text: text.into() });
        self
    }

    /// A secret that stands in clear in the file near the places shown: never printed.
    #[must_use]
    pub fn secret(mut self, span: Span) -> Self {
        self.secret.push(span);
        self
    }

    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
