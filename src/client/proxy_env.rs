//! Which proxy leads to a target: none, a given URL, or what `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say, read as
//! Go's `http.ProxyFromEnvironment` reads them.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use base64::Engine;
use http::HeaderValue;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

use super::ConfigError;
use super::target::Scheme;

#[derive(Clone, Debug, Default)]
pub enum ProxyChoice {
    #[default]
    Environment,
    None,
    Url(Arc<ProxyUrl>),
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum ProxyKind {
    Http,
    Https,
    Socks5,
}

/// Where a proxy listens and how to log in there. Its credentials are never printed.
pub struct ProxyUrl {
    pub(super) kind: ProxyKind,
    pub(super) host: Box<str>,
    pub(super) port: u16,
    pub(super) user: Option<(String, String)>,
    /// `Proxy-Authorization`, ready to use.
    pub(super) authorization: Option<HeaderValue>,
}

impl ProxyUrl {
    /// `http://`, `https://`, `socks5://` or `socks5h://`, optionally with `user:password@`; no scheme means `http://`.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let bad = |why: &str| ConfigError(format!("proxy URL: {why}"));
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (kind, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (ProxyKind::Http, 80),
            "https" => (ProxyKind::Https, 443),
            "socks5" | "socks5h" => (ProxyKind::Socks5, 1080),
            other => return Err(bad(&format!("scheme `{other}` is not http, https, socks5 or socks5h"))),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (host, port) = host_port(place).ok_or_else(|| bad("the host or the port is not valid"))?;
        let decode = |s: &str| percent_decode_str(s).decode_utf8_lossy().into_owned();
        let user = login.map(|login| {
            let (name, password) = login.split_once(':').unwrap_or((login, ""));
            (decode(name), decode(password))
        });
        let authorization = user.as_ref().and_then(|(name, password)| {
            let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
            let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(Self { kind, host: host.into(), port: port.unwrap_or(default_port), user, authorization })
    }

    /// True for proxies that speak HTTP themselves.
    pub(super) fn is_http(&self) -> bool {
        matches!(self.kind, ProxyKind::Http | ProxyKind::Https)
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update([self.kind as u8]);
        hash.update(self.port.to_be_bytes());
        hash.update(self.host.as_bytes());
        if let Some((name, password)) = &self.user {
            hash.update([0]);
            hash.update(name.as_bytes());
            hash.update([0]);
            hash.update(password.as_bytes());
        }
        hash.finalize().into()
    }
}

impl std::fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProxyUrl({:?} {}:{})", self.kind, self.host, self.port)
    }
}

/// The proxy variables of the environment.
#[derive(Debug, Default)]
pub struct ProxyEnv {
    http: Option<Result<Arc<ProxyUrl>, ConfigError>>,
    https: Option<Result<Arc<ProxyUrl>, ConfigError>>,
    except: Vec<Exception>,
    everything_excepted: bool,
}

#[derive(Debug)]
enum Exception {
    Ip(IpAddr, Option<u16>),
    Net(IpNet),
    /// `suffix` starts with a dot; `exact` says whether the bare domain matches too.
    Domain {
        suffix: String,
        exact: bool,
        port: Option<u16>,
    },
}

impl ProxyEnv {
    /// This process's environment, read at the first call.
    pub fn process() -> &'static Self {
        static ENV: OnceLock<ProxyEnv> = OnceLock::new();
        ENV.get_or_init(|| Self::read(|name| std::env::var(name).ok()))
    }

    pub fn read(var: impl Fn(&str) -> Option<String>) -> Self {
        let get = |upper: &str, lower: &str| {
            var(upper).filter(|v| !v.is_empty()).or_else(|| var(lower).filter(|v| !v.is_empty()))
        };
        let url = |text: String| ProxyUrl::parse(&text).map(Arc::new);
        let mut env = Self {
            // Under CGI a client could set HTTP_PROXY by a header named Proxy.
            http: if var("REQUEST_METHOD").is_some() { None } else { get("HTTP_PROXY", "http_proxy").map(url) },
            https: get("HTTPS_PROXY", "https_proxy").map(url),
            ..Self::default()
        };
        env.read_exceptions(&get("NO_PROXY", "no_proxy").unwrap_or_default());
        env
    }

    /// The proxy for a target. A proxy variable that cannot be read is an error only for targets that would use it.
    pub fn choose(&self, scheme: Scheme, host: &str, port: u16) -> Result<Option<Arc<ProxyUrl>>, ConfigError> {
        let url = match scheme {
            Scheme::Https => &self.https,
            Scheme::Http | Scheme::H2c => &self.http,
        };
        match url {
            Some(url) if self.applies_to(host, port) => url.clone().map(Some),
            _ => Ok(None),
        }
    }

