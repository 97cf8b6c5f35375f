//! TLS towards upstreams: names, trust, client certificates, protocols. What Caddy has is checked on both.

use crate::harness::client;
use crate::harness::process::{Proxy, Which, caddy_or_skip, free_port};
use crate::harness::standin::Authority;
use crate::harness::upstream::{Upstream, spawn};
use rustls::DistinguishedName;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// What an upstream saw of a handshake.
struct Shaken {
    server_name: Option<String>,
    client: Option<CertificateDer<'static>>,
}

/// An upstream for `one.test`, `two.test` and `localhost` that asks for client certificates and takes any.
struct Secure {
    authority: Authority,
    directory: tempfile::TempDir,
    port: u16,
    shaken: Receiver<Shaken>,
}

impl Secure {
    fn start() -> Self {
        let authority = Authority::new();
        let (chain, key) = authority.certificate(&["one.test", "two.test", "localhost"]);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(Arc::new(TakesAny(provider)))
            .with_single_cert(vec![chain.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, (tell, shaken)) = (listener.local_addr().unwrap().port(), channel());
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut tls = rustls::StreamOwned::new(connection, stream);
                if !matches!(tls.read(&mut [0; 4096]), Ok(n) if n > 0) {
                    continue;
                }
                let client = tls
                    .conn
                    .peer_certificates()
                    .and_then(|chain| chain.first())
                    .cloned()
                    .map(CertificateDer::into_owned);
                let server_name = tls.conn.server_name().map(str::to_owned);
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                tls.conn.send_close_notify();
                let _ = tls.flush();
                if tell.send(Shaken { server_name, client }).is_err() {
                    return;
                }
            }
        });
        Self { authority, directory, port, shaken }
    }

    /// `tls_trust_pool` that believes it.
    fn trust(&self) -> String {
        format!("tls_trust_pool file {}", self.directory.path().join("ca.pem").display())
    }

    fn shaken(&self) -> Shaken {
        self.shaken.recv_timeout(Duration::from_secs(5)).expect("a handshake")
    }
}

#[derive(Debug)]
struct TakesAny(Arc<rustls::crypto::CryptoProvider>);

