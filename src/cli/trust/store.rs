//! The trust store of a Linux system: a folder of certificates and a program that makes the bundles from it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use crate::base::hex::hex;
use crate::storage::key;
use crate::tls::authority::pem;

/// Folder, program with arguments: Fedora and its kin, Debian and its kin, Arch, SUSE.
const KINDS: [(&str, &[&str]); 4] = [
    ("etc/pki/ca-trust/source/anchors", &["update-ca-trust", "extract"]),
    ("usr/local/share/ca-certificates", &["update-ca-certificates"]),
    ("etc/ca-certificates/trust-source/anchors", &["trust", "extract-compat"]),
    ("usr/share/pki/trust/anchors", &["update-ca-certificates"]),
];
const PROGRAM_FOLDERS: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];

pub struct Store {
    anchors: PathBuf,
    update: PathBuf,
    arguments: &'static [&'static str],
}

/// What a command did to the store.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// With the file that came or went.
    Made(PathBuf),
    None,
}

impl Store {
    /// The store of the system under `root`.
    pub fn of(root: &Path) -> Result<Self, String> {
        for (folder, command) in KINDS {
            let (anchors, [program, arguments @ ..]) = (root.join(folder), command) else { continue };
            let programs = PROGRAM_FOLDERS.iter().map(|folder| root.join(folder).join(program));
            if let Some(update) = programs.into_iter().find(|path| path.is_file())
                && anchors.is_dir()
            {
                return Ok(Self { anchors, update, arguments });
            }
        }
        Err("no trust store that llmproxy knows: it has neither update-ca-certificates (Debian's package \
             ca-certificates) nor update-ca-trust nor trust"
            .to_owned())
    }

    /// Adds a root under a name made of `id` and its fingerprint.
    pub fn add(&self, id: &str, root: &CertificateDer<'_>) -> Result<Change, String> {
        if self.holding(root)?.is_some() {
            return Ok(Change::None);
        }
        let fingerprint = Sha256::digest(root);
        let name = format!("llmproxy-{}-{}.crt", key::safe(id), hex(&fingerprint[..8]));
        let file = self.anchors.join(name);
        write(&file, &pem(root)).map_err(|error| self.told(&error))?;
        if let Err(why) = self.update() {
            // Not half: the next update of anybody would take it in.
            let _ = fs::remove_file(&file);
            return Err(why);
        }
        Ok(Change::Made(file))
    }

    /// Removes a root, whoever added it.
    pub fn remove(&self, root: &CertificateDer<'_>) -> Result<Change, String> {
        let Some(file) = self.holding(root)? else { return Ok(Change::None) };
        fs::remove_file(&file).map_err(|error| self.told(&error))?;
        self.update()?;
        Ok(Change::Made(file))
    }

    /// The file of the folder that holds this certificate and no other.
    fn holding(&self, root: &CertificateDer<'_>) -> Result<Option<PathBuf>, String> {
        let entries = fs::read_dir(&self.anchors).map_err(|error| self.told(&error))?;
        let holds = |path: &PathBuf| {
            let Ok(all) = CertificateDer::pem_file_iter(path) else { return false };
            let all: Vec<_> = all.take(2).collect();
            matches!(&all[..], [Ok(one)] if one == root)
        };
        Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).find(|path| path.is_file() && holds(path)))
    }

    fn update(&self) -> Result<(), String> {
        let shown = self.update.display();
        let ended = Command::new(&self.update).args(self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).status();
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{shown} failed ({status})")),
            Err(error) => Err(format!("cannot run {shown}: {error}")),
        }
    }

    fn told(&self, error: &io::Error) -> String {
        let folder = self.anchors.display();
        match error.kind() {
            ErrorKind::PermissionDenied => format!("not allowed to change {folder}: run this as root (sudo)"),
            _ => format!("cannot change {folder}: {error}"),
        }
    }
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // Under a name that the update passes over, until it is whole.
    let temporary = file.with_extension("new");
    let written = fs::write(&temporary, text)
        // Every program reads the store, whatever the mask of who runs this.
        .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&temporary, file));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn certificate() -> CertificateDer<'static> {
        rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap().cert.der().clone()
    }

    /// A system of one kind, whose program writes down how it was called and what lay in the folder.
    fn system(kind: usize, exit: u8) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let (folder, command) = KINDS[kind];
        let (anchors, bin) = (root.path().join(folder), root.path().join("usr/sbin"));
        fs::create_dir_all(&anchors).unwrap();
        fs::create_dir_all(&bin).unwrap();
        let program = bin.join(command[0]);
        let calls = root.path().join("calls");
        let script = format!(
            "#!/bin/sh\necho $(basename $0) $* $(ls {}) >>{}\nexit {exit}\n",
            anchors.display(),
            calls.display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        root
    }

    #[test]
    fn each_kind_of_system_runs_its_own_program_after_the_change() {
        for (kind, called) in [
            (0, "update-ca-trust extract"),
            (1, "update-ca-certificates"),
            (2, "trust extract-compat"),
            (3, "update-ca-certificates"),
        ] {
            let (root, certificate) = (system(kind, 0), certificate());
            let store = Store::of(root.path()).unwrap();
            let Change::Made(file) = store.add("lo/cal", &certificate).unwrap() else { panic!() };
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(file.starts_with(root.path().join(KINDS[kind].0)) && name.starts_with("llmproxy-local-"), "{name}");
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
            assert_eq!(CertificateDer::from_pem_file(&file).unwrap(), certificate);
            assert_eq!(store.add("local", &certificate).unwrap(), Change::None, "twice");
            assert_eq!(store.remove(&certificate).unwrap(), Change::Made(file.clone()));
            assert_eq!(store.remove(&certificate).unwrap(), Change::None);
            assert!(!file.exists());
            let calls = fs::read_to_string(root.path().join("calls")).unwrap();
            assert_eq!(calls, format!("{called} {name}\n{called}\n"));
        }
    }

    #[test]
    fn what_fails_leaves_the_store_as_it_was() {
        let (root, other) = (system(1, 1), certificate());
        let store = Store::of(root.path()).unwrap();
        let anchors = root.path().join(KINDS[1].0);
        fs::write(anchors.join("caddy.crt"), pem(&other)).unwrap();
        let both = pem(&other) + &pem(&certificate());
        fs::write(anchors.join("bundle.crt"), both).unwrap();
        assert!(store.add("local", &certificate()).unwrap_err().contains("failed"));
        assert_eq!(fs::read_dir(&anchors).unwrap().count(), 2);
        // Removed is the file of that one certificate, whoever put it there, never a bundle.
        assert!(store.remove(&other).is_err());
        assert!(!anchors.join("caddy.crt").exists() && anchors.join("bundle.crt").exists());
        assert!(Store::of(tempfile::tempdir().unwrap().path()).is_err());
    }
}
