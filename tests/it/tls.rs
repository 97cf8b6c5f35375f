//! TLS handshakes: what is bounded, what is asked of clients, which certificate and which policy they get, how sessions
//! are resumed, and certificates given by file.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};

use crate::harness::client::Connection;
use crate::harness::process::{Proxy, Which, caddy_or_skip, free_port, run_within};
use crate::harness::repository;

/// An authority and what it signs, as PEM files of a folder.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let made = Self { issuer, folder: tempfile::tempdir().unwrap() };
        made.write("ca.pem", &made.issuer.pem());
        made
    }

    fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    fn write(&self, file: &str, text: &str) -> String {
        std::fs::write(self.folder.path().join(file), text).unwrap();
        self.path(file)
    }

    /// A certificate and its key as `name.crt` and `name.key`.
    fn issue(&self, file: &str, names: &[&str], key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let pem = params.signed_by(key, &self.issuer).unwrap().pem();
        self.write(&format!("{file}.crt"), &pem);
        self.write(&format!("{file}.key"), &key.serialize_pem());
        pem
    }

    fn leaf(&self, file: &str, names: &[&str]) -> String {
        self.issue(file, names, &KeyPair::generate().unwrap(), |_| {})
    }
}

/// The certificate `old` of a client.
fn expired(authority: &Authority) {
    authority.issue("old", &["client"], &KeyPair::generate().unwrap(), |params| {
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(2);
        params.not_after = time::OffsetDateTime::now_utc() - time::Duration::days(1);
    });
}

/// A client of its own session cache; `certificate` is the stem of its files.
fn client(authority: &Authority, certificate: Option<&str>, change: impl FnOnce(&mut rustls::ClientConfig)) -> Client {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(stem) => {
            let chain = CertificateDer::pem_file_iter(authority.path(&format!("{stem}.crt"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(authority.path(&format!("{stem}.key"))).unwrap();
            // Whatever authorities the server hints at.
            builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    change(&mut config);
    Client(Arc::new(config))
}

struct Client(Arc<rustls::ClientConfig>);

impl Client {
    /// The body of `GET /` and the leaf that was served; `Err` when the handshake fails.
    fn get(&self, port: u16, name: &str) -> Result<(String, Vec<u8>), String> {
        let mut stream = self.open(port, name)?;
        let leaf = stream.conn.peer_certificates().unwrap()[0].to_vec();
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        // With TLS 1.3 a client learns here that its certificate was refused.
        stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
        let mut connection = Connection::over(stream);
        let response = connection.response().map_err(|e| format!("{e:?}"))?;
        Ok((response.text(), leaf))
    }

    fn open(&self, port: u16, name: &str) -> Result<rustls::StreamOwned<rustls::ClientConnection, TcpStream>, String> {
        let server = ServerName::try_from(name.to_owned()).unwrap();
        let mut session = rustls::ClientConnection::new(Arc::clone(&self.0), server).unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut stream).map_err(|e| e.to_string())?;
        }
        Ok(rustls::StreamOwned::new(session, stream))
    }
}

/// A JSON configuration of one TLS server with these policies; certificates tagged by their stem.
fn config(authority: &Authority, port: u16, certificates: &[&str], policies: Value) -> Value {
    let file = |stem: &&str| {
        json!({
            "certificate": authority.path(&format!("{stem}.crt")),
            "key": authority.path(&format!("{stem}.key")),
            "tags": [stem],
        })
    };
    json!({
        "admin": {"disabled": true},
        "apps": {
            "http": {"servers": {"srv0": {
                "listen": [format!("127.0.0.1:{port}")],
                "automatic_https": {"disable": true},
                "tls_connection_policies": policies,
                "routes": [{"handle": [{"handler": "static_response", "body": BODY}]}],
            }}},
            "tls": {"certificates": {"load_files": certificates.iter().map(file).collect::<Vec<_>>()}},
        },
    })
}

const BODY: &str = "{http.request.tls.version} resumed={http.request.tls.resumed} {http.request.tls.client.subject}";

fn start(which: Which, config: &Value, port: u16) -> Proxy {
    Proxy::start_with(which, "config.json", &config.to_string(), port, |_| {})
}

/// Everything until the peer closes, and how long that took.
fn until_closed(stream: &mut TcpStream) -> (Vec<u8>, Duration) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (began, mut bytes, mut buf) = (Instant::now(), Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return (bytes, began.elapsed()),
            Ok(n) => bytes.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return (bytes, began.elapsed()),
            Err(e) => panic!("{e}: not closed after {:?}", began.elapsed()),
        }
    }
}

