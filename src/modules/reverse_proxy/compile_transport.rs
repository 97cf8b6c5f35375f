//! `transport http` to the client's options.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::automated_client;
use super::config::{HttpTransport, KeepAlive as KeepAliveConfig, TlsOptions};
use crate::client::{
    Address, ClientIdentity, Curve, KeepAlive, ProxyChoice, ProxyProtocol, ProxyUrl, RootSource, Scheme, TargetOptions,
    Timeouts, TlsClientOptions, Trust, Versions,
};
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::dns_servers;
use crate::config::nanos::Nanos;
use crate::config::trusted_certificates::{self, Ders};
use crate::config::types::{Module, module_id};
use crate::http::placeholder::Template;
use crate::proxy::TransportTemplate;

pub struct Transport {
    pub template: Arc<TransportTemplate>,
    pub compression: bool,
}

/// `None` is the default transport.
pub fn compile(module: Option<&Module>, cx: &mut CompileCx<'_>) -> Result<Transport, CompileError> {
    let config: HttpTransport = match module {
        None => HttpTransport::default(),
        Some(module) => match module_id(module, "protocol") {
            "http" => read(module, "protocol")?,
            "fastcgi" => return Err(CompileError::not_supported("the FastCGI transport")),
            other => return Err(CompileError::not_supported(format_args!("transport `{other}`"))),
        },
    };
    refuse_unsupported(&config)?;
    let (versions, h2c) = versions(&config.versions)?;
    let scheme = match (&config.tls, h2c) {
        (Some(_), _) => Scheme::Https,
        (None, true) => Scheme::H2c,
        (None, false) => Scheme::Http,
    };
    // The address is the template's to fill in.
    let mut options = TargetOptions::new(scheme, Address::Tcp { host: "".into(), port: 0 });
    options.versions = versions;
    options.timeouts = timeouts(&config);
    options.keepalive = keepalive(config.keep_alive.as_ref());
    options.max_conns = positive(config.max_conns_per_host);
    options.max_response_header = positive(config.max_response_header_size);
    options.proxy = proxy(&config)?;
    if let Some(resolver) = &config.resolver {
        let servers = dns_servers::parse(&resolver.addresses).map_err(|e| e.within("addresses").within("resolver"))?;
        options.resolvers = servers.into();
    }
    if !config.local_address.is_empty() {
        let address = local_address(&config.local_address).ok_or_else(|| {
            let what = "`local_address` is not an IP address, with or without a port";
            CompileError::new("invalid-value", what).within("local_address")
        })?;
        options.local_address = Some(address);
    }
    options.proxy_protocol = match config.proxy_protocol.as_str() {
        "" => None,
        "v1" => Some(ProxyProtocol::V1),
        "v2" => Some(ProxyProtocol::V2),
        _ => {
            let what = "the PROXY protocol has the versions `v1` and `v2`";
            return Err(CompileError::new("invalid-value", what).within("proxy_protocol"));
        }
    };
    let mut except_ports = Vec::new();
    let mut server_name = None;
    if let Some(tls) = &config.tls {
        let client = tls_client(tls, cx).map_err(|e| e.within("tls"))?;
        let client = client
            .build(versions)
            .map_err(|e| CompileError::new("invalid-tls-options", e.to_string()).within("tls"))?;
        options.tls = Some(client);
        match fixed(&tls.server_name, "server_name") {
            Ok(fixed) => options.server_name = fixed,
            Err(_) => server_name = Some(Template::parse(&tls.server_name)),
        }
        except_ports.clone_from(&tls.except_ports);
    }
    Ok(Transport {
        compression: config.compression.unwrap_or(true),
        template: Arc::new(TransportTemplate { options, scheme, except_ports, server_name }),
    })
}

fn refuse_unsupported(config: &HttpTransport) -> Result<(), CompileError> {
    let Some(tls) = &config.tls else { return Ok(()) };
    let no = |what: &str, field: &str| Err(CompileError::not_supported(what).within(field).within("tls"));
    if !matches!(tls.renegotiation.as_str(), "" | "never") {
        return no("TLS renegotiation", "renegotiation").map_err(|e| e.help("TLS 1.3 has none: remove the line"));
    }
    if tls.encrypted_client_hello.is_some() {
        return no("encrypted client hello towards upstreams", "encrypted_client_hello");
    }
    Ok(())
}

/// `IP`, `IP:PORT`, with brackets or `tcp/` as in Caddy.
fn local_address(text: &str) -> Option<SocketAddr> {
    let address = ["tcp/", "tcp4/", "tcp6/"].iter().find_map(|network| text.strip_prefix(network)).unwrap_or(text);
    let ip = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    address.parse().ok().or_else(|| ip.parse().ok().map(|ip| SocketAddr::new(ip, 0)))
}

/// What is allowed, and whether plain upstreams get HTTP/2 by prior knowledge.
fn versions(list: &[String]) -> Result<(Versions, bool), CompileError> {
    if list.is_empty() {
        return Ok((Versions::default(), false));
    }
    let mut out = Versions { h1: false, h2: false };
    let mut h2c = false;
    for version in list {
        match version.as_str() {
            "1.1" => out.h1 = true,
            "2" => out.h2 = true,
            "h2c" => h2c = true,
            "3" => return Err(CompileError::not_supported("HTTP/3 towards upstreams").within("versions")),
            other => {
                return Err(CompileError::new("invalid-value", format!("`{other}` is not an HTTP version"))
                    .help("1.1, 2 or h2c")
                    .within("versions"));
            }
        }
    }
    // Only h2c listed: TLS, if any, still needs a version to speak.
    if !out.h1 && !out.h2 {
        out.h2 = true;
    }
    Ok((out, h2c))
}

