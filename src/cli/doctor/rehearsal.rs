//! A Proxyfile tried out: run as it is, but on a free port of this machine, without TLS, and with the doctor in the place
//! of every upstream. What it writes (logs, records) stays where the doctor looks, and is removed.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::report::{GATEWAY, Report};
use super::upstream::Upstream;
use crate::base::diagnostic;
use crate::cli::args::DoctorArgs;
use crate::compile::load;
use crate::modules::REGISTRY;
use crate::server::control;

const STARTS_WITHIN: Duration = Duration::from_secs(20);

pub struct Rehearsal {
    pub url: String,
    /// The host that the site asks for.
    pub host: Option<String>,
    /// As the user named it.
    pub config: String,
    logs_credentials: bool,
    child: Child,
    folder: PathBuf,
}

pub fn start(args: &DoctorArgs, upstream: &Upstream) -> Result<Rehearsal, String> {
    let source = args.config.source()?;
    let loaded = load::load_config(&source, &REGISTRY);
    let Some(config) = loaded.config else {
        return Err(format!(
            "{} does not load:\n{}",
            source.path.display(),
            diagnostic::render(&loaded.diagnostics, &loaded.sources, false)
        ));
    };
    let mut config = serde_json::to_value(&config).map_err(|e| e.to_string())?;
    let port = free_port()?;
    let (wanted, path) = match args.site.as_deref().map(|site| site.split_at(site.find('/').unwrap_or(site.len()))) {
        Some((host, path)) => (Some(host).filter(|h| !h.is_empty()), path),
        None => (None, ""),
    };
    let host = rewrite(&mut config, wanted, port, &format!("127.0.0.1:{}", upstream.port))?;
    let logs_credentials = config.to_string().contains("\"should_log_credentials\":true");

    let folder = std::env::temp_dir().join(format!("llmproxy-doctor-{}-{:08x}", std::process::id(), fastrand::u32(..)));
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
    let (file, log, socket) = (folder.join("config.json"), folder.join("log"), folder.join("control.sock"));
    let started = write_private(&file, &config.to_string())
        .and_then(|()| std::fs::File::create(&log))
        .and_then(|log| spawn(&file, &args.config.envfile, &socket, &log));
    let child = match started {
        Ok(child) => child,
        Err(error) => {
            let _ = std::fs::remove_dir_all(&folder);
            return Err(format!("the rehearsal does not start: {error}"));
        }
    };
    let url = format!("http://127.0.0.1:{port}{path}");
    let mut rehearsal =
        Rehearsal { url, host, config: source.path.display().to_string(), logs_credentials, child, folder };
    rehearsal.wait(&socket)?;
    // It has been read, and may hold secrets: it should not outlive an interrupted doctor.
    let _ = std::fs::remove_file(&file);
    Ok(rehearsal)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn spawn(config: &Path, env_files: &[PathBuf], socket: &Path, log: &std::fs::File) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--no-watch", "--workers", "1", "--config"]).arg(config);
    // What is a placeholder (`{env.NAME}`) is still one in the configuration that runs.
    for file in env_files {
        command.arg("--envfile").arg(file);
    }
    command
        .arg("--control")
        .arg(socket)
        // The token is the client's, not the gateway's.
        .env_remove("LLMPROXY_TOKEN")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .spawn()
}