#[test]
fn what_is_not_tls_is_told_so_or_closed() {
    let authority = Authority::new();
    authority.leaf("a", &["a.test"]);
    let both = [Which::Llmproxy, Which::Caddy];
    let mut told = Vec::new();
    for which in both.into_iter().filter(|w| *w == Which::Llmproxy || caddy_or_skip()) {
        let port = free_port();
        let proxy = start(which, &config(&authority, port, &["a"], json!([{}])), port);
        let mut answers = Vec::new();
        let huge = {
            // A client hello of 70,000 bytes over five records.
            let mut handshake = vec![1, 1, 17, 112, 3, 3];
            handshake.resize(70_000, 0);
            let records = handshake.chunks(16_000).flat_map(|part| {
                let length = u16::try_from(part.len()).unwrap().to_be_bytes();
                [&[22, 3, 1, length[0], length[1]], part].concat()
            });
            records.collect::<Vec<_>>()
        };
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"[..],
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\n{}",
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            &[0; 100],
            &huge,
        ] {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            // The huge one may be refused before its end.
            let _ = stream.write_all(bytes);
            let (answer, after) = until_closed(&mut stream);
            assert!(after < Duration::from_secs(5), "{which:?} {:?}: {after:?}", &bytes[..5]);
            answers.push(if answer.starts_with(b"HTTP/") { String::from_utf8(answer).unwrap() } else { String::new() });
        }
        assert!(client(&authority, None, |_| {}).get(port, "a.test").is_ok(), "{which:?} still serves");
        told.push((answers, proxy.pid()));
    }
    let expected = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    for (answers, _) in &told {
        assert_eq!(answers[..2], [expected, expected]);
        assert!(answers[2..].iter().all(String::is_empty), "{answers:?}");
    }
}

