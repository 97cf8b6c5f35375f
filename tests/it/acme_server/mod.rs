//! The CA of `acme_server`: its protocol by a client of our own, also with what no client should send; and obtained from by
//! clients that others wrote.

mod client;
mod others;

use crate::harness::process::{Proxy, Which, free_port};
use aws_lc_rs::hmac;
use client::{Client, Key, Web, b64, csr};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::path::Path;

fn file(storage: &Path, port: u16, validation: u16, options: &str) -> String {
    format!(
        "{{\n\tadmin off\n\tauto_https off\n\tstorage file_system {}\n}}\nhttp://127.0.0.1:{port} {{\n\troute {{\n\t\tacme_server {{\n\t\tvalidation_ports {validation} {validation}\n{options}\t}}\n\t\trespond elsewhere\n\t}}\n}}\n",
        storage.display()
    )
}

/// A CA without TLS, for the client of our own.
fn start(storage: &Path, validation: u16, options: &str) -> (Proxy, u16) {
    let port = free_port();
    (Proxy::start(Which::Llmproxy, &file(storage, port, validation, options), port), port)
}

fn kind(answer: &crate::harness::client::Response) -> (u16, String) {
    let text = answer.text();
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{text}");
    (answer.status(), answer.json()["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned())
}

fn refused(status: u16, word: &str) -> (u16, String) {
    (status, word.to_owned())
}

#[test]
fn a_certificate_is_obtained_renewed_and_revoked() {
    let (storage, web) = (tempfile::tempdir().unwrap(), Web::start());
    let (proxy, port) = start(storage.path(), web.port, "");
    let client = Client::registered(port);

    let directory = client.get("directory");
    assert_eq!(directory.json()["newOrder"], client.url("new-order"));
    assert_eq!(client.get("new-nonce").status(), 204);
    assert!(directory.header("link").unwrap().contains("rel=\"index\""));
    assert_eq!(client.get(&format!("http://127.0.0.1:{port}/other")).text(), "elsewhere", "other paths go on");

    let (order, certificate) = client.obtain(&["localhost", "127.0.0.1"], &web);
    assert_eq!(order["status"], "valid");
    let root = std::fs::read_to_string(storage.path().join("pki/authorities/local/root.crt")).unwrap();
    for name in ["localhost", "127.0.0.1"] {
        verify(&certificate.text(), &root, name);
    }

    // When to renew, and that the next order replaces it.
    let id = renewal_id(&certificate.text());
    let info = client.get(&format!("renewal-info/{id}"));
    let window = info.json()["suggestedWindow"].clone();
    assert!(
        window["start"].as_str() < window["end"].as_str() && info.header("retry-after") == Some("1802"),
        "{info:?}"
    );
    let next = client.order_with(&["localhost"], json!({"replaces": id}));
    assert_eq!((next.status(), next.json()["replaces"].as_str()), (201, Some(id.as_str())));
    let again = client.order_with(&["localhost"], json!({"replaces": id}));
    assert_eq!(kind(&again), refused(409, "alreadyReplaced"));

    // What is kept survives the process.
    drop(proxy);
    let text = file(storage.path(), port, web.port, "");
    let proxy = Proxy::start(Which::Llmproxy, &text, port);
    assert_eq!(client.post(order["certificate"].as_str().unwrap(), "").text(), certificate.text());
    let list = client.post(&format!("{}/orders", client.account), "").json();
    assert_eq!(list["orders"].as_array().unwrap().len(), 2);

    let der = CertificateDer::from_pem_slice(certificate.body.as_slice()).unwrap();
    let revoke = |reason: u8| json!({"certificate": b64(&der), "reason": reason}).to_string();
    assert_eq!(kind(&client.post("revoke-cert", &revoke(8))), refused(400, "badRevocationReason"));
    let stranger = Client::registered(port);
    assert_eq!(kind(&stranger.post("revoke-cert", &revoke(0))), refused(403, "unauthorized"));
    assert_eq!(kind(&stranger.post_by_key("revoke-cert", &revoke(0))), refused(403, "unauthorized"));
    assert_eq!(client.post("revoke-cert", &revoke(4)).status(), 200);
    assert_eq!(kind(&client.post("revoke-cert", &revoke(4))), refused(400, "alreadyRevoked"));
    let info = client.get(&format!("renewal-info/{id}")).json();
    assert!(info["suggestedWindow"]["end"].as_str() < window["start"].as_str(), "to be renewed at once: {info}");
    assert!(!proxy.log().contains("PRIVATE KEY"));
}

#[test]
fn accounts_are_found_changed_moved_to_another_key_and_given_up() {
    let (storage, web) = (tempfile::tempdir().unwrap(), Web::start());
    let (_proxy, port) = start(storage.path(), web.port, "");
    let mut client = Client::new(port);
    let none = client.register(&json!({"onlyReturnExisting": true}));
    assert_eq!(kind(&none), refused(400, "accountDoesNotExist"));
    assert_eq!(client.register(&json!({})).status(), 201);
    assert_eq!(client.register(&json!({})).status(), 200);
    let changed = client.post(&client.account, &json!({"contact": ["mailto:x@y.test"]}).to_string());
    assert_eq!(changed.json()["contact"][0], "mailto:x@y.test");

    let key = Key::new();
    let url = client.url("key-change");
    let roll = |client: &Client, new: &Key, payload: &Value| {
        let inner = new.sign(&json!({"alg": "ES256", "jwk": new.jwk(), "url": url}), &payload.to_string());
        client.post("key-change", &inner.to_string())
    };
    let good = json!({"account": client.account, "oldKey": client.key.jwk()});
    let other = Client::registered(port);
    assert_eq!(roll(&client, &other.key, &good).status(), 409, "the key of another account");
    let foreign = json!({"account": other.account, "oldKey": client.key.jwk()});
    assert_eq!(kind(&roll(&client, &key, &foreign)), refused(400, "malformed"));
    assert_eq!(roll(&client, &key, &good).status(), 200);
    assert_eq!(kind(&client.post(&client.account, "")), refused(403, "malformed"), "the old key signs nothing");
    client.key = key;
    assert_eq!(client.post(&client.account, "").status(), 200);

    let given_up = client.post(&client.account, &json!({"status": "deactivated"}).to_string());
    assert_eq!(given_up.json()["status"], "deactivated");
    assert_eq!(kind(&client.order(&["localhost"])), refused(403, "unauthorized"));
    assert_eq!(kind(&client.register(&json!({}))), refused(403, "unauthorized"));
}

#[test]
fn requests_that_nobody_should_send_are_refused_by_their_type() {
    let (storage, web) = (tempfile::tempdir().unwrap(), Web::start());
    let (proxy, port) = start(storage.path(), web.port, "");
    let client = Client::registered(port);
    let url = client.url("new-order");
    let order = json!({"identifiers": [{"type": "dns", "value": "localhost"}]}).to_string();
    let head = |change: &dyn Fn(&mut Value)| {
        let mut head = json!({"alg": "ES256", "nonce": client.nonce(), "url": url, "kid": client.account});
        change(&mut head);
        client.post_signed("new-order", &head, &order)
    };
    assert_eq!(head(&|_| {}).status(), 201);
    let nonce = client.nonce();
    assert_eq!(head(&|h| h["nonce"] = nonce.clone().into()).status(), 201);
    assert_eq!(kind(&head(&|h| h["nonce"] = nonce.clone().into())), refused(400, "badNonce"), "replayed");
    assert_eq!(kind(&head(&|h| h["nonce"] = "abc".into())), refused(400, "badNonce"));
    assert_eq!(kind(&head(&|h| h["nonce"] = Value::Null)), refused(400, "badNonce"));
    assert_eq!(kind(&head(&|h| h["url"] = client.url("new-account").into())), refused(403, "unauthorized"));
    assert_eq!(kind(&head(&|h| h["alg"] = "none".into())), refused(400, "badSignatureAlgorithm"));
    assert_eq!(kind(&head(&|h| h["alg"] = "HS256".into())), refused(400, "badSignatureAlgorithm"));
    assert_eq!(kind(&head(&|h| h["jwk"] = client.key.jwk())), refused(400, "malformed"), "both jwk and kid");
    let nobody = format!("{}0", client.account);
    assert_eq!(kind(&head(&|h| h["kid"] = nobody.clone().into())), refused(400, "accountDoesNotExist"));
    let traversal = client.url("account/../../pki");
    assert_eq!(kind(&head(&|h| h["kid"] = traversal.clone().into())), refused(400, "accountDoesNotExist"));
    let other = Client::registered(port);
    assert_eq!(kind(&head(&|h| h["kid"] = other.account.clone().into())), refused(403, "malformed"), "not its key");

    // Orders and authorisations of others.
    let mine = client.order(&["localhost"]);
    let location = mine.header("location").unwrap();
    let authorization = mine.json()["authorizations"][0].as_str().unwrap().to_owned();
    for url in [location, &authorization, &format!("{location}/finalize")] {
        let payload =
            if url.ends_with("finalize") { json!({"csr": csr(&["localhost"])}).to_string() } else { String::new() };
        assert_eq!(kind(&other.post(url, &payload)), refused(404, "malformed"), "{url}");
    }
    assert_eq!(kind(&other.post(&client.account, "")), refused(403, "malformed"));
    assert_eq!(
        kind(&client.post(&format!("{location}/finalize"), &json!({"csr": csr(&["localhost"])}).to_string())),
        refused(403, "orderNotReady")
    );

    // Names.
    for (names, status, word) in
        [(vec!["*.a.test"], 400, "rejectedIdentifier"), (vec!["a b"], 400, "malformed"), (vec![], 400, "malformed")]
    {
        assert_eq!(kind(&client.order(&names)), refused(status, word), "{names:?}");
    }
    let many: Vec<String> = (0..101).map(|n| format!("a{n}.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(kind(&client.order(&many)), refused(400, "malformed"));
    let mail = json!({"identifiers": [{"type": "email", "value": "a@b.test"}]}).to_string();
    assert_eq!(kind(&client.post("new-order", &mail)), refused(400, "unsupportedIdentifier"));
    for life in [
        json!({"notAfter": "2999-01-01T00:00:00Z"}),
        json!({"notBefore": "2001-01-01T00:00:00Z"}),
        json!({"notAfter": "soon"}),
    ] {
        assert_eq!(kind(&client.order_with(&["localhost"], life)), refused(400, "malformed"));
    }

    // Bodies.
    for (body, status) in
        [("", 400), ("{}", 400), ("null", 400), (&*"[".repeat(60_000), 400), (&*"a".repeat(1 << 17), 413)]
    {
        assert_eq!(kind(&client.send("POST", "new-order", body)).0, status);
    }
    assert_eq!(client.send("GET", "new-order", "").status(), 405);
    assert_eq!(client.send("POST", "directory", "").status(), 405);
    assert_eq!(client.send("PUT", "new-order", "").status(), 405);
    assert_eq!(client.get("nothing").status(), 404);
    assert_eq!(client.get("renewal-info/AAAA.AAAA").status(), 404);
    assert_eq!(client.get("renewal-info/x").status(), 400);
    let plain = crate::harness::client::request(
        port,
        format!("POST /acme/local/new-order HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 2\r\n\r\n{{}}"),
    );
    assert_eq!(kind(&plain.unwrap()), refused(415, "malformed"));
    assert!(!proxy.log().contains("panic"), "{}", proxy.log());
}

#[test]
fn a_signing_request_is_held_to_its_order_and_a_failed_challenge_ends_it() {
    let (storage, web) = (tempfile::tempdir().unwrap(), Web::start());
    let (_proxy, port) = start(storage.path(), web.port, "\t\tdeny {\n\t\t\tdomains secret.test\n\t\t}\n");
    let client = Client::registered(port);
    assert_eq!(kind(&client.order(&["localhost", "secret.test"])), refused(400, "rejectedIdentifier"));
    let order = client.order(&["localhost"]);
    let ready = client.prove(&order, &web, "http-01");
    assert_eq!(ready["status"], "ready", "{ready}");
    let finalize = |csr: String| client.post(ready["finalize"].as_str().unwrap(), &json!({"csr": csr}).to_string());
    for names in [&["localhost", "other.test"][..], &["other.test"], &[]] {
        assert_eq!(kind(&finalize(csr(names))), refused(400, "badCSR"), "{names:?}");
    }
    assert_eq!(kind(&finalize("AAAA".into())), refused(400, "badCSR"));
    assert_eq!(finalize(csr(&["LOCALHOST"])).json()["status"], "valid");
    assert_eq!(kind(&finalize(csr(&["localhost"]))), refused(403, "orderNotReady"), "once");

    // A challenge that is not answered.
    let order = client.order(&["localhost"]);
    let authorization = order.json()["authorizations"][0].as_str().unwrap().to_owned();
    let challenges = client.post(&authorization, "").json()["challenges"].clone();
    let challenge = challenges.as_array().unwrap().iter().find(|c| c["type"] == "http-01").unwrap();
    // Redirected to a port that is not asked: nobody makes the CA knock elsewhere.
    web.answer(challenge["token"].as_str().unwrap(), &format!("http://127.0.0.1:{port}/acme/local/directory"));
    assert_eq!(client.post(challenge["url"].as_str().unwrap(), "{}").json()["status"], "processing");
    let began = std::time::Instant::now();
    let failed = loop {
        let order = client.post(order.header("location").unwrap(), "").json();
        if order["status"] != "pending" {
            break order;
        }
        assert!(began.elapsed().as_secs() < 20, "{order}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert_eq!(
        (&failed["status"], &failed["error"]["type"]),
        (&json!("invalid"), &json!("urn:ietf:params:acme:error:connection"))
    );
    assert_eq!(client.post(&authorization, "").json()["status"], "invalid");

    // What is given up is not asked any more.
    let order = client.order(&["localhost"]);
    let authorization = order.json()["authorizations"][0].as_str().unwrap().to_owned();
    let given_up = client.post(&authorization, &json!({"status": "deactivated"}).to_string());
    assert_eq!(given_up.json()["status"], "deactivated");
    assert_eq!(client.post(order.header("location").unwrap(), "").json()["status"], "invalid");
}

#[test]
fn external_accounts_open_the_door_and_close_it() {
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    let (storage, web) = (tempfile::tempdir().unwrap(), Web::start());
    let options = format!("\t\teab team-a {}\n", b64(SECRET));
    let (mut proxy, port) = start(storage.path(), web.port, &options);
    let mut client = Client::new(port);
    assert_eq!(client.get("directory").json()["meta"]["externalAccountRequired"], true);
    assert_eq!(kind(&client.register(&json!({}))), refused(403, "externalAccountRequired"));
    let bind = |client: &Client, secret: &[u8]| {
        let head = json!({"alg": "HS256", "kid": "team-a", "url": client.url("new-account")});
        let (protected, payload) = (b64(head.to_string()), b64(client.key.jwk().to_string()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), format!("{protected}.{payload}").as_bytes());
        json!({"externalAccountBinding": {"protected": protected, "payload": payload, "signature": b64(tag)}})
    };
    let wrong = bind(&client, b"another secret of enough bytes..");
    assert_eq!(kind(&client.register(&wrong)), refused(403, "unauthorized"));
    let right = bind(&client, SECRET);
    assert_eq!(client.register(&right).status(), 201);
    assert_eq!(client.order(&["localhost"]).status(), 201);
    assert!(!proxy.log().contains(&b64(SECRET)));

    // The key is taken away: so is what its accounts may do.
    let other = format!("\t\teab team-b {}\n", b64(SECRET));
    std::fs::write(&proxy.config, file(storage.path(), port, web.port, &other)).unwrap();
    assert!(proxy.command(Which::Llmproxy).args(["reload", "--config"]).arg(&proxy.config).status().unwrap().success());
    assert_eq!(kind(&client.order(&["localhost"])), refused(403, "unauthorized"));
    assert!(proxy.ends_within(std::time::Duration::ZERO).is_none());
}

/// RFC 9773 section 4.1.
fn renewal_id(chain: &str) -> String {
    let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
    let key = leaf.extensions().iter().find_map(|e| match e.parsed_extension() {
        x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.clone(),
        _ => None,
    });
    format!("{}.{}", b64(key.unwrap().0), b64(leaf.raw_serial()))
}

fn verify(chain: &str, root: &str, name: &str) {
    use rustls::client::danger::ServerCertVerifier;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
    let now = rustls::pki_types::UnixTime::now();
    verifier
        .verify_server_cert(&chain[0], &chain[1..], &name.to_owned().try_into().unwrap(), &[], now)
        .unwrap_or_else(|e| panic!("{name}: {e}"));
}
