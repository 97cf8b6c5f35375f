//! Clients that others wrote obtain from our CA: Caddy, certbot, rustls-acme.

use super::client::{self, Client, Web, b64};
use crate::harness::client::request;
use crate::harness::process::{Proxy, Which, caddy_or_skip, free_port, run_within};
use crate::harness::tls;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);
const EAB_ID: &str = "team-a";
const EAB_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";

/// A CA over TLS, as ACME asks for.
struct OurCa {
    proxy: Proxy,
    storage: tempfile::TempDir,
    port: u16,
    http_port: u16,
    https_port: u16,
}

impl OurCa {
    fn start(options: &str) -> Self {
        let storage = tempfile::tempdir().unwrap();
        let (port, http_port, https_port) = (free_port(), free_port(), free_port());
        let file = format!(
            "{{\n\tadmin off\n\tauto_https disable_redirects\n\thttp_port {}\n\thttps_port {port}\n\tstorage file_system {}\n}}\nlocalhost {{\n\ttls internal\n\tlog\n\tacme_server {{\n\t\tvalidation_ports {http_port} {https_port}\n{options}\t}}\n}}\n",
            free_port(),
            storage.path().display()
        );
        let proxy = Proxy::start(Which::Llmproxy, &file, port);
        Self { proxy, storage, port, http_port, https_port }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/acme/local/directory", self.port)
    }

    fn root_file(&self) -> PathBuf {
        self.storage.path().join("pki/authorities/local/root.crt")
    }

    fn root(&self) -> String {
        std::fs::read_to_string(self.root_file()).unwrap()
    }

