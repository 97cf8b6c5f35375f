//! TLS parts of a configuration: certificates to load and connection policies.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::Value;

use super::dns_challenge;
use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::tls_types::{Automation, AutomationPolicy};
use crate::config::types::TlsApp;
use crate::tls::{
    CertStore, Certificate, ClientAuth, ManagedStore, Policy, Selection, ServerTls, curve_by_name, suite_by_name,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadFile {
    certificate: PathBuf,
    key: PathBuf,
    #[serde(default)]
    format: String,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadPem {
    certificate: String,
    key: String,
    #[serde(default)]
    tags: Vec<String>,
}

/// Loads every certificate that the configuration names, and notes their files to be watched.
pub fn certificates(app: Option<&TlsApp>, cx: &mut CompileCx<'_>) -> CertStore {
    let mut loaded = Vec::new();
    let managed = Arc::clone(ManagedStore::shared());
    let Some(app) = app else { return CertStore::new(loaded, managed) };
    for (loader, value) in &app.certificates {
        cx.at(loader, |cx| {
            let result = match loader.as_str() {
                // Names to look after: see `automation`.
                "automate" => Ok(()),
                "load_files" => load_files(value, &mut loaded, cx),
                "load_pem" => load_pem(value, &mut loaded, cx),
                "load_folders" => load_folders(value, &mut loaded, cx),
                other => Err(CompileError::not_supported(format_args!("certificate loader `{other}`"))),
            };
            if let Err(error) = result {
                cx.report(error);
            }
        });
    }
    CertStore::new(loaded, managed)
}

/// What the TLS app asks for and cannot have yet.
pub fn refuse_unsupported(app: &TlsApp, cx: &mut CompileCx<'_>) {
    let parts = [
        ("encrypted_client_hello", app.encrypted_client_hello.is_some(), "Encrypted ClientHello (`ech`)"),
        ("session_tickets", app.session_tickets.is_some(), "configuration of session tickets"),
    ];
    for (field, is_set, what) in parts {
        if is_set {
            cx.at(field, |cx| cx.report(CompileError::not_supported(what)));
        }
    }
    dns_challenge::provider_of_app(app, cx);
    if app.automation.is_some() {
        cx.at("automation", |cx| refuse_on_demand(app.automation.as_ref(), cx));
    }
}

/// Certificates made during the handshake.
fn refuse_on_demand(automation: Option<&Value>, cx: &mut CompileCx<'_>) {
    let automation: Automation = match automation.map(read_value).transpose() {
        Ok(read) => read.unwrap_or_default(),
        Err(error) => return cx.report(error),
    };
    for (i, policy) in automation.policies.iter().enumerate() {
        let what = match policy {
            AutomationPolicy { on_demand: true, .. } => "a certificate on demand",
            AutomationPolicy { get_certificate, .. } if !get_certificate.is_empty() => "`get_certificate`",
            _ => continue,
        };
        cx.at("policies", |cx| cx.at(i, |cx| cx.report(CompileError::not_supported(what))));
    }
}

fn load_files(value: &Value, loaded: &mut Vec<Certificate>, cx: &mut CompileCx<'_>) -> Result<(), CompileError> {
    let files: Vec<LoadFile> = read_value(value)?;
    for (i, file) in files.into_iter().enumerate() {
        if !matches!(file.format.as_str(), "" | "pem") {
            cx.at(i, |cx| cx.report(CompileError::not_supported(format_args!("certificate format `{}`", file.format))));
            continue;
        }
        cx.watched.extend([file.certificate.clone(), file.key.clone()]);
        match Certificate::load(&file.certificate, &file.key, file.tags) {
            Ok(certificate) => loaded.push(certificate),
            Err(error) => cx.at(i, |cx| cx.report(CompileError::new("certificate-not-usable", error.to_string()))),
        }
    }
    Ok(())
}

fn load_pem(value: &Value, loaded: &mut Vec<Certificate>, cx: &mut CompileCx<'_>) -> Result<(), CompileError> {
    let pairs: Vec<LoadPem> = read_value(value)?;
    for (i, pair) in pairs.into_iter().enumerate() {
        match Certificate::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes(), pair.tags) {
            Ok(certificate) => loaded.push(certificate),
            Err(error) => cx.at(i, |cx| cx.report(CompileError::new("certificate-not-usable", error.to_string()))),
        }
    }
    Ok(())
}

/// Every `.pem` file of a folder holds a chain and its key, as in Caddy.
fn load_folders(value: &Value, loaded: &mut Vec<Certificate>, cx: &mut CompileCx<'_>) -> Result<(), CompileError> {
    let folders: Vec<PathBuf> = read_value(value)?;
    for folder in folders {
        cx.watched.push(folder.clone());
        let mut files = Vec::new();
        collect_pem(&folder, 0, &mut files).map_err(|e| {
            CompileError::new("certificate-not-usable", format!("cannot read {}: {e}", folder.display()))
        })?;
        files.sort();
        for file in files {
            let pem = std::fs::read(&file).map_err(|e| {
                CompileError::new("certificate-not-usable", format!("cannot read {}: {e}", file.display()))
            })?;
            match Certificate::from_pem(&pem, &pem, Vec::new()) {
                Ok(certificate) => loaded.push(certificate),
                Err(error) => {
                    cx.report(CompileError::new("certificate-not-usable", format!("{}: {error}", file.display())));
                }
            }
        }
    }
    Ok(())
}

fn collect_pem(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && depth < 8 {
            collect_pem(&path, depth + 1, files)?;
        } else if path.extension().is_some_and(|e| e == "pem") {
            files.push(path);
        }
    }
    Ok(())
}

