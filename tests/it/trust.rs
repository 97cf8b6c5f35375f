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

#[test]
fn a_site_is_served_by_an_intermediate_whose_root_is_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let ca = |name: &str, length: u8, by: Option<&rcgen::Issuer<'_, rcgen::KeyPair>>| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(length));
        let made = match by {
            None => params.self_signed(&key).unwrap(),
            Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        };
        let file = |end: &str| folder.path().join(format!("{name}.{end}"));
        std::fs::write(file("crt"), made.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        rcgen::Issuer::new(params, key)
    };
    let root = ca("root", 1, None);
    ca("stranger", 1, None);
    ca("issuing", 0, Some(&root));
    let authority = |root: &str| {
        let folder = folder.path().display();
        format!(
            "\tpki {{\n\t\tca lab {{\n\t\t\troot {{\n\t\t\t\tcert {folder}/{root}.crt\n\t\t\t}}\n\t\t\tintermediate {{\n\t\t\t\tcert {folder}/issuing.crt\n\t\t\t\tkey {folder}/issuing.key\n\t\t\t}}\n\t\t}}\n\t}}"
        )
    };
    let port = free_port();
    let proxy = Proxy::start(Which::Llmproxy, &site(&authority("root"), port, free_port()), port);
    let trusted = std::fs::read_to_string(folder.path().join("root.crt")).unwrap();
    assert_eq!(crate::harness::tls::get(port, "localhost", &trusted).unwrap().text(), "x");
    let (ok, said) = run(proxy.directory.path(), &["trust", "--ca", "lab"], debian().path());
    assert!(ok && said.contains("root.crt is trusted"), "{said}");

    std::fs::write(&proxy.config, site(&authority("stranger"), port, free_port())).unwrap();
    let output = run_within(proxy.command(Which::Llmproxy).arg("reload"), Duration::from_secs(20));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("issuing.crt is not signed by the root"), "{said}");
    assert_eq!(crate::harness::tls::get(port, "localhost", &trusted).unwrap().text(), "x");
}
