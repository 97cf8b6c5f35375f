//! Advice about a configuration that is valid but probably not what was meant.