impl Rehearsal {
    fn wait(&mut self, socket: &Path) -> Result<(), String> {
        let until = Instant::now() + STARTS_WITHIN;
        while control::call(socket, &control::Command::Status).is_err() {
            let ended = self.child.try_wait().map_err(|e| e.to_string())?.is_some();
            if ended || Instant::now() > until {
                let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(format!("the rehearsal does not run:\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// What the configuration itself says.
    pub fn lint(&self, report: &mut Report) {
        let why = self.logs_credentials.then(|| "`log_credentials` writes every client's token to the log".to_owned());
        report.judge(&[GATEWAY], "log-credentials", why, "remove `log_credentials`");
    }

    /// Ends it; the folder holds what it wrote, until this value is dropped.
    pub fn stop(&mut self) -> PathBuf {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.folder.join("log")
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    Ok(listener.local_addr().map_err(|e| e.to_string())?.port())
}

/// Turns every upstream to `upstream`, and the first server that has one (and the site `wanted`) to `port`; other servers
/// are left out. Gives the host to ask for: `wanted`, or that of its first site.
fn rewrite(config: &mut Value, wanted: Option<&str>, port: u16, upstream: &str) -> Result<Option<String>, String> {
    let mut servers = config["apps"]["http"]["servers"].as_object().cloned().unwrap_or_default();
    let suits = |server: &Value| has_upstream(server) && wanted.is_none_or(|host| hosts(server).any(|h| h == host));
    let Some((name, mut server)) = servers.iter_mut().find(|(_, server)| suits(server)).map(|(n, s)| (n, s.take()))
    else {
        return Err(match wanted {
            Some(host) => format!("no site `{host}` of the file has a `reverse_proxy`"),
            None => "no site of the file has a `reverse_proxy`: give the URL of a running gateway".to_owned(),
        });
    };
    let host = wanted.or_else(|| hosts(&server).find(|h| !h.contains(['*', '{']))).map(ToOwned::to_owned);
    replace_upstreams(&mut server, upstream);
    server["listen"] = json!([format!("127.0.0.1:{port}")]);
    server["automatic_https"] = json!({"disable": true});
    if let Some(server) = server.as_object_mut() {
        server.remove("tls_connection_policies");
    }
    *config = json!({"admin": {"disabled": true}, "apps": {"http": {"servers": {name: server}}}});
    Ok(host)
}

fn has_upstream(value: &Value) -> bool {
    match value {
        Value::Object(map) => {
            map.get("handler").is_some_and(|h| h == "reverse_proxy") || map.values().any(has_upstream)
        }
        Value::Array(items) => items.iter().any(has_upstream),
        _ => false,
    }
}

/// Everything that leads elsewhere is cut: other upstreams, their health, records in folders of the admin's.
fn replace_upstreams(value: &mut Value, upstream: &str) {
    match value {
        Value::Array(items) => {
            items.retain(|item| item["handler"] != "record");
            for item in items {
                replace_upstreams(item, upstream);
            }
        }
        Value::Object(map) => {
            if map.get("handler").is_some_and(|h| h == "reverse_proxy") {
                lead_to(map, upstream);
            }
            for value in map.values_mut() {
                replace_upstreams(value, upstream);
            }
        }
        _ => {}
    }
}

fn lead_to(proxy: &mut Map<String, Value>, upstream: &str) {
    for elsewhere in ["health_checks", "dynamic_upstreams"] {
        proxy.remove(elsewhere);
    }
    if proxy.get("transport").is_some_and(|t| t["protocol"] != "http") {
        proxy.remove("transport");
    }
    // How long connections are kept stays; what suits the real upstream alone goes.
    if let Some(transport) = proxy.get_mut("transport").and_then(Value::as_object_mut) {
        let alone =
            ["tls", "versions", "network_proxy", "forward_proxy_url", "local_address", "proxy_protocol", "resolver"];
        transport.retain(|name, _| !alone.contains(&name.as_str()));
    }
    proxy.insert("upstreams".to_owned(), json!([{"dial": upstream}]));
}

/// The hosts that the sites of a server are for, in the order of the routes.
fn hosts(server: &Value) -> impl Iterator<Item = &str> {
    let routes = server["routes"].as_array().into_iter().flatten();
    let matchers = routes.flat_map(|r| r["match"].as_array().into_iter().flatten());
    matchers.flat_map(|m| m["host"].as_array().into_iter().flatten()).filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Value {
        let proxy = json!({
            "handler": "reverse_proxy", "upstreams": [{"dial": "api.example.com:443"}],
            "health_checks": {"active": {"uri": "/"}},
            "transport": {"protocol": "http", "tls": {}, "keep_alive": {"enabled": false}},
        });
        let site = |host: &str| {
            let inner = json!({"handle": [{"handler": "record", "folder": "/var/records"}, proxy]});
            json!({"match": [{"host": [host]}], "handle": [{"handler": "subroute", "routes": [inner]}]})
        };
        json!({"logging": {}, "apps": {"tls": {}, "http": {"servers": {
            "srv0": {"listen": [":80"], "routes": [{"handle": [{"handler": "static_response"}]}]},
            "srv1": {"listen": [":443"], "routes": [site("*.example.com"), site("a.test"), site("b.test")], "tls_connection_policies": [{}]},
        }}}})
    }

    #[test]
    fn everything_that_leads_elsewhere_is_cut() {
        let mut config = config();
        let host = rewrite(&mut config, None, 1234, "127.0.0.1:9").unwrap();
        assert_eq!(host.as_deref(), Some("a.test"));
        let proxy = json!({
            "handler": "reverse_proxy", "upstreams": [{"dial": "127.0.0.1:9"}],
            "transport": {"protocol": "http", "keep_alive": {"enabled": false}},
        });
        let server = &config["apps"]["http"]["servers"]["srv1"];
        assert_eq!(server["routes"][0]["handle"][0]["routes"][0]["handle"], json!([proxy]));
        assert_eq!(server["listen"], json!(["127.0.0.1:1234"]));
        let text = config.to_string();
        for gone in ["srv0", "logging", "tls", "api.example.com", "/var/records"] {
            assert!(!text.contains(gone), "{gone}: {text}");
        }
    }

    #[test]
    fn a_site_is_chosen_by_its_name() {
        assert_eq!(rewrite(&mut config(), Some("b.test"), 1, "u").unwrap().as_deref(), Some("b.test"));
        assert!(rewrite(&mut config(), Some("c.test"), 1, "u").unwrap_err().contains("c.test"));
    }
}
