//! Certificates on demand: had in the handshake, once for all who wait, for the names that somebody vouches for; and
//! certificates that another program hands out.

use crate::harness::client::NoResponse;
use crate::harness::pebble::{Pebble, installed_or_skip};
use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::tls;
use crate::harness::upstream::{read_head, spawn};
use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Whom the proxy asks: for permission at `/ask`, for certificates at `/certificate`. Answers by name.
struct Voucher {
    port: u16,
    shared: Arc<Mutex<Said>>,
}

#[derive(Default)]
struct Said {
    asked: Vec<String>,
    /// Name → status, and how long to wait before it is told; 403 for others.
    answers: HashMap<String, (u16, Duration)>,
    /// Name → bundle.
    certificates: HashMap<String, String>,
}

impl Voucher {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Mutex<Said>>::default();
        let serving = Arc::clone(&shared);
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                spawn(move || {
                    let Ok(Some(request)) = read_head(&mut BufReader::new(&stream)) else { return };
                    let parameter = |wanted: &str| {
                        let query = request.target.split_once('?').map_or("", |(_, query)| query);
                        query
                            .split('&')
                            .filter_map(|pair| pair.split_once('='))
                            .find(|(n, _)| *n == wanted)
                            .map(|(_, v)| v)
                    };
                    let name = parameter("domain").or(parameter("server_name")).unwrap().to_owned();
                    let (status, wait, body) = {
                        let mut said = shared.lock().unwrap();
                        said.asked.push(request.target.clone());
                        if request.path() == "/certificate" {
                            match said.certificates.get(&name) {
                                Some(bundle) => (200, Duration::ZERO, bundle.clone()),
                                None => (204, Duration::ZERO, String::new()),
                            }
                        } else {
                            let (status, wait) = said.answers.get(&name).copied().unwrap_or((403, Duration::ZERO));
                            (status, wait, String::new())
                        }
                    };
                    std::thread::sleep(wait);
                    let length =
                        if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
                    let location = if status == 302 { "Location: /ask?domain=yes.test\r\n" } else { "" };
                    let _ = write!(&stream, "HTTP/1.1 {status} Said\r\n{location}{length}\r\n{body}");
                });
            }
        });
        Self { port, shared }
    }

    fn answer(&self, name: &str, status: u16, wait: Duration) {
        self.shared.lock().unwrap().answers.insert(name.to_owned(), (status, wait));
    }

    fn hand_out(&self, name: &str, lifetime: time::Duration) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = time::OffsetDateTime::now_utc() + lifetime;
        let certificate = params.self_signed(&key).unwrap();
        let bundle = certificate.pem() + &key.serialize_pem();
        self.shared.lock().unwrap().certificates.insert(name.to_owned(), bundle);
        certificate.pem()
    }

    /// Everything asked of a name.
    fn asked(&self, name: &str) -> Vec<String> {
        let is_of = |target: &&String| target.contains(&format!("={name}&")) || target.ends_with(&format!("={name}"));
        self.shared.lock().unwrap().asked.iter().filter(is_of).cloned().collect()
    }
}

/// Options with an own pair of ports and storage; permission is asked of the voucher.
fn options(https: u16, storage: &Path, voucher: &Voucher) -> String {
    format!(
        "{{\n\tadmin off\n\tskip_install_trust\n\thttp_port {}\n\thttps_port {https}\n\tstorage file_system {}\n\ton_demand_tls {{\n\t\task http://127.0.0.1:{}/ask\n\t}}\n}}\n",
        free_port(),
        storage.display(),
        voucher.port
    )
}

const ANY: &str = "https:// {\n\ttls internal {\n\t\ton_demand\n\t}\n\trespond \"here is {host}\"\n}\n";

fn root(storage: &Path) -> String {
    // Made with the first certificate.
    std::fs::read_to_string(storage.join("pki/authorities/local/root.crt")).unwrap_or_else(|_| other_root())
}

/// A root that nobody here has signed with.
fn other_root() -> String {
    rcgen::generate_simple_self_signed(vec!["nobody.test".to_owned()]).unwrap().cert.pem()
}

fn body(https: u16, name: &str, storage: &Path) -> Result<String, NoResponse> {
    // The first handshake makes the root, so that the client cannot know it before.
    let _ = tls::get(https, name, &root(storage));
    tls::get(https, name, &root(storage)).map(|response| response.text())
}