fn timeouts(config: &HttpTransport) -> Timeouts {
    let default = Timeouts::default();
    let or = |own: Nanos, default: Option<Duration>| if own.is_zero() { default } else { own.positive() };
    Timeouts {
        dial: or(config.dial_timeout, default.dial),
        handshake: or(config.tls.as_ref().map_or(Nanos(0), |t| t.handshake_timeout), default.handshake),
        response_header: config.response_header_timeout.positive(),
        read: config.read_timeout.positive(),
        write: config.write_timeout.positive(),
        total: config.total_timeout.positive(),
        // Negative: one address after the other.
        dial_fallback_delay: or(config.dial_fallback_delay, default.dial_fallback_delay),
    }
}

fn keepalive(config: Option<&KeepAliveConfig>) -> KeepAlive {
    let default = KeepAlive::default();
    let Some(config) = config else { return default };
    KeepAlive {
        enabled: config.enabled.unwrap_or(true),
        idle: config.idle_timeout.positive().unwrap_or(default.idle),
        // The first is Caddy's limit over all upstreams; here each has a pool of its own.
        max_idle_per_host: [config.max_idle_conns, config.max_idle_conns_per_host]
            .into_iter()
            .filter_map(positive)
            .min()
            .unwrap_or(default.max_idle_per_host),
        probe_interval: if config.probe_interval.is_zero() {
            default.probe_interval
        } else {
            config.probe_interval.positive()
        },
    }
}

fn proxy(config: &HttpTransport) -> Result<ProxyChoice, CompileError> {
    let url = match &config.network_proxy {
        Some(module) => match module_id(module, "from") {
            "none" => return Ok(ProxyChoice::None),
            "url" => module_id(module, "url"),
            other => {
                return Err(
                    CompileError::not_supported(format_args!("network proxy `{other}`")).within("network_proxy")
                );
            }
        },
        None if config.forward_proxy_url.is_empty() => return Ok(ProxyChoice::Environment),
        None => &config.forward_proxy_url,
    };
    let url = fixed(url, "network_proxy")?.unwrap_or_default();
    let url = ProxyUrl::parse(&url)
        .map_err(|e| CompileError::new("invalid-proxy-url", e.to_string()).within("network_proxy"))?;
    Ok(ProxyChoice::Url(Arc::new(url)))
}

fn tls_client(tls: &TlsOptions, cx: &mut CompileCx<'_>) -> Result<TlsClientOptions, CompileError> {
    let mut roots = Vec::new();
    let mut own_roots = false;
    if let Some(module) = &tls.ca {
        own_roots = true;
        let mut ders = Ders::new();
        let storage = cx.storage.clone();
        trusted_certificates::pool(module, &storage, cx, &mut ders).map_err(|e| e.within("ca"))?;
        roots.extend(ders.into_iter().map(|der| RootSource::Der(der.to_vec())));
    }
    for file in &tls.root_ca_pem_files {
        own_roots = true;
        cx.watched.push(file.into());
        roots.push(RootSource::PemFile(file.into()));
    }
    for text in &tls.root_ca_pool {
        own_roots = true;
        let der = trusted_certificates::inline(text).map_err(|e| e.within("root_ca_pool"))?;
        roots.push(RootSource::Der(der.to_vec()));
    }
    let mut curves = Vec::new();
    for (i, name) in tls.curves.iter().enumerate() {
        let curve = Curve::parse(name)
            .ok_or_else(|| CompileError::not_supported(format_args!("curve `{name}`")).within(i).within("curves"))?;
        curves.push(curve);
    }
    Ok(TlsClientOptions {
        trust: if own_roots { Trust::Only(roots) } else { Trust::System },
        insecure_skip_verify: tls.insecure_skip_verify,
        identity: identity(tls, cx)?,
        looked_up: automated_client::of(&tls.client_certificate_automate),
        curves,
    })
}

fn identity(tls: &TlsOptions, cx: &mut CompileCx<'_>) -> Result<Option<ClientIdentity>, CompileError> {
    if tls.client_certificate_file.is_empty() && tls.client_certificate_key_file.is_empty() {
        return Ok(None);
    }
    let mut file = |path: &str, field: &str| {
        cx.watched.push(path.into());
        std::fs::read(path)
            .map_err(|e| CompileError::new("unreadable-file", format!("cannot read `{path}`: {e}")).within(field))
    };
    let chain = file(&tls.client_certificate_file, "client_certificate_file")?;
    let key = file(&tls.client_certificate_key_file, "client_certificate_key_file")?;
    Ok(Some(ClientIdentity { chain, key: key.into() }))
}

/// A text that must be known now; `None` when empty. Placeholders of the environment and files are.
fn fixed(text: &str, field: &str) -> Result<Option<String>, CompileError> {
    if text.is_empty() {
        return Ok(None);
    }
    match Template::parse(text).as_static() {
        Some(fixed) => Ok(Some(fixed.to_owned())),
        None => {
            Err(CompileError::not_supported(format_args!("a placeholder of the request in `{field}`")).within(field))
        }
    }
}

fn positive(n: i64) -> Option<usize> {
    usize::try_from(n).ok().filter(|n| *n > 0)
}