    fn applies_to(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let ip = host.parse::<IpAddr>().ok();
        if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) || self.everything_excepted {
            return false;
        }
        let on_port = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        !self.except.iter().any(|exception| match exception {
            Exception::Ip(one, wanted) => ip == Some(*one) && on_port(wanted),
            Exception::Net(net) => ip.is_some_and(|ip| net.contains(&ip)),
            Exception::Domain { suffix, exact, port } => {
                (host.ends_with(suffix.as_str()) || (*exact && host == suffix[1..])) && on_port(port)
            }
        })
    }

    fn read_exceptions(&mut self, list: &str) {
        for item in list.split(',').map(|item| item.trim().to_ascii_lowercase()).filter(|item| !item.is_empty()) {
            if item == "*" {
                self.everything_excepted = true;
            } else if let Ok(net) = item.parse::<IpNet>() {
                self.except.push(Exception::Net(net));
            } else if let Some((host, port)) = host_port(&item) {
                self.except.push(if let Ok(ip) = host.parse::<IpAddr>() {
                    Exception::Ip(ip, port)
                } else {
                    let host = host.strip_prefix('*').filter(|h| h.starts_with('.')).unwrap_or(host);
                    match host.strip_prefix('.') {
                        Some(_) => Exception::Domain { suffix: host.to_owned(), exact: false, port },
                        None => Exception::Domain { suffix: format!(".{host}"), exact: true, port },
                    }
                });
            }
        }
    }
}

/// Splits `host`, `host:port`, `[v6]:port` or a bare IPv6 address.
fn host_port(text: &str) -> Option<(&str, Option<u16>)> {
    if text.parse::<IpAddr>().is_ok() {
        return Some((text, None));
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        (host, after.strip_prefix(':'))
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(port.parse().ok()?),
    };
    (!host.is_empty() && !host.contains([':', ' ']) || host.parse::<IpAddr>().is_ok()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &'static [(&str, &str)]) -> ProxyEnv {
        ProxyEnv::read(|name| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned()))
    }

    fn chosen(env: &ProxyEnv, scheme: Scheme, host: &str, port: u16) -> Option<String> {
        env.choose(scheme, host, port).unwrap().map(|url| format!("{}:{}", url.host, url.port))
    }

    #[test]
    fn urls() {
        let url = ProxyUrl::parse("http://us%40er:p%3Aw@proxy.test:3128/").unwrap();
        assert_eq!((&*url.host, url.port), ("proxy.test", 3128));
        assert_eq!(url.user, Some(("us@er".to_owned(), "p:w".to_owned())));
        assert_eq!(url.authorization.as_ref().unwrap(), "Basic dXNAZXI6cDp3");
        assert!(!format!("{url:?}").contains("p:w"));
        assert_eq!(ProxyUrl::parse("proxy.test").unwrap().port, 80);
        assert_eq!(ProxyUrl::parse("socks5h://[::1]").unwrap().port, 1080);
        let error = ProxyUrl::parse("ftp://u:secret@h").unwrap_err();
        assert!(error.0.contains("ftp") && !error.0.contains("secret"));
        assert!(ProxyUrl::parse("http://:80").is_err());
        assert!(ProxyUrl::parse("http://h:port").is_err());
    }

    #[test]
    fn variables_choose_by_scheme_and_spare_loopback() {
        let env = env(&[("HTTP_PROXY", "http://plain:1"), ("https_proxy", "tls:2")]);
        assert_eq!(chosen(&env, Scheme::Http, "up.test", 80).as_deref(), Some("plain:1"));
        assert_eq!(chosen(&env, Scheme::Https, "up.test", 443).as_deref(), Some("tls:2"));
        for local in ["localhost", "127.0.0.1", "::1", "LOCALHOST"] {
            assert_eq!(chosen(&env, Scheme::Http, local, 80), None, "{local}");
        }
    }

    #[test]
    fn no_proxy_forms() {
        let env =
            env(&[("HTTP_PROXY", "p:1"), ("NO_PROXY", "a.test, .b.test,*.c.test,10.0.0.0/8,192.0.2.1,d.test:81")]);
        let spared = |host, port| chosen(&env, Scheme::Http, host, port).is_none();
        assert!(spared("a.test", 80) && spared("x.a.test", 80) && !spared("xa.test", 80));
        assert!(spared("x.b.test", 80) && !spared("b.test", 80));
        assert!(spared("x.c.test", 80) && !spared("c.test", 80));
        assert!(spared("10.1.2.3", 80) && !spared("11.1.2.3", 80) && spared("192.0.2.1", 80));
        assert!(spared("d.test", 81) && !spared("d.test", 80));
    }

    #[test]
    fn star_spares_all_and_cgi_ignores_http_proxy() {
        let star = env(&[("HTTP_PROXY", "p:1"), ("NO_PROXY", "*")]);
        assert_eq!(chosen(&star, Scheme::Http, "up.test", 80), None);
        let cgi = env(&[("HTTP_PROXY", "p:1"), ("REQUEST_METHOD", "GET")]);
        assert_eq!(chosen(&cgi, Scheme::Http, "up.test", 80), None);
    }

    #[test]
    fn a_broken_variable_fails_only_its_users() {
        let env = env(&[("HTTP_PROXY", "ftp://x")]);
        assert!(env.choose(Scheme::Http, "up.test", 80).is_err());
        assert!(env.choose(Scheme::Https, "up.test", 443).unwrap().is_none());
    }
}
