//! Keys from files: systemd credentials and mounted secrets, in `header_up` and in `auth_token`, and what happens when
//! they are rotated.

use crate::harness::client;
use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::upstream::Upstream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A site that takes `line`, run with `directory` as its credentials directory.
fn start(upstream: &Upstream, directory: &Path, line: &str) -> (Proxy, u16) {
    let port = free_port();
    let file = format!("http://:{port} {{\n\tbind 127.0.0.1\n\t{}\n}}\n", line.replace("$U", &upstream.address()));
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &file, port, |command| {
        command.env("CREDENTIALS_DIRECTORY", directory);
    });
    (proxy, port)
}

/// Replaced as secrets are: a new file in the place of the old one.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

fn status_with(port: u16, token: &str) -> u16 {
    let request = format!("GET / HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {token}\r\n\r\n");
    client::request(port, request).unwrap().status()
}

#[test]
fn a_credential_goes_up_without_its_line_end_and_a_new_one_with_the_next_request() {
    let (upstream, directory) = (Upstream::start("U"), tempfile::tempdir().unwrap());
    let key = directory.path().join("openai");
    std::fs::write(&key, "first-key\n").unwrap();
    let line = "reverse_proxy $U {\n\theader_up Authorization \"Bearer {file.{$CREDENTIALS_DIRECTORY}/openai}\"\n}";
    let (proxy, port) = start(&upstream, directory.path(), line);
    let seen = || client::get(port, "/").json()["headers"].to_string();
    assert!(seen().contains("\"Bearer first-key\""), "{}", seen());
    replace(&key, "second-key\r\n");
    assert!(seen().contains("\"Bearer second-key\""), "{}", seen());
    assert!(!proxy.log().contains("-key"), "{}", proxy.log());
}

#[test]
fn a_token_from_a_file_is_watched() {
    let (upstream, directory) = (Upstream::start("U"), tempfile::tempdir().unwrap());
    let token = directory.path().join("token");
    std::fs::write(&token, "first-token\n").unwrap();
    let (proxy, port) =
        start(&upstream, directory.path(), "auth_token {file.{$CREDENTIALS_DIRECTORY}/token}\n\treverse_proxy $U");
    assert_eq!((status_with(port, "first-token"), status_with(port, "second-token")), (200, 401));

    replace(&token, "second-token\n");
    let began = Instant::now();
    while status_with(port, "second-token") != 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "not taken over: {}", proxy.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(status_with(port, "first-token"), 401);

    // An empty file is a mistake, not an open door, and not a closed one: what was loaded goes on.
    replace(&token, "\n");
    let began = Instant::now();
    while !proxy.log().contains("empty-token") {
        assert!(began.elapsed() < Duration::from_secs(20), "said nothing: {}", proxy.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((status_with(port, "second-token"), status_with(port, "")), (200, 401));
}
