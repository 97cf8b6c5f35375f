//! Pebble, Let's Encrypt's CA for tests (Debian package `pebble`): really asks the challenges, of names that its own DNS
//! resolves to this machine.

use super::process::free_port;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running CA. Its processes end on drop.
pub struct Pebble {
    _processes: [Ended; 2],
    directory: tempfile::TempDir,
    port: u16,
    management: u16,
    dns: u16,
    dns_management: u16,
    /// Where it asks HTTP-01 and TLS-ALPN-01 challenges.
    pub http_port: u16,
    pub https_port: u16,
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// External account credentials that a CA with `eab` knows.
pub const EAB_ID: &str = "kid-1";
pub const EAB_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

/// Whether Pebble is installed; says so when it is not.
pub fn installed_or_skip() -> bool {
    let found = Command::new("pebble").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: pebble is not installed");
    }
    found
}

impl Pebble {
    /// `validity`: seconds that certificates are good for.
    pub fn start(eab: bool, validity: u64) -> Self {
        Self::start_with(eab, validity, &[])
    }

    /// As [`Pebble::start`], with more in its environment.
    pub fn start_with(eab: bool, validity: u64, environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = rcgen::CertifiedIssuer::self_signed(authority, rcgen::KeyPair::generate().unwrap()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        std::fs::write(file("root.crt"), authority.pem()).unwrap();
        std::fs::write(file("api.crt"), leaf.pem()).unwrap();
        std::fs::write(file("api.key"), key.serialize_pem()).unwrap();
        let (port, management, dns, dns_management) = (free_port(), free_port(), free_port(), free_port());
        let (http_port, https_port) = (free_port(), free_port());
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": file("api.crt"), "privateKey": file("api.key"),
            "httpPort": http_port, "tlsPort": https_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": eab,
            "externalAccountMACKeys": {EAB_ID: EAB_KEY},
            "certificateValidityPeriod": validity,
        }});
        std::fs::write(file("config.json"), config.to_string()).unwrap();
        let quiet = |command: &mut Command| {
            Ended(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        };
        let resolver = quiet(Command::new("pebble-challtestsrv").args([
            "-management",
            &format!("127.0.0.1:{dns_management}"),
            "-dns01",
            &format!("127.0.0.1:{dns}"),
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-defaultIPv4",
            "127.0.0.1",
            "-defaultIPv6",
            "",
        ]));
        let log = std::fs::File::create(file("log")).unwrap();
        let mut command = Command::new("pebble");
        command
            .args(["-config", file("config.json").to_str().unwrap(), "-dnsserver", &format!("127.0.0.1:{dns}")])
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "5"), ("PEBBLE_AUTHZREUSE", "0")])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let pebble = Ended(command.spawn().unwrap());
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", management)).is_err()
            || std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
        {
            let said = std::fs::read_to_string(file("log")).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(20), "pebble does not listen: {said}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { _processes: [resolver, pebble], directory, port, management, dns, dns_management, http_port, https_port }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// The DNS server that it asks, which knows every name.
    pub fn resolver(&self) -> String {
        format!("127.0.0.1:{}", self.dns)
    }

    /// Tells its DNS server something, such as `set-txt` (pebble-challtestsrv's management interface).
    pub fn tell_dns(&self, action: &str, json: &serde_json::Value) {
        tell_dns(self.dns_management, action, json);
    }

    /// The port on which its DNS server is told what to answer.
    pub fn dns_management(&self) -> u16 {
        self.dns_management
    }

    /// The root of its API's certificate, to be trusted by ACME clients.
    pub fn api_root(&self) -> PathBuf {
        self.directory.path().join("root.crt")
    }

    /// The root that its certificates lead to (new at every start), PEM.
    pub fn issuing_root(&self) -> String {
        self.root(0)
    }

    /// The root of the chain of this number; all but the first are alternates.
    pub fn root(&self, number: usize) -> String {
        let api = std::fs::read_to_string(self.api_root()).unwrap();
        let mut connection = super::tls::connect(self.management, "localhost", &api);
        connection.send(format!("GET /roots/{number} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        connection.response().unwrap().text()
    }

    /// How many orders it has been asked for.
    pub fn orders(&self) -> usize {
        let log = std::fs::File::open(self.directory.path().join("log")).unwrap();
        BufReader::new(log).lines().map_while(Result::ok).filter(|line| line.contains("Added order")).count()
    }

    /// How many accounts have been made.
    pub fn accounts(&self) -> usize {
        let log = std::fs::File::open(self.directory.path().join("log")).unwrap();
        BufReader::new(log).lines().map_while(Result::ok).filter(|line| line.contains("accounts in memory")).count()
    }

    /// The global options of a file that takes its certificates from here.
    pub fn options(&self, storage: &Path, more: &str) -> String {
        format!(
            "{{\n\tadmin off\n\thttp_port {}\n\thttps_port {}\n\tstorage file_system {}\n\tacme_ca {}\n\tacme_ca_root {}\n{more}}}\n",
            self.http_port,
            self.https_port,
            storage.display(),
            self.url(),
            self.api_root().display(),
        )
    }
}

pub fn tell_dns(management: u16, action: &str, json: &serde_json::Value) {
    let body = json.to_string();
    let stream = std::net::TcpStream::connect(("127.0.0.1", management)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut connection = super::client::Connection::over(stream);
    let length = body.len();
    connection.send(format!(
        "POST /{action} HTTP/1.1\r\nHost: dns\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    assert_eq!(connection.response().unwrap().status(), 200);
}
