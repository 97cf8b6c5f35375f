//! CAs that misbehave: each fault ends in time and in an error that names it, what is served stays, and nothing is
//! ordered over and over.

use crate::harness::ca::{Ca, Fault};
use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::tls;
use llmproxy::config::tls_types::{AcmeIssuer, ExternalAccount};
use llmproxy::storage::FileStorage;
use llmproxy::tls::acme::{self, Failed, Kind, Surroundings};
use llmproxy::tls::{Certificate, KeyType};
use std::time::{Duration, Instant};

/// An account folder of its own for each.
struct Client {
    folder: tempfile::TempDir,
    issuer: AcmeIssuer,
}

impl Client {
    fn of(ca: &Ca, options: serde_json::Value) -> Self {
        let mut issuer: AcmeIssuer = serde_json::from_value(options).unwrap();
        issuer.ca = ca.url();
        Self { folder: tempfile::tempdir().unwrap(), issuer }
    }

    fn obtain(&self, change: impl FnOnce(&mut Surroundings<'_>)) -> Result<(String, String), Failed> {
        let storage = FileStorage::new(self.folder.path());
        let mut around = Surroundings {
            storage: &storage,
            key_type: KeyType::P256,
            key: None,
            must_staple: false,
            kinds: &[Kind::Http],
            failures: 0,
            replaces: None,
        };
        change(&mut around);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let issued = runtime.block_on(async {
            let limit = Duration::from_secs(15);
            tokio::time::timeout(limit, acme::obtain(&self.issuer, "a.test", &around)).await.expect("it hangs")
        })?;
        Ok((issued.chain, issued.key))
    }

    fn fails(&self) -> String {
        match self.obtain(|_| ()) {
            Err(failed) => failed.error.to_string(),
            Ok(_) => panic!("a certificate"),
        }
    }
}

fn timed(seconds: u64) -> serde_json::Value {
    serde_json::json!({ "acme_timeout": seconds * 1_000_000_000 })
}

#[test]
fn faults_end_in_time_and_are_named() {
    let ca = Ca::start();
    for (fault, wanted) in [
        (Fault::Html, "JSON"),
        (Fault::Garbage, "JSON"),
        (Fault::Huge, "limit"),
        (Fault::Silent, "within 2 s"),
        (Fault::BadNonces(1000), "badNonce"),
        (Fault::Stuck, "within 2 s"),
        (Fault::InvalidChallenge, "nobody answers"),
    ] {
        ca.set(fault);
        let began = Instant::now();
        let why = Client::of(&ca, timed(2)).fails();
        assert!(why.contains(wanted), "{fault:?}: {why}");
        assert!(began.elapsed() < Duration::from_secs(8), "{fault:?} took {:?}", began.elapsed());
    }
    let mut nobody = Client::of(&ca, timed(2));
    nobody.issuer.ca = format!("http://127.0.0.1:{}/dir", free_port());
    assert!(nobody.fails().contains("refused"));
}

#[test]
fn a_few_bad_nonces_and_a_forgotten_account_cost_nothing() {
    let ca = Ca::start();
    let client = Client::of(&ca, timed(10));
    ca.set(Fault::BadNonces(2));
    client.obtain(|_| ()).unwrap();
    assert_eq!(ca.count("POST account"), 3);
    client.obtain(|_| ()).unwrap();
    assert_eq!(ca.count("POST account"), 3, "the account is kept");
    ca.set(Fault::ForgetsAccounts);
    client.obtain(|_| ()).unwrap();
    assert_eq!(ca.count("POST account"), 4);
    client.obtain(|_| ()).unwrap();
    assert_eq!(ca.count("POST account"), 4);
}

#[test]
fn an_order_that_is_never_done_is_not_waited_for_for_ever() {
    let ca = Ca::start();
    let client = Client::of(&ca, timed(1));
    ca.set(Fault::Stuck);
    for _ in 0..4 {
        client.fails();
    }
    // Made, resumed twice, given up.
    assert_eq!(ca.state().orders.len(), 2);
    ca.set(Fault::None);
    client.obtain(|_| ()).unwrap();
}

#[test]
fn a_ca_that_wants_to_be_left_alone_says_for_how_long() {
    let ca = Ca::start();
    ca.set(Fault::RateLimited(7200));
    let failed = Client::of(&ca, timed(5)).obtain(|around| around.kinds = &[Kind::Http, Kind::TlsAlpn]);
    let failed = failed.err().unwrap();
    assert_eq!(failed.retry_after, Some(Duration::from_hours(2)));
    assert!(failed.error.to_string().contains("rateLimited"), "{}", failed.error);
    assert_eq!(ca.state().asked.iter().filter(|a| *a == "POST order").count(), 1, "no second challenge is tried");
}

#[test]
fn the_test_ca_is_asked_before_a_failure_is_repeated() {
    let (real, test) = (Ca::start(), Ca::start());
    let mut client = Client::of(&real, timed(5));
    client.issuer.test_ca = test.url();
    client.obtain(|_| ()).unwrap();
    assert_eq!((real.state().orders.len(), test.state().orders.len()), (1, 0));
    client.obtain(|around| around.failures = 1).unwrap();
    assert_eq!((real.state().orders.len(), test.state().orders.len()), (2, 1));
    test.set(Fault::RateLimited(5));
    assert!(client.obtain(|around| around.failures = 2).is_err());
    assert_eq!(real.state().orders.len(), 2, "what fails at the test CA is not tried at the real one");
}

#[test]
fn what_the_configuration_asks_of_an_order_reaches_the_ca() {
    let ca = Ca::start();
    let options = serde_json::json!({
        "profile": "shortlived", "certificate_lifetime": 3_600_000_000_000_i64,
        "preferred_chains": {"root_common_name": ["Second Root"]},
    });
    let mut client = Client::of(&ca, options);
    client.issuer.external_account = Some(ExternalAccount { key_id: "kid-7".into(), mac_key: "c2VjcmV0".into() });
    let kept = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let (chain, key) = client
        .obtain(|around| {
            around.key = Some(kept.clone());
            around.must_staple = true;
        })
        .unwrap();
    assert_eq!(key, kept);
    let second = ca.state().asked.iter().filter(|a| *a == "POST cert").count();
    assert_eq!(second, 2, "the other chain was fetched");
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(!chain.contains(ca.root().lines().nth(5).unwrap()), "the second root's chain is taken");
    let state = ca.state();
    assert_eq!(state.external, ["kid-7"]);
    assert_eq!(state.orders[0]["profile"], "shortlived");
    assert!(state.orders[0]["notAfter"].as_str().unwrap().ends_with('Z'), "{}", state.orders[0]);
    // The number of "TLS feature", DER.
    let feature = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x18];
    assert!(state.requests[0].windows(feature.len()).any(|bytes| bytes == feature));
}

