//! Locks between processes: a file that its holder keeps fresh, as Caddy's are.
//!
//! A holder writes `{"created": …, "updated": …}` and renews `updated`; a lock not renewed for two periods belonged to a
//! process that died, and is taken over. `flock` would be safer but Caddy does not look at it, and network file systems
//! differ on it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::file::{FileStorage, at, private_folder};
use super::key::safe;

/// How often a holder renews its lock.
const RENEW: Duration = Duration::from_secs(5);
/// Not renewed for so long, a lock is nobody's.
const STALE: Duration = Duration::from_secs(10);
/// How often to look whether a lock has become free.
const POLL: Duration = Duration::from_millis(500);
const BRIEF_POLL: Duration = Duration::from_millis(10);
/// Long enough for the lock of a process that died to become stale.
const BRIEF_LIMIT: Duration = Duration::from_secs(15);

#[derive(Serialize, Deserialize)]
struct Stamp {
    created: String,
    updated: String,
}

/// A lock held; given back on drop.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    released: Arc<AtomicBool>,
    renewing: tokio::task::JoinHandle<()>,
}

/// A lock for the work of a moment, given back on drop. Its holder does not renew it: held longer than ten seconds, it
/// is taken away.
#[derive(Debug)]
pub struct BriefLock {
    path: PathBuf,
}

impl Drop for BriefLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl FileStorage {
    /// Waits, blocking the thread, until the lock of this name is ours.
    ///
    /// # Errors
    /// When the folder cannot be written, or others hold the lock for very long.
    pub fn lock_briefly(&self, name: &str) -> io::Result<BriefLock> {
        let path = self.lock_path(name)?;
        let until = std::time::Instant::now() + BRIEF_LIMIT;
        loop {
            let now = OffsetDateTime::now_utc();
            match create(&path, now) {
                Ok(()) => return Ok(BriefLock { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(at(&path, &error)),
            }
            if is_stale(&path, now) {
                take_away(&path, now);
            } else if std::time::Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            } else {
                std::thread::sleep(BRIEF_POLL);
            }
        }
    }

    fn lock_path(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path(&format!("locks/{}.lock", safe(name)))?;
        private_folder(path.parent().unwrap_or(self.root()))?;
        Ok(path)
    }

    /// Waits until the lock of this name is ours. Cancel-safe: what is dropped while waiting holds nothing.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub async fn lock(&self, name: &str) -> io::Result<Lock> {
        let path = self.lock_path(name)?;
        loop {
            let now = OffsetDateTime::now_utc();
            match create(&path, now) {
                Ok(()) => return Ok(Lock::hold(path, now)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(at(&path, &error)),
            }
            if is_stale(&path, now) {
                take_away(&path, now);
                continue;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Lock {
    fn hold(path: PathBuf, created: OffsetDateTime) -> Self {
        let released = Arc::new(AtomicBool::new(false));
        let (own_path, over) = (path.clone(), Arc::clone(&released));
        let renewing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEW).await;
                if over.load(Ordering::Acquire) {
                    return;
                }
                let _ = renew(&own_path, created, OffsetDateTime::now_utc());
            }
        });
        Self { path, released, renewing }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.released.store(true, Ordering::Release);
        self.renewing.abort();
        let _ = fs::remove_file(&self.path);
    }
}

fn stamp(created: OffsetDateTime, updated: OffsetDateTime) -> io::Result<Vec<u8>> {
    let text = |t: OffsetDateTime| t.format(&Rfc3339).map_err(io::Error::other);
    serde_json::to_vec(&Stamp { created: text(created)?, updated: text(updated)? }).map_err(io::Error::other)
}

fn create(path: &Path, now: OffsetDateTime) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&stamp(now, now)?)?;
    file.sync_all()
}

/// Writes in place, never creates: a lock that another took away must not come back.
fn renew(path: &Path, created: OffsetDateTime, now: OffsetDateTime) -> io::Result<()> {
    let value = stamp(created, now)?;
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(&value)?;
    file.sync_all()
}

/// Removes a stale lock. Another process may have done so and taken the lock since it was looked at: what is moved aside
/// is looked at again, and put back if it is somebody's.
fn take_away(path: &Path, now: OffsetDateTime) {
    let aside = path.with_extension(format!("{:016x}.stale", fastrand::u64(..)));
    if fs::rename(path, &aside).is_ok() {
        if !is_stale(&aside, now) {
            let _ = fs::hard_link(&aside, path);
        }
        let _ = fs::remove_file(&aside);
    }
}

/// True when the holder has not been heard of. A file that cannot be read as a stamp is being written, unless it is old.
fn is_stale(path: &Path, now: OffsetDateTime) -> bool {
    let stamped = || {
        let stamp: Stamp = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let updated = if stamp.updated.is_empty() { stamp.created } else { stamp.updated };
        OffsetDateTime::parse(&updated, &Rfc3339).ok()
    };
    let modified = || fs::metadata(path).and_then(|m| m.modified()).ok().map(OffsetDateTime::from);
    stamped().or_else(modified).is_some_and(|updated| now - updated > STALE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage() -> (tempfile::TempDir, FileStorage) {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path());
        (folder, storage)
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn a_brief_lock_is_held_by_one_thread_at_a_time() {
        let (_folder, storage) = storage();
        let (inside, most) = (std::sync::atomic::AtomicUsize::new(0), std::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let _held = storage.lock_briefly("x").unwrap();
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 1);
        assert_eq!(storage.list("locks").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn one_holds_it_until_it_is_dropped() {
        let (folder, storage) = storage();
        run(async {
            let held = storage.lock("issue a.test").await.unwrap();
            let path = folder.path().join("locks/issue_a.test.lock");
            assert!(path.is_file());
            let second = tokio::time::timeout(Duration::from_millis(20), storage.lock("issue a.test")).await;
            assert!(second.is_err(), "held twice");
            drop(held);
            assert!(!path.exists());
            storage.lock("issue a.test").await.unwrap();
        });
    }

    #[test]
    fn the_lock_of_a_dead_process_is_taken_over() {
        let (folder, storage) = storage();
        fs::create_dir(folder.path().join("locks")).unwrap();
        let path = folder.path().join("locks/x.lock");
        let old = OffsetDateTime::now_utc() - time::Duration::seconds(11);
        fs::write(&path, stamp(old, old).unwrap()).unwrap();
        run(async {
            tokio::time::timeout(Duration::from_millis(200), storage.lock("x")).await.unwrap().unwrap();
        });
        let fresh = OffsetDateTime::now_utc();
        fs::write(&path, stamp(old, fresh).unwrap()).unwrap();
        assert!(!is_stale(&path, fresh));
        fs::write(&path, "").unwrap();
        assert!(!is_stale(&path, fresh), "being written");
    }
}
