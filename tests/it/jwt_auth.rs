//! `jwt_auth` beside `auth_token`, told apart by a matcher: who gets in, what the upstream sees, what a client reads.

use crate::harness::client::{self, Response};
use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::upstream::Upstream;

/// Made once with HS256 and the secret below: `{"sub":"bob","team":"a","exp":4102444800}` (the year 2100).
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJib2IiLCJ0ZWFtIjoiYSIsImV4cCI6NDEwMjQ0NDgwMH0.gd_0sXfo5mbbPCYyuN6P8aOQk6Y-wCG_JrgXsaEQtmc";
const SECRET: &str = "a-secret-shared-with-the-issuer-alone";

fn start(upstream: &Upstream) -> (Proxy, u16) {
    let port = free_port();
    let file = format!(
        "http://:{port} {{
	bind 127.0.0.1
	@jwt header Authorization \"Bearer ey*\"
	@key not header Authorization \"Bearer ey*\"
	jwt_auth @jwt {{
		secret {{$JWT_SECRET}}
	}}
	auth_token @key of-a-program
	reverse_proxy {} {{
		header_up X-User {{http.auth.user.id}}
		header_up X-Team {{auth.claim.team}}
	}}
}}
",
        upstream.address()
    );
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &file, port, |command| {
        command.env("JWT_SECRET", SECRET);
    });
    (proxy, port)
}

fn ask(port: u16, path: &str, header: &str) -> Response {
    client::request(port, format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{header}\r\n")).unwrap()
}

#[test]
fn tokens_of_people_and_of_programs_open_and_never_go_up() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream);
    let response = ask(port, "/v1/models", &format!("Authorization: Bearer {TOKEN}\r\nx-api-key: sk-of-a-client\r\n"));
    assert_eq!(response.status(), 200, "{}", response.text());
    let seen = response.json()["headers"].to_string();
    assert!(seen.contains("bob") && !seen.contains(TOKEN) && !seen.contains("sk-of-a-client"), "{seen}");
    assert_eq!(ask(port, "/v1/models", "Authorization: Bearer of-a-program\r\n").status(), 200);
}

#[test]
fn others_are_refused_in_their_dialect() {
    let upstream = Upstream::start("U");
    let (proxy, port) = start(&upstream);
    let changed = format!("{}x", &TOKEN[..TOKEN.len() - 3]);
    for (path, kind) in [("/v1/chat/completions", "invalid_request_error"), ("/v1/messages", "authentication_error")] {
        let response = ask(port, path, &format!("Authorization: Bearer {changed}\r\n"));
        assert_eq!(response.status(), 401);
        assert_eq!(response.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
        assert_eq!(response.json()["error"]["type"], kind);
        assert!(!response.text().contains(&changed));
    }
    assert_eq!(ask(port, "/v1/models", "").status(), 401);
    assert!(upstream.events().is_empty(), "{:?}", upstream.events());
    assert!(!proxy.log().contains(&changed) && !proxy.log().contains(SECRET));
}
