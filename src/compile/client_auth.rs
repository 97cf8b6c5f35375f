//! `client_authentication` of a connection policy: which certificates of clients are believed.

use std::path::{Path, PathBuf};

use base64::Engine;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::certificates::pem_files;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::tls_types::ClientAuthentication;
use crate::config::types::{Module, module_id};
use crate::storage::FileStorage;
use crate::storage::key::safe;
use crate::tls::ClientAuth;

type Ders = Vec<CertificateDer<'static>>;

/// `None` when nothing is asked of clients.
pub fn client_auth(
    told: &ClientAuthentication,
    storage: &FileStorage,
    cx: &mut CompileCx<'_>,
) -> Result<Option<ClientAuth>, CompileError> {
    let has_old = !told.trusted_ca_certs.is_empty() || !told.trusted_ca_certs_pem_files.is_empty();
    let has_pool = has_old || told.ca.is_some();
    let has_leaves = !told.trusted_leaf_certs.is_empty();
    if !has_pool && !has_leaves && told.verifiers.is_empty() && told.mode.is_empty() {
        return Ok(None);
    }
    if has_old && told.ca.is_some() {
        return Err(invalid("`ca` and `trusted_ca_certs` or `trusted_ca_certs_pem_files` cannot stand together"));
    }
    let (required, verified) = match told.mode.as_str() {
        "" => (true, has_pool || has_leaves),
        "request" => (false, false),
        "require" => (true, false),
        "verify_if_given" => (false, true),
        "require_and_verify" => (true, true),
        other => {
            let modes = "`request`, `require`, `verify_if_given` and `require_and_verify`";
            return Err(
                invalid(format!("there is no client_auth mode `{other}`")).help(format!("the modes are {modes}"))
            );
        }
    };
    let mut authorities = Ders::new();
    for text in &told.trusted_ca_certs {
        authorities.push(inline(text)?);
    }
    for file in &told.trusted_ca_certs_pem_files {
        authorities.extend(pem_file(Path::new(file), cx)?);
    }
    if let Some(module) = &told.ca {
        cx.at("ca", |cx| pool(module, storage, cx, &mut authorities))?;
    }
    let mut leaves = Ders::new();
    for text in &told.trusted_leaf_certs {
        leaves.push(inline(text)?);
    }
    for (i, module) in told.verifiers.iter().enumerate() {
        cx.at("verifiers", |cx| cx.at(i, |cx| verifier(module, storage, cx, &mut leaves)))?;
    }
    let pinned = has_leaves || !told.verifiers.is_empty();
    if verified && !has_pool && !pinned {
        let error = invalid(format!("client_auth mode `{}` names no CA to verify client certificates with", told.mode));
        return Err(error.help("add `trust_pool file PATH`; `trust_pool system` lets in what any public CA signed"));
    }
    Ok(Some(ClientAuth {
        required,
        // A certificate that is itself named needs no authority.
        authorities: (verified && has_pool).then_some(authorities),
        leaves: pinned.then_some(leaves),
    }))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct File {
    pem_files: Vec<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Inline {
    trusted_ca_certs: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Authorities {
    authority: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Keys {
    storage: Option<Module>,
    pem_keys: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Combined {
    sources: Vec<Module>,
}

/// The certificates of a trust pool (`{"provider": …}`).
fn pool(module: &Module, storage: &FileStorage, cx: &mut CompileCx<'_>, out: &mut Ders) -> Result<(), CompileError> {
    fn options<T: DeserializeOwned>(module: &Module) -> Result<T, CompileError> {
        read(module, "provider")
    }
    match module_id(module, "provider") {
        "file" => {
            for file in options::<File>(module)?.pem_files {
                out.extend(pem_file(&file, cx)?);
            }
        }
        "inline" => {
            for text in options::<Inline>(module)?.trusted_ca_certs {
                out.push(inline(&text)?);
            }
        }
        provider @ ("pki_root" | "pki_intermediate") => {
            let file = if provider == "pki_root" { "root" } else { "intermediate" };
            for id in options::<Authorities>(module)?.authority {
                // Made when it is first needed and renewed in time; each change loads the configuration anew.
                let path = storage.root().join(format!("pki/authorities/{}/{file}.crt", safe(&id)));
                cx.watched.push(path.clone());
                match std::fs::read(&path) {
                    Ok(pem) => out.extend(certificates(&pem, &path.display().to_string())?),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => return Err(unusable(format!("cannot read {}: {e}", path.display()))),
                }
            }
        }
        "storage" => {
            let keys: Keys = options(module)?;
            let own = keys.storage.as_ref().map(folder_of).transpose()?;
            for key in &keys.pem_keys {
                out.extend(stored(own.as_ref().unwrap_or(storage), key, cx)?);
            }
        }
        "system" => out.extend(rustls_native_certs::load_native_certs().certs.into_iter().filter(is_usable)),
        "combined" => {
            for (i, source) in options::<Combined>(module)?.sources.iter().enumerate() {
                cx.at("sources", |cx| cx.at(i, |cx| pool(source, storage, cx, out)))?;
            }
        }
        other => return Err(CompileError::not_supported(format_args!("`trust_pool {other}` for client certificates"))),
    }
    Ok(())
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Leaf {
    leaf_certs_loaders: Vec<Module>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Loader {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    certificates: Vec<String>,
    storage: Option<Module>,
}

/// `{"verifier": "leaf", "leaf_certs_loaders": […]}`.
fn verifier(
    module: &Module,
    storage: &FileStorage,
    cx: &mut CompileCx<'_>,
    out: &mut Ders,
) -> Result<(), CompileError> {
    match module_id(module, "verifier") {
        "leaf" => {}
        other => return Err(CompileError::not_supported(format_args!("verifier `{other}` of client certificates"))),
    }
    for module in &read::<Leaf>(module, "verifier")?.leaf_certs_loaders {
        let loader: Loader = read(module, "loader")?;
        match module_id(module, "loader") {
            "file" => {
                for file in &loader.files {
                    out.extend(pem_file(file, cx)?);
                }
            }
            "folder" => {
                for folder in &loader.folders {
                    for file in pem_files(folder, cx) {
                        out.extend(pem_file(&file, cx)?);
                    }
                }
            }
            "pem" => {
                for text in &loader.certificates {
                    out.extend(certificates(text.as_bytes(), "a certificate of `pem`")?);
                }
            }
            "storage" => {
                let own = loader.storage.as_ref().map(folder_of).transpose()?;
                for key in &loader.certificates {
                    out.extend(stored(own.as_ref().unwrap_or(storage), key, cx)?);
                }
            }
            other => {
                return Err(CompileError::not_supported(format_args!("loader `{other}` of client certificates")));
            }
        }
    }
    Ok(())
}

/// `{"module": "file_system", "root": …}`.
fn folder_of(module: &Module) -> Result<FileStorage, CompileError> {
    match module_id(module, "module") {
        "file_system" => {}
        other => return Err(CompileError::not_supported(format_args!("storage module `{other}`"))),
    }
    match module.get("root").and_then(Value::as_str) {
        Some(root) if !root.is_empty() => Ok(FileStorage::new(root)),
        _ => Err(invalid("the storage names no folder")),
    }
}

fn stored(storage: &FileStorage, key: &str, cx: &mut CompileCx<'_>) -> Result<Ders, CompileError> {
    let pem = match storage.load(key) {
        Ok(Some(pem)) => pem,
        Ok(None) => return Err(unusable(format!("the storage has no `{key}`"))),
        Err(e) => return Err(unusable(format!("cannot read `{key}` of the storage: {e}"))),
    };
    cx.watched.push(storage.root().join(key));
    certificates(&pem, &format!("`{key}` of the storage"))
}

fn pem_file(file: &Path, cx: &mut CompileCx<'_>) -> Result<Ders, CompileError> {
    cx.watched.push(file.to_owned());
    let pem = std::fs::read(file).map_err(|e| unusable(format!("cannot read {}: {e}", file.display())))?;
    certificates(&pem, &file.display().to_string())
}

/// All certificates of a PEM text; at least one.
fn certificates(pem: &[u8], what: &str) -> Result<Ders, CompileError> {
    let ders: Ders = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| unusable(format!("{what}: not valid PEM")))?;
    if ders.is_empty() {
        return Err(unusable(format!("{what}: there is no PEM certificate")));
    }
    ders.iter().try_for_each(|der| readable(der, what))?;
    Ok(ders)
}

/// Base64 of a DER certificate, as Caddy's JSON has it.
fn inline(text: &str) -> Result<CertificateDer<'static>, CompileError> {
    let der = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map(CertificateDer::from)
        .map_err(|_| unusable("the certificate of a client or of its CA is not base64".into()))?;
    readable(&der, "the certificate of a client or of its CA")?;
    Ok(der)
}

fn readable(der: &CertificateDer<'_>, what: &str) -> Result<(), CompileError> {
    let parsed = x509_parser::parse_x509_certificate(der);
    parsed.map(drop).map_err(|_| unusable(format!("{what}: not a valid X.509 certificate")))
}

/// Old authorities of a system may be of a form that cannot be used: the others still can.
fn is_usable(der: &CertificateDer<'static>) -> bool {
    rustls::RootCertStore::empty().add(der.clone()).is_ok()
}

fn invalid(message: impl Into<String>) -> CompileError {
    CompileError::new("invalid-tls-policy", message)
}

fn unusable(message: String) -> CompileError {
    CompileError::new("certificate-not-usable", message)
}
