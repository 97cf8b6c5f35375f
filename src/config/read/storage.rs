//! Storage modules: `storage file_system PATH`.

use serde_json::Value;

use super::line::Line;
use crate::config::directive_cx::Parsed;
use crate::config::types::Module;

/// `line` begins with the module's name. There is one storage: `{"module": "file_system", "root": …}`.
pub fn read(line: &Line<'_>) -> Parsed<Module> {
    if line.name() != "file_system" {
        return Err(line.unknown_module("storage", &["file_system"]));
    }
    let mut root = line.none_or_one()?.map(|token| token.text().to_owned());
    for option in line.lines() {
        match option.name() {
            "root" if root.is_some() => return Err(option.duplicate()),
            "root" => root = Some(option.text()?),
            _ => return Err(option.unknown("file_system", &["root"])),
        }
    }
    let Some(root) = root.filter(|root| !root.is_empty()) else {
        let d = line.error("wrong-argument-count", "`file_system` needs a folder");
        return Err(Box::new(d.help("write its path, or leave the option out for the default folder")));
    };
    let mut module = Module::new();
    module.insert("module".to_owned(), Value::from("file_system"));
    module.insert("root".to_owned(), Value::from(root));
    Ok(module)
}
