//! Clients that others wrote obtain from our CA: Caddy, rustls-acme.

use crate::harness::process::{Proxy, Which, caddy_or_skip, free_port};
use crate::harness::tls;
use std::path::PathBuf;
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
    assert!(ca.proxy.log().contains("certificate issued over ACME"));
}
