//! Copies certificates, accounts and the internal CA into our own storage. Nothing that is as good there already is
//! touched.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use time::OffsetDateTime;

use super::storage::{self, Kept};
use crate::storage::FileStorage;

/// What became of one thing.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Copied,
    /// Ours is the same or lasts longer, or is another that must not be lost.
    Kept,
    Expired,
    Failed(String),
}

/// Copies all that was found; the outcomes in the order certificates, accounts, authorities.
pub fn copy(kept: &Kept, from: &FileStorage, to: &FileStorage, now: OffsetDateTime) -> Vec<(String, Outcome)> {
    let mut done = Vec::new();
    let owner = Owner::of(to.root());
    for certificate in &kept.certificates {
        let ours = storage::certificate(to, &certificate.stem).ok().flatten();
        let outcome = if certificate.not_after <= now {
            Outcome::Expired
        } else if ours.is_some_and(|ours| ours.validity.not_after >= certificate.not_after) {
            Outcome::Kept
        } else {
            let keys: Vec<String> =
                ["key", "crt", "json"].iter().map(|e| format!("{}.{e}", certificate.stem)).collect();
            transfer(&keys, from, to, owner.as_ref())
        };
        done.push((format!("certificate of {}", certificate.names.join(", ")), outcome));
    }
    for account in &kept.accounts {
        let outcome = unless_there(&account.keys, from, to, owner.as_ref());
        done.push((
            format!("account {} at {}", storage::printable(&account.who), storage::printable(&account.issuer)),
            outcome,
        ));
    }
    for authority in &kept.authorities {
        let outcome = unless_there(&authority.keys, from, to, owner.as_ref());
        done.push((format!("internal CA `{}`", storage::printable(&authority.id)), outcome));
    }
    done
}

/// An account or an authority is taken whole or not at all: halves of two do not fit.
fn unless_there(keys: &[String], from: &FileStorage, to: &FileStorage, owner: Option<&Owner>) -> Outcome {
    for key in keys {
        match to.load(key) {
            Ok(None) => {}
            Ok(Some(_)) => return Outcome::Kept,
            Err(error) => return Outcome::Failed(error.to_string()),
        }
    }
    transfer(keys, from, to, owner)
}

fn transfer(keys: &[String], from: &FileStorage, to: &FileStorage, owner: Option<&Owner>) -> Outcome {
    let copied = (|| {
        let mut values = Vec::new();
        for key in keys {
            values.extend(storage::load(from, key)?.map(|value| (key, value)));
        }
        for (key, value) in values {
            to.store(key, &value)?;
            if let Some(owner) = owner {
                owner.give(to.root(), key)?;
            }
        }
        Ok::<(), io::Error>(())
    })();
    copied.map_or_else(|error| Outcome::Failed(error.to_string()), |()| Outcome::Copied)
}

/// Who owns the storage: what root puts there must be theirs too, or the service cannot read it.
struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    /// `None` when there is no such folder yet, or it is root's.
    fn of(root: &Path) -> Option<Self> {
        let meta = fs::metadata(root).ok()?;
        (meta.uid() != 0).then(|| Self { user: meta.uid(), group: meta.gid() })
    }

    fn give(&self, root: &Path, key: &str) -> io::Result<()> {
        let mut path = root.to_path_buf();
        for part in Path::new(key).components() {
            path.push(part);
            if fs::symlink_metadata(&path)?.uid() != self.user {
                lchown(&path, Some(self.user), Some(self.group))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::migrate::caddy::storage::tests::filled;
    use std::os::unix::fs::PermissionsExt;

    fn copied(from: &FileStorage, to: &FileStorage) -> Vec<Outcome> {
        let done = copy(&storage::read(from), from, to, OffsetDateTime::now_utc());
        done.into_iter().map(|(_, outcome)| outcome).collect()
    }

    #[test]
    fn all_is_taken_once_for_the_owner_alone() {
        let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let from = filled(theirs.path(), "a.test", 50);
        let to = FileStorage::new(ours.path().join("new"));
        assert_eq!(copied(&from, &to), [Outcome::Copied, Outcome::Copied, Outcome::Copied]);
        let key = "certificates/acme.test-dir/a.test/a.test.key";
        assert_eq!(to.load(key).unwrap(), from.load(key).unwrap());
        let mode = fs::metadata(to.root().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(copied(&from, &to), [Outcome::Kept, Outcome::Kept, Outcome::Kept]);
    }

    #[test]
    fn what_lasts_longer_stays_and_what_is_over_is_left() {
        let (theirs, ours, third) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (shorter, longer) = (filled(theirs.path(), "a.test", 20), filled(ours.path(), "a.test", 50));
        assert_eq!(copied(&shorter, &longer), [Outcome::Kept, Outcome::Kept, Outcome::Kept]);
        assert_eq!(copied(&longer, &shorter)[0], Outcome::Copied);
        let over = filled(third.path(), "a.test", -1);
        assert_eq!(copied(&over, &longer)[0], Outcome::Expired);
    }
}