/// `tls_connection_policies[]`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ConnectionPolicy {
    #[serde(rename = "match")]
    matchers: Option<Value>,
    certificate_selection: Option<CertificateSelection>,
    cipher_suites: Vec<String>,
    curves: Vec<String>,
    alpn: Vec<String>,
    protocol_min: String,
    protocol_max: String,
    drop: bool,
    client_authentication: Option<ClientAuthentication>,
    default_sni: Option<String>,
    fallback_sni: Option<String>,
    insecure_secrets_log: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct CertificateSelection {
    any_tag: Vec<String>,
    all_tags: Vec<String>,
    serial_number: Vec<Value>,
    subject_organization: Vec<String>,
    public_key_algorithm: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ClientAuthentication {
    ca: Option<Value>,
    trusted_ca_certs: Vec<String>,
    trusted_ca_certs_pem_files: Vec<PathBuf>,
    trusted_leaf_certs: Vec<String>,
    verifiers: Vec<Value>,
    mode: String,
}

/// The policies of a server, resolved. `strict_sni` in the answer: some policy asks for client certificates, so that a
/// request's host must be the name the handshake was for.
pub fn server_tls(policies: &[Value], store: &Arc<CertStore>, cx: &mut CompileCx<'_>) -> Option<(ServerTls, bool)> {
    let mut resolved = Vec::with_capacity(policies.len());
    let mut strict_sni = false;
    for (i, value) in policies.iter().enumerate() {
        cx.at(i, |cx| match policy(value, cx) {
            Ok(policy) => {
                strict_sni |= policy.client_auth.is_some();
                resolved.push(policy);
            }
            Err(error) => cx.report(error),
        });
    }
    match ServerTls::new(&resolved, store) {
        Ok(tls) => Some((tls, strict_sni)),
        Err(error) => {
            cx.report(CompileError::new("invalid-tls-policy", error.to_string()));
            None
        }
    }
}

fn policy(value: &Value, cx: &mut CompileCx<'_>) -> Result<Policy, CompileError> {
    let read: ConnectionPolicy = read_value(value)?;
    if read.drop {
        return Err(CompileError::not_supported("connection policy option `drop`"));
    }
    if !read.insecure_secrets_log.is_empty() {
        return Err(CompileError::not_supported("`insecure_secrets_log`"));
    }
    let select = read.certificate_selection.unwrap_or_default();
    if !select.serial_number.is_empty()
        || !select.subject_organization.is_empty()
        || select.public_key_algorithm.is_some()
    {
        return Err(CompileError::not_supported("certificate selection by serial number, subject or key algorithm"));
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
    Ok(Policy {
        sni: sni(read.matchers.as_ref())?,
        selection: Selection {
            any_tag: select.any_tag,
            all_tags: select.all_tags,
            default_sni: read.default_sni.map(|s| s.to_ascii_lowercase()),
            fallback_sni: read.fallback_sni.map(|s| s.to_ascii_lowercase()),
        },
        alpn: read.alpn.into_iter().filter(|p| p != "h3").collect(),
        versions: versions(&read.protocol_min, &read.protocol_max)?,
        suites,
        curves,
        client_auth: read.client_authentication.map(|c| client_auth(c, cx)).transpose()?.flatten(),
    })
}

fn sni(matchers: Option<&Value>) -> Result<Vec<String>, CompileError> {
    let Some(Value::Object(map)) = matchers else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for (kind, value) in map {
        match kind.as_str() {
            "sni" => names = read_value(value)?,
            other => return Err(CompileError::not_supported(format_args!("TLS connection matcher `{other}`"))),
        }
    }
    Ok(names)
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

fn client_auth(read: ClientAuthentication, cx: &mut CompileCx<'_>) -> Result<Option<ClientAuth>, CompileError> {
    if !read.verifiers.is_empty() || !read.trusted_leaf_certs.is_empty() {
        return Err(CompileError::not_supported("client certificate verifiers and trusted leaf certificates"));
    }
    let required = match read.mode.as_str() {
        "" | "require_and_verify" => true,
        "verify_if_given" => false,
        other => return Err(CompileError::not_supported(format_args!("client_auth mode `{other}`"))),
    };
    let mut ders: Vec<CertificateDer<'static>> = Vec::new();
    for text in &read.trusted_ca_certs {
        ders.push(inline_der(text)?);
    }
    let mut files = read.trusted_ca_certs_pem_files;
    match &read.ca {
        None => {}
        Some(ca) => match ca.get("provider").and_then(Value::as_str) {
            Some("file") => {
                let listed: Vec<PathBuf> = ca.get("pem_files").map(read_value).transpose()?.unwrap_or_default();
                files.extend(listed);
            }
            Some("inline") => {
                let listed: Vec<String> = ca.get("trusted_ca_certs").map(read_value).transpose()?.unwrap_or_default();
                for text in &listed {
                    ders.push(inline_der(text)?);
                }
            }
            other => {
                return Err(CompileError::not_supported(format_args!("trust pool `{}`", other.unwrap_or(""))));
            }
        },
    }
    for file in files {
        cx.watched.push(file.clone());
        let read = CertificateDer::pem_file_iter(&file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| CompileError::new("certificate-not-usable", format!("{}: {e}", file.display())))?;
        ders.extend(read);
    }
    let mut roots = rustls::RootCertStore::empty();
    for der in ders {
        roots
            .add(der)
            .map_err(|e| CompileError::new("certificate-not-usable", format!("client CA certificate: {e}")))?;
    }
    if roots.is_empty() {
        return Err(CompileError::new(
            "invalid-tls-policy",
            "client_auth names no CA to verify client certificates with",
        ));
    }
    Ok(Some(ClientAuth { roots: Arc::new(roots), required }))
}

/// Base64 of a DER certificate, as Caddy's JSON has it.
fn inline_der(text: &str) -> Result<CertificateDer<'static>, CompileError> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .map(CertificateDer::from)
        .map_err(|_| CompileError::new("certificate-not-usable", "client CA certificate is not base64"))
}
