//! Internal authorities kept open: reading and checking their four files for every certificate would cost more than the
//! certificate.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use time::OffsetDateTime;

use super::authority::{Authority, AuthorityError, AuthoritySettings};
use crate::storage::FileStorage;
use crate::storage::key::safe;

/// By storage folder and id.
#[derive(Default)]
pub struct Authorities {
    open: Mutex<HashMap<(PathBuf, String), Kept>>,
}

struct Kept {
    authority: Arc<Authority>,
    settings: AuthoritySettings,
    stamp: Stamp,
}

/// When each file was last changed: another process, or the admin, may have put others there.
type Stamp = [Option<SystemTime>; 4];

impl Authorities {
    /// Those of this process.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Authorities> = OnceLock::new();
        SHARED.get_or_init(Self::default)
    }

    /// The authority as it is kept in memory, while its files and settings are the same and its intermediate is not due;
    /// else [`Authority::open`].
    ///
    /// # Errors
    /// As [`Authority::open`].
    pub fn open(
        &self,
        storage: &FileStorage,
        id: &str,
        settings: &AuthoritySettings,
        now: OffsetDateTime,
    ) -> Result<Arc<Authority>, AuthorityError> {
        let place = (storage.root().to_owned(), id.to_owned());
        // Held while opening: two names that come at once must not make two roots.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = open.get(&place)
            && kept.settings == *settings
            && kept.stamp == stamp(storage, id, settings)
            && !kept.authority.is_due(now)
        {
            return Ok(Arc::clone(&kept.authority));
        }
        if let Some(kept) = open.get(&place) {
            match kept.authority.put_back(storage, id, settings) {
                Ok(false) => {}
                Ok(true) => tracing::warn!(
                    authority = id,
                    "the root of the internal CA was gone from the storage: the one in memory, which clients trust, is put back; to have another made, stop llmproxy before taking it away"
                ),
                Err(error) => tracing::warn!(authority = id, %error, "the root of the internal CA cannot be put back"),
            }
        }
        let authority = match (Authority::open(storage, id, settings, now), open.get(&place)) {
            (Ok(authority), _) => Arc::new(authority),
            // A disk that is gone takes nothing from what is open.
            (Err(error), Some(kept)) if kept.settings == *settings => {
                tracing::warn!(authority = id, %error, "the internal CA goes on from memory");
                if !kept.authority.is_due(now) {
                    return Ok(Arc::clone(&kept.authority));
                }
                let Ok(renewed) = kept.authority.renewed_in_memory(storage, id, settings, now) else {
                    return Err(error);
                };
                Arc::new(renewed)
            }
            (Err(error), Some(_)) => return Err(error),
            (Err(error), None) => {
                let Ok(authority) = Authority::open_in_memory(storage, id, settings, now) else { return Err(error) };
                tracing::error!(
                    authority = id, %error,
                    "the internal CA is in memory only: clients that are to trust it must be told anew after every restart"
                );
                Arc::new(authority)
            }
        };
        let stamp = stamp(storage, id, settings);
        open.insert(place, Kept { authority: Arc::clone(&authority), settings: settings.clone(), stamp });
        Ok(authority)
    }
}

