//! Certificate authorities of our own, from the `pki` part of a configuration; files that it names are read and tried.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use time::OffsetDateTime;

use super::storage;
use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::tls_types::{CertificateAuthority, KeyPair, Pki};
use crate::tls::authority::{Authority, AuthoritySettings};

/// By id; those not named have the defaults.
pub fn authorities(pki: Option<&Value>, cx: &mut CompileCx<'_>) -> BTreeMap<String, AuthoritySettings> {
    let Some(pki) = pki else { return BTreeMap::new() };
    let pki: Pki = match read_value(pki) {
        Ok(read) => read,
        Err(error) => {
            cx.report(error);
            return BTreeMap::new();
        }
    };
    let mut out = BTreeMap::new();
    cx.at("certificate_authorities", |cx| {
        for (id, ca) in pki.certificate_authorities {
            let settings = cx.at(&id, |cx| authority(&ca, cx));
            out.insert(id.clone(), settings);
            cx.authorities.insert(id, ca);
        }
    });
    out
}

fn authority(ca: &CertificateAuthority, cx: &mut CompileCx<'_>) -> AuthoritySettings {
    let before = cx.errors.len();
    for (field, pair) in [("root", &ca.root), ("intermediate", &ca.intermediate)] {
        if let Some(pair) = pair {
            cx.at(field, |cx| files(field, pair, cx));
        }
    }
    if let Some(module) = &ca.storage {
        cx.at("storage", |cx| {
            if let Err(error) = storage::refuse(module, true) {
                cx.report(error);
            }
        });
    }
    let settings = AuthoritySettings::from(ca);
    if cx.errors.len() == before {
        match Authority::check(&settings, OffsetDateTime::now_utc()) {
            Ok(advice) => {
                for message in advice {
                    cx.advise(CompileError::new("certificate-expires-soon", message));
                }
            }
            Err(error) => cx.report(CompileError::new("certificate-not-usable", error.to_string())),
        }
    }
    settings
}

/// A pair of files: in PEM, its certificate named, its key too unless it is the root's.
fn files(field: &str, pair: &KeyPair, cx: &mut CompileCx<'_>) {
    cx.watched.extend([&pair.certificate, &pair.private_key].into_iter().filter(|f| !f.is_empty()).map(PathBuf::from));
    if !matches!(pair.format.as_str(), "" | "pem_file") {
        cx.report(CompileError::not_supported(format_args!("the key pair format `{}`", pair.format)));
    }
    let missing = match (pair.certificate.is_empty(), pair.private_key.is_empty()) {
        (true, _) => "cert",
        (_, true) if field == "intermediate" => "key",
        _ => return,
    };
    cx.report(CompileError::new("missing-option", format!("`{field}` names no `{missing}`")));
}
