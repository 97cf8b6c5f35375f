//! OCSP answers of `openssl ocsp`, stapled to certificates: seen by `openssl s_client`, kept over restarts, and a
//! revoked certificate replaced.

use crate::harness::ca::Ca;
use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::tls;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `openssl ocsp`, ended on drop.
struct Responder {
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Responder {
    /// Answers for the CA at the URL that its certificates name.
    fn start(ca: &Ca) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = |name: &str| folder.path().join(name);
        let (root, key) = ca.signer();
        std::fs::write(file("root.crt"), root).unwrap();
        std::fs::write(file("root.key"), key).unwrap();
        std::fs::write(file("index"), "").unwrap();
        let child = Command::new("openssl")
            .args(["ocsp", "-port", &port.to_string(), "-ndays", "1", "-index"])
            .arg(file("index"))
            .arg("-rsigner")
            .arg(file("root.crt"))
            .arg("-rkey")
            .arg(file("root.key"))
            .arg("-CA")
            .arg(file("root.crt"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        ca.state().responder = Some(format!("http://127.0.0.1:{port}"));
        Self { child, folder }
    }

    /// `V` for good, `R` for revoked.
    fn know(&self, status: char, serial: &str) {
        let path = self.folder.path().join("index");
        let mut index = std::fs::read_to_string(&path).unwrap();
        let revoked = if status == 'R' { "260101000000Z" } else { "" };
        writeln!(index, "{status}\t21260101000000Z\t{revoked}\t{serial}\tunknown\t/CN=x").unwrap();
        let new = self.folder.path().join("index.new");
        std::fs::write(&new, index).unwrap();
        std::fs::rename(new, path).unwrap();
    }
}

fn openssl_or_skip() -> bool {
    let found = Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: openssl is not installed");
    }
    found
}

/// The serial number of the first certificate, as `openssl` writes it.
fn serial(chain: &Path) -> String {
    let pem = std::fs::read(chain).unwrap();
    let leaf = CertificateDer::from_pem_slice(&pem).unwrap();
    let (_, read) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    let bytes = read.raw_serial();
    let significant = bytes.iter().position(|b| *b != 0).unwrap_or(0);
    bytes[significant..].iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02X}"))
}

/// What `openssl s_client -status` says of the stapled answer.
fn stapled(port: u16) -> bool {
    let output = Command::new("openssl")
        .args(["s_client", "-status", "-servername", "a.test", "-connect", &format!("127.0.0.1:{port}")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).contains("Cert Status: good")
}

fn wait(what: &str, proxy: &Proxy, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}; it said:\n{}", proxy.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn options(http: u16, https: u16, storage: &Path, more: &str) -> String {
    let storage = storage.display();
    format!(
        "{{\n\tadmin off\n\thttp_port {http}\n\thttps_port {https}\n\tstorage file_system {storage}\n\tocsp_interval 1s\n{more}}}\n"
    )
}

#[test]
fn a_revoked_certificate_is_replaced_and_a_good_answer_is_stapled_and_kept() {
    if !openssl_or_skip() {
        return;
    }
    let (ca, storage) = (Ca::start(), tempfile::tempdir().unwrap());
    let responder = Responder::start(&ca);
    let (http, https) = (free_port(), free_port());
    let file =
        options(http, https, storage.path(), &format!("\tacme_ca {}\n", ca.url())) + "a.test {\n\trespond ok\n}\n";
    let proxy = Proxy::start(Which::Llmproxy, &file, https);
    let root = ca.root();
    wait("no certificate", &proxy, || tls::get(https, "a.test", &root).is_ok());
    // The responder does not know it: it is served all the same.
    assert!(!stapled(https));
    let chain = || -> PathBuf {
        let issuer = std::fs::read_dir(storage.path().join("certificates")).unwrap().next().unwrap().unwrap().path();
        issuer.join("a.test/a.test.crt")
    };
    wait("not kept", &proxy, || chain().exists());
    let first = serial(&chain());
    responder.know('R', &first);
    wait("not replaced", &proxy, || ca.state().orders.len() == 2 && serial(&chain()) != first);
    responder.know('V', &serial(&chain()));
    wait("not stapled", &proxy, || stapled(https));
    assert_eq!(ca.state().orders.len(), 2);
    drop(proxy);
    drop(responder);

    // Nobody answers any more: what was kept is stapled.
    let _proxy = Proxy::start(Which::Llmproxy, &file, https);
    assert!(stapled(https));
}

#[test]
fn a_certificate_of_the_admins_has_its_answer_unless_that_is_off() {
    if !openssl_or_skip() {
        return;
    }
    let (ca, storage) = (Ca::start(), tempfile::tempdir().unwrap());
    let responder = Responder::start(&ca);
    let (leaf, key) = ca.issue("a.test");
    let (chain_file, key_file) = (storage.path().join("a.crt"), storage.path().join("a.key"));
    std::fs::write(&chain_file, leaf + &ca.root()).unwrap();
    std::fs::write(&key_file, key).unwrap();
    responder.know('V', &serial(&chain_file));
    let site = format!("a.test {{\n\ttls {} {}\n\trespond ok\n}}\n", chain_file.display(), key_file.display());
    let (http, https) = (free_port(), free_port());
    let proxy = Proxy::start(Which::Llmproxy, &(options(http, https, storage.path(), "") + &site), https);
    wait("not stapled", &proxy, || stapled(https));
    drop(proxy);
    let off = options(http, https, storage.path(), "\tocsp_stapling off\n") + &site;
    let _proxy = Proxy::start(Which::Llmproxy, &off, https);
    assert!(!stapled(https));
}