fn stamp(storage: &FileStorage, id: &str, settings: &AuthoritySettings) -> Stamp {
    let storage = settings.storage.as_ref().unwrap_or(storage);
    let kept = |file: &str| storage.modified(&format!("pki/authorities/{}/{file}", safe(id))).ok().flatten();
    let given = |file: &str| std::fs::metadata(Path::new(file)).and_then(|meta| meta.modified()).ok();
    let pair = |files: &Option<(String, String)>, stem: &str| match files {
        Some((certificate, key)) => [given(certificate), given(key)],
        None => [kept(&format!("{stem}.crt")), kept(&format!("{stem}.key"))],
    };
    let [root, root_key] = pair(&settings.root_files, "root");
    let [intermediate, intermediate_key] = pair(&settings.intermediate_files, "intermediate");
    [root, root_key, intermediate, intermediate_key]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_stays_open_until_its_files_change_or_its_intermediate_is_due() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path());
        let (authorities, now) = (Authorities::default(), OffsetDateTime::now_utc());
        let settings = AuthoritySettings::default();
        let open = |now| authorities.open(&storage, "local", &settings, now).unwrap();
        let first = open(now);
        assert!(Arc::ptr_eq(&first, &open(now)));
        let late = now + time::Duration::days(6);
        let renewed = open(late);
        assert!(!Arc::ptr_eq(&first, &renewed) && Arc::ptr_eq(&renewed, &open(late)));

        // The disk is gone: what is open goes on.
        let aside = folder.path().with_extension("aside");
        std::fs::rename(folder.path(), &aside).unwrap();
        std::fs::write(folder.path(), "no folder").unwrap();
        assert!(Arc::ptr_eq(&renewed, &open(late)));
        std::fs::remove_file(folder.path()).unwrap();
        std::fs::rename(&aside, folder.path()).unwrap();
        assert_eq!(open(late).root_pem(), first.root_pem());

        // One that was never kept is made in memory, and stays the same.
        let file = folder.path().join("file");
        std::fs::write(&file, "no folder").unwrap();
        let nowhere = FileStorage::new(&file);
        let in_memory = || authorities.open(&nowhere, "local", &settings, now).unwrap();
        assert_eq!(in_memory().root_pem(), in_memory().root_pem());
        let (before, late) = (in_memory(), now + time::Duration::days(6));
        let after = authorities.open(&nowhere, "local", &settings, late).unwrap();
        assert!(before.is_due(late) && !after.is_due(late), "the intermediate is renewed");
        assert_eq!(before.root_pem(), after.root_pem());
        // One that is kept and cannot be read is not replaced by another.
        storage.store("pki/authorities/broken/root.crt", b"x").unwrap();
        storage.store("pki/authorities/broken/root.key", b"x").unwrap();
        assert!(authorities.open(&storage, "broken", &settings, now).is_err());

        let other = AuthoritySettings { name: "Other".into(), ..AuthoritySettings::default() };
        let changed = authorities.open(&storage, "local", &other, late).unwrap();
        assert!(!Arc::ptr_eq(&changed, &renewed));
    }

    #[test]
    fn a_storage_that_comes_back_empty_gets_the_root_that_clients_trust() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path().join("storage"));
        let (authorities, now) = (Authorities::default(), OffsetDateTime::now_utc());
        let settings = AuthoritySettings::default();
        let open = || authorities.open(&storage, "local", &settings, now).unwrap();
        let first = open();
        let files = ["root.crt", "root.key", "intermediate.crt", "intermediate.key"];
        let kept = || files.map(|file| storage.load(&format!("pki/authorities/local/{file}")).unwrap().unwrap());
        let before = kept();
        std::fs::remove_dir_all(storage.root()).unwrap();
        assert_eq!((open().root_pem(), kept()), (first.root_pem(), before.clone()));
        storage.delete("pki/authorities/local/root.key").unwrap();
        assert_eq!((open().root_pem(), kept()), (first.root_pem(), before.clone()));
        // It is what a process that starts now opens.
        let anew = Authority::open(&storage, "local", &settings, now).unwrap();
        assert_eq!(anew.root_pem(), first.root_pem());

        // A root that the admin has put in its place stands.
        let other = FileStorage::new(folder.path().join("other"));
        let others = Authority::open(&other, "local", &settings, now).unwrap();
        storage.delete("pki").unwrap();
        for file in ["root.crt", "root.key"] {
            let key = format!("pki/authorities/local/{file}");
            storage.store(&key, &other.load(&key).unwrap().unwrap()).unwrap();
        }
        assert_eq!(open().root_pem(), others.root_pem());

        // What was given as files is not put where it never was.
        let path = |file: &str| other.root().join("pki/authorities/local").join(file).display().to_string();
        let given = AuthoritySettings {
            root_files: Some((path("root.crt"), path("root.key"))),
            ..AuthoritySettings::default()
        };
        authorities.open(&storage, "given", &given, now).unwrap();
        storage.delete("pki").unwrap();
        authorities.open(&storage, "given", &given, now).unwrap();
        assert_eq!(storage.list("pki/authorities/given").unwrap(), ["intermediate.crt", "intermediate.key"]);
    }
}