#[test]
fn a_slow_hello_and_a_silent_client_are_ended() {
    let authority = Authority::new();
    authority.leaf("a", &["a.test"]);
    let port = free_port();
    let mut told = config(&authority, port, &["a"], json!([{}]));
    told["apps"]["http"]["servers"]["srv0"]["read_header_timeout"] = json!("1s");
    let _proxy = start(Which::Llmproxy, &told, port);
    let mut silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut dripping = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let began = Instant::now();
    dripping.write_all(&[22, 3, 1, 1, 0]).unwrap();
    // A byte now and then does not prolong it.
    while dripping.write_all(&[1]).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(10), "a slow hello is waited for");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    until_closed(&mut silent);
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// What each client gets under each `client_authentication`: ours and Caddy's answers beside one another.
#[test]
fn client_certificates_are_asked_for_and_believed_as_in_caddy() {
    let authority = Authority::new();
    authority.leaf("a", &["a.test"]);
    let good = authority.leaf("good", &["client"]);
    authority.leaf("other", &["client"]);
    authority.issue("servers", &["client"], &KeyPair::generate().unwrap(), |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    expired(&authority);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["stranger".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let stranger = params.self_signed(&key).unwrap().pem();
    authority.write("stranger.crt", &stranger);
    authority.write("stranger.key", &key.serialize_pem());
    let folder = authority.folder.path().join("leaves");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("good.pem"), &good).unwrap();

    let ca = json!({"provider": "file", "pem_files": [authority.path("ca.pem")]});
    let der = |pem: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
    };
    let leaf = |loader: Value| json!([{"verifier": "leaf", "leaf_certs_loaders": [loader]}]);
    let settings = [
        json!({"mode": "request"}),
        json!({"mode": "require"}),
        json!({"mode": "verify_if_given", "ca": ca}),
        json!({"mode": "require_and_verify", "ca": ca}),
        json!({"ca": {"provider": "inline", "trusted_ca_certs": [der(&authority.issuer.pem())]}}),
        json!({"ca": {"provider": "combined", "sources": [ca]}}),
        json!({"trusted_ca_certs_pem_files": [authority.path("ca.pem")]}),
        json!({"trusted_ca_certs": [der(&authority.issuer.pem()), der(&stranger)]}),
        json!({"ca": ca, "trusted_leaf_certs": [der(&good)]}),
        json!({"ca": ca, "verifiers": leaf(json!({"loader": "file", "files": [authority.path("good.crt")]}))}),
        json!({"ca": ca, "verifiers": leaf(json!({"loader": "folder", "folders": [folder]}))}),
        json!({"mode": "verify_if_given", "ca": ca, "verifiers": leaf(json!({"loader": "pem", "certificates": [good]}))}),
        json!({"mode": "request", "verifiers": leaf(json!({"loader": "pem", "certificates": [stranger]}))}),
    ];
    let clients = [None, Some("good"), Some("other"), Some("servers"), Some("old"), Some("stranger")];
    let mut let_in = 0;
    for setting in &settings {
        let answers = |which| {
            let port = free_port();
            let policies = json!([{"client_authentication": setting}]);
            let mut told = config(&authority, port, &["a"], policies);
            told["apps"]["http"]["servers"]["srv0"]["routes"][0]["handle"][0]["body"] = json!(
                "{http.request.tls.client.subject} {http.request.tls.client.serial} {http.request.tls.client.san.dns_names.0} {http.request.tls.client.fingerprint}"
            );
            let _proxy = start(which, &told, port);
            clients.map(|stem| {
                let body = client(&authority, stem, |_| {}).get(port, "a.test").ok()?.0;
                // Of no certificate Caddy tells the serial number `<nil>` and the hash of nothing.
                Some(if stem.is_some() { body } else { String::new() })
            })
        };
        let ours = answers(Which::Llmproxy);
        let_in += ours.iter().flatten().count();
        if caddy_or_skip() {
            assert_eq!(ours, answers(Which::Caddy), "{setting}, clients {clients:?}");
        }
    }
    assert!(let_in > 10 && let_in < settings.len() * clients.len(), "{let_in}");
}

