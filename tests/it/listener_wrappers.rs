//! Listener wrappers: the PROXY protocol from hand-made bytes, beside Caddy, and from real haproxy and nginx in front;
//! plain HTTP on a TLS port.

use crate::harness::client::{self, Connection, NoResponse};
use crate::harness::process::{Proxy, Which, caddy_or_skip, command, free_port, run_within};
use crate::harness::tls;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
const V1: &str = "PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n";

fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[version_command, family], &length, body].concat()
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 4, 210, 1, 187];

fn with_request(header: &[u8]) -> Vec<u8> {
    [header, GET.as_bytes()].concat()
}

/// A plain-HTTP server behind the wrapper, which says whom it takes the client for.
fn plain(port: u16, wrapper: &str) -> String {
    format!(
        "{{\n\tadmin off\n\tservers {{\n\t\tlistener_wrappers {{\n\t\t\t{wrapper}\n\t\t}}\n\t}}\n}}\nhttp://:{port} {{\n\t@doc remote_ip 192.0.2.0/24\n\tredir @doc /doc?{{remote}}&{{http.request.local}} 302\n\trespond \"{{remote_host}}\"\n}}\n"
    )
}

/// What came back, in a word.
fn told(port: u16, bytes: &[u8]) -> String {
    match client::request(port, bytes) {
        Ok(answer) => {
            format!("{} {}{}", answer.status(), answer.header("location").unwrap_or_default(), answer.text())
        }
        Err(NoResponse::Closed) => "closed".into(),
        Err(NoResponse::Silent) => "silent".into(),
    }
}

#[test]
fn the_client_is_whom_an_allowed_balancer_names() {
    let port = free_port();
    let _proxy = Proxy::start(Which::Llmproxy, &plain(port, "proxy_protocol {\n\tallow 127.0.0.1/32\n}"), port);
    let told = |header: &[u8]| told(port, &with_request(header));
    let named = "302 /doc?192.0.2.1:1234&198.51.100.2:443";
    assert_eq!(told(V1.as_bytes()), named);
    assert_eq!(told(&v2(0x21, 0x11, &V4)), named);
    assert_eq!(told(&v2(0x21, 0x11, &[&V4[..], b"\x04\x00\x03abc"].concat())), named, "TLVs are skipped");
    let own = "200 127.0.0.1";
    assert_eq!(told(b""), own, "no header");
    for own_address in [v2(0x20, 0, b""), v2(0x21, 0, b""), b"PROXY UNKNOWN\r\n".to_vec()] {
        assert_eq!(told(&own_address), own, "a health check of the balancer");
    }
    let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 15], &[1], &[4, 210, 1, 187]].concat();
    assert_eq!(told(&v2(0x21, 0x21, &six)), "200 2001:db8::7");
    for broken in [
        b"PROXY TCP4 192.0.2.1\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1 99999\r\n".to_vec(),
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)).into_bytes(),
        v2(0x21, 0x11, &V4[..8]),
        v2(0x31, 0x11, &V4),
        v2(0x21, 0x11, &[0; 60_000]),
    ] {
        assert_eq!(told(&broken), "closed", "{broken:?}");
    }
}

#[test]
fn every_policy_is_caddys() {
    if !caddy_or_skip() {
        return;
    }
    let policies = ["ignore", "use", "reject", "require", "skip"].map(|p| format!("fallback_policy {p}"));
    let lists = ["deny 127.0.0.0/8\n\t\t\t\tallow 127.0.0.1/32", "allow 10.0.0.0/8", "allow 127.0.0.1/32"];
    let settings: Vec<String> = policies.into_iter().chain(lists.map(str::to_owned)).collect();
    crate::harness::in_parallel(&settings, |setting| {
        let text = |port| plain(port, &format!("proxy_protocol {{\n\t\t\t\ttimeout 2s\n\t\t\t\t{setting}\n\t\t\t}}"));
        let both = [Which::Caddy, Which::Llmproxy].map(|which| {
            let port = free_port();
            let _proxy = Proxy::start(which, &text(port), port);
            [b"".to_vec(), V1.into(), v2(0x21, 0x11, &V4), v2(0x20, 0, b""), b"PROXY TCP4 x\r\n".to_vec()].map(
                |header| {
                    let told = told(port, &with_request(&header));
                    // A connection that is closed says nothing; Go answers some of them with 400 first.
                    if told.starts_with("400") { "closed".to_owned() } else { told }
                },
            )
        });
        assert_eq!(both[0], both[1], "{setting}");
    });
}

