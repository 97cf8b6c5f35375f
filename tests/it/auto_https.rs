//! Automatic HTTPS with the internal CA: certificates made, kept, renewed; redirects; one storage with Caddy.

use crate::harness::client;
use crate::harness::process::{Proxy, Which, caddy_or_skip, free_port};
use crate::harness::tls;
use std::path::Path;
use std::time::{Duration, Instant};

/// A file with both ports of its own and `storage` as its certificate folder.
fn file(http: u16, https: u16, storage: &Path, sites: &str) -> String {
    let storage = storage.display();
    format!(
        "{{\n\tadmin off\n\tskip_install_trust\n\thttp_port {http}\n\thttps_port {https}\n\tstorage file_system {storage}\n}}\n{sites}"
    )
}

fn root(storage: &Path) -> String {
    std::fs::read_to_string(storage.join("pki/authorities/local/root.crt")).unwrap()
}

fn body_over_tls(port: u16, name: &str, authority: &str) -> String {
    tls::get(port, name, authority).unwrap().text()
}

const SITES: &str = "localhost, *.apps.localhost {\n\trespond \"secure {host}\"\n}\n";

#[test]
fn local_names_are_served_over_tls_and_plain_http_is_redirected() {
    let (http, https, storage) = (free_port(), free_port(), tempfile::tempdir().unwrap());
    let plain = format!("http://plain.test {{\n\trespond plain\n}}\n{SITES}");
    let proxy = Proxy::start(Which::Llmproxy, &file(http, https, storage.path(), &plain), https);
    let authority = root(storage.path());
    assert_eq!(body_over_tls(https, "localhost", &authority), "secure localhost");
    assert_eq!(body_over_tls(https, "x.apps.localhost", &authority), "secure x.apps.localhost");

    let answer = client::get_of(http, "localhost", "/a?b=c");
    assert_eq!((answer.status(), answer.header("location")), (308, Some("https://localhost/a?b=c")));
    assert_eq!(client::get_of(http, "plain.test", "/").text(), "plain");
    // Hosts that no site has: as in Caddy, blindly.
    assert_eq!(client::get_of(http, "other.test", "/").header("location"), Some("https://other.test/"));

    let status = proxy.command(Which::Llmproxy).args(["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let names: Vec<&str> =
        status["certificates"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["*.apps.localhost", "localhost"]);
    assert!(!proxy.log().contains("PRIVATE KEY"));
}

#[test]
fn a_site_added_by_a_reload_has_its_certificate_at_once() {
    let (http, https, storage) = (free_port(), free_port(), tempfile::tempdir().unwrap());
    let proxy = Proxy::start(Which::Llmproxy, &file(http, https, storage.path(), SITES), https);
    let authority = root(storage.path());
    let more = format!("{SITES}b.localhost {{\n\trespond added\n}}\n");
    std::fs::write(&proxy.config, file(http, https, storage.path(), &more)).unwrap();
    let output = proxy.command(Which::Llmproxy).arg("reload").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(body_over_tls(https, "b.localhost", &authority), "added");
    assert_eq!(body_over_tls(https, "localhost", &authority), "secure localhost");
}

#[test]
fn a_certificate_is_renewed_in_time_while_it_is_served() {
    let (http, https, storage) = (free_port(), free_port(), tempfile::tempdir().unwrap());
    let site = "localhost {\n\ttls {\n\t\tissuer internal {\n\t\t\tlifetime 6s\n\t\t}\n\t}\n\trespond short\n}\n";
    let proxy = Proxy::start(Which::Llmproxy, &file(http, https, storage.path(), site), https);
    let authority = root(storage.path());
    let mut seen: Vec<(Vec<u8>, Instant)> = Vec::new();
    while seen.len() < 3 {
        // A client verifies by the clock: a certificate that expired would fail here.
        let mut connection = tls::connect(https, "localhost", &authority);
        connection.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = connection.response().unwrap_or_else(|why| panic!("{why:?}: {}", proxy.log()));
        assert_eq!(answer.text(), "short");
        let leaf = connection.stream.conn.peer_certificates().unwrap()[0].to_vec();
        let last = seen.last().map_or(Duration::ZERO, |(_, when)| when.elapsed());
        if seen.last().is_none_or(|(before, _)| *before != leaf) {
            seen.push((leaf, Instant::now()));
            // Two thirds of six seconds, less what is lost to whole seconds: no sooner, so that a CA is not asked all
            // the time (of the first, some of the time has passed before it was seen).
            assert!(seen.len() < 3 || last > Duration::from_millis(2500), "renewed after {last:?}: {}", proxy.log());
        } else {
            assert!(last < Duration::from_secs(6), "not renewed: {}", proxy.log());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(proxy.log().matches("certificate obtained").count(), 3, "{}", proxy.log());
}

#[test]
fn the_storage_of_caddy_is_taken_over_and_the_other_way_round() {
    if !caddy_or_skip() {
        return;
    }
    let storage = tempfile::tempdir().unwrap();
    let mut seen: Option<(String, Vec<u8>)> = None;
    for which in [Which::Caddy, Which::Llmproxy, Which::Caddy] {
        let (http, https) = (free_port(), free_port());
        let proxy = Proxy::start(which, &file(http, https, storage.path(), SITES), https);
        let leaf = storage.path().join("certificates/local/localhost/localhost.crt");
        let began = Instant::now();
        // Caddy keeps a certificate a moment before it serves it.
        while !(leaf.exists() && tls::get(https, "localhost", &root(storage.path())).is_ok()) {
            assert!(began.elapsed() < Duration::from_secs(10), "{which:?}: {}", proxy.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        let now = (root(storage.path()), std::fs::read(&leaf).unwrap());
        assert_eq!(body_over_tls(https, "localhost", &now.0), "secure localhost", "{which:?}");
        if let Some(before) = seen.replace(now.clone()) {
            assert!(before == now, "{which:?} made its own");
        }
    }
}

#[test]
fn a_storage_that_cannot_be_written_does_not_stop_what_is_kept() {
    use std::os::unix::fs::PermissionsExt;
    let storage = tempfile::tempdir().unwrap();
    let start = || {
        let (http, https) = (free_port(), free_port());
        (Proxy::start(Which::Llmproxy, &file(http, https, storage.path(), SITES), https), https)
    };
    drop(start());
    let authority = root(storage.path());
    let folder = storage.path().join("certificates/local/localhost");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o500)).unwrap();
    std::fs::remove_dir_all(storage.path().join("locks")).unwrap();
    std::fs::write(storage.path().join("locks"), "in the way").unwrap();
    let (_proxy, https) = start();
    assert_eq!(body_over_tls(https, "localhost", &authority), "secure localhost");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
}
