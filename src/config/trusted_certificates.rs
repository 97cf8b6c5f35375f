//! The certificates of a trust pool (`tls_trust_pool`, `trust_pool`), read when a configuration is compiled.

use std::path::{Path, PathBuf};

use base64::Engine;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::compile_cx::{CompileCx, CompileError, read};
use super::types::{Module, module_id};
use crate::storage::FileStorage;
use crate::storage::key::safe;

pub type Ders = Vec<CertificateDer<'static>>;

/// The certificates of a trust pool (`{"provider": …}`).
pub fn pool(
    module: &Module,
    storage: &FileStorage,
    cx: &mut CompileCx<'_>,
    out: &mut Ders,
) -> Result<(), CompileError> {
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
        other => return Err(CompileError::not_supported(format_args!("the trust pool `{other}`"))),
    }
    Ok(())
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

/// `{"module": "file_system", "root": …}`.
pub fn folder_of(module: &Module) -> Result<FileStorage, CompileError> {
    match module_id(module, "module") {
        "file_system" => {}
        other => return Err(CompileError::not_supported(format_args!("storage module `{other}`"))),
    }
    match module.get("root").and_then(Value::as_str) {
        Some(root) if !root.is_empty() => Ok(FileStorage::new(root)),
        _ => Err(CompileError::new("invalid-tls-policy", "the storage names no folder")),
    }
}

pub fn stored(storage: &FileStorage, key: &str, cx: &mut CompileCx<'_>) -> Result<Ders, CompileError> {
    let pem = match storage.load(key) {
        Ok(Some(pem)) => pem,
        Ok(None) => return Err(unusable(format!("the storage has no `{key}`"))),
        Err(e) => return Err(unusable(format!("cannot read `{key}` of the storage: {e}"))),
    };
    cx.watched.push(storage.root().join(key));
    certificates(&pem, &format!("`{key}` of the storage"))
}

pub fn pem_file(file: &Path, cx: &mut CompileCx<'_>) -> Result<Ders, CompileError> {
    cx.watched.push(file.to_owned());
    let pem = std::fs::read(file).map_err(|e| unusable(format!("cannot read {}: {e}", file.display())))?;
    certificates(&pem, &file.display().to_string())
}

/// All certificates of a PEM text; at least one.
pub fn certificates(pem: &[u8], what: &str) -> Result<Ders, CompileError> {
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
pub fn inline(text: &str) -> Result<CertificateDer<'static>, CompileError> {
    let der = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map(CertificateDer::from)
        .map_err(|_| unusable("a trusted certificate is not base64".into()))?;
    readable(&der, "a trusted certificate")?;
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

fn unusable(message: String) -> CompileError {
    CompileError::new("certificate-not-usable", message)
}
