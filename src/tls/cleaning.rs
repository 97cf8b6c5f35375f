//! Takes out of the storage what is of no use any more: certificates that expired long ago, OCSP responses that have
//! expired, locks that nobody renews. The note of when this was done is Caddy's (certmagic's `last_clean.json`), so that several processes on
//! one storage do it once.

use std::io;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ocsp;
use crate::storage::FileStorage;

/// How often, unless told otherwise (Caddy's).
pub const INTERVAL: Duration = Duration::from_hours(24);
/// How long things are kept that are of no use any more (Caddy's, for certificates).
const GRACE: Duration = Duration::from_hours(14 * 24);
const NOTE: &str = "last_clean.json";
const LOCK: &str = "storage_clean";

/// What was taken away.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    pub certificates: usize,
    pub responses: usize,
    pub locks: usize,
}

#[derive(Serialize, Deserialize)]
struct Done {
    timestamp: String,
}

/// Cleans the storage, unless somebody did within the `interval`: then `None`. `is_looked_after` tells of the folder of a
/// certificate whether it belongs to a name in use; those stay, whatever their age. Blocks on the file system.
///
/// # Errors
/// When the storage cannot be read or written; what could be cleaned before is.
pub fn clean(
    storage: &FileStorage,
    interval: Duration,
    is_looked_after: impl Fn(&str) -> bool,
    now: OffsetDateTime,
) -> io::Result<Option<Cleaned>> {
    if !storage.root().is_dir() || !is_due(storage, interval, now) {
        return Ok(None);
    }
    let _turn = storage.lock_briefly(LOCK)?;
    if !is_due(storage, interval, now) {
        return Ok(None);
    }
    // Noted first: several at once would only do the same, and a storage that fails is not tried for ever.
    note(storage, now)?;
    let cleaned = Cleaned {
        certificates: clean_certificates(storage, is_looked_after, now)?,
        responses: clean_responses(storage, now)?,
        locks: clean_locks(storage, now)?,
    };
    Ok(Some(cleaned))
}

fn is_due(storage: &FileStorage, interval: Duration, now: OffsetDateTime) -> bool {
    let last = || {
        let all: Map<String, Value> = serde_json::from_slice(&storage.load(NOTE).ok()??).ok()?;
        let done: Done = serde_json::from_value(all.get("tls")?.clone()).ok()?;
        OffsetDateTime::parse(&done.timestamp, &Rfc3339).ok()
    };
    // One in the future was written by a clock that was wrong.
    last().is_none_or(|last| now - last >= interval || last - now > interval)
}

fn note(storage: &FileStorage, now: OffsetDateTime) -> io::Result<()> {
    let timestamp = now.format(&Rfc3339).map_err(io::Error::other)?;
    storage.store(NOTE, &serde_json::to_vec(&json!({"tls": Done { timestamp }}))?)
}

fn clean_certificates(
    storage: &FileStorage,
    is_looked_after: impl Fn(&str) -> bool,
    now: OffsetDateTime,
) -> io::Result<usize> {
    let mut cleaned = 0;
    for issuer in storage.list("certificates")? {
        for name in storage.list(&format!("certificates/{issuer}"))? {
            if is_looked_after(&name) {
                continue;
            }
            let folder = format!("certificates/{issuer}/{name}");
            let mut left = 0;
            for file in storage.list(&folder)? {
                let Some(stem) = file.strip_suffix(".crt") else { continue };
                let Some(pem) = storage.load(&format!("{folder}/{file}"))? else { continue };
                // What cannot be read is not ours to judge.
                if end_of(&pem).is_none_or(|end| now - end < GRACE) {
                    left += 1;
                    continue;
                }
                for end in ["crt", "key", "json"] {
                    storage.delete(&format!("{folder}/{stem}.{end}"))?;
                }
                cleaned += 1;
            }
            if left == 0 && storage.list(&folder)?.is_empty() {
                storage.delete(&folder)?;
            }
        }
    }
    Ok(cleaned)
}

/// When the first certificate of a chain ends.
fn end_of(pem: &[u8]) -> Option<OffsetDateTime> {
    let leaf = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).ok()?;
    OffsetDateTime::from_unix_timestamp(leaf.validity().not_after.timestamp()).ok()
}

/// Removes OCSP responses that have expired, and what is none, as Caddy does: at worst somebody asks once more.
fn clean_responses(storage: &FileStorage, now: OffsetDateTime) -> io::Result<usize> {
    let mut cleaned = 0;
    for file in storage.list("ocsp")? {
        let key = format!("ocsp/{file}");
        if storage.load(&key)?.is_some_and(|response| !ocsp::is_of_use(&response, now)) {
            storage.delete(&key)?;
            cleaned += 1;
        }
    }
    Ok(cleaned)
}