#[test]
fn policies_and_certificates_are_chosen_as_in_caddy() {
    let authority = Authority::new();
    let (ecdsa, rsa) = (&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256);
    let make = |stem: &str, names: &[&str], algorithm, serial: u64, organization: &str| {
        authority.issue(stem, names, &KeyPair::generate_for(algorithm).unwrap(), |params| {
            params.serial_number = Some(serial.into());
            params.distinguished_name.push(DnType::OrganizationName, organization);
        })
    };
    make("ecdsa", &["a.test", "*.a.test"], ecdsa, 1000, "One");
    make("rsa", &["a.test", "*.a.test"], rsa, 1001, "Two");
    make("b", &["b.test"], ecdsa, 1002, "Two");
    make("ip", &["127.0.0.1"], ecdsa, 1003, "Two");
    let leaf_of = |stem: &str| CertificateDer::from_pem_file(authority.path(&format!("{stem}.crt"))).unwrap().to_vec();
    let leaves: Vec<_> = ["ecdsa", "rsa", "b", "ip"].iter().map(|stem| (*stem, leaf_of(stem))).collect();
    let both = ["ecdsa", "rsa"];
    // With the certificates of which Caddy serves one or the other, by the order of a map, to whom both are for.
    let cases: [(serde_json::Value, &[&str]); 15] = [
        (json!([{}]), &both),
        (json!([{"match": {"sni": ["b.test"]}}, {"match": {"sni": ["*.a.test"]}, "protocol_max": "tls1.2"}]), &both),
        (json!([{"match": {"sni_regexp": {"pattern": "^(x|b)\\."}}, "drop": true}, {"protocol_min": "tls1.3"}]), &both),
        (json!([{"match": {"remote_ip": {"ranges": ["127.0.0.0/8"], "not_ranges": ["127.0.0.1"]}}}]), &both),
        (json!([{"match": {"remote_ip": {"ranges": ["127.0.0.0/8"]}, "sni": ["a.test"]}}]), &both),
        (json!([{"match": {"local_ip": {"ranges": ["127.0.0.1"]}}}]), &both),
        (json!([{"match": {"local_ip": {"ranges": ["192.0.2.1"]}}}]), &both),
        (json!([{"certificate_selection": {"public_key_algorithm": "rsa"}}]), &[]),
        (
            json!([{"certificate_selection": {"subject_organization": ["Two"], "public_key_algorithm": "ecdsa"}}]),
            &["b", "ip"],
        ),
        (json!([{"certificate_selection": {"serial_number": ["1002"]}}]), &[]),
        (json!([{"certificate_selection": {"any_tag": ["rsa", "none"]}}]), &[]),
        (json!([{"certificate_selection": {"all_tags": ["ecdsa"]}}]), &[]),
        (json!([{"certificate_selection": {"all_tags": ["ecdsa", "rsa"]}}]), &[]),
        (json!([{"default_sni": "b.test"}]), &both),
        (json!([{"fallback_sni": "b.test"}]), &both),
    ];
    // Served names are not checked: what is served to whom is the question.
    let free = client(&authority, None, |config| {
        config.dangerous().set_certificate_verifier(Arc::new(AnyServer));
        config.resumption = rustls::client::Resumption::disabled();
    });
    // Its name alone, so no other is as good.
    let own_name = |stem: &str, name: &str| matches!((stem, name), ("b", "b.test") | ("ip", "127.0.0.1"));
    for (policies, either) in &cases {
        let answers = |which| {
            let port = free_port();
            let _proxy = start(which, &config(&authority, port, &["ecdsa", "rsa", "b", "ip"], policies.clone()), port);
            ["a.test", "x.a.test", "b.test", "c.test", "127.0.0.1"].map(|name| {
                let (body, leaf) = free.get(port, name).ok()?;
                let stem = leaves.iter().find(|(_, der)| *der == leaf).map(|(stem, _)| *stem);
                Some((name, stem.unwrap(), body))
            })
        };
        let ours = answers(Which::Llmproxy);
        if caddy_or_skip() {
            for (ours, caddys) in ours.into_iter().zip(answers(Which::Caddy)) {
                if let (Some((name, own, body)), Some((other_name, other, other_body))) = (&ours, &caddys)
                    && either.contains(own)
                    && either.contains(other)
                    && !own_name(own, name)
                {
                    assert_eq!((name, body), (other_name, other_body), "{policies}");
                } else {
                    assert_eq!(ours, caddys, "{policies}");
                }
            }
        }
    }
}

#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn reload(proxy: &Proxy, config: &Value) -> std::process::Output {
    std::fs::write(&proxy.config, config.to_string()).unwrap();
    run_within(proxy.command(Which::Llmproxy).arg("reload"), Duration::from_secs(20))
}

