//! Certificates that a configuration gives by file, folder or text: loaded, looked at, and watched for changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::types::TlsApp;
use crate::tls::{CertStore, Certificate, LoadError, LoadErrorKind, ManagedStore};

/// How deep a folder of certificates is searched.
const DEEPEST: usize = 16;

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

/// Loads every certificate that the configuration names.
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

fn load_files(value: &Value, loaded: &mut Vec<Certificate>, cx: &mut CompileCx<'_>) -> Result<(), CompileError> {
    let files: Vec<LoadFile> = read_value(value)?;
    for (i, file) in files.into_iter().enumerate() {
        cx.at(i, |cx| {
            if !matches!(file.format.as_str(), "" | "pem") {
                return cx.report(CompileError::not_supported(format_args!("certificate format `{}`", file.format)));
            }
            cx.watched.extend([file.certificate.clone(), file.key.clone()]);
            take(Certificate::load(&file.certificate, &file.key, file.tags), loaded, cx);
        });
    }
    Ok(())
}

fn load_pem(value: &Value, loaded: &mut Vec<Certificate>, cx: &mut CompileCx<'_>) -> Result<(), CompileError> {
    let pairs: Vec<LoadPem> = read_value(value)?;
    for (i, pair) in pairs.into_iter().enumerate() {
        let made = Certificate::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes(), pair.tags);
        cx.at(i, |cx| take(made, loaded, cx));
    }
    Ok(())
}

/// Every `.pem` file of a folder and of those within it holds a chain and its key, as in Caddy.
fn load_folders(value: &Value, loaded: &mut Vec<Certificate>, cx: &mut CompileCx<'_>) -> Result<(), CompileError> {
    let folders: Vec<PathBuf> = read_value(value)?;
    for (i, folder) in folders.iter().enumerate() {
        cx.at(i, |cx| {
            for file in pem_files(folder, cx) {
                take(Certificate::load_both(&file, Vec::new()), loaded, cx);
            }
        });
    }
    Ok(())
}

/// The `.pem` files under a folder, sorted. Folders are watched for files that come and go, files for their content.
pub fn pem_files(folder: &Path, cx: &mut CompileCx<'_>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Err((place, error)) = collect(folder, 0, &mut files, &mut cx.watched) {
        let message = format!("cannot read {}: {error}", place.display());
        cx.report(CompileError::new("certificate-not-usable", message));
    }
    files.sort();
    cx.watched.extend(files.iter().cloned());
    files
}

fn collect(
    folder: &Path,
    depth: usize,
    files: &mut Vec<PathBuf>,
    watched: &mut Vec<PathBuf>,
) -> Result<(), (PathBuf, std::io::Error)> {
    watched.push(folder.to_owned());
    let failed = |error| (folder.to_owned(), error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            if depth < DEEPEST {
                collect(&path, depth + 1, files, watched)?;
            }
        } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("pem")) {
            files.push(path);
        }
    }
    Ok(())
}

/// Keeps a certificate that can be served, and says what is wrong with one that cannot.
fn take(made: Result<Certificate, LoadError>, loaded: &mut Vec<Certificate>, cx: &mut CompileCx<'_>) {
    let certificate = match made {
        Ok(certificate) => certificate,
        Err(error) => return cx.report(refused(error)),
    };
    let now = OffsetDateTime::now_utc();
    let file = certificate.file.as_ref().map_or_else(|| "the certificate".to_owned(), |f| f.display().to_string());
    let since = |time: OffsetDateTime| time.date();
    if certificate.validity.is_expired(now) {
        let message = format!("{file}: expired on {}", since(certificate.validity.not_after));
        let error = CompileError::new("certificate-expired", message);
        return cx.report(error.help("put a new certificate there, or leave it out and let llmproxy obtain one"));
    }
    if certificate.validity.not_before > now {
        // Perhaps it is the clock that is wrong, as on machines without a battery: not a reason to serve nothing.
        let message = format!("{file}: not valid before {}", since(certificate.validity.not_before));
        cx.advise(CompileError::new("certificate-not-valid-yet", message));
    }
    loaded.push(certificate);
}

fn refused(error: LoadError) -> CompileError {
    let (code, help) = match error.kind {
        LoadErrorKind::Unreadable | LoadErrorKind::NotUsable => ("certificate-not-usable", None),
        LoadErrorKind::WrongKey => ("certificate-wrong-key", None),
        LoadErrorKind::KeyEncrypted => {
            ("encrypted-key", Some("write it without one: `openssl pkey -in ENCRYPTED.key -out PLAIN.key`, mode 0600"))
        }
    };
    let made = CompileError::new(code, error.message);
    match help {
        Some(help) => made.help(help),
        None => made,
    }
}
