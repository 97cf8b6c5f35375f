//! Where things are kept unless the configuration says otherwise.

use std::path::PathBuf;

use crate::base::env;

/// `$STATE_DIRECTORY` as systemd gives it, else `$XDG_DATA_HOME/llmproxy`, else `~/.local/share/llmproxy`.
#[must_use]
pub fn default_folder() -> PathBuf {
    let env = env::current();
    let set = |name: &str| env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // Several state directories are separated by colons; the first is ours.
    let state = set("STATE_DIRECTORY").map(|p| p.to_string_lossy().split(':').next().map(PathBuf::from).unwrap_or(p));
    state
        .or_else(|| set("XDG_DATA_HOME").map(|p| p.join("llmproxy")))
        .or_else(|| set("HOME").map(|p| p.join(".local/share/llmproxy")))
        .unwrap_or_else(|| PathBuf::from("llmproxy-data"))
}
