//! `migrate caddy`: its verdict is that of `validate`, on real files too; what it writes runs; nothing secret shows.

use crate::golden_adapt::environment;
use crate::harness::process::{Which, command, run_within};
use crate::harness::{beside, in_parallel};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

pub struct Told {
    pub out: String,
    pub err: String,
    pub succeeded: bool,
}

pub fn migrate(directory: &Path, arguments: &[&str], environment: &[(String, String)]) -> Told {
    let mut command = command(Which::Llmproxy, directory);
    command.args(["migrate", "caddy"]).args(arguments).envs(environment.iter().cloned());
    let output = run_within(&mut command, LIMIT);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Told { out: text(&output.stdout), err: text(&output.stderr), succeeded: output.status.success() }
}

#[test]
fn the_verdict_on_real_files_is_that_of_validate() {
    let Some(corpus) = beside("LLMPROXY_CORPUS", "shared/corpus/caddyfiles") else { return };
    let mut folders: Vec<PathBuf> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("Caddyfile").is_file());
    folders.sort();
    let problems: Vec<String> = in_parallel(&folders, |folder| problem(folder)).into_iter().flatten().collect();
    assert!(problems.is_empty(), "{} of {} files:\n{}", problems.len(), folders.len(), problems.join("\n"));
}

fn problem(folder: &Path) -> Option<String> {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("Caddyfile"), directory.path().join("Caddyfile")).unwrap();
    let environment = environment(&folder.join("env.json"));
    let told = migrate(directory.path(), &["Caddyfile", "--brief"], &environment);
    let mut validate = command(Which::Llmproxy, directory.path());
    validate.args(["validate", "--config", "Caddyfile"]).envs(environment.iter().cloned());
    let validated = run_within(&mut validate, LIMIT);
    if told.err.contains("panicked") {
        return Some(format!("{name}: {}", told.err));
    }
    if told.succeeded != validated.status.success() {
        return Some(format!("{name}: migrate says {}, validate otherwise", told.succeeded));
    }
    let refusals = told.out.lines().filter(|l| l.contains("  unsupported  ") || l.contains("  error        ")).count();
    match (told.succeeded, refusals) {
        (false, 0) => Some(format!("{name}: refused, and no line says why:\n{}", told.out)),
        (true, 1..) => Some(format!("{name}: runs, and a line is refused:\n{}", told.out)),
        _ => None,
    }
}

#[test]
fn each_line_is_told_and_what_can_go_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let text = "{\n\tadmin :2019\n\tpersist_config off\n}\n\nhttp://a.test:8080 {\n\tbasic_auth {\n\t\tplanted planted\n\t}\n\tcache planted {\n\t\tplanted\n\t}\n\timport more\n}\n";
    std::fs::write(directory.path().join("Caddyfile"), text).unwrap();
    std::fs::write(
        directory.path().join("more"),
        "reverse_proxy {$PLANTED} {\n\theader_up Authorization planted\n\tflush_interval -1\n}\n",
    )
    .unwrap();
    let planted = [("PLANTED".to_owned(), "planted.test".to_owned())];
    let told = migrate(directory.path(), &[], &planted);
    assert!(!told.succeeded && !told.out.contains("planted") && !told.err.contains("planted"), "{}", told.out);
    for line in [
        "Caddyfile:2   unsupported  admin",
        "Caddyfile:3   note         persist_config",
        "Caddyfile:6   same         site http://a.test:8080",
        "Caddyfile:10  unsupported  cache",
        "more:2        same         reverse_proxy / header_up",
        "more:3        note         reverse_proxy / flush_interval",
        "answers are not cached in this version",
        "systemctl disable --now caddy",
    ] {
        assert!(told.out.contains(line), "no `{line}` in\n{}", told.out);
    }

    // Without the plugin all that is left can go.
    std::fs::write(
        directory.path().join("Caddyfile"),
        text.replace("\tcache planted {\n\t\tplanted\n\t}\n", "")
            .replace("planted planted", "a $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG"),
    )
    .unwrap();
    std::fs::create_dir(directory.path().join("out")).unwrap();
    let told = migrate(directory.path(), &["--output", "out"], &planted);
    assert!(told.succeeded, "{}\n{}", told.out, told.err);
    let made = std::fs::read_to_string(directory.path().join("out/Proxyfile")).unwrap();
    assert!(made.contains("\t# admin :2019\n\tpersist_config off\n"), "{made}");
    assert!(directory.path().join("out/more").is_file());
}

#[test]
fn caddys_json_is_taken_and_what_is_no_file_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(directory.path().join("c.json"), text).unwrap();
    write(
        r#"{"apps":{"http":{"servers":{"s":{"listen":[":8080"],"routes":[{"handle":[{"handler":"static_response"}]}]}}}}}"#,
    );
    let told = migrate(directory.path(), &["c.json"], &[]);
    assert!(told.succeeded && told.out.contains("runs as it is"), "{}{}", told.out, told.err);
    write(r#"{"apps":{"layer4":{}}}"#);
    let told = migrate(directory.path(), &["c.json"], &[]);
    assert!(!told.succeeded && told.out.contains("`layer4`"), "{}", told.out);
    let told = migrate(directory.path(), &["nothing"], &[]);
    assert!(!told.succeeded && told.err.contains("there is no such file"), "{}", told.err);
}