#[test]
fn a_slow_header_costs_no_more_than_its_time() {
    let port = free_port();
    let wrapper = "proxy_protocol {\n\ttimeout 300ms\n\tallow 127.0.0.1/32\n}";
    let _proxy = Proxy::start(Which::Llmproxy, &plain(port, wrapper), port);
    let mut drip = Connection::open(port);
    drip.send("PROXY TCP4 ");
    let began = Instant::now();
    assert!(drip.closes());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // A client that only takes its time is served: it sent no header.
    let mut late = Connection::open(port);
    std::thread::sleep(Duration::from_millis(600));
    late.send(GET);
    assert_eq!(late.response().unwrap().text(), "127.0.0.1");
}

/// TLS with the internal CA behind the wrappers.
fn over_tls(port: u16, storage: &Path, wrappers: &str) -> String {
    let (storage, http) = (storage.display(), free_port());
    format!(
        "{{\n\tadmin off\n\tskip_install_trust\n\thttp_port {http}\n\thttps_port {port}\n\tstorage file_system {storage}\n\tservers :{port} {{\n\t\tlistener_wrappers {{\n{wrappers}\n\t\t}}\n\t}}\n}}\nlocalhost:{port} {{\n\trespond {{remote_host}}\n}}\n"
    )
}

fn root(storage: &Path) -> String {
    std::fs::read_to_string(storage.join("pki/authorities/local/root.crt")).unwrap()
}

/// `GET /` over TLS after bytes in clear.
fn get_after(port: u16, clear: &[u8], storage: &Path) -> Result<String, NoResponse> {
    let mut connection = tls::connect(port, "localhost", &root(storage));
    connection.stream.sock.write_all(clear).unwrap();
    connection.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    connection.response().map(|answer| answer.text())
}

#[test]
fn both_wrappers_stand_before_tls_and_order_does_not_matter_to_them() {
    let storage = tempfile::tempdir().unwrap();
    let proxy_protocol = "proxy_protocol {\n\tfallback_policy use\n}";
    for order in [format!("{proxy_protocol}\nhttp_redirect\ntls"), format!("http_redirect\n{proxy_protocol}\ntls")] {
        let port = free_port();
        let _proxy = Proxy::start(Which::Llmproxy, &over_tls(port, storage.path(), &order), port);
        assert_eq!(get_after(port, b"", storage.path()).unwrap(), "127.0.0.1");
        assert_eq!(get_after(port, V1.as_bytes(), storage.path()).unwrap(), "192.0.2.1");
        assert_eq!(get_after(port, &v2(0x21, 0x11, &V4), storage.path()).unwrap(), "192.0.2.1");
        let location = "308 https://a.test/";
        assert_eq!(told(port, GET.as_bytes()), location);
        if order.starts_with("proxy") {
            assert_eq!(told(port, &with_request(V1.as_bytes())), location, "a redirect behind a balancer");
        }
    }
}

#[test]
fn plain_http_on_the_tls_port_is_redirected_as_by_caddy() {
    if !caddy_or_skip() {
        return;
    }
    let requests: [&[u8]; 6] = [
        GET.as_bytes(),
        b"POST /x?y=%20z HTTP/1.1\r\nHost: a.test:8443\r\nContent-Length: 3\r\n\r\nabc",
        b"HEAD /h HTTP/1.0\r\nHost: [::1]:99\r\n\r\n",
        b"OPTIONS /o HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / nonsense\r\n\r\n",
        b"\x16\x03\x01\x00\x05garbage that is no hello",
    ];
    let both = [Which::Caddy, Which::Llmproxy].map(|which| {
        let (port, storage) = (free_port(), tempfile::tempdir().unwrap());
        let _proxy = Proxy::start(which, &over_tls(port, storage.path(), "http_redirect\ntls"), port);
        requests.map(|request| {
            let mut connection = Connection::open(port);
            connection.send(request);
            let mut answer = Vec::new();
            let _ = connection.stream.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let line = |start: &str| answer.lines().find(|l| l.starts_with(start)).unwrap_or_default().to_owned();
            // What neither answers with a redirect is closed, with a word or without.
            (line("HTTP/1.0 308"), line("Location:"))
        })
    });
    assert_eq!(both[0], both[1]);
    assert_eq!(both[1][1].1, "Location: https://a.test:8443/x?y=%20z");
}

