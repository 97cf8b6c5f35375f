//! Where Caddy keeps its certificates, and what lies there.
//!
//! Whoever may write the folder may not be whoever reads it: links are not followed, sizes and numbers are bounded, and
//! no key is shown.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use crate::base::env::Env;
use crate::storage::FileStorage;
use crate::tls::Certificate;

/// More than this of one kind is not read.
const MOST: usize = 50_000;

/// Where the service of Caddy's own packages keeps its files, and where its container image does.
const WELL_KNOWN: [&str; 2] = ["/var/lib/caddy/.local/share/caddy", "/data/caddy"];

/// Folders that Caddy may have used, the likeliest first; only those that exist.
pub fn find(env: &Env) -> Vec<PathBuf> {
    let set = |name: &str| env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let of_caddy = fs::read_to_string("/etc/passwd").ok().and_then(|users| home_of("caddy", &users));
    let mut found: Vec<PathBuf> = WELL_KNOWN.iter().map(PathBuf::from).collect();
    found.extend(of_caddy.map(|home| home.join(".local/share/caddy")));
    found.splice(0..0, set("XDG_DATA_HOME").map(|p| p.join("caddy")));
    found.extend(set("HOME").map(|home| home.join(".local/share/caddy")));
    let mut seen = std::collections::HashSet::new();
    // A folder that may not be looked into may well be there.
    let there = |path: &PathBuf| match fs::metadata(path) {
        Ok(meta) => meta.is_dir(),
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    };
    found.retain(|path| there(path) && seen.insert(path.clone()));
    found
}

fn home_of(user: &str, passwd: &str) -> Option<PathBuf> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
    line.split(':').nth(5).filter(|home| home.starts_with('/')).map(PathBuf::from)
}

/// What a storage holds.
#[derive(Default)]
pub struct Kept {
    pub certificates: Vec<KeptCertificate>,
    pub accounts: Vec<KeptAccount>,
    pub authorities: Vec<KeptAuthority>,
    /// What could not be read, and why.
    pub unreadable: Vec<String>,
}

pub struct KeptCertificate {
    /// Key of its issuer, such as `acme-v02.api.letsencrypt.org-directory`.
    pub issuer: String,
    pub names: Vec<String>,
    pub not_after: OffsetDateTime,
    /// Key of its files without their ending.
    pub stem: String,
}

pub struct KeptAccount {
    pub issuer: String,
    /// The e-mail address, or `default`.
    pub who: String,
    pub keys: Vec<String>,
}

pub struct KeptAuthority {
    pub id: String,
    pub not_after: OffsetDateTime,
    pub keys: Vec<String>,
}

impl Kept {
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.accounts.is_empty() && self.authorities.is_empty()
    }
}

/// Reads a storage in Caddy's layout.
pub fn read(storage: &FileStorage) -> Kept {
    let mut kept = Kept::default();
    if let Err(error) = fs::read_dir(storage.root()) {
        kept.unreadable.push(format!("{}: {error}", storage.root().display()));
        return kept;
    }
    for issuer in list(storage, "certificates", &mut kept) {
        let folder = format!("certificates/{issuer}");
        for name in list(storage, &folder, &mut kept) {
            let stem = format!("{folder}/{name}/{name}");
            match certificate(storage, &stem) {
                Ok(Some(found)) => kept.certificates.push(KeptCertificate {
                    issuer: issuer.clone(),
                    names: found.names.iter().map(|name| printable(name)).collect(),
                    not_after: found.validity.not_after,
                    stem,
                }),
                Ok(None) => {}
                Err(why) => kept.unreadable.push(format!("{}: {why}", printable(&stem))),
            }
        }
    }
    for issuer in list(storage, "acme", &mut kept) {
        for who in list(storage, &format!("acme/{issuer}/users"), &mut kept) {
            let folder = format!("acme/{issuer}/users/{who}");
            let is_ours = |name: &String| [".json", ".key"].iter().any(|end| name.ends_with(end));
            let keys: Vec<String> = list(storage, &folder, &mut kept)
                .into_iter()
                .filter(is_ours)
                .map(|name| format!("{folder}/{name}"))
                .collect();
            if keys.len() >= 2 {
                kept.accounts.push(KeptAccount { issuer: issuer.clone(), who, keys });
            }
        }
    }
    for id in list(storage, "pki/authorities", &mut kept) {
        let folder = format!("pki/authorities/{id}");
        match certificate(storage, &format!("{folder}/root")) {
            Ok(Some(root)) => {
                let names = ["root.crt", "root.key", "intermediate.crt", "intermediate.key"];
                let keys = names.iter().map(|name| format!("{folder}/{name}")).collect();
                kept.authorities.push(KeptAuthority { id, not_after: root.validity.not_after, keys });
            }
            Ok(None) => {}
            Err(why) => kept.unreadable.push(format!("{}: {why}", printable(&folder))),
        }
    }
    kept
}

