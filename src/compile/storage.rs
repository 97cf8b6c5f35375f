//! The `storage` part of a configuration, and what the `tls` part says of it.

use std::time::Duration;

use serde_json::Value;

use crate::config::compile_cx::CompileError;
use crate::config::nanos::Nanos;
use crate::config::types::{Module, TlsApp, module_id};
use crate::tls::cleaning;

/// Cleaning more often would only read the folder.
const SHORTEST: Duration = Duration::from_mins(1);

/// How often to clean; `None` = never.
pub fn clean_interval(tls: &TlsApp) -> Option<Duration> {
    let told = || serde_json::from_value::<Nanos>(tls.automation.as_ref()?.get("storage_clean_interval")?.clone()).ok();
    (!tls.disable_storage_clean).then(|| told().and_then(Nanos::positive).unwrap_or(cleaning::INTERVAL).max(SHORTEST))
}

/// Refuses, by its name, a storage that we do not have. `needs_root`: a folder has to be named.
///
/// # Errors
/// With the place relative to the module.
pub fn refuse(module: &Module, needs_root: bool) -> Result<(), CompileError> {
    match module_id(module, "module") {
        "file_system" => {
            let has_root = module.get("root").and_then(Value::as_str).is_some_and(|root| !root.is_empty());
            if needs_root && !has_root {
                return Err(CompileError::new("missing-option", "a storage of its own needs a folder, `root`"));
            }
            Ok(())
        }
        other => Err(CompileError::not_supported(format_args!("storage module `{other}`"))
            .help("`storage file_system FOLDER` is there, for several machines too when the folder is shared; Redis comes later")),
    }
}
