//! `trust` and `untrust` on a system made up in a folder: the machine's own store is never touched.

use crate::harness::process::{Proxy, Which, command, free_port, run_within};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ANCHORS: &str = "usr/local/share/ca-certificates";

/// A Debian whose `update-ca-certificates` joins what it finds, as the real one does.
fn debian() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let (anchors, bin) = (root.path().join(ANCHORS), root.path().join("usr/sbin"));
    std::fs::create_dir_all(&anchors).unwrap();
    std::fs::create_dir_all(&bin).unwrap();
    let program = bin.join("update-ca-certificates");
    let bundle = root.path().join("bundle");
    std::fs::write(
        &program,
        format!("#!/bin/sh\ncat {}/*.crt >{} 2>/dev/null\nexit 0\n", anchors.display(), bundle.display()),
    )
    .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    root
}

fn run(directory: &Path, arguments: &[&str], system: &Path) -> (bool, String) {
    let mut command = command(Which::Llmproxy, directory);
    command.env("PATH", "/usr/bin:/bin").args(arguments).arg("--root").arg(system);
    let output = run_within(&mut command, Duration::from_secs(20));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn site(storage: &str, port: u16, http: u16) -> String {
    format!(
        "{{\n\tadmin off\n\thttp_port {http}\n\thttps_port {port}\n{storage}\n}}\nlocalhost:{port} {{\n\ttls {{\n\t\tissuer internal {{\n\t\t\tca lab\n\t\t}}\n\t}}\n\trespond x\n}}\n"
    )
}

#[test]
fn a_root_is_trusted_and_no_longer() {
    let (system, elsewhere) = (debian(), tempfile::tempdir().unwrap());
    let bundle = || std::fs::read_to_string(system.path().join("bundle")).unwrap();
    let port = free_port();
    let storage = format!("\tstorage file_system {}", elsewhere.path().display());
    let proxy = Proxy::start(Which::Llmproxy, &site(&storage, port, free_port()), port);
    let root: PathBuf = elsewhere.path().join("pki/authorities/lab/root.crt");
    let pem = std::fs::read_to_string(&root).unwrap();
    // A machine's trust is not changed unasked; the log says how to.
    assert!(std::fs::read_dir(system.path().join(ANCHORS)).unwrap().next().is_none());
    assert!(proxy.log().contains("llmproxy trust"), "{}", proxy.log());

    let directory = proxy.directory.path();
    let (ok, said) = run(directory, &["trust", "--ca", "lab"], system.path());
    assert!(ok && said.contains("is trusted by this machine now") && said.contains(root.to_str().unwrap()), "{said}");
    let lines = |text: &str| text.lines().filter(|l| !l.starts_with('-')).collect::<String>();
    assert_eq!(lines(&bundle()), lines(&pem));
    assert!(run(directory, &["trust", "--ca", "lab"], system.path()).1.contains("already"));

    let other = tempfile::tempdir().unwrap();
    let copy = other.path().join("root.pem");
    std::fs::write(&copy, &pem).unwrap();
    let (ok, said) = run(other.path(), &["untrust", "--cert", copy.to_str().unwrap()], system.path());
    assert!(ok && said.contains("no longer"), "{said}");
    assert_eq!(bundle(), "");
    let (ok, said) = run(directory, &["untrust", "--ca", "lab"], system.path());
    assert!(ok && said.contains("was not"), "{said}");
}

#[test]
fn what_cannot_be_trusted_is_told() {
    let (system, directory) = (debian(), tempfile::tempdir().unwrap());
    let told = |arguments: &[&str], system: &Path| {
        let (ok, said) = run(directory.path(), arguments, system);
        assert!(!ok, "{said}");
        said
    };
    let said = told(&["trust"], system.path());
    assert!(said.contains("`local` has no root certificate in") && said.contains("--config"), "{said}");
    let leaf = directory.path().join("leaf.pem");
    std::fs::write(&leaf, rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap().cert.pem()).unwrap();
    let said = told(&["untrust", "--cert", leaf.to_str().unwrap()], system.path());
    assert!(said.contains("not the certificate of a CA"), "{said}");
    std::fs::write(directory.path().join("Proxyfile"), "nonsense here {\n").unwrap();
    assert!(told(&["trust"], system.path()).contains("is not valid"));
    std::fs::write(directory.path().join("Proxyfile"), ":8080\n").unwrap();
    let ca = directory.path().join("llmproxy/pki/authorities/local");
    std::fs::create_dir_all(&ca).unwrap();
    std::fs::write(ca.join("root.crt"), "garbage").unwrap();
    assert!(told(&["trust"], system.path()).contains("cannot read a PEM certificate"));
    let params = {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
    };
    let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    std::fs::write(ca.join("root.crt"), made.pem()).unwrap();
    assert!(told(&["trust"], tempfile::tempdir().unwrap().path()).contains("ca-certificates"));
}