/// The certificate of a stem; `None` when there is none.
pub fn certificate(storage: &FileStorage, stem: &str) -> Result<Option<Certificate>, String> {
    let load = |end: &str| load(storage, &format!("{stem}.{end}")).map_err(|error| error.to_string());
    let (Some(chain), Some(key)) = (load("crt")?, load("key")?) else { return Ok(None) };
    Certificate::from_pem(&chain, &key, Vec::new()).map(Some).map_err(|error| error.to_string())
}

/// The value of a key, unless a link leads to it.
pub fn load(storage: &FileStorage, key: &str) -> io::Result<Option<Vec<u8>>> {
    if is_linked(storage.root(), key) {
        return Err(io::Error::other("a link, which is not followed"));
    }
    storage.load(key)
}

fn list(storage: &FileStorage, key: &str, kept: &mut Kept) -> Vec<String> {
    if is_linked(storage.root(), key) {
        kept.unreadable.push(format!("{}: a link, which is not followed", printable(key)));
        return Vec::new();
    }
    let mut names = storage.list(key).unwrap_or_else(|error| {
        kept.unreadable.push(format!("{}: {error}", printable(key)));
        Vec::new()
    });
    names.truncate(MOST);
    names
}

/// Whether a part of the way to a key is a symbolic link.
fn is_linked(root: &Path, key: &str) -> bool {
    let mut path = root.to_path_buf();
    Path::new(key).components().any(|part| {
        path.push(part);
        fs::symlink_metadata(&path).is_ok_and(|meta| meta.file_type().is_symlink())
    })
}

/// A name out of a storage as a terminal may see it.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A storage with a certificate that is good for some days, an account and an authority.
    pub fn filled(root: &Path, name: &str, days: i64) -> FileStorage {
        let storage = FileStorage::new(root);
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = OffsetDateTime::now_utc() + time::Duration::days(days);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let stem = format!("certificates/acme.test-dir/{name}/{name}");
        for (end, value) in [("crt", pem.as_str()), ("key", &key.serialize_pem()), ("json", "{}")] {
            storage.store(&format!("{stem}.{end}"), value.as_bytes()).unwrap();
        }
        for end in ["json", "key"] {
            storage.store(&format!("acme/acme.test-dir/users/a@b.test/a.{end}"), end.as_bytes()).unwrap();
        }
        for part in ["root", "intermediate"] {
            storage.store(&format!("pki/authorities/local/{part}.crt"), pem.as_bytes()).unwrap();
            storage.store(&format!("pki/authorities/local/{part}.key"), key.serialize_pem().as_bytes()).unwrap();
        }
        storage
    }

    #[test]
    fn what_lies_there_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let kept = read(&filled(folder.path(), "a.test", 50));
        assert_eq!(kept.certificates.len(), 1);
        let found = &kept.certificates[0];
        assert_eq!((found.issuer.as_str(), found.names[0].as_str()), ("acme.test-dir", "a.test"));
        assert_eq!((kept.accounts[0].who.as_str(), kept.accounts[0].keys.len()), ("a@b.test", 2));
        assert_eq!((kept.authorities[0].id.as_str(), kept.unreadable.len()), ("local", 0));
    }

    #[test]
    fn links_are_not_followed_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let storage = filled(folder.path(), "a.test", 50);
        let there = folder.path().join("certificates/acme.test-dir");
        std::os::unix::fs::symlink("/etc", there.join("linked.test")).unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("acme/linked")).unwrap();
        storage.store("certificates/acme.test-dir/bad.test/bad.test.crt", b"no").unwrap();
        storage.store("certificates/acme.test-dir/bad.test/bad.test.key", b"no").unwrap();
        let kept = read(&storage);
        assert_eq!((kept.certificates.len(), kept.accounts.len()), (1, 1));
        assert_eq!(kept.unreadable.len(), 3, "{:?}", kept.unreadable);
    }

    #[test]
    fn the_home_of_a_user_is_in_the_list_of_users() {
        let users = "root:x:0:0:root:/root:/bin/sh\ncaddy:x:9:9::/srv/caddy:/bin/false\n";
        assert_eq!(home_of("caddy", users), Some(PathBuf::from("/srv/caddy")));
        assert_eq!(home_of("cad", users), None);
    }
}
