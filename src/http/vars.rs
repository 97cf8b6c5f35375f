//! What the `vars` matchers look at: a variable by its name, or a placeholder written in braces.

use std::borrow::Cow;

use super::exchange::Exchange;
use super::placeholder::{Key, Scope};

#[derive(Debug, Clone)]
pub enum Variable {
    Named(Box<str>),
    Placeholder(Key),
}

impl Variable {
    #[must_use]
    pub fn new(name: &str) -> Self {
        match name.strip_prefix('{').and_then(|n| n.strip_suffix('}')) {
            Some(inner) if !inner.contains('{') => Self::Placeholder(Key::parse(inner)),
            _ => Self::Named(name.into()),
        }
    }

    /// Empty when unset or unknown. A value that looks like a placeholder is not expanded: a client may have sent it.
    #[must_use]
    pub fn value<'a>(&'a self, ex: &'a Exchange) -> Cow<'a, str> {
        match self {
            Self::Named(name) => Cow::Borrowed(ex.var(name).unwrap_or("")),
            Self::Placeholder(key) => key.value(Scope::from(ex)).unwrap_or_default(),
        }
    }
}
