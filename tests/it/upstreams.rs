//! Upstreams of `reverse_proxy`: with settings of their own, and looked up in the DNS while its answers change.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::client::{self, Response};
use crate::harness::process::{Proxy, Which, caddy_or_skip, free_port};
use crate::harness::standin::{KEY, Standin};
use crate::harness::upstream::Upstream;

#[path = "../../src/client/dns/testing.rs"]
#[allow(dead_code)]
mod dns;

use dns::{A, NO_SUCH_NAME, SERVER_FAILED, SRV, Said};

fn chat(port: u16, model: &str) -> Response {
    let body = json!({ "model": model, "messages": [] }).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer client\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client::request(port, head + &body).unwrap()
}

#[test]
fn accounts_of_several_providers_behind_one_address() {
    let (provider, local) = (Standin::start(), Upstream::start("local"));
    let port = free_port();
    let file = format!(
        "http://:{port} {{
	bind 127.0.0.1
	reverse_proxy {{
		to https://api.openai.com {{
			header_up Authorization \"Bearer {KEY}\"
			models gpt-*
			weight 2
		}}
		to http://{} {{
			header_up Authorization \"Bearer local\"
			header_up X-Account two
			models gpt-* llama*
		}}
		header_up Authorization \"Bearer common\"
		header_up X-Common 1
	}}
}}
",
        local.address()
    );
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &file, port, |command| {
        command.envs(provider.environment());
        command.env("NO_PROXY", "127.0.0.1");
    });
    let mut of_local = 0;
    for _ in 0..6 {
        let answer = chat(port, "gpt-4o");
        assert_eq!(answer.status(), 200, "{}", answer.text());
        if answer.text().contains("\"local\"") {
            of_local += 1;
            // `Host` stays the client's towards an upstream without TLS.
            for seen in ["gateway.test", "Bearer local", "two"] {
                assert!(answer.text().contains(seen), "{}", answer.text());
            }
            assert!(!answer.text().contains("Bearer common") && !answer.text().contains("Bearer client"));
        }
    }
    assert_eq!(of_local, 2, "turns by weight");
    assert!(provider.server_names().iter().all(|name| name.as_deref() == Some("api.openai.com")));
    assert!(chat(port, "llama3").text().contains("Bearer local"));
    let unknown = chat(port, "claude-x");
    assert_eq!(unknown.status(), 404);
    assert_eq!(unknown.json()["error"]["code"], "model_not_found");
    let untold = client::get_of(port, "gateway.test", "/v1/files");
    assert_eq!(untold.status(), 404, "{}", untold.text());
    for secret in [KEY, "Bearer local", "Bearer common"] {
        assert!(!proxy.log().contains(secret), "{}", proxy.log());
    }
}

/// Which name serves: the ports of the service, one after the other; 0 = the server does not know.
fn server(now: &Arc<AtomicU16>) -> SocketAddr {
    let now = Arc::clone(now);
    dns::serve((Ipv4Addr::LOCALHOST, 0), move |name, kind| {
        let port = now.load(Ordering::SeqCst);
        match (name, kind) {
            ("_api._tcp.up.test" | "_other._tcp.up.test", SRV) if port == 0 => Err(SERVER_FAILED),
            ("_api._tcp.up.test" | "_other._tcp.up.test", SRV) => {
                Ok(vec![Said::Service(2, 0, 1, "host.test"), Said::Service(1, 0, port, "host.test")])
            }
            ("host.test", A) => Ok(vec![Said::Address(Ipv4Addr::LOCALHOST)]),
            ("host.test", _) => Ok(Vec::new()),
            _ => Err(NO_SUCH_NAME),
        }
    })
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn looked_up_upstreams_follow_the_answers() {
    follow_the_answers(Which::Llmproxy);
    if caddy_or_skip() {
        follow_the_answers(Which::Caddy);
    }
}

fn follow_the_answers(which: Which) {
    let (one, two, fixed) = (Upstream::start("one"), Upstream::start("two"), Upstream::start("fixed"));
    let now = Arc::new(AtomicU16::new(one.port));
    let dns = server(&now);
    let port = free_port();
    let site = |name: &str, static_one: &str, source: &str| {
        format!(
            "	handle /{name} {{
		reverse_proxy {static_one} {{
			dynamic {source}
			transport http {{
				resolvers {dns}
			}}
			lb_policy first
		}}
	}}
"
        )
    };
    // Two names: Caddy keeps one answer for both handlers, with the grace of one.
    let srv = |name: &str, more: &str| {
        format!("srv {name}._tcp.up.test {{\n\t\t\t\trefresh 1s\n\t\t\t\tresolvers {dns}\n{more}\t\t\t}}")
    };
    let a = |name: &str, port: &str| {
        format!("a {name} {port} {{\n\t\t\t\trefresh 1s\n\t\t\t\tresolvers {dns}\n\t\t\t\tversions ipv4\n\t\t\t}}")
    };
    let (port_one, fixed_at) = (one.port.to_string(), fixed.address());
    let file = format!(
        "{{\n\tadmin off\n\tauto_https off\n}}\nhttp://:{port} {{\n\tbind 127.0.0.1\n{}{}{}{}{}}}\n",
        site("srv", "", &srv("_api", "\t\t\t\tgrace_period 1m\n")),
        site("or-fixed", &fixed_at, &srv("_other", "")),
        site("none", "", &a("nobody.test", &port_one)),
        site("a", "", &a("host.test", &port_one)),
        site("asked", "", &a("{query.name}", "{query.port}")),
    );
    let _proxy = Proxy::start_with(which, "Caddyfile", &file, port, |_| {});
    let serves = |path: &str, name: &str| {
        let answer = client::get(port, path);
        answer.status() == 200 && answer.text().contains(&format!("\"{name}\""))
    };
    for path in ["/srv", "/or-fixed", "/a"] {
        assert!(serves(path, "one"), "{which:?} {path}: {}", client::get(port, path).text());
    }
    assert!(serves(&format!("/asked?name=host.test&port={}", two.port), "two"), "{which:?}");
    assert_eq!(client::get(port, "/none").status(), 503, "{which:?}");
    now.store(two.port, Ordering::SeqCst);
    until("the new place serves", || serves("/srv", "two") && serves("/or-fixed", "two"));
    now.store(0, Ordering::SeqCst);
    until("the fixed upstream serves while there is no answer", || serves("/or-fixed", "fixed"));
    // With a grace period the last answer goes on.
    assert!(serves("/srv", "two"), "{which:?}: {}", client::get(port, "/srv").text());
    now.store(one.port, Ordering::SeqCst);
    until("the name is asked for again", || serves("/or-fixed", "one"));
}

#[test]
fn a_retry_looks_the_name_up_again() {
    let live = Upstream::start("live");
    // Nothing listens on the first port.
    let now = Arc::new(AtomicU16::new(free_port()));
    let dns = server(&now);
    let port = free_port();
    let file = format!(
        "http://:{port} {{
	bind 127.0.0.1
	reverse_proxy {{
		dynamic srv _api._tcp.up.test {{
			refresh 10m
			resolvers {dns}
		}}
		transport http {{
			resolvers {dns}
		}}
		lb_policy first
		lb_try_duration 8s
		lb_try_interval 100ms
	}}
}}
"
    );
    let _proxy = Proxy::start(Which::Llmproxy, &file, port);
    let waiting = std::thread::spawn(move || client::get(port, "/"));
    // The first answer is used, and fails.
    std::thread::sleep(Duration::from_millis(300));
    now.store(live.port, Ordering::SeqCst);
    let answer = waiting.join().unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(answer.text().contains("\"live\""));
}
