//! The admin endpoint, where a file asks for one. It tells how upstreams stand and changes nothing, so it needs no
//! secret; still, only this machine may ask, and no page of a browser.

use super::address::ListenAddr;
use crate::config::compile_cx::{CompileCx, CompileError};
use crate::config::types;

/// Caddy's, for a file that says something of the endpoint but not where it is.
const DEFAULT: &str = "localhost:2019";

/// Where the endpoint is, and who may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    pub listen: ListenAddr,
    /// Values of `Host` that are answered; empty = any (a socket file, which no browser reaches).
    pub hosts: Vec<String>,
    /// A page that asks must be of one of the hosts.
    pub enforce_origin: bool,
}

/// `None` where the file does not ask for an endpoint: silence is no wish for an open port.
pub fn admin(config: Option<&types::Admin>, cx: &mut CompileCx<'_>) -> Option<Admin> {
    let config = config.filter(|admin| !admin.disabled)?;
    cx.at("admin", |cx| {
        for (field, given) in [("identity", &config.identity), ("remote", &config.remote)] {
            if given.is_some() {
                let what = format!("`{field}` of the admin endpoint");
                cx.report(CompileError::not_supported(what).within(field));
            }
        }
        if config.listen.is_empty() && config.origins.is_empty() && !config.enforce_origin {
            return None;
        }
        compiled(config).map_err(|error| cx.report(error)).ok()
    })
}

fn compiled(config: &types::Admin) -> Result<Admin, CompileError> {
    let text = if config.listen.is_empty() { DEFAULT } else { &config.listen };
    let wrong = |why: String| CompileError::new("invalid-value", why).within("listen");
    let listen = match ListenAddr::parse(text).map_err(wrong)?.as_slice() {
        [one] => one.clone(),
        _ => return Err(wrong(format!("`{text}` is more than one address"))),
    };
    let hosts = match &listen {
        ListenAddr::Unix { .. } if config.origins.is_empty() => Vec::new(),
        ListenAddr::Unix { .. } => hosts_of(&config.origins),
        ListenAddr::Tcp { ip: Some(ip), port } if ip.is_loopback() => {
            if config.origins.is_empty() {
                let own = text.rsplit_once('/').map_or(text, |(_, own)| own).to_owned();
                let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "[::1]"].map(|h| format!("{h}:{port}")).into();
                if !hosts.contains(&own) {
                    hosts.push(own);
                }
                hosts
            } else {
                hosts_of(&config.origins)
            }
        }
        _ => {
            return Err(CompileError::not_supported("an admin endpoint that other machines can reach")
                .help("write `admin localhost:2019`, `admin unix//run/llmproxy/admin.sock` or `admin off`")
                .within("listen"));
        }
    };
    Ok(Admin { listen, hosts, enforce_origin: config.enforce_origin })
}

/// Origins are hosts, with a scheme or without.
fn hosts_of(origins: &[String]) -> Vec<String> {
    let host = |origin: &String| {
        let rest = origin.split_once("://").map_or(origin.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default().to_owned()
    };
    origins.iter().map(host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::REGISTRY;
    use serde_json::{Value, json};

    fn compile(config: Value) -> Result<Option<Admin>, (String, &'static str)> {
        let config: types::Admin = serde_json::from_value(config).unwrap();
        let mut cx = CompileCx::new(&REGISTRY);
        let admin = admin(Some(&config), &mut cx);
        match cx.errors.pop() {
            Some(error) => Err((error.pointer, error.code)),
            None => Ok(admin),
        }
    }

    #[test]
    fn nothing_is_opened_unasked() {
        assert_eq!(admin(None, &mut CompileCx::new(&REGISTRY)), None);
        for config in [json!({}), json!({ "disabled": true, "listen": "localhost:1" }), json!({ "config": {} })] {
            assert_eq!(compile(config.clone()), Ok(None), "{config}");
        }
    }

    #[test]
    fn only_this_machine_may_ask() {
        let admin = compile(json!({ "listen": "127.0.0.2:2020" })).unwrap().unwrap();
        assert_eq!(admin.hosts, ["localhost:2020", "127.0.0.1:2020", "[::1]:2020", "127.0.0.2:2020"]);
        let admin = compile(json!({ "origins": ["http://a.test:1", "b.test"] })).unwrap().unwrap();
        assert_eq!(
            (admin.listen.to_string().as_str(), &admin.hosts[..]),
            ("127.0.0.1:2019", &["a.test:1", "b.test"].map(String::from)[..])
        );
        assert_eq!(compile(json!({ "listen": "unix//x.sock" })).unwrap().unwrap().hosts, [""; 0]);
        for open in [":2019", "0.0.0.0:2019", "192.0.2.1:2019", "fd/3"] {
            let refused = compile(json!({ "listen": open }));
            assert_eq!(refused, Err(("/admin/listen".into(), "not-supported-yet")), "{open}");
        }
        for (config, pointer) in
            [(json!({ "remote": {} }), "/admin/remote"), (json!({ "identity": {} }), "/admin/identity")]
        {
            assert_eq!(compile(config), Err((pointer.into(), "not-supported-yet")));
        }
        assert_eq!(compile(json!({ "listen": "localhost:1-2" })), Err(("/admin/listen".into(), "invalid-value")));
    }
}