#[test]
fn a_renewing_order_names_what_it_replaces_and_does_without_when_that_is_refused() {
    let ca = Ca::start();
    ca.state().window = Some((1.0, 2.0));
    let client = Client::of(&ca, timed(5));
    let replacing = |around: &mut Surroundings<'_>| around.replaces = Some("aYhb.AIdl".into());
    client.obtain(replacing).unwrap();
    assert_eq!(ca.state().orders[0]["replaces"], "aYhb.AIdl");
    ca.set(Fault::RefusesReplaces);
    client.obtain(replacing).unwrap();
    assert_eq!(ca.state().orders[1].get("replaces"), None);
    // A CA without renewal information is not told at all.
    ca.state().window = None;
    client.obtain(replacing).unwrap();
    assert_eq!(ca.state().orders[2].get("replaces"), None);
}

#[test]
fn keys_are_of_the_kind_asked_for() {
    let ca = Ca::start();
    let client = Client::of(&ca, timed(10));
    for (name, algorithm) in
        [("p384", "ECDSA_P384"), ("rsa2048", "RSA"), ("p256", "ECDSA_P256"), ("ed25519", "ED25519")]
    {
        let (chain, key) = client.obtain(|around| around.key_type = KeyType::named(name).unwrap()).unwrap();
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes(), vec![]).unwrap();
        let kind = format!("{:?} {key}", certificate.key.key.algorithm());
        let pair = rcgen::KeyPair::from_pem(&key).unwrap();
        assert!(format!("{:?}", pair.algorithm()).contains(algorithm), "{name}: {kind}");
    }
}

