//! `packaging/install.sh` below a directory of its own: what it puts there, that running it again keeps what the admin
//! wrote, and that uninstalling keeps the configuration. And what it installs fits together.

use crate::harness::process::{Which, command, run_within};
use crate::harness::repository;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn install(root: &Path, arguments: &[&str]) {
    let mut script = Command::new("sh");
    script.arg(repository().join("packaging/install.sh")).args(arguments).arg("--root").arg(root);
    let output = run_within(&mut script, Duration::from_secs(20));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn installing_again_keeps_what_the_admin_wrote() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    // Any executable will do: nothing is started.
    let install_all = || install(root.path(), &["--binary", "/bin/true"]);
    install_all();
    let mode = |path: &str| std::fs::metadata(at(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("usr/bin/llmproxy"), 0o755);
    assert_eq!(mode("etc/llmproxy/environment"), 0o640, "keys are not for everybody");

    let mine = ["etc/llmproxy/Proxyfile", "etc/llmproxy/environment"];
    for file in mine {
        std::fs::write(at(file), "# mine\n").unwrap();
    }
    install_all();
    for file in mine {
        assert_eq!(std::fs::read_to_string(at(file)).unwrap(), "# mine\n");
    }
    install(root.path(), &["--uninstall"]);
    assert!(!at("usr/bin/llmproxy").exists() && !at("etc/systemd/system/llmproxy.service").exists());
    assert!(at("etc/llmproxy/Proxyfile").exists());
}

/// The first start after an installation: the command line of the unit is one that llmproxy takes, and the files it
/// names are valid as they come.
#[test]
fn the_unit_starts_what_is_installed() {
    let root = tempfile::tempdir().unwrap();
    install(root.path(), &["--binary", "/bin/true"]);
    let unit = std::fs::read_to_string(root.path().join("etc/systemd/system/llmproxy.service")).unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/llmproxy run ")).unwrap();
    let mut validate = command(Which::Llmproxy, root.path());
    let arguments = start.split_whitespace().map(|word| match word.strip_prefix('/') {
        Some(path) => root.path().join(path).display().to_string(),
        None => word.to_owned(),
    });
    let output = run_within(validate.arg("validate").args(arguments), Duration::from_secs(20));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