#[test]
fn a_wrapper_on_the_wrong_side_of_tls_is_named() {
    for (wrappers, accepted, said) in [
        ("http_redirect", false, "wrapper-after-tls"),
        ("tls\nhttp_redirect", false, "wrapper-after-tls"),
        ("http_redirect\ntls\ntls", false, "wrapper-after-tls"),
        ("proxy_protocol\ntls", true, ""),
        ("proxy_protocol", true, "warning[wrapper-after-tls]"),
        ("proxy_protocol {\n\tallow nobody\n}\ntls", false, "invalid-ip-range"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("Proxyfile"), over_tls(8443, directory.path(), wrappers)).unwrap();
        let mut validate = command(Which::Llmproxy, directory.path());
        let output = run_within(validate.args(["validate", "--config", "Proxyfile"]), Duration::from_secs(20));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), accepted, "{wrappers}: {stderr}");
        assert!(stderr.contains(said) && (!said.is_empty() || stderr.is_empty()), "{wrappers}: {stderr}");
    }
}

/// A balancer of another make, in front; ended on drop.
pub struct Balancer {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Balancer {
    pub fn start(program: &str, arguments: &[&str], configuration: &str, port: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("configuration");
        std::fs::write(&file, configuration.replace("DIRECTORY", &directory.path().display().to_string())).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut started = Self { child: command.spawn().unwrap(), _directory: directory };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = started.child.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < Duration::from_secs(20), "{program}: {ended:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        started
    }
}

/// `false`, with a message, where a program is absent; a failure under `CI=true`.
pub fn is_there(program: &str) -> bool {
    let found = std::env::split_paths("/usr/sbin:/usr/bin:/usr/local/bin").any(|folder| folder.join(program).is_file());
    assert!(found || std::env::var("CI").as_deref() != Ok("true"), "{program} is missing; ./test installs it");
    if !found {
        eprintln!("skipped: no {program}");
    }
    found
}

/// The client comes from 127.0.0.9, the balancer from 127.0.0.1.
fn get_from_elsewhere(port: u16, authority: &str) -> String {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.9:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut connection = tls::over(stream, "localhost", authority);
    connection.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    connection.response().unwrap().text()
}

#[test]
fn haproxy_and_nginx_in_front_tell_whom_they_serve() {
    let (backend, storage) = (free_port(), tempfile::tempdir().unwrap());
    let wrappers = "proxy_protocol {\n\tallow 127.0.0.1/32\n\tfallback_policy reject\n}\ntls";
    let _proxy = Proxy::start(Which::Llmproxy, &over_tls(backend, storage.path(), wrappers), backend);
    let authority = root(storage.path());
    if is_there("haproxy") {
        let ports = [free_port(), free_port(), free_port()];
        let mut text =
            "defaults\n mode tcp\n timeout client 20s\n timeout server 20s\n timeout connect 5s\n".to_owned();
        for (port, send) in
            ports.iter().zip(["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
        {
            text += &format!("listen l{port}\n bind 127.0.0.1:{port}\n server s 127.0.0.1:{backend} {send}\n");
        }
        let _haproxy = Balancer::start("haproxy", &["-db", "-f"], &text, ports[2]);
        for port in ports {
            assert_eq!(get_from_elsewhere(port, &authority), "127.0.0.9");
        }
    }
    if is_there("nginx") {
        let port = free_port();
        let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
        let load = if Path::new(module).exists() { format!("load_module {module};\n") } else { String::new() };
        let text = format!(
            "{load}daemon off;\nmaster_process off;\npid DIRECTORY/pid;\nerror_log /dev/null;\nevents {{}}\nstream {{ server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{backend}; proxy_protocol on; }} }}\n"
        );
        let has_stream = Path::new(module).exists()
            || Command::new("nginx")
                .arg("-V")
                .output()
                .is_ok_and(|o| String::from_utf8_lossy(&o.stderr).contains("--with-stream "));
        if has_stream {
            let _nginx = Balancer::start("nginx", &["-p", "/nonexistent", "-e", "/dev/null", "-c"], &text, port);
            assert_eq!(get_from_elsewhere(port, &authority), "127.0.0.9");
        } else {
            eprintln!("skipped: this nginx has no stream module");
        }
    }
}
