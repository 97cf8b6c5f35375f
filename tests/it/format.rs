//! The formatter beside `caddy fmt`: on real files as they are, and on the same files with their layout spoilt.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::harness::{beside, in_parallel, process};
use llmproxy::syntax::format;

#[test]
fn real_files_come_out_as_from_caddy() {
    let Some(corpus) = beside("LLMPROXY_CORPUS", "shared/corpus/caddyfiles") else { return };
    if !process::caddy_or_skip() {
        return;
    }
    let mut texts: Vec<(String, String)> = Vec::new();
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path().join("Caddyfile");
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        // Without indents and with more of every blank: the words are the same.
        let spoilt: String = text.lines().map(|line| format!("  {}\n\n", line.trim_start())).collect();
        texts.push((format!("{} with its layout spoilt", path.display()), spoilt));
        texts.push((path.display().to_string(), text));
    }
    assert!(texts.len() > 100, "only {} texts", texts.len());
    let differ = in_parallel(&texts, |(name, text)| {
        let theirs = caddy_fmt(text);
        // Some of Caddy's own results change again when formatted again; ours never do.
        (format(text) != theirs && theirs == caddy_fmt(&theirs)).then(|| name.clone())
    });
    let differ: Vec<_> = differ.into_iter().flatten().collect();
    assert!(differ.is_empty(), "{} of {} differ from `caddy fmt`:\n{}", differ.len(), texts.len(), differ.join("\n"));
}

fn caddy_fmt(text: &str) -> String {
    let caddy = process::caddy().unwrap();
    let mut command = Command::new(caddy);
    command.args(["fmt", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}
