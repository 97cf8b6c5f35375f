//! Broken files of every kind: a clear diagnostic and exit code 1, never a panic, a hang or an overflow, and never a
//! value from the environment in what is said.

use crate::golden_adapt;
use crate::harness::process::{Which, command, run_within};
use crate::harness::{in_parallel, long};
use std::time::{Duration, Instant};

/// Far above what any of them needs, in a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// What `validate` says on stderr about a file that it must refuse.
fn refused(bytes: &[u8]) -> String {
    let (accepted, said) = validate(bytes, &[]);
    assert!(!accepted, "accepted: {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]));
    said
}

fn validate(bytes: &[u8], environment: &[(&str, &str)]) -> (bool, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("Proxyfile"), bytes).unwrap();
    let mut validate = command(Which::Llmproxy, directory.path());
    validate.args(["validate", "--config", "Proxyfile"]).envs(environment.iter().copied());
    let output = run_within(&mut validate, LIMIT);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code().is_some_and(|code| code <= 1) && !said.contains("panicked"),
        "{:?}: {said}",
        output.status
    );
    (output.status.success(), said)
}

#[test]
fn each_kind_is_named_where_it_stands() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("unknown directive", ":8080 {\n\trespnd \"x\"\n}\n", &["respnd", "respond", ":2:"]),
        ("a directive that is a plugin's", ":8080 {\n\tmercure\n}\n", &["mercure", ":2:"]),
        ("wrong argument count", ":8080 {\n\tmethod\n}\n", &["method", ":2:"]),
        ("too many arguments", ":8080 {\n\tmethod GET POST PUT\n}\n", &["method", ":2:"]),
        ("unclosed quote", ":8080 {\n\trespond \"x\n}\n", &[":2:"]),
        ("unclosed backtick", ":8080 {\n\trespond `x\n}\n", &[":2:"]),
        ("unclosed block", ":8080 {\n\thandle {\n\t\trespond \"x\"\n", &[":2:"]),
        ("unclosed heredoc", ":8080 {\n\trespond <<END\n\tx\n}\n", &["END", ":2:"]),
        ("too many braces", ":8080 {\n}\n}\n", &[":3:"]),
        ("import cycle", "(a) {\n\timport b\n}\n(b) {\n\timport a\n}\n:8080 {\n\timport a\n}\n", &["import"]),
        ("a file that imports itself", ":8080 {\n\timport Proxyfile\n}\n", &["import"]),
        ("missing import", ":8080 {\n\timport gone.conf\n}\n", &["gone.conf", ":2:"]),
        ("unknown matcher", ":8080 {\n\trespond @x \"x\"\n}\n", &["@x", ":2:"]),
        (
            "bad regular expression",
            ":8080 {\n\t@x path_regexp (\n\trespond @x \"x\"\n}\n",
            &["unclosed group", "Proxyfile:"],
        ),
        ("bad duration", ":8080 {\n\treverse_proxy a:1 {\n\t\tlb_try_duration soon\n\t}\n}\n", &["soon", ":3:"]),
        ("bad status", ":8080 {\n\tredir /x /y 999\n}\n", &["999", ":2:"]),
        ("unknown global option", "{\n\tgrace_perod 1s\n}\n:8080\n", &["grace_perod", "grace_period", ":2:"]),
        ("the same site twice", ":8080 {\n}\n:8080 {\n}\n", &[":8080", ":3:"]),
        ("a missing certificate", "https://a.test:8443 {\n\ttls gone.pem gone.key\n}\n", &["gone."]),
    ];
    let problems: Vec<String> = in_parallel(cases, |(name, text, wanted)| {
        let (accepted, said) = validate(text.as_bytes(), &[]);
        if accepted {
            return Some(format!("{name}: accepted"));
        }
        let missing: Vec<&&str> = wanted.iter().filter(|word| !said.contains(**word)).collect();
        (!missing.is_empty() || !said.contains("error")).then(|| format!("{name}: lacks {missing:?}:\n{said}"))
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn all_errors_come_at_once() {
    let said = refused(
        b":8080 {\n\trespnd \"x\"\n\thandle {\n\t\trevrse_proxy a:1\n\t}\n\tmethod\n}\n\n:8081 {\n\theadr X 1\n}\n",
    );
    for word in ["respnd", "revrse_proxy", "method", "headr"] {
        assert!(said.contains(word), "{word} is not named:\n{said}");
    }
}

#[test]
fn values_from_the_environment_are_never_echoed() {
    let secret = "sk-very-secret-value";
    for text in [
        ":8080 {\n\treverse_prox {$SECRET}\n}\n",
        ":8080 {\n\t{$SECRET} x\n}\n",
        ":8080 {\n\tmethod {$SECRET} {$SECRET} x\n}\n",
        ":8080 {\n\tredir /x /y {$SECRET}\n}\n",
        "{\n\tgrace_period {$SECRET}\n}\n:8080\n",
        "{$SECRET}{ {\n}\n",
        "import {$SECRET}\n",
        ":8080 {\n\treverse_proxy a:1 {\n\t\tlb_try_duration {$SECRET}\n\t\t{$SECRET} y\n\t}\n\trespond @{$SECRET} \"x\"\n}\n",
    ] {
        let (accepted, said) = validate(text.as_bytes(), &[("SECRET", secret)]);
        assert!(!accepted, "accepted: {text}");
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn huge_deep_and_binary_files() {
    let deep = |open: &str| format!(":8080 {{\n{}", open.repeat(10_000));
    let binary: Vec<u8> = (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("10,000 open blocks", deep("handle {\n").into_bytes()),
        ("10,000 blocks, closed", format!("{}{}", deep("handle {\n"), "}\n".repeat(10_001)).into_bytes()),
        ("10,000 routes", format!("{}{}", deep("route {\n"), "}\n".repeat(10_001)).into_bytes()),
        ("10,000 nots", format!(":8080 {{\n@x {} path /\nrespond @x x\n}}\n", "not ".repeat(10_000)).into_bytes()),
        ("10,000 braces", "{\n".repeat(10_000).into_bytes()),
        ("10,000 closing braces", "}\n".repeat(10_000).into_bytes()),
        ("binary", binary),
        (
            "an ELF file",
            std::fs::read(crate::harness::process::llmproxy()).unwrap().into_iter().take(3 << 20).collect(),
        ),
        ("NULs", vec![0; 100_000]),
        ("10 MB of one word", vec![b'a'; 10 << 20]),
        ("10 MB of wrong lines", ":8080 {\n".bytes().chain(b"nonsense here\n".repeat(700_000)).collect()),
        ("10 MB of quotes", b"\"".repeat(10 << 20)),
        ("10 MB of heredocs", b"<<A\n".repeat(2_500_000)),
        ("snippets that double", doubling_snippets()),
        (
            "a million placeholders",
            format!(":8080 {{\nrespond \"{}\"\nnonsense\n}}\n", "{path}".repeat(1_000_000)).into_bytes(),
        ),
    ];
    for (name, bytes) in files {
        let since = Instant::now();
        let said = refused(&bytes);
        assert!(said.contains("error"), "{name}: {said}");
        assert!(said.len() < 1 << 20, "{name}: {} bytes of diagnostics", said.len());
        println!("{name}: {:?}", since.elapsed());
    }
}

/// Thirty snippets, each importing the one before twice: 2^30 lines if nothing bounds them.
fn doubling_snippets() -> Vec<u8> {
    let mut text = "(s0) {\n\theader X 1\n}\n".to_owned();
    for n in 1..30 {
        text.push_str(&format!("(s{n}) {{\n\timport s{}\n\timport s{}\n}}\n", n - 1, n - 1));
    }
    text.push_str(":8080 {\n\timport s29\n}\n");
    text.into_bytes()
}

/// Real files, cut and scratched at random places (the same ones each time): refused or not, but never a panic.
#[test]
fn damaged_files_never_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below.max(1) as u64) as usize
    };
    let marks = [
        &b"{"[..],
        b"}",
        b"\"",
        b"`",
        b"\n",
        b"<<E\n",
        b" { \n",
        b"{$",
        b"{args[0]}",
        b"@",
        b"\\",
        b"\0",
        b"\xff",
        b"import ",
        b",",
        b"",
    ];
    let mut damaged = Vec::new();
    for input in golden_adapt::inputs() {
        for _ in 0..if long() { 20 } else { 1 } {
            let mut bytes = input.clone().into_bytes();
            for _ in 0..=next(3) {
                let at = next(bytes.len());
                let end = (at + next(4)).min(bytes.len());
                bytes.splice(at..end, marks[next(marks.len())].iter().copied());
            }
            if next(4) == 0 {
                bytes.truncate(next(bytes.len()));
            }
            damaged.push(bytes);
        }
    }
    in_parallel(&damaged, |bytes| validate(bytes, &[]));
}
