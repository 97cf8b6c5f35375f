//! Room 6: the features. One file per feature: its directive, handler, matcher, documentation and tests.
//! Features never import one another; what two share moves down a room.
//!
//! Adding a feature = one new file, one `mod` line and its rows in the tables below.

use crate::config::registry::{Directive, HandlerModule, MatcherModule, Registry};

/// All directives. The order of the `ordered` ones is the default running order (Caddy's, with ours inserted).
const DIRECTIVES: &[&Directive] = &[];

const HANDLERS: &[HandlerModule] = &[];

const MATCHERS: &[MatcherModule] = &[];

pub static REGISTRY: Registry = Registry { directives: DIRECTIVES, handlers: HANDLERS, matchers: MATCHERS };
