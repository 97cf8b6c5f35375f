//! Diagnostics as text with carets, and as JSON for editors.

use super::Diagnostic;
use crate::base::span::SourceMap;

pub fn render(diagnostics: &[Diagnostic], _sources: &SourceMap, _color: bool) -> String {
    diagnostics.iter().map(|d| format!("{}\n", d.message)).collect()
}

pub fn to_json(_diagnostics: &[Diagnostic], _sources: &SourceMap) -> serde_json::Value {
    serde_json::Value::Null
}