#[test]
fn sessions_are_resumed_over_workers_and_reloads_but_not_past_client_certificates() {
    let authority = Authority::new();
    authority.leaf("a", &["a.test"]);
    authority.leaf("good", &["client"]);
    let port = free_port();
    let plain = config(&authority, port, &["a"], json!([{}]));
    let proxy = start(Which::Llmproxy, &plain, port);
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
    let clients = versions.map(|version| {
        client(&authority, Some("good"), |config| {
            let provider = Arc::clone(config.crypto_provider());
            let builder =
                rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
            let mut roots = rustls::RootCertStore::empty();
            roots.add(authority.issuer.der().clone()).unwrap();
            let resolver = Arc::clone(&config.client_auth_cert_resolver);
            *config = builder.with_root_certificates(roots).with_client_cert_resolver(resolver);
        })
    });
    let resumed = |client: &Client| client.get(port, "a.test").unwrap().0.contains("resumed=true");
    for client in &clients {
        assert!(!resumed(client));
        // More connections than workers, so that several of them meet the ticket.
        assert!((0..8).all(|_| resumed(client)));
    }
    assert!(reload(&proxy, &plain).status.success());
    assert!(clients.iter().all(resumed), "after a reload");
    // A session without a client certificate must not open a policy that asks for one.
    let asked = json!([{"client_authentication": {"mode": "require"}}]);
    assert!(reload(&proxy, &config(&authority, port, &["a"], asked)).status.success());
    for client in &clients {
        assert!(!resumed(client), "resumed past the question for a certificate");
        assert!(resumed(client), "then within it");
        assert!(client.get(port, "a.test").unwrap().0.contains("CN=good"), "and the certificate is known");
    }
    // Any certificate will do here, also one that has expired: but a session does not outlive it.
    expired(&authority);
    let old = client(&authority, Some("old"), |_| {});
    assert!(!(0..3).any(|_| resumed(&old)), "resumed with an expired certificate");
    let mut off = plain.clone();
    off["apps"]["tls"]["session_tickets"] = json!({"disabled": true});
    assert!(reload(&proxy, &off).status.success());
    assert!(!clients.iter().any(|client| resumed(client) || resumed(client)), "turned off");
    let mut short = plain;
    short["apps"]["tls"]["session_tickets"] = json!({"rotation_interval": "1s", "max_keys": 1});
    assert!(reload(&proxy, &short).status.success());
    for client in &clients {
        assert!(!resumed(client));
        std::thread::sleep(Duration::from_millis(1100));
        assert!(!resumed(client), "its key was forgotten");
    }
}

#[test]
fn connections_made_before_client_certificates_were_asked_for_do_not_reach_what_asks() {
    let authority = Authority::new();
    authority.leaf("a", &["a.test"]);
    authority.leaf("good", &["client"]);
    let port = free_port();
    let mode = |mode: &str| config(&authority, port, &["a"], json!([{"client_authentication": {"mode": mode}}]));
    let proxy = start(Which::Llmproxy, &mode("request"), port);
    let open = |stem| Connection::over(client(&authority, stem, |_| {}).open(port, "a.test").unwrap());
    let (mut with, mut without, mut silent) = (open(Some("good")), open(None), open(None));
    let status = |connection: &mut Connection<_>| {
        connection.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        connection.response().unwrap().status()
    };
    assert_eq!((status(&mut with), status(&mut without)), (200, 200));
    assert!(reload(&proxy, &mode("require")).status.success());
    assert_eq!((status(&mut with), status(&mut without), status(&mut silent)), (200, 421, 421));
    assert!(without.closes() && silent.closes());
}