#[test]
fn a_name_that_is_vouched_for_gets_a_certificate_when_it_is_asked_for() {
    let (https, storage, voucher) = (free_port(), tempfile::tempdir().unwrap(), Voucher::start());
    let file = options(https, storage.path(), &voucher) + ANY;
    for (name, status) in [("yes.test", 200), ("also.test", 204), ("moved.test", 302), ("broken.test", 500)] {
        voucher.answer(name, status, Duration::ZERO);
    }
    let proxy = Proxy::start(Which::Llmproxy, &file, https);
    assert!(!storage.path().join("certificates").exists());
    assert_eq!(body(https, "yes.test", storage.path()).unwrap(), "here is yes.test");
    assert_eq!(body(https, "also.test", storage.path()).unwrap(), "here is also.test");
    for name in ["no.test", "moved.test", "broken.test"] {
        assert!(body(https, name, storage.path()).is_err(), "{name}");
        // Twice shaken hands, asked once.
        assert_eq!(voucher.asked(name).len(), 1, "{name}");
        assert!(!storage.path().join("certificates/local").join(name).exists());
    }
    // What cannot be a host's name is nobody asked about.
    assert!(body(https, "under_score.test", storage.path()).is_err());
    assert!(voucher.asked("under_score.test").is_empty());
    assert_eq!(voucher.asked("yes.test"), ["/ask?domain=yes.test"]);

    let status = proxy.command(Which::Llmproxy).args(["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let told: Vec<_> =
        status["certificates"].as_array().unwrap().iter().map(|c| (&c["name"], &c["on_demand"])).collect();
    assert_eq!(serde_json::json!(told), serde_json::json!([["also.test", true], ["yes.test", true]]));

    // A reload keeps what is held, and goes on with more.
    let output = proxy.command(Which::Llmproxy).arg("reload").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(body(https, "yes.test", storage.path()).unwrap(), "here is yes.test");
    assert_eq!(voucher.asked("yes.test").len(), 1, "asked again after a reload");
    drop(proxy);

    // A restart finds the certificate, and asks permission anew, as Caddy does.
    let kept = std::fs::read(storage.path().join("certificates/local/yes.test/yes.test.crt")).unwrap();
    let _proxy = Proxy::start(Which::Llmproxy, &file, https);
    assert_eq!(body(https, "yes.test", storage.path()).unwrap(), "here is yes.test");
    assert_eq!(voucher.asked("yes.test").len(), 2);
    assert_eq!(std::fs::read(storage.path().join("certificates/local/yes.test/yes.test.crt")).unwrap(), kept);
}

#[test]
fn many_handshakes_make_one_question_and_others_are_not_held_up() {
    let (https, storage, voucher) = (free_port(), tempfile::tempdir().unwrap(), Voucher::start());
    voucher.answer("warm.test", 200, Duration::ZERO);
    voucher.answer("slow.test", 200, Duration::from_millis(1500));
    let file = options(https, storage.path(), &voucher) + ANY;
    // One worker: a handshake that waited for others would show.
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &file, https, |command| {
        command.args(["--workers", "1"]);
    });
    assert_eq!(body(https, "warm.test", storage.path()).unwrap(), "here is warm.test");
    let authority = root(storage.path());
    let began = Instant::now();
    let leaving = {
        let mut stream = TcpStream::connect(("127.0.0.1", https)).unwrap();
        let mut client = client_for("slow.test", &authority);
        client.write_tls(&mut stream).unwrap();
        stream
    };
    while voucher.asked("slow.test").is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10), "not asked: {}", proxy.log());
        std::thread::sleep(Duration::from_millis(2));
    }
    // The one for whom it was begun goes away: the others get theirs all the same.
    drop(leaving);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let authority = authority.clone();
            std::thread::spawn(move || tls::get(https, "slow.test", &authority).map(|r| r.text()).ok())
        })
        .collect();
    let before = Instant::now();
    assert_eq!(tls::get(https, "warm.test", &authority).unwrap().text(), "here is warm.test");
    assert!(before.elapsed() < Duration::from_millis(1000), "held up");
    for thread in waiting {
        assert_eq!(thread.join().unwrap().as_deref(), Some("here is slow.test"), "{}", proxy.log());
    }
    assert_eq!(voucher.asked("slow.test").len(), 1);
}

fn client_for(name: &str, authority: &str) -> rustls::ClientConnection {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    rustls::ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap()
}

