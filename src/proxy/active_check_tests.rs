//! What a check asks, which answers it takes, and where redirects lead it.

use super::*;
use crate::client::{Address, TargetOptions};

fn transport() -> Arc<TransportTemplate> {
    let options = TargetOptions::new(Scheme::Http, Address::Tcp { host: "".into(), port: 0 });
    Arc::new(TransportTemplate { options, scheme: Scheme::Http, except_ports: Vec::new(), server_name: None })
}

fn question() -> Question {
    Question {
        method: Method::POST,
        uri: Uri::from_static("/a/health?deep=1"),
        own: None,
        headers: vec![(HeaderName::from_static("x-key"), Template::parse("secret"))],
        body: Template::parse("ping"),
        status: None,
        pattern: None,
        max_body: 100,
        follow_redirects: true,
        timeout: Duration::from_secs(1),
    }
}

fn answer(status: u16, location: &str, body: &'static str) -> Response<Bytes> {
    let mut answer = Response::builder().status(status);
    if !location.is_empty() {
        answer = answer.header("location", location);
    }
    answer.body(Bytes::from_static(body.as_bytes())).unwrap()
}

#[test]
fn status_and_body_decide() {
    let mut q = question();
    for (status, good) in [(200, true), (204, true), (302, false), (404, false), (500, false)] {
        assert_eq!(q.judge(&answer(status, "", "")).is_ok(), good, "{status}");
    }
    q.status = Some(4);
    assert!(q.judge(&answer(404, "", "")).is_ok() && q.judge(&answer(200, "", "")).is_err());
    q.status = Some(200);
    q.pattern = Some(Regex::new("^ok$").unwrap());
    assert!(q.judge(&answer(200, "", "ok")).is_ok());
    let why = q.judge(&answer(200, "", "planted")).unwrap_err();
    assert!(!why.contains("planted"), "{why}");
}

#[test]
fn redirects_are_followed_as_go_follows_them() {
    let place = transport().reach("a.test:80").unwrap();
    let follow = |status, location: &str| {
        let mut request = question().request(&place).unwrap();
        let next = question().redirect(&answer(status, location, ""), &place, &mut request);
        (next, request)
    };
    let (next, request) = follow(302, "/ready?x=1");
    assert_eq!(next, Ok(Next::Here));
    assert_eq!((request.method(), request.uri().to_string().as_str()), (&Method::GET, "/ready?x=1"));
    assert!(request.body().is_empty() && request.headers().contains_key("x-key"));
    let (next, request) = follow(307, "ready");
    assert_eq!(next, Ok(Next::Here));
    assert_eq!(
        (request.method(), request.uri().path(), &request.body()[..]),
        (&Method::POST, "/a/ready", &b"ping"[..])
    );
    assert_eq!(follow(301, "http://a.test/x").0, Ok(Next::Here));
    let (next, request) = follow(308, "https://b.test/x");
    assert_eq!(next, Ok(Next::At(Elsewhere { hostport: "b.test:443".into(), tls: true })));
    assert_eq!(request.headers()["host"], "b.test:443");
    assert!(!request.headers().contains_key("x-key"), "a credential goes to another host");
    assert_eq!(follow(302, "").0, Ok(Next::None));
    assert_eq!(follow(200, "/x").0, Ok(Next::None));
    assert!(follow(302, "ftp://a.test/x").0.is_err());
}

#[test]
fn a_host_of_its_own_replaces_the_upstreams() {
    let place = transport().reach("a.test:8080").unwrap();
    let mut q = question();
    assert_eq!(q.request(&place).unwrap().headers()["host"], "a.test:8080");
    q.headers.push((header::HOST, Template::parse("he.alth")));
    let request = q.request(&place).unwrap();
    assert_eq!(request.headers().get_all("host").iter().collect::<Vec<_>>(), ["he.alth"]);
}

#[test]
fn the_key_of_the_upstreams_account_goes_along() {
    let place = transport().reach("a.test:80").unwrap();
    let ops: crate::http::headers::HeaderOps =
        serde_json::from_str(r#"{"set": {"Authorization": ["Bearer a"], "X-Key": ["theirs"]}}"#).unwrap();
    let q = Question { own: Some(ops.compile().unwrap()), ..question() };
    let request = q.request(&place).unwrap();
    assert_eq!(request.headers()["authorization"], "Bearer a");
    assert_eq!(request.headers().get_all("x-key").iter().collect::<Vec<_>>(), ["secret"], "health_headers win");
}

#[test]
fn no_location_of_a_stranger_does_harm() {
    let place = transport().reach("a.test:80").unwrap();
    let parts =
        ["http", "s", ":", "//", "/", "?", "#", "a.test", "[::1]", "@", "..", "%zz", "é", " ", "\u{0}", "99999", ""];
    let mut rng = fastrand::Rng::with_seed(5);
    let mut followed = 0;
    for _ in 0..20_000 {
        let location: String = (0..rng.usize(1..7)).map(|_| parts[rng.usize(..parts.len())]).collect();
        let Ok(value) = HeaderValue::from_bytes(location.as_bytes()) else { continue };
        let mut answer = answer(302, "", "");
        answer.headers_mut().insert(header::LOCATION, value);
        let mut request = question().request(&place).unwrap();
        if let Ok(next @ (Next::Here | Next::At(_))) = question().redirect(&answer, &place, &mut request) {
            followed += 1;
            assert!(request.uri().path().starts_with('/') && request.uri().host().is_none(), "{location}");
            let key = request.headers().contains_key("x-key");
            assert_eq!(key, next == Next::Here, "{location}: the key goes where it belongs");
        }
    }
    assert!(followed > 100, "{followed}");
}