/// Removes locks that nobody has renewed for long.
fn clean_locks(storage: &FileStorage, now: OffsetDateTime) -> io::Result<usize> {
    let mut cleaned = 0;
    let before = SystemTime::from(now) - GRACE;
    for file in storage
        .list("locks")?
        .into_iter()
        .filter(|file| file.strip_suffix(".lock").is_some() && !file.starts_with(LOCK))
    {
        let key = format!("locks/{file}");
        if storage.modified(&key)?.is_some_and(|modified| modified < before) {
            storage.delete(&key)?;
            cleaned += 1;
        }
    }
    Ok(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::KeyType;
    use crate::tls::authority::{Authority, AuthoritySettings};

    const HOUR: Duration = Duration::from_hours(1);

    fn now() -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    /// A storage with a certificate of an hour for each name.
    fn storage(names: &[&str]) -> (tempfile::TempDir, FileStorage) {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path());
        let authority = Authority::open(&storage, "local", &AuthoritySettings::default(), now()).unwrap();
        for name in names {
            let issued = authority.issue(name, HOUR, KeyType::P256, false, now()).unwrap();
            let keys = crate::storage::key::certificate("local", name);
            storage.store(&keys.chain, issued.chain.as_bytes()).unwrap();
            storage.store(&keys.private_key, issued.key.as_bytes()).unwrap();
            storage.store(&keys.metadata, b"{}").unwrap();
        }
        (folder, storage)
    }

    fn names(storage: &FileStorage) -> Vec<String> {
        storage.list("certificates/local").unwrap()
    }

    #[test]
    fn what_expired_long_ago_goes_with_its_key() {
        let (_folder, storage) = storage(&["a.test", "*.b.test", "used.test"]);
        storage.store("certificates/local/a.test/notes.txt", b"of the admin").unwrap();
        storage.store("certificates/local/odd/odd.crt", b"no certificate").unwrap();
        let used = |name: &str| name == "used.test";
        let at = |days| now() + time::Duration::days(days);
        assert_eq!(clean(&storage, INTERVAL, used, at(13)).unwrap().unwrap(), Cleaned::default(), "a grace");
        assert_eq!(names(&storage).len(), 4);
        let cleaned = clean(&storage, INTERVAL, used, at(15)).unwrap().unwrap();
        assert_eq!(cleaned.certificates, 2);
        assert_eq!(names(&storage), ["a.test", "odd", "used.test"]);
        assert_eq!(storage.list("certificates/local/a.test").unwrap(), ["notes.txt"], "what is not ours stays");
        assert_eq!(storage.list("certificates/local/used.test").unwrap().len(), 3);
        assert!(storage.load("pki/authorities/local/root.key").unwrap().is_some());
    }

    #[test]
    fn it_is_done_once_in_an_interval_by_whom_ever() {
        let (_folder, storage) = storage(&["a.test"]);
        let later = now() + time::Duration::days(20);
        // As Caddy writes it.
        let text = (later - time::Duration::hours(23)).format(&Rfc3339).unwrap();
        let caddys =
            format!(r#"{{"tls":{{"timestamp":"{text}","instance_id":"697d0781-801b-4882-9cbf-df127fddba98"}}}}"#);
        storage.store(NOTE, caddys.as_bytes()).unwrap();
        assert_eq!(clean(&storage, INTERVAL, |_| false, later).unwrap(), None);
        assert_eq!(names(&storage), ["a.test"]);
        assert!(clean(&storage, HOUR, |_| false, later).unwrap().is_some());
        assert_eq!(clean(&storage, HOUR, |_| false, later).unwrap(), None);
        assert!(names(&storage).is_empty());
        // A note that nobody can read, or one of a clock that was far ahead, does not stop it for ever.
        for broken in [b"{".to_vec(), br#"{"tls":{"timestamp":"2999-01-01T00:00:00Z"}}"#.to_vec()] {
            storage.store(NOTE, &broken).unwrap();
            assert!(clean(&storage, HOUR, |_| false, later).unwrap().is_some());
        }
    }

    #[test]
    fn locks_that_nobody_renews_go() {
        let (_folder, storage) = storage(&[]);
        storage.store("locks/dead.lock", b"{}").unwrap();
        let soon = clean(&storage, HOUR, |_| false, now() + time::Duration::days(1)).unwrap().unwrap();
        assert_eq!(soon, Cleaned::default());
        let late = clean(&storage, HOUR, |_| false, now() + time::Duration::days(15)).unwrap().unwrap();
        assert_eq!(late, Cleaned { certificates: 0, responses: 0, locks: 1 });
    }

    #[test]
    fn responses_go_when_they_have_expired() {
        let (_folder, storage) = storage(&[]);
        let answer = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/ocsp/good.der")).unwrap();
        // Good for a day, from some moment before this test was written.
        let mut end = now();
        while !ocsp::is_of_use(&answer, end) {
            end -= time::Duration::hours(12);
        }
        storage.store("ocsp/a.test-1", &answer).unwrap();
        assert_eq!(clean(&storage, HOUR, |_| false, end).unwrap().unwrap().responses, 0);
        storage.store("ocsp/b.test-2", b"no response").unwrap();
        let cleaned = clean(&storage, HOUR, |_| false, end + time::Duration::days(1)).unwrap().unwrap();
        assert_eq!((cleaned.responses, storage.list("ocsp").unwrap().len()), (2, 0));
    }

    #[test]
    fn no_storage_is_no_error_and_none_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path().join("gone"));
        assert_eq!(clean(&storage, HOUR, |_| false, now()).unwrap(), None);
        assert!(!storage.root().exists());
    }
}