#[test]
fn a_flood_of_names_leaves_others_alone_and_nothing_behind() {
    let (https, storage, voucher) = (free_port(), tempfile::tempdir().unwrap(), Voucher::start());
    voucher.answer("good.test", 200, Duration::ZERO);
    let proxy = Proxy::start(Which::Llmproxy, &(options(https, storage.path(), &voucher) + ANY), https);
    assert_eq!(body(https, "good.test", storage.path()).unwrap(), "here is good.test");
    let authority = root(storage.path());
    let flood: Vec<_> = (0..8)
        .map(|thread| {
            let authority = authority.clone();
            std::thread::spawn(move || {
                (0..50).filter(|i| tls::get(https, &format!("x{thread}-{i}.test"), &authority).is_ok()).count()
            })
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(tls::get(https, "good.test", &authority).unwrap().text(), "here is good.test");
    }
    assert_eq!(flood.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 0);
    let kept: Vec<_> = std::fs::read_dir(storage.path().join("certificates/local")).unwrap().collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(!proxy.log().contains("panicked"));
}

#[test]
fn names_that_nobody_vouches_for_are_served_from_memory_alone() {
    let (https, storage) = (free_port(), tempfile::tempdir().unwrap());
    let options = format!(
        "{{\n\tadmin off\n\tskip_install_trust\n\thttp_port {}\n\thttps_port {https}\n\tstorage file_system {}\n}}\n",
        free_port(),
        storage.path().display()
    );
    let named = "named.test {\n\ttls internal {\n\t\ton_demand\n\t}\n\trespond named\n}\n";
    let _proxy = Proxy::start(Which::Llmproxy, &(options + ANY + named), https);
    assert_eq!(body(https, "any.test", storage.path()).unwrap(), "here is any.test");
    assert_eq!(body(https, "named.test", storage.path()).unwrap(), "named");
    let kept = |name: &str| storage.path().join("certificates/local").join(name).exists();
    assert_eq!((kept("any.test"), kept("named.test")), (false, true));
}

#[test]
fn on_demand_certificates_are_renewed_when_they_are_used() {
    let (https, storage, voucher) = (free_port(), tempfile::tempdir().unwrap(), Voucher::start());
    voucher.answer("short.test", 200, Duration::ZERO);
    let site = "https:// {\n\ttls {\n\t\ton_demand\n\t\tissuer internal {\n\t\t\tlifetime 4s\n\t\t}\n\t}\n\trespond short\n}\n";
    let proxy = Proxy::start(Which::Llmproxy, &(options(https, storage.path(), &voucher) + site), https);
    assert_eq!(body(https, "short.test", storage.path()).unwrap(), "short");
    let kept = || std::fs::read(storage.path().join("certificates/local/short.test/short.test.crt")).unwrap();
    let (authority, first, began) = (root(storage.path()), kept(), Instant::now());
    while kept() == first {
        assert!(began.elapsed() < Duration::from_secs(20), "not renewed: {}", proxy.log());
        // A client verifies by the clock: a certificate that expired would fail here.
        assert_eq!(tls::get(https, "short.test", &authority).unwrap().text(), "short");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(voucher.asked("short.test").len(), 2, "asked anew for each certificate");
    // Taken back: the next renewal ends it.
    voucher.answer("short.test", 404, Duration::ZERO);
    while tls::get(https, "short.test", &authority).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(30), "still served: {}", proxy.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_ca_is_asked_once_for_a_name_that_many_want() {
    if !installed_or_skip() {
        return;
    }
    let (pebble, storage, voucher) = (Pebble::start(false, 3600), tempfile::tempdir().unwrap(), Voucher::start());
    voucher.answer("many.test", 200, Duration::ZERO);
    let ask = format!("\ton_demand_tls {{\n\t\task http://127.0.0.1:{}/ask\n\t}}\n", voucher.port);
    let site = "https:// {\n\ttls {\n\t\ton_demand\n\t}\n\trespond \"here is {host}\"\n}\n";
    let file = pebble.options(storage.path(), &ask) + site;
    let (port, authority) = (pebble.https_port, pebble.issuing_root());
    let proxy = Proxy::start(Which::Llmproxy, &file, port);
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let authority = authority.clone();
            std::thread::spawn(move || tls::get(port, "many.test", &authority).map(|r| r.text()).ok())
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().unwrap().as_deref(), Some("here is many.test"), "{}", proxy.log());
    }
    assert!(tls::get(port, "no.test", &authority).is_err());
    assert_eq!((pebble.orders(), voucher.asked("many.test").len()), (1, 1), "{}", proxy.log());
    drop(proxy);
    let proxy = Proxy::start(Which::Llmproxy, &file, port);
    assert_eq!(tls::get(port, "many.test", &authority).unwrap().text(), "here is many.test");
    assert_eq!(pebble.orders(), 1, "ordered again: {}", proxy.log());
}

#[test]
fn another_program_hands_out_certificates() {
    let (https, storage, voucher) = (free_port(), tempfile::tempdir().unwrap(), Voucher::start());
    let given = voucher.hand_out("given.test", time::Duration::hours(1));
    voucher.hand_out("old.test", time::Duration::hours(-1));
    voucher.answer("own.test", 200, Duration::ZERO);
    let site = format!(
        "given.test, old.test, own.test, none.test {{\n\ttls {{\n\t\tissuer internal\n\t\tget_certificate http http://127.0.0.1:{}/certificate?key=k\n\t}}\n\trespond \"here is {{host}}\"\n}}\n",
        voucher.port
    );
    let proxy = Proxy::start(Which::Llmproxy, &(options(https, storage.path(), &voucher) + &site), https);
    for _ in 0..3 {
        assert_eq!(tls::get(https, "given.test", &given).unwrap().text(), "here is given.test");
    }
    let asked = voucher.asked("given.test");
    assert_eq!(asked.len(), 1, "served from memory: {asked:?}");
    assert!(asked[0].starts_with("/certificate?cipher_suites=13") && asked[0].contains("&key=k&local_ip=127.0.0.1&"));
    assert!(asked[0].contains("&signature_schemes="), "{asked:?}");
    assert!(body(https, "old.test", storage.path()).is_err());
    // It has none: our own issuer, which is asked permission for.
    assert_eq!(body(https, "own.test", storage.path()).unwrap(), "here is own.test");
    assert!(body(https, "none.test", storage.path()).is_err());
    assert!(!proxy.log().contains("PRIVATE KEY"));
}
