//! TLS parts of a configuration: connection policies and session tickets.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::client_auth::client_auth;
use super::dns_challenge;
use super::runtime::Protocols;
use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::nanos::Nanos;
use crate::config::tls_types::{CertificateSelection, ConnectionPolicy};
use crate::config::types::{Module, TlsApp, module_id};
use crate::http::{ip_range, regexp};
use crate::storage::FileStorage;
use crate::tls::{
    CertStore, KeyAlgorithm, Matcher, Policy, Selection, ServerTls, TicketSettings, curve_by_name, suite_by_name,
};

/// What the TLS of all servers of a configuration has in common.
pub struct Shared {
    pub store: Arc<CertStore>,
    pub storage: FileStorage,
    pub tickets: TicketSettings,
}

/// What the TLS app asks for and cannot have yet.
pub fn refuse_unsupported(app: &TlsApp, cx: &mut CompileCx<'_>) {
    let parts = [("encrypted_client_hello", app.encrypted_client_hello.is_some(), "Encrypted ClientHello (`ech`)")];
    for (field, is_set, what) in parts {
        if is_set {
            cx.at(field, |cx| cx.report(CompileError::not_supported(what)));
        }
    }
    dns_challenge::provider_of_app(app, cx);
}

/// `session_tickets`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct SessionTickets {
    key_source: Option<Module>,
    rotation_interval: Nanos,
    max_keys: i64,
    disable_rotation: bool,
    disabled: bool,
}

/// Go rotates the keys of its own every day and keeps them for a week: what Caddy does when told not to rotate.
const UNTOLD: (Duration, usize) = (Duration::from_hours(24), 7);

/// How sessions are resumed.
pub fn tickets(app: Option<&TlsApp>, cx: &mut CompileCx<'_>) -> TicketSettings {
    let Some(value) = app.and_then(|app| app.session_tickets.as_ref()) else { return TicketSettings::default() };
    cx.at("session_tickets", |cx| {
        let read: SessionTickets = match read_value(value) {
            Ok(read) => read,
            Err(error) => {
                cx.report(error);
                return TicketSettings::default();
            }
        };
        if let Some(source) = &read.key_source
            && !matches!(module_id(source, "provider"), "standard")
        {
            let id = module_id(source, "provider").to_owned();
            let what = format_args!("session tickets with keys from `{id}`");
            cx.at("key_source", |cx| cx.report(CompileError::not_supported(what)));
        }
        let mut settings = TicketSettings { disabled: read.disabled, ..TicketSettings::default() };
        if read.disable_rotation {
            (settings.rotation, settings.keys) = UNTOLD;
            return settings;
        }
        if let Some(rotation) = read.rotation_interval.positive() {
            settings.rotation = rotation.max(Duration::from_secs(1));
        }
        if let Some(keys) = usize::try_from(read.max_keys).ok().filter(|keys| *keys > 0) {
            settings.keys = keys;
        }
        settings
    })
}

/// The policies of a server, resolved. The flag in the answer: some policy asks for client certificates, so that a
/// request's host must be the name the handshake was for.
pub fn server_tls(
    policies: &[Value],
    shared: &Shared,
    protocols: Protocols,
    cx: &mut CompileCx<'_>,
) -> Option<(ServerTls, bool)> {
    let mut resolved = Vec::with_capacity(policies.len());
    let mut strict_sni = false;
    for (i, value) in policies.iter().enumerate() {
        cx.at(i, |cx| match policy(value, shared, protocols, cx) {
            Ok(policy) => {
                strict_sni |= policy.client_auth.is_some();
                check_names(&policy, &shared.store, cx);
                resolved.push(policy);
            }
            Err(error) => cx.report(error),
        });
    }
    match ServerTls::new(&resolved, &shared.store, &shared.tickets) {
        Ok(tls) => Some((tls, strict_sni)),
        Err(error) => {
            cx.report(CompileError::new("invalid-tls-policy", error.to_string()));
            None
        }
    }
}