    fn wait_for_log(&self, text: &str) {
        let began = Instant::now();
        while !self.proxy.log().contains(text) {
            assert!(began.elapsed() < PATIENCE, "no {text} in\n{}", self.proxy.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn caddy_obtains_by_each_challenge_with_an_external_account_and_asks_when_to_renew() {
    if !caddy_or_skip() {
        return;
    }
    let ca = OurCa::start(&format!("\t\teab {EAB_ID} {EAB_KEY}\n"));
    for other in ["disable_tlsalpn_challenge", "disable_http_challenge"] {
        let storage = tempfile::tempdir().unwrap();
        let file = format!(
            "{{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n\thttp_port {}\n\thttps_port {}\n\tstorage file_system {}\n}}\nlocalhost {{\n\ttls {{\n\t\tissuer acme {{\n\t\t\tdir {}\n\t\t\ttrusted_roots {}\n\t\t\teab {EAB_ID} {EAB_KEY}\n\t\t\t{other}\n\t\t}}\n\t}}\n\trespond caddy\n}}\n",
            ca.http_port,
            ca.https_port,
            storage.path().display(),
            ca.url(),
            ca.root_file().display()
        );
        let caddy = Proxy::start(Which::Caddy, &file, ca.https_port);
        let began = Instant::now();
        while tls::get(ca.https_port, "localhost", &ca.root()).ok().map(|r| r.text()).as_deref() != Some("caddy") {
            assert!(began.elapsed() < PATIENCE, "{other}: {}\n--- Caddy:\n{}", ca.proxy.log(), caddy.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        ca.wait_for_log("/acme/local/renewal-info/");
    }
    assert!(!ca.proxy.log().contains(EAB_KEY));
}

/// rustls-acme proves by TLS-ALPN alone, on a resolver of its own.
#[test]
fn rustls_acme_obtains_a_certificate() {
    use futures_util::StreamExt;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let ca = OurCa::start("");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.root().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let trusting = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut state = rustls_acme::AcmeConfig::new_with_client_config(["localhost"], Arc::new(trusting))
        .directory(ca.url())
        .contact(["mailto:a@b.test"])
        .state();
    let challenge = state.challenge_rustls_config();
    let listener = std::net::TcpListener::bind(("127.0.0.1", ca.https_port)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut connection = rustls::ServerConnection::new(Arc::clone(&challenge)).unwrap();
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let obtained = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, async {
            loop {
                match state.next().await {
                    Some(Ok(rustls_acme::EventOk::DeployedNewCert)) => return,
                    Some(Ok(_)) => {}
                    Some(Err(error)) => panic!("{error:?}: {}", ca.proxy.log()),
                    None => panic!("it ended"),
                }
            }
        })
        .await
    });
    obtained.unwrap_or_else(|_| panic!("no certificate: {}", ca.proxy.log()));
    // The log is written behind the answer.
    let until = std::time::Instant::now() + PATIENCE;
    while !ca.proxy.log().contains("certificate issued over ACME") {
        assert!(std::time::Instant::now() < until, "{}", ca.proxy.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether certbot and a name server for it are installed; says so when they are not.
fn certbot_or_skip() -> bool {
    let found = |program: &str| Command::new(program).arg("--help").output().is_ok();
    let both = found("certbot") && found("pebble-challtestsrv");
    if !both {
        eprintln!("skipped: certbot or pebble is not installed");
    }
    both
}

fn certbot(ca: &OurCa, folder: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("certbot");
    for option in ["--config-dir", "--work-dir", "--logs-dir"] {
        command.arg(option).arg(folder);
    }
    command.args(["--non-interactive", "--server", &ca.url()]).args(arguments);
    command.env("REQUESTS_CA_BUNDLE", ca.root_file());
    // Python on a busy machine takes its time.
    let output = run_within(&mut command, PATIENCE * 2);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

/// A name server that knows every name as this machine, and the port on which it is told more.
struct NameServer {
    process: std::process::Child,
    port: u16,
    management: u16,
}

impl NameServer {
    fn start() -> Self {
        let (port, management) = (free_port(), free_port());
        let mut command = Command::new("pebble-challtestsrv");
        command.args(["-dns01", &format!("127.0.0.1:{port}"), "-management", &format!("127.0.0.1:{management}")]);
        command.args([
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-defaultIPv4",
            "127.0.0.1",
            "-defaultIPv6",
            "",
        ]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
        let server = Self { process, port, management };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", management)).is_err() {
            assert!(began.elapsed() < PATIENCE, "no name server");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    fn set_text(&self, name: &str, value: &str) {
        let body = serde_json::json!({"host": format!("{name}."), "value": value}).to_string();
        let answer = request(
            self.management,
            format!(
                "POST /set-txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        );
        assert_eq!(answer.unwrap().status(), 200);
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn certbot_obtains_renews_and_revokes() {
    if !certbot_or_skip() {
        return;
    }
    let (names, folder) = (NameServer::start(), tempfile::tempdir().unwrap());
    let ca = OurCa::start(&format!("\t\tresolvers 127.0.0.1:{}\n\t\teab {EAB_ID} {EAB_KEY}\n", names.port));
    let port = ca.http_port.to_string();
    let run = |arguments: &[&str]| {
        let (fine, said) = certbot(&ca, folder.path(), arguments);
        assert!(fine, "{arguments:?}: {said}\n--- the CA:\n{}", ca.proxy.log());
    };
    let obtain = ["certonly", "--standalone", "--http-01-port", &port, "-d", "a.test", "-d", "b.test"];
    let account = ["--agree-tos", "-m", "a@b.test", "--eab-kid", EAB_ID, "--eab-hmac-key"];
    let (fine, said) =
        certbot(&ca, folder.path(), &[&obtain[..], &account, &["d3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmc"]].concat());
    assert!(!fine && said.contains("external account"), "a wrong key: {said}");
    run(&[&obtain[..], &account, &[EAB_KEY]].concat());
    let chain = folder.path().join("live/a.test/fullchain.pem");
    let first = std::fs::read_to_string(&chain).unwrap();
    for name in ["a.test", "b.test"] {
        super::verify(&first, &ca.root(), name);
    }
    run(&["renew", "--force-renewal", "--no-random-sleep-on-renew", "--http-01-port", &port]);
    let second = std::fs::read_to_string(&chain).unwrap();
    assert_ne!(first, second);
    run(&["revoke", "--no-delete-after-revoke", "--cert-path", chain.to_str().unwrap(), "--reason", "superseded"]);
    run(&["unregister"]);
    let log = ca.proxy.log();
    assert!(log.contains("certificate revoked over ACME") && log.contains("ACME account deactivated"), "{log}");
}

#[test]
fn a_wildcard_is_proved_over_dns_alone() {
    if !certbot_or_skip() {
        return;
    }
    let (names, storage) = (NameServer::start(), tempfile::tempdir().unwrap());
    let options = format!("\t\tresolvers udp/127.0.0.1:{}\n\t\tallow_wildcard_names\n", names.port);
    let (proxy, port) = super::start(storage.path(), free_port(), &options);
    let client = Client::registered(port);
    let order = client.order(&["*.a.test"]);
    let authorization = client.post(order.json()["authorizations"][0].as_str().unwrap(), "").json();
    let challenges = authorization["challenges"].as_array().unwrap();
    assert_eq!((challenges.len(), &challenges[0]["type"]), (1, &"dns-01".into()), "{authorization}");
    let key_authorization = format!("{}.{}", challenges[0]["token"].as_str().unwrap(), client.key.thumbprint());
    names.set_text("_acme-challenge.a.test", "something else");
    names.set_text("_acme-challenge.a.test", &b64(Sha256::digest(key_authorization)));
    let ready = client.prove(&order, &Web::start(), "dns-01");
    assert_eq!(ready["status"], "ready", "{ready} {}", proxy.log());
    let csr = serde_json::json!({"csr": client::csr(&["*.a.test"])}).to_string();
    let done = client.post(ready["finalize"].as_str().unwrap(), &csr).json();
    let chain = client.post(done["certificate"].as_str().unwrap(), "").text();
    let root = std::fs::read_to_string(storage.path().join("pki/authorities/local/root.crt")).unwrap();
    super::verify(&chain, &root, "x.a.test");

    // Without the record the order ends.
    let order = client.order(&["b.test"]);
    let failed = client.prove(&order, &Web::start(), "dns-01");
    assert_eq!(failed["error"]["type"], "urn:ietf:params:acme:error:dns", "{failed}");
}
