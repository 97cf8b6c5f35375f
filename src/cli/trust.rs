//! `trust` and `untrust`: the root of the internal CA in the trust store of this machine. Never done unasked: a machine's
//! trust is its admin's to give.

mod store;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::args::{TrustArgs, UntrustArgs, default_file};
use super::fail;
use crate::base::diagnostic;
use crate::compile::automation::default_folder;
use crate::compile::load;
use crate::modules::REGISTRY;
use crate::storage::{FileStorage, key};
use crate::tls::automation::Plan;
use store::{Change, Store};

/// Where the service keeps its state: `trust` is run by root, whose own folder is another.
const SERVICE_FOLDER: &str = "/var/lib/llmproxy";

pub fn trust(args: &TrustArgs) -> ExitCode {
    done(find_root(args).and_then(|(file, root)| {
        let store = Store::of(&args.root)?;
        Ok(match store.add(&args.ca, &root)? {
            Change::Made(place) => format!(
                "{} is trusted by this machine now (as {}).\nBrowsers on NSS (Firefox, Chromium) and Java keep stores of \
                 their own: import the file there.",
                file.display(),
                place.display()
            ),
            Change::None => format!("{} is trusted by this machine already", file.display()),
        })
    }))
}

pub fn untrust(args: &UntrustArgs) -> ExitCode {
    let found = match &args.cert {
        Some(file) => read(file).map(|root| (file.clone(), root)),
        None => find_root(&args.of),
    };
    done(found.and_then(|(file, root)| {
        let store = Store::of(&args.of.root)?;
        Ok(match store.remove(&root)? {
            Change::Made(place) => {
                format!("{} is no longer trusted by this machine ({} is gone)", file.display(), place.display())
            }
            Change::None => format!("{} was not in the trust store of this machine", file.display()),
        })
    }))
}

fn done(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(why) => fail(why),
    }
}

/// The root certificate of an internal CA, with its file.
fn find_root(args: &TrustArgs) -> Result<(PathBuf, CertificateDer<'static>), String> {
    let plan = if args.config.config.is_some() || default_file().is_ok() { Some(configured(args)?) } else { None };
    let settings = plan.as_ref().and_then(|plan| plan.authorities.get(&args.ca)).cloned().unwrap_or_default();
    if let Some((certificate, _)) = &settings.root_files {
        let file = PathBuf::from(certificate);
        return Ok((file.clone(), read(&file)?));
    }
    let storage = settings.storage.or(plan.map(|plan| plan.storage));
    let storage = storage.unwrap_or_else(|| FileStorage::new(default_folder()));
    let mut folders = vec![storage.root().to_owned()];
    if storage.root() == default_folder() {
        folders.push(PathBuf::from(SERVICE_FOLDER));
    }
    let file = |folder: &PathBuf| folder.join("pki/authorities").join(key::safe(&args.ca)).join("root.crt");
    match folders.iter().map(file).find(|file| file.exists()) {
        Some(file) => Ok((file.clone(), read(&file)?)),
        None => {
            let looked: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
            Err(format!(
                "the internal CA `{}` has no root certificate in {}: it is made when llmproxy first runs a site that uses it; \
                 name the configuration with --config if it keeps certificates elsewhere",
                args.ca,
                looked.join(" or ")
            ))
        }
    }
}

fn configured(args: &TrustArgs) -> Result<Plan, String> {
    let source = args.config.source()?;
    let (runtime, loaded) = load::load_runtime(&source, &REGISTRY);
    match runtime {
        Some(runtime) => Ok(Plan::clone(&runtime.certificates)),
        None => {
            eprint!("{}", diagnostic::render(&loaded.diagnostics, &loaded.sources, false));
            Err(format!("{} is not valid", source.path.display()))
        }
    }
}

fn read(file: &Path) -> Result<CertificateDer<'static>, String> {
    let certificate = CertificateDer::from_pem_file(file)
        .map_err(|_| format!("cannot read a PEM certificate from {}", file.display()))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
        .map_err(|_| format!("{} holds no certificate", file.display()))?;
    if !parsed.is_ca() {
        return Err(format!("{} is not the certificate of a CA", file.display()));
    }
    Ok(certificate)
}