#[test]
fn certificate_files_are_taken_up_when_they_are_whole() {
    let authority = Authority::new();
    let first = authority.leaf("a", &["a.test"]);
    let port = free_port();
    let site = format!(
        "{{\n\tadmin off\n\tauto_https off\n}}\nhttps://a.test:{port} {{\n\tbind 127.0.0.1\n\ttls {} {}\n\trespond ok\n}}\n",
        authority.path("a.crt"),
        authority.path("a.key")
    );
    let proxy = Proxy::start(Which::Llmproxy, &site, port);
    // A resumed session shows the certificate of its beginning.
    let client = client(&authority, None, |config| config.resumption = rustls::client::Resumption::disabled());
    let served = || CertificateDer::from(client.get(port, "a.test").unwrap().1);
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    assert_eq!(served(), der(&first));
    let second = Authority { issuer: authority.issuer, folder: tempfile::tempdir().unwrap() };
    let pem = second.leaf("a", &["a.test"]);
    let put = |file: &str| std::fs::copy(second.path(file), authority.folder.path().join(file)).unwrap();
    put("a.crt");
    let began = Instant::now();
    while !proxy.log().contains("certificate-wrong-key") {
        assert_eq!(served(), der(&first), "half of a pair is not served");
        assert!(began.elapsed() < Duration::from_secs(20), "{}", proxy.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    put("a.key");
    while served() != der(&pem) {
        assert!(began.elapsed() < Duration::from_secs(40), "{}", proxy.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!proxy.log().contains("PRIVATE KEY"));
}

#[test]
fn a_folder_of_certificates_is_searched_and_watched() {
    let authority = Authority::new();
    let port = free_port();
    let folder = authority.folder.path().join("site/deep");
    std::fs::create_dir_all(&folder).unwrap();
    let both = |stem: &str, names: &[&str]| {
        let chain = authority.leaf(stem, names);
        let key = std::fs::read_to_string(authority.path(&format!("{stem}.key"))).unwrap();
        std::fs::write(folder.join(format!("{stem}.PEM")), format!("{key}{chain}")).unwrap();
    };
    both("a", &["a.test"]);
    let mut told = config(&authority, port, &[], json!([{}]));
    told["apps"]["tls"]["certificates"] = json!({"load_folders": [authority.path("site")]});
    let _proxy = start(Which::Llmproxy, &told, port);
    let client = client(&authority, None, |_| {});
    assert!(client.get(port, "a.test").is_ok());
    assert!(client.get(port, "b.test").is_err());
    both("b", &["b.test"]);
    let began = Instant::now();
    while client.get(port, "b.test").is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "the new file is not seen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn certificates_that_no_client_would_take_are_refused_at_validate() {
    let authority = Authority::new();
    authority.leaf("a", &["a.test", "*.w.test"]);
    authority.leaf("b", &["b.test"]);
    authority.issue("old", &["a.test"], &KeyPair::generate().unwrap(), |params| {
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(2);
        params.not_after = time::OffsetDateTime::now_utc() - time::Duration::days(1);
    });
    authority.issue("early", &["a.test"], &KeyPair::generate().unwrap(), |params| {
        params.not_before = time::OffsetDateTime::now_utc() + time::Duration::days(1);
    });
    authority.write("empty", "");
    let secret = std::fs::read_to_string(authority.path("a.key")).unwrap().replace("PRIVATE", "ENCRYPTED PRIVATE");
    authority.write("locked.key", &secret);
    let path = |file: &str| authority.path(file);
    let run = |site: &str, certificate: &str, key: &str| {
        let file = authority.folder.path().join("Proxyfile");
        let text = format!("{site} {{\n\ttls {} {}\n\trespond ok\n}}\n", path(certificate), path(key));
        std::fs::write(&file, text).unwrap();
        let mut command = crate::harness::process::command(Which::Llmproxy, authority.folder.path());
        run_within(command.arg("validate").arg("--config").arg(&file), Duration::from_secs(20))
    };
    for (site, certificate, key, code, named) in [
        ("a.test", "a.crt", "b.key", "certificate-wrong-key", "b.key"),
        ("a.test", "old.crt", "old.key", "certificate-expired", "old.crt"),
        ("c.test", "a.crt", "a.key", "certificate-wrong-name", "a.crt"),
        ("a.test", "missing.crt", "a.key", "certificate-not-usable", "missing.crt"),
        ("a.test", "a.crt", "missing.key", "certificate-not-usable", "missing.key"),
        ("a.test", "empty", "a.key", "certificate-not-usable", "empty"),
        ("a.test", "a.crt", "empty", "certificate-not-usable", "empty"),
        ("a.test", "a.crt", "a.crt", "certificate-not-usable", "a.crt"),
        ("a.test", "a.crt", "locked.key", "encrypted-key", "locked.key"),
    ] {
        let output = run(site, certificate, key);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{certificate} {key}: {said}");
        assert!(said.contains(code) && said.contains(named), "{code}: {said}");
        assert!(said.contains("Proxyfile:2"), "the place: {said}");
        assert!(!said.contains(secret.lines().nth(1).unwrap()), "shows the key");
    }
    let early = run("a.test", "early.crt", "early.key");
    assert!(early.status.success(), "{early:?}");
    assert!(String::from_utf8_lossy(&early.stderr).contains("certificate-not-valid-yet"), "{early:?}");
    for site in ["a.test", "x.w.test", "*.w.test"] {
        assert!(run(site, "a.crt", "a.key").status.success(), "{site}");
    }
}

#[test]
fn protocols_ciphers_key_exchange_and_resumption_are_as_told() {
    let (http, https, storage) = (free_port(), free_port(), tempfile::tempdir().unwrap());
    let folder = storage.path().display();
    let text = format!(
        "{{\n\tadmin off\n\tskip_install_trust\n\thttp_port {http}\n\thttps_port {https}\n\tstorage file_system {folder}\n}}\nlocalhost {{\n\trespond ok\n}}\n"
    );
    let _proxy = Proxy::start(Which::Llmproxy, &text, https);
    let mut command = std::process::Command::new("python3");
    command.arg(repository().join("tests/tls/check.py")).args([&https.to_string(), "localhost"]);
    let output =
        run_within(command.arg(storage.path().join("pki/authorities/local/root.crt")), Duration::from_secs(60));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.lines().count() > 20, "{said}");
}

#[test]
fn keys_of_every_kind_and_form_are_served() {
    let authority = Authority::new();
    let folder = authority.folder.path();
    let openssl = |args: &[&str]| {
        let mut command = std::process::Command::new("openssl");
        let output = run_within(command.args(args).current_dir(folder), Duration::from_secs(60));
        assert!(output.status.success(), "{args:?}: {output:?}");
    };
    let made = [
        ("rsa-pkcs8", vec!["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
        ("p256-sec1", vec!["ecparam", "-name", "prime256v1", "-genkey", "-noout"]),
        // With the block `EC PARAMETERS` in front of the key.
        ("p384-params", vec!["ecparam", "-name", "secp384r1", "-genkey"]),
        ("ed25519", vec!["genpkey", "-algorithm", "ED25519"]),
    ];
    for (stem, args) in &made {
        let key = format!("{stem}.key");
        openssl(&[&args[..], &["-out", &key]].concat());
    }
    openssl(&["rsa", "-in", "rsa-pkcs8.key", "-traditional", "-out", "rsa-pkcs1.key"]);
    let free = client(&authority, None, |config| config.dangerous().set_certificate_verifier(Arc::new(AnyServer)));
    for stem in ["rsa-pkcs8", "rsa-pkcs1", "p256-sec1", "p384-params", "ed25519"] {
        let (key, out) = (format!("{stem}.key"), format!("{stem}.crt"));
        let args = ["req", "-x509", "-new", "-key", &key, "-out", &out, "-days", "2", "-subj", "/CN=a.test"];
        openssl(&[&args[..], &["-addext", "subjectAltName=DNS:a.test"]].concat());
        let port = free_port();
        let _proxy = start(Which::Llmproxy, &config(&authority, port, &[stem], json!([{}])), port);
        let leaf = CertificateDer::from_pem_file(Path::new(&authority.path(&out))).unwrap();
        assert_eq!(free.get(port, "a.test").unwrap().1, leaf.to_vec(), "{stem}");
    }
}
