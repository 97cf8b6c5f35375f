//! Advice about a configuration that is valid but probably not what was meant.

use crate::base::diagnostic::Diagnostic;
use crate::base::span::Span;
use crate::config::types::Config;

/// All warnings for a configuration that compiles. `place` finds the line of a JSON pointer.
pub fn check(_config: &Config, _place: &dyn Fn(&str) -> Option<Span>) -> Vec<Diagnostic> {
    Vec::new()
}
