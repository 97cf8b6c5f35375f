//! The registry: what a feature's file declares about itself, gathered in one table by the modules room.
//!
//! A handler or matcher is two functions: one that reads words into JSON, one that turns JSON into the runtime. Both
//! live in the feature's file beside the typed form they share.

use serde_json::Value;

use super::compile_cx::{CompileCx, CompileError};
use super::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use super::types::Module;
use crate::http::matcher::Matcher;
use crate::http::route::Handler;
use crate::syntax::tree::Node;

/// A word that may begin a line of a site.
pub struct Directive {
    pub name: &'static str,
    /// Old spelling: accepted with a warning that names the new one.
    pub renamed_to: Option<&'static str>,
    /// False for `tls`, `bind`, `log`, … which make no route and so have no place in the running order.
    pub ordered: bool,
    /// Whether the first argument may be a matcher token (`*`, `/path`, `@name`). When true it is taken off before
    /// `parse` runs and the routes that come back get it.
    pub matcher: bool,
    pub parse: fn(&mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>>,
    pub doc: &'static Doc,
}

/// What the reference page and the registry test need.
pub struct Doc {
    /// One line in the user's words.
    pub summary: &'static str,
    /// The shape, as in `respond [matcher] [body|status] [status] { … }`.
    pub syntax: &'static str,
    /// Accepted site bodies; each must adapt (and, unless `adapt_only`, compile).
    pub examples: &'static [&'static str],
    /// Rejected site bodies with the code of their diagnostic.
    pub rejected: &'static [(&'static str, &'static str)],
    /// True when `run` refuses it for now: parsed and adapted only.
    pub adapt_only: bool,
}

/// A handler module: `{"handler": ID, …}` to its runtime form.
pub struct HandlerModule {
    pub id: &'static str,
    pub compile: fn(&Module, &mut CompileCx<'_>) -> Result<Handler, CompileError>,
}

/// A request matcher: `"ID": value` in a matcher set.
pub struct MatcherModule {
    pub id: &'static str,
    /// Reads all lines of this kind in one matcher definition (they merge as Caddy merges them).
    pub parse: fn(&[&Node], &mut DirectiveCx<'_, '_>) -> Parsed<Value>,
    pub compile: fn(&Value, &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError>,
}

pub struct Registry {
    /// In running order: the order of the table is the default directive order.
    pub directives: &'static [&'static Directive],
    pub handlers: &'static [HandlerModule],
    pub matchers: &'static [MatcherModule],
}

impl Registry {
    pub fn directive(&self, name: &str) -> Option<&'static Directive> {
        self.directives.iter().find(|d| d.name == name).copied()
    }

    pub fn handler(&self, id: &str) -> Option<&'static HandlerModule> {
        self.handlers.iter().find(|h| h.id == id)
    }

    pub fn matcher(&self, id: &str) -> Option<&'static MatcherModule> {
        self.matchers.iter().find(|m| m.id == id)
    }
}