impl ClientCertVerifier for TakesAny {
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn site(which: Which, upstream: u16, options: &[&str]) -> (Proxy, u16) {
    let port = free_port();
    let options: String = options.iter().map(|line| format!("\t\t\t{line}\n")).collect();
    let file = format!(
        "{{\n\tadmin off\n\tskip_install_trust\n\tlocal_certs\n\tauto_https disable_redirects\n\tpersist_config off\n}}\n\nhttp://:{port} {{\n\tbind 127.0.0.1\n\treverse_proxy 127.0.0.1:{upstream} {{\n\t\ttransport http {{\n{options}\t\t}}\n\t}}\n}}\n"
    );
    (Proxy::start(which, &file, port), port)
}

fn on_both(test: impl Fn(Which)) {
    test(Which::Llmproxy);
    if caddy_or_skip() {
        test(Which::Caddy);
    }
}

fn get(port: u16, name: &str) -> u16 {
    let request = format!("GET / HTTP/1.1\r\nHost: api.test\r\nX-Name: {name}\r\n\r\n");
    client::request(port, request).unwrap().status()
}

#[test]
fn the_server_name_may_be_made_for_each_request() {
    on_both(|which| {
        let upstream = Secure::start();
        let name = "tls_server_name {http.request.header.X-Name}";
        let (_proxy, port) = site(which, upstream.port, &[&upstream.trust(), name, "keepalive off"]);
        for name in ["one.test", "two.test", "one.test"] {
            assert_eq!(get(port, name), 200, "{which:?} {name}");
            assert_eq!(upstream.shaken().server_name.as_deref(), Some(name), "{which:?}");
        }
        assert_eq!(get(port, "three.test"), 502, "{which:?} believes a certificate for another name");
    });
}

#[test]
fn an_upstream_that_is_not_trusted_is_not_asked() {
    on_both(|which| {
        let upstream = Secure::start();
        let (_proxy, port) = site(which, upstream.port, &["tls_server_name one.test"]);
        assert_eq!(get(port, ""), 502, "{which:?}");
        let (_proxy, port) = site(which, upstream.port, &["tls_insecure_skip_verify"]);
        assert_eq!(get(port, ""), 200, "{which:?}");
        let only_h2 = [&*upstream.trust(), "tls_server_name one.test", "versions 2"];
        let (_proxy, port) = site(Which::Llmproxy, upstream.port, &only_h2);
        assert_eq!(get(port, ""), 502, "HTTP/1.1, which is not allowed");
    });
}

#[test]
fn a_client_certificate_is_shown() {
    on_both(|which| {
        let upstream = Secure::start();
        let (certificate, key) = upstream.authority.certificate(&["client.test"]);
        let folder = upstream.directory.path();
        std::fs::write(folder.join("client.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.join("client.key"), key.serialize_pem()).unwrap();
        let shown = format!("tls_client_auth {0}/client.pem {0}/client.key", folder.display());
        let (_proxy, port) = site(which, upstream.port, &[&upstream.trust(), "tls_server_name one.test", &shown]);
        assert_eq!(get(port, ""), 200, "{which:?}");
        assert_eq!(upstream.shaken().client.as_ref(), Some(certificate.der()), "{which:?}");
    });
}

#[test]
fn a_client_certificate_may_be_obtained() {
    on_both(|which| {
        let upstream = Secure::start();
        let obtained = "tls_client_auth client.test";
        let options = [&*upstream.trust(), "tls_server_name one.test", obtained, "keepalive off"];
        let (proxy, port) = site(which, upstream.port, &options);
        let until = Instant::now() + Duration::from_secs(15);
        loop {
            // An upstream decides itself about a client that has none yet.
            assert!(matches!(get(port, ""), 200 | 502), "{which:?}");
            let shown = upstream.shaken.recv_timeout(Duration::from_secs(1)).ok().and_then(|shaken| shaken.client);
            if let Some(client) = shown {
                let (_, parsed) = x509_parser::parse_x509_certificate(&client).unwrap();
                let names = format!("{:?}", parsed.subject_alternative_name().unwrap().unwrap().value.general_names);
                assert!(names.contains("client.test"), "{which:?}: {names}");
                return;
            }
            assert!(Instant::now() < until, "{which:?} shows none: {}", proxy.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

#[test]
fn ports_may_be_left_out_of_tls() {
    on_both(|which| {
        let plain = Upstream::start("U");
        let (_proxy, port) = site(which, plain.port, &["tls", &format!("tls_except_ports {}", plain.port)]);
        assert_eq!(get(port, ""), 200, "{which:?}");
    });
}

/// A site in front of another one of the same program, whose certificate its own CA has issued.
#[test]
fn the_internal_authority_may_be_trusted() {
    on_both(|which| {
        let (port, inner) = (free_port(), free_port());
        let file = format!(
            "{{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n\tpersist_config off\n}}\n\nhttp://:{port} {{\n\tbind 127.0.0.1\n\treverse_proxy 127.0.0.1:{inner} {{\n\t\theader_up Host localhost\n\t\ttransport http {{\n\t\t\ttls_server_name localhost\n\t\t\ttls_trust_pool pki_root local\n\t\t}}\n\t}}\n}}\n\nhttps://localhost:{inner} {{\n\ttls internal\n\trespond inside\n}}\n"
        );
        let proxy = Proxy::start(which, &file, port);
        let until = Instant::now() + Duration::from_secs(15);
        loop {
            let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
            let answer = client::request(port, request).unwrap();
            if answer.status() == 200 {
                assert_eq!(answer.text(), "inside", "{which:?}");
                return;
            }
            // The root is made when the first certificate is issued.
            assert!(Instant::now() < until, "{which:?}: {} {}", answer.status(), proxy.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}
