//! Room 2: the language's surface. Owns: the pest grammar, environment substitution, tokens, the tree of lines and
//! blocks, the formatter. Must not know: the name or meaning of any directive.

pub mod env;
mod format;
pub mod lexer;
pub mod token;
pub mod tree;

pub use format::format;