fn policy(
    value: &Value,
    shared: &Shared,
    protocols: Protocols,
    cx: &mut CompileCx<'_>,
) -> Result<Policy, CompileError> {
    let read: ConnectionPolicy = read_value(value)?;
    if !read.insecure_secrets_log.is_empty() {
        return Err(CompileError::not_supported("`insecure_secrets_log`"));
    }
    let mut suites = Vec::new();
    for name in &read.cipher_suites {
        suites.push(suite_by_name(name).ok_or_else(|| {
            CompileError::not_supported(format_args!("cipher suite `{name}`"))
                .help("rustls has the AEAD suites with forward secrecy only: TLS_ECDHE_…_GCM_… and …_CHACHA20_POLY1305")
        })?);
    }
    let mut curves = Vec::new();
    for name in &read.curves {
        curves.push(curve_by_name(name).ok_or_else(|| CompileError::not_supported(format_args!("curve `{name}`")))?);
    }
    let client_auth = read
        .client_authentication
        .as_ref()
        .map(|told| cx.at("client_authentication", |cx| client_auth(told, &shared.storage, cx)));
    Ok(Policy {
        matchers: matchers(&read.matchers)?,
        drop: read.drop,
        selection: selection(read.certificate_selection.unwrap_or_default(), read.default_sni, read.fallback_sni)?,
        alpn: alpn(read.alpn, protocols),
        versions: versions(&read.protocol_min, &read.protocol_max)?,
        suites,
        curves,
        client_auth: client_auth.transpose()?.flatten(),
    })
}

