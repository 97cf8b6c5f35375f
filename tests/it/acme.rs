//! Certificates from a real ACME server (Pebble), each challenge really asked: obtained, kept, renewed, and had again
//! after crashes, refusals and by several processes.

use crate::harness::pebble::{EAB_ID, EAB_KEY, Pebble, installed_or_skip};
use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::tls;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

const LONG: u64 = 90 * 24 * 3600;
const PATIENCE: Duration = Duration::from_secs(40);

fn body(port: u16, name: &str, authority: &str) -> Option<String> {
    tls::get(port, name, authority).ok().map(|response| response.text())
}

/// Waits until the site is served with a certificate of the CA.
fn wait_for(proxy: &Proxy, pebble: &Pebble, name: &str, wanted: &str) {
    let (began, authority) = (Instant::now(), pebble.issuing_root());
    while body(pebble.https_port, name, &authority).as_deref() != Some(wanted) {
        assert!(began.elapsed() < PATIENCE, "no certificate for {name}; it said:\n{}", proxy.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn start(pebble: &Pebble, storage: &Path, options: &str, sites: &str) -> Proxy {
    let file = pebble.options(storage, options) + sites;
    Proxy::start(Which::Llmproxy, &file, pebble.https_port)
}

fn site(name: &str, tls: &str) -> String {
    format!("{name} {{\n{tls}\n\trespond \"here is {name}\"\n}}\n")
}

fn issuer(pebble: &Pebble, lines: &str) -> String {
    let (url, root) = (pebble.url(), pebble.api_root());
    format!(
        "\ttls {{\n\t\tissuer acme {{\n\t\t\tdir {url}\n\t\t\ttrusted_roots {}\n{lines}\t\t}}\n\t}}\n",
        root.display()
    )
}

#[test]
fn each_challenge_gives_a_certificate_that_a_restart_finds_again() {
    if !installed_or_skip() {
        return;
    }
    let (pebble, storage) = (Pebble::start(false, LONG), tempfile::tempdir().unwrap());
    let sites = [
        site("a.test", ""),
        site("http.test", &issuer(&pebble, "\t\t\tdisable_tlsalpn_challenge\n")),
        site("alpn.test", &issuer(&pebble, "\t\t\tdisable_http_challenge\n")),
    ];
    let proxy = start(&pebble, storage.path(), "", &sites.concat());
    for name in ["a.test", "http.test", "alpn.test"] {
        wait_for(&proxy, &pebble, name, &format!("here is {name}"));
    }
    let orders = pebble.orders();
    assert!(orders >= 3, "{orders}");
    // What a CA asks and what is kept shows no key.
    assert!(!proxy.log().contains("PRIVATE KEY"), "{}", proxy.log());
    let open = |folder: &str| {
        let ca = std::fs::read_dir(storage.path().join("acme")).unwrap().next().unwrap().unwrap().path();
        std::fs::read_dir(ca.join(folder)).map_or(0, Iterator::count)
    };
    assert_eq!((open("orders"), open("challenge_tokens")), (0, 0));
    drop(proxy);

    let proxy = start(&pebble, storage.path(), "", &sites.concat());
    assert_eq!(body(pebble.https_port, "a.test", &pebble.issuing_root()).as_deref(), Some("here is a.test"));
    assert_eq!(pebble.orders(), orders, "ordered again: {}", proxy.log());
}

#[test]
fn a_restart_orders_nothing_and_one_without_the_storage_has_all_anew() {
    if !installed_or_skip() {
        return;
    }
    let (pebble, folder) = (Pebble::start(false, LONG), tempfile::tempdir().unwrap());
    let storage = folder.path().join("storage");
    let sites = site("a.test", "") + &site("b.test", "");
    let mut asked = Vec::new();
    for is_lost in [false, false, true] {
        if is_lost {
            std::fs::remove_dir_all(&storage).unwrap();
        }
        let proxy = start(&pebble, &storage, "", &sites);
        for name in ["a.test", "b.test"] {
            wait_for(&proxy, &pebble, name, &format!("here is {name}"));
            // It is served a moment before it is kept.
            let began = Instant::now();
            let is_kept = || {
                let issuers = std::fs::read_dir(storage.join("certificates")).into_iter().flatten().flatten();
                issuers.map(|issuer| issuer.path().join(name).join(format!("{name}.json"))).any(|file| file.exists())
            };
            while !is_kept() {
                assert!(began.elapsed() < PATIENCE, "{name} is not kept: {}", proxy.log());
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        asked.push((pebble.accounts(), pebble.orders()));
    }
    let [first, again, anew] = asked[..] else { unreachable!() };
    assert_eq!(first.0, 1);
    assert_eq!(again, first);
    assert_eq!(anew, (2, first.1 + 2));
}

#[test]
fn an_account_whose_key_cannot_be_used_is_kept_aside_for_another() {
    if !installed_or_skip() {
        return;
    }
    let (pebble, storage) = (Pebble::start(false, LONG), tempfile::tempdir().unwrap());
    drop({
        let proxy = start(&pebble, storage.path(), "", &site("a.test", ""));
        wait_for(&proxy, &pebble, "a.test", "here is a.test");
        proxy
    });
    let ca = std::fs::read_dir(storage.path().join("acme")).unwrap().next().unwrap().unwrap().path();
    let key = ca.join("users/default/default.key");
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    std::fs::write(&key, &other).unwrap();
    let proxy = start(&pebble, storage.path(), "", &(site("a.test", "") + &site("b.test", "") + &site("c.test", "")));
    for name in ["b.test", "c.test"] {
        wait_for(&proxy, &pebble, name, &format!("here is {name}"));
    }
    assert_eq!(pebble.accounts(), 2, "{}", proxy.log());
    assert_eq!(std::fs::read_to_string(key.with_extension("key.unusable")).unwrap(), other);
    assert_eq!(proxy.log().matches("kept aside").count(), 1, "{}", proxy.log());
    assert!(!proxy.log().contains("PRIVATE KEY"));
}

#[test]
fn a_ca_that_is_down_is_followed_by_the_next_and_one_that_wants_an_account_gets_it() {
    if !installed_or_skip() {
        return;
    }
    let (pebble, storage) = (Pebble::start(true, LONG), tempfile::tempdir().unwrap());
    let nobody = free_port();
    let tls = format!(
        "\ttls {{\n\t\tissuer acme {{\n\t\t\tdir https://localhost:{nobody}/dir\n\t\t}}\n\t\tissuer acme {{\n\t\t\tdir {}\n\t\t\ttrusted_roots {}\n\t\t\teab {EAB_ID} {EAB_KEY}\n\t\t}}\n\t}}\n",
        pebble.url(),
        pebble.api_root().display()
    );
    let proxy = start(&pebble, storage.path(), "", &site("eab.test", &tls));
    wait_for(&proxy, &pebble, "eab.test", "here is eab.test");
    assert!(!proxy.log().contains(EAB_KEY), "{}", proxy.log());
}

#[test]
fn certificates_are_renewed_under_load_without_a_failed_request() {
    if !installed_or_skip() {
        return;
    }
    // Good for twelve seconds: renewed after eight.
    let (pebble, storage) = (Pebble::start(false, 12), tempfile::tempdir().unwrap());
    let proxy = start(&pebble, storage.path(), "", &site("a.test", ""));
    wait_for(&proxy, &pebble, "a.test", "here is a.test");
    let (authority, began, orders) = (pebble.issuing_root(), Instant::now(), pebble.orders());
    let mut requests = 0;
    while pebble.orders() < orders + 2 {
        assert!(began.elapsed() < PATIENCE, "not renewed: {}", proxy.log());
        let answer = body(pebble.https_port, "a.test", &authority);
        assert_eq!(answer.as_deref(), Some("here is a.test"), "after {requests}: {}", proxy.log());
        requests += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(requests > 100, "{requests}");
}

#[test]
fn an_order_is_resumed_after_a_crash() {
    if !installed_or_skip() {
        return;
    }
    let (pebble, storage) = (Pebble::start(false, LONG), tempfile::tempdir().unwrap());
    let sites = site("a.test", "");
    let mut crashes = 0;
    // Killed as soon as an order is kept; it may by then be done.
    for _ in 0..5 {
        let proxy = start(&pebble, storage.path(), "", &sites);
        let began = Instant::now();
        let kept = |folder: &str| {
            let cas = std::fs::read_dir(storage.path().join("acme")).into_iter().flatten().flatten();
            cas.flat_map(|ca| std::fs::read_dir(ca.path().join(folder)).into_iter().flatten()).flatten().count()
        };
        while kept("orders") == 0 && began.elapsed() < Duration::from_secs(3) {
            std::hint::spin_loop();
        }
        crashes += usize::from(kept("orders") > 0);
        drop(proxy); // kill -9
    }
    let orders = pebble.orders();
    let proxy = start(&pebble, storage.path(), "", &sites);
    wait_for(&proxy, &pebble, "a.test", "here is a.test");
    assert!(crashes > 0, "no order was seen open");
    assert!(pebble.orders() <= orders + 1, "{} orders after {orders}", pebble.orders());
}

#[test]
fn two_processes_on_one_storage_make_one_certificate() {
    if !installed_or_skip() {
        return;
    }
    let (pebble, storage) = (Pebble::start(false, LONG), tempfile::tempdir().unwrap());
    let sites = site("a.test", "");
    let first = start(&pebble, storage.path(), "", &sites);
    // The second has other ports: the CA asks the first, which answers for it from the storage.
    let (http, https) = (free_port(), free_port());
    let file = pebble
        .options(storage.path(), "")
        .replace(&format!("http_port {}", pebble.http_port), &format!("http_port {http}"))
        .replace(&format!("https_port {}", pebble.https_port), &format!("https_port {https}"));
    let second = Proxy::start(Which::Llmproxy, &(file + &sites + &site("b.test", "")), https);
    wait_for(&first, &pebble, "a.test", "here is a.test");
    let (began, authority) = (Instant::now(), pebble.issuing_root());
    for name in ["a.test", "b.test"] {
        while body(https, name, &authority).is_none() {
            assert!(began.elapsed() < PATIENCE, "{name}: {}", second.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(pebble.orders(), 2, "one for each name: {}\n{}", first.log(), second.log());
}

#[test]
fn the_preferred_chain_and_lifetime_are_had_from_a_ca_that_verifies_signatures() {
    if !installed_or_skip() {
        return;
    }
    let pebble = Pebble::start_with(false, LONG, &[("PEBBLE_ALTERNATE_ROOTS", "2")]);
    let storage = tempfile::tempdir().unwrap();
    let other = pebble.root(1);
    let der = CertificateDer::from_pem_slice(other.as_bytes()).unwrap();
    let (_, root) = x509_parser::parse_x509_certificate(&der).unwrap();
    let name = root.subject().iter_common_name().next().unwrap().as_str().unwrap();
    let chain =
        format!("\t\t\tlifetime 2h\n\t\t\tpreferred_chains {{\n\t\t\t\troot_common_name \"{name}\"\n\t\t\t}}\n");
    // One certificate for each of a site's names.
    let sites = site("a.test, b.test", &issuer(&pebble, &chain));
    let proxy = start(&pebble, storage.path(), "", &sites);
    let began = Instant::now();
    for name in ["a.test", "b.test"] {
        // Whoever trusts that root alone is content, so its chain is served.
        while tls::get(pebble.https_port, name, &other).is_err() {
            assert!(began.elapsed() < PATIENCE, "{name}: {}", proxy.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert!(tls::get(pebble.https_port, "a.test", &pebble.issuing_root()).is_err());
    let status = proxy.command(Which::Llmproxy).args(["status", "--json"]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let until = status["certificates"][0]["not_after"].as_str().unwrap();
    let until = OffsetDateTime::parse(until, &time::format_description::well_known::Rfc3339).unwrap();
    assert!(until - OffsetDateTime::now_utc() <= time::Duration::hours(2), "{status}");
}