/// Two sites are served by the stand-in's certificates; it never asks a challenge.
fn file(ca: &Ca, http: u16, https: u16, storage: &std::path::Path, options: &str) -> String {
    format!(
        "{{\n\tadmin off\n\thttp_port {http}\n\thttps_port {https}\n\tstorage file_system {}\n\tacme_ca {}\n{options}}}\na.test {{\n\trespond \"here is a.test\"\n}}\n",
        storage.display(),
        ca.url()
    )
}

fn wait(what: &str, proxy: &Proxy, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}; it said:\n{}", proxy.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn status(proxy: &Proxy) -> serde_json::Value {
    let output = proxy.command(Which::Llmproxy).args(["status", "--json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_was_not_ordered_is_not_served_and_the_old_certificate_stays() {
    for fault in [Fault::OtherKey, Fault::OtherName, Fault::Expired, Fault::Html] {
        let (ca, storage) = (Ca::start(), tempfile::tempdir().unwrap());
        ca.state().lifetime = Duration::from_secs(60);
        let (http, https) = (free_port(), free_port());
        // Due about three seconds after it was issued.
        let file = file(&ca, http, https, storage.path(), "\trenewal_window_ratio 0.88\n");
        let proxy = Proxy::start(Which::Llmproxy, &file, https);
        let root = ca.root();
        wait("no certificate", &proxy, || tls::get(https, "a.test", &root).is_ok());
        ca.set(fault);
        let error = || status(&proxy)["certificates"][0]["error"].as_str().unwrap_or_default().to_owned();
        wait("no error", &proxy, || !error().is_empty());
        let wanted = match fault {
            Fault::OtherKey => "do not belong together",
            Fault::OtherName => "another name (another.test)",
            Fault::Expired => "clock",
            _ => "JSON",
        };
        assert!(error().contains(wanted), "{fault:?}: {}", error());
        assert_eq!(tls::get(https, "a.test", &root).unwrap().text(), "here is a.test", "{fault:?}");
        let orders = ca.state().orders.len();
        assert!(orders <= 2, "{fault:?}: ordered {orders} times");
        assert!(!proxy.log().contains("PRIVATE KEY"));
    }
}

#[test]
fn the_ca_tells_when_to_renew() {
    let (ca, storage) = (Ca::start(), tempfile::tempdir().unwrap());
    ca.state().window = Some((30.0, 31.0));
    let (http, https) = (free_port(), free_port());
    let file = file(&ca, http, https, storage.path(), "\trenew_interval 1s\n");
    let proxy = Proxy::start(Which::Llmproxy, &file, https);
    let root = ca.root();
    wait("no certificate", &proxy, || tls::get(https, "a.test", &root).is_ok());
    wait("not asked", &proxy, || ca.count("GET renewal") == 1);
    let metadata = || {
        let issuer = std::fs::read_dir(storage.path().join("certificates")).unwrap().next().unwrap().unwrap().path();
        let kept = std::fs::read(issuer.join("a.test/a.test.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&kept).unwrap()
    };
    wait("not kept", &proxy, || metadata()["issuer_data"]["renewal_info"].is_object());
    drop(proxy);

    // A restart does not ask again before the time; the CA is made to have said "now".
    let mut told = metadata();
    let identifier = told["issuer_data"]["renewal_info"]["_uniqueIdentifier"].as_str().unwrap().to_owned();
    told["issuer_data"]["renewal_info"]["_selectedTime"] = "2026-01-01T00:00:00Z".into();
    let issuer = std::fs::read_dir(storage.path().join("certificates")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(issuer.join("a.test/a.test.json"), told.to_string()).unwrap();
    let proxy = Proxy::start(Which::Llmproxy, &file, https);
    wait("not renewed", &proxy, || ca.state().orders.len() == 2);
    assert_eq!(ca.state().orders[1]["replaces"], identifier.as_str());
    wait("not asked about the new one", &proxy, || ca.count("GET renewal") == 2);
    wait("not served", &proxy, || tls::get(https, "a.test", &root).is_ok());
}
