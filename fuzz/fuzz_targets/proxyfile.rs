//! Any text is read and adapted, or refused with at least one message whose places lie inside the file; never a panic,
//! and never without end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmproxy::base::diagnostic::Diagnostic;
use llmproxy::base::env::Env;
use llmproxy::config::{expand, resolve};
use llmproxy::modules::REGISTRY;

fuzz_target!(|text: &str| {
    // Imports would read whatever lies on this machine.
    if text.contains("import") || text.contains("file") || text.contains("pem") {
        return;
    }
    let known = |name: &str| REGISTRY.directive(name).is_some();
    let loaded = expand::load_text("Proxyfile", text, &Env::empty(), &known);
    let resolved = resolve::resolve(&loaded.file, &loaded.sources, &REGISTRY);
    for diagnostic in loaded.diagnostics.iter().chain(&resolved.diagnostics) {
        for label in diagnostic.primary.iter().chain(&diagnostic.labels) {
            let file = loaded.sources.get(label.span.file).expect("a known file");
            let range = label.span.start as usize..label.span.end as usize;
            assert!(file.text.get(range).is_some(), "{diagnostic:?}");
        }
    }
    let refused = loaded.diagnostics.iter().chain(&resolved.diagnostics).any(Diagnostic::is_error);
    if !refused {
        serde_json::to_string(&resolved.config).expect("a configuration is JSON");
    }
});
