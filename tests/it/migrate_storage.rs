//! What Caddy obtained is served without asking the CA again, its account obtains the next name, and the other way round.

use crate::harness::pebble::{Pebble, installed_or_skip};
use crate::harness::process::{Proxy, Which, caddy_or_skip};
use crate::harness::tls;
use crate::migrate_caddy::migrate;
use std::path::Path;
use std::time::{Duration, Instant};

const LONG: u64 = 90 * 24 * 3600;
const PATIENCE: Duration = Duration::from_secs(40);

fn body(pebble: &Pebble, name: &str) -> Option<String> {
    tls::get(pebble.https_port, name, &pebble.issuing_root()).ok().map(|response| response.text())
}

fn wait_for(proxy: &Proxy, pebble: &Pebble, name: &str) {
    let began = Instant::now();
    while body(pebble, name).as_deref() != Some(&format!("here is {name}")) {
        assert!(began.elapsed() < PATIENCE, "no certificate for {name}; it said:\n{}", proxy.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn sites(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name} {{\n\trespond \"here is {name}\"\n}}\n")).collect()
}

/// Waits until a certificate of the name lies in the storage.
fn kept(proxy: &Proxy, storage: &Path, name: &str) {
    let began = Instant::now();
    let lies = || {
        let cas = std::fs::read_dir(storage.join("certificates")).into_iter().flatten().flatten();
        cas.into_iter().any(|ca| ca.path().join(format!("{name}/{name}.json")).is_file())
    };
    while !lies() {
        assert!(began.elapsed() < PATIENCE, "nothing kept for {name}; it said:\n{}", proxy.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn caddys_certificates_and_account_are_taken_over() {
    if !installed_or_skip() || !caddy_or_skip() {
        return;
    }
    let (pebble, ours) = (Pebble::start(false, LONG), tempfile::tempdir().unwrap());
    // Without a `storage` option each keeps its things where it always does.
    let options =
        pebble.options(Path::new("/none"), "\temail me@a.test\n").replace("\tstorage file_system /none\n", "");
    let caddy = Proxy::start(Which::Caddy, &(options.clone() + &sites(&["a.test"])), pebble.https_port);
    wait_for(&caddy, &pebble, "a.test");
    let home = caddy.directory.path().to_path_buf();
    kept(&caddy, &home.join("caddy"), "a.test");
    let (orders, accounts) = (pebble.orders(), pebble.accounts());
    assert!(orders > 0 && accounts > 0);

    let to = ours.path().join("storage");
    let told = migrate(&home, &["Proxyfile", &format!("--copy-storage={}", to.display())], &[]);
    assert!(told.succeeded, "{}{}", told.out, told.err);
    for line in ["  a.test  localhost-", "account me@a.test", "certificate of a.test: copied"] {
        assert!(told.out.contains(line), "no `{line}` in\n{}", told.out);
    }
    assert!(!told.out.contains("PRIVATE"), "{}", told.out);
    drop(caddy);

    let both = options + &sites(&["a.test", "b.test"]);
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &both, pebble.https_port, |command| {
        command.env("STATE_DIRECTORY", &to);
    });
    assert_eq!(body(&pebble, "a.test").as_deref(), Some("here is a.test"), "{}", proxy.log());
    wait_for(&proxy, &pebble, "b.test");
    assert_eq!((pebble.orders(), pebble.accounts()), (orders + 1, accounts), "{}", proxy.log());
}

#[test]
fn caddy_runs_on_what_we_made() {
    if !installed_or_skip() || !caddy_or_skip() {
        return;
    }
    let (pebble, storage) = (Pebble::start(false, LONG), tempfile::tempdir().unwrap());
    let options = pebble.options(storage.path(), "\temail me@a.test\n");
    let proxy = Proxy::start(Which::Llmproxy, &(options.clone() + &sites(&["a.test"])), pebble.https_port);
    wait_for(&proxy, &pebble, "a.test");
    kept(&proxy, storage.path(), "a.test");
    let (orders, accounts) = (pebble.orders(), pebble.accounts());
    drop(proxy);
    let caddy = Proxy::start(Which::Caddy, &(options + &sites(&["a.test", "b.test"])), pebble.https_port);
    wait_for(&caddy, &pebble, "a.test");
    wait_for(&caddy, &pebble, "b.test");
    assert_eq!((pebble.orders(), pebble.accounts()), (orders + 1, accounts), "{}", caddy.log());
}
