//! `client_authentication` of a connection policy: which certificates of clients are believed.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::certificates::pem_files;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::tls_types::ClientAuthentication;
use crate::config::trusted_certificates::{Ders, certificates, folder_of, inline, pem_file, pool, stored};
use crate::config::types::{Module, module_id};
use crate::storage::FileStorage;
use crate::tls::ClientAuth;

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

fn invalid(message: impl Into<String>) -> CompileError {
    CompileError::new("invalid-tls-policy", message)
}
