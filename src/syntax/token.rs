//! A word of the file with its place and how it was quoted.

use std::sync::Arc;

use crate::base::span::Span;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Quote {
    None,
    Double,
    Backtick,
    Heredoc,
}

/// One word. `text` is the value after unquoting, escapes, heredoc dedent and import arguments.
#[derive(Clone, Debug)]
pub struct Token {
    pub text: Arc<str>,
    pub span: Span,
    pub quote: Quote,
    /// Some byte of it came from `{$VAR}`: never echoed in a message.
    pub from_env: bool,
}

impl Token {
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    #[must_use]
    pub fn quoted(&self) -> bool {
        self.quote != Quote::None
    }

    /// Is this an unquoted word with exactly this text? Quoted braces, for one, are plain words.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        self.quote == Quote::None && *self.text == *text
    }

    /// The text as it may be shown in a message: masked when it came from the environment.
    #[must_use]
    pub fn shown(&self) -> &str {
        if self.from_env { "(value from the environment)" } else { &self.text }
    }
}