/// What is told, else all; of it what the server speaks, as in Caddy.
fn alpn(told: Vec<String>, protocols: Protocols) -> Vec<String> {
    let told = if told.is_empty() { vec!["h2".to_owned(), "http/1.1".to_owned()] } else { told };
    let spoken = |name: &String| match name.as_str() {
        "h2" => protocols.h2,
        "http/1.1" => protocols.h1,
        "h3" => false,
        _ => true,
    };
    told.into_iter().filter(spoken).collect()
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Ranges {
    ranges: Vec<String>,
    not_ranges: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Pattern {
    pattern: String,
    /// For placeholders, which no part of a handshake has here.
    #[serde(rename = "name")]
    _name: String,
}

fn matchers(told: &Map<String, Value>) -> Result<Vec<Matcher>, CompileError> {
    let mut out = Vec::with_capacity(told.len());
    for (kind, value) in told {
        out.push(match kind.as_str() {
            "sni" => Matcher::ServerName(read_value(value)?),
            "sni_regexp" => {
                let told: Pattern = read_value(value)?;
                Matcher::ServerNameRegexp(regexp::compile(&told.pattern).map_err(CompileError::invalid_regexp)?)
            }
            "remote_ip" => {
                let told: Ranges = read_value(value)?;
                Matcher::Remote { within: ranges(&told.ranges)?, without: ranges(&told.not_ranges)? }
            }
            "local_ip" => {
                let told: Ranges = read_value(value)?;
                if !told.not_ranges.is_empty() {
                    return Err(CompileError::new("invalid-tls-policy", "`local_ip` has no `not_ranges`"));
                }
                Matcher::Local(ranges(&told.ranges)?)
            }
            other => return Err(CompileError::not_supported(format_args!("TLS connection matcher `{other}`"))),
        });
    }
    Ok(out)
}

fn ranges(texts: &[String]) -> Result<Vec<IpNet>, CompileError> {
    let range = |text: &String| {
        ip_range::parse(text)
            .ok_or_else(|| CompileError::new("invalid-ip-range", format!("`{text}` is not an IP address or range")))
    };
    texts.iter().map(range).collect()
}

fn selection(told: CertificateSelection, default: String, fallback: String) -> Result<Selection, CompileError> {
    let name = |name: String| (!name.is_empty()).then(|| name.to_ascii_lowercase());
    Ok(Selection {
        any_tag: told.any_tag,
        all_tags: told.all_tags,
        serials: told.serial_number.iter().map(serial).collect::<Result<_, _>>()?,
        organizations: told.subject_organization,
        algorithm: told.public_key_algorithm.as_ref().map(algorithm).transpose()?.flatten(),
        default_sni: name(default),
        fallback_sni: name(fallback),
    })
}

/// A decimal number of any size, as text, to its bytes.
fn serial(value: &Value) -> Result<Vec<u8>, CompileError> {
    let wrong =
        || CompileError::new("invalid-tls-policy", format!("`{value}` is not the serial number of a certificate"));
    let text = value.as_str().filter(|text| !text.is_empty() && text.len() <= 60).ok_or_else(wrong)?;
    let mut bytes: Vec<u8> = Vec::new();
    for digit in text.bytes() {
        if !digit.is_ascii_digit() {
            return Err(wrong());
        }
        let mut carry = u32::from(digit - b'0');
        for byte in bytes.iter_mut().rev() {
            carry += u32::from(*byte) * 10;
            *byte = carry.to_be_bytes()[3];
            carry >>= 8;
        }
        if carry > 0 {
            bytes.insert(0, carry.to_be_bytes()[3]);
        }
    }
    Ok(bytes)
}

/// `None` for a kind that no certificate here can have: as in Caddy then none is chosen by it.
fn algorithm(value: &Value) -> Result<Option<KeyAlgorithm>, CompileError> {
    Ok(Some(match value.as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("rsa") => KeyAlgorithm::Rsa,
        Some("ecdsa") => KeyAlgorithm::Ecdsa,
        Some("") => return Ok(None),
        Some("dsa") => return Err(CompileError::not_supported("certificate selection by the key algorithm `dsa`")),
        _ => {
            let message = format!("`{value}` is not a key algorithm of certificates: `rsa` or `ecdsa`");
            return Err(CompileError::new("invalid-tls-policy", message));
        }
    }))
}

/// A certificate given for a site must be one for its names: no client would take it.
fn check_names(policy: &Policy, store: &CertStore, cx: &mut CompileCx<'_>) {
    if !policy.selection.by_tag() || policy.drop {
        return;
    }
    let names = policy.matchers.iter().find_map(|matcher| match matcher {
        Matcher::ServerName(names) => Some(names),
        _ => None,
    });
    for name in names.into_iter().flatten() {
        let mut given = store.selected(&policy.selection).peekable();
        if given.peek().is_none() || given.by_ref().any(|certificate| certificate.covers(name)) {
            continue;
        }
        let mut message = String::new();
        for certificate in store.selected(&policy.selection) {
            let file =
                certificate.file.as_ref().map_or_else(|| "the certificate".to_owned(), |f| f.display().to_string());
            let own = certificate.names.iter().take(5).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
            let own = if own.is_empty() { "no name at all".to_owned() } else { own };
            message = format!("{file} is for {own}, not for `{name}`");
        }
        cx.report(CompileError::new("certificate-wrong-name", message));
    }
}

fn versions(min: &str, max: &str) -> Result<Vec<&'static rustls::SupportedProtocolVersion>, CompileError> {
    let rank = |name: &str, default| match name {
        "" => Ok(default),
        // TLS 1.0 and 1.1 are gone from rustls: as a lower bound they mean 1.2.
        "tls1.0" | "tls1.1" | "tls1.2" => Ok(2),
        "tls1.3" => Ok(3),
        other => Err(CompileError::new("invalid-tls-policy", format!("unknown TLS version `{other}`"))),
    };
    let (min, max) = (rank(min, 2)?, rank(max, 3)?);
    let all = [(2, &rustls::version::TLS12), (3, &rustls::version::TLS13)];
    let chosen: Vec<_> = all.into_iter().filter(|(n, _)| (min..=max).contains(n)).map(|(_, v)| v).collect();
    if chosen.is_empty() {
        return Err(CompileError::new("invalid-tls-policy", "the lowest TLS version is above the highest"));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn serial_numbers_of_any_size_become_bytes() {
        for (text, bytes) in [
            ("0", &[][..]),
            ("255", &[255]),
            ("256", &[1, 0]),
            ("300", &[1, 44]),
            ("340282366920938463463374607431768211456", &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(serial(&json!(text)).unwrap(), bytes, "{text}");
        }
        for wrong in [json!("-1"), json!(""), json!("1x"), json!(7)] {
            assert!(serial(&wrong).is_err(), "{wrong}");
        }
    }
}
