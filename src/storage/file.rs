//! Values as files under one folder: mode 0600 in folders of mode 0700, each replaced in one step.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// Values larger than this are not ours.
const MAX_VALUE: u64 = 16 << 20;

/// A store in a folder. All calls block on the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStorage {
    root: PathBuf,
}

impl FileStorage {
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The value of a key; `None` when there is none.
    pub fn load(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(key)?;
        let read = fs::metadata(&path).and_then(|meta| {
            if meta.len() > MAX_VALUE {
                return Err(io::Error::other("the file is too large to be ours"));
            }
            fs::read(&path)
        });
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps a value: whoever reads sees the old one or the new one, whole, also after a crash.
    pub fn store(&self, key: &str, value: &[u8]) -> io::Result<()> {
        let path = self.path(key)?;
        let folder = path.parent().unwrap_or(&self.root);
        private_folder(folder)?;
        let mut unique = [0; 8];
        getrandom::fill(&mut unique).map_err(|_| io::Error::other("no randomness"))?;
        let temporary = folder.join(format!(".{:016x}.tmp", u64::from_ne_bytes(unique)));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(value)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            // The new name, too, must survive a crash.
            File::open(folder)?.sync_all()
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(|error| at(&path, &error))
    }

    /// Whether values can be kept here: keeps one for a moment.
    ///
    /// # Errors
    /// Why not, with the file or folder.
    pub fn check(&self) -> io::Result<()> {
        let key = format!("llmproxy_check_{:016x}", fastrand::u64(..));
        self.store(&key, b"of no use")?;
        self.delete(&key)
    }

    /// Removes a value, or everything under a key that is a folder. Nothing there is no error.
    pub fn delete(&self, key: &str) -> io::Result<()> {
        let path = self.path(key)?;
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })
    }

    /// The last segments of the keys directly under a key, sorted.
    pub fn list(&self, key: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(key)?) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry?.file_name().into_string().ok().filter(|name| !name.starts_with('.')));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// When a value was last kept; `None` when there is none.
    pub fn modified(&self, key: &str) -> io::Result<Option<SystemTime>> {
        match fs::metadata(self.path(key)?).and_then(|meta| meta.modified()) {
            Ok(time) => Ok(Some(time)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The file of a key. Keys come from names of sites and answers of CAs: none may leave the folder.
    pub(super) fn path(&self, key: &str) -> io::Result<PathBuf> {
        let relative = Path::new(key);
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if key.is_empty() || !plain {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a storage key"));
        }
        Ok(self.root.join(relative))
    }
}

/// Makes a folder and what is above it, for the owner alone.
pub(super) fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| at(path, &error))
}

/// The error with the place it is about.
pub(super) fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn values_are_kept_replaced_listed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path().join("deep/root"));
        assert_eq!(storage.load("a/b.crt").unwrap(), None);
        assert_eq!(storage.list("a").unwrap(), Vec::<String>::new());
        storage.store("a/b.crt", b"one").unwrap();
        storage.store("a/b.crt", b"two").unwrap();
        storage.store("a/a.key", b"k").unwrap();
        assert_eq!(storage.load("a/b.crt").unwrap().unwrap(), b"two");
        assert_eq!(storage.load("a/b.crt/c").unwrap(), None);
        assert_eq!(storage.list("a").unwrap(), ["a.key", "b.crt"]);
        let mode = |p: &str| fs::metadata(storage.root().join(p)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("a/b.crt"), mode("a")), (0o600, 0o700));
        storage.delete("a/b.crt").unwrap();
        storage.delete("a/b.crt").unwrap();
        storage.delete("a").unwrap();
        assert_eq!(storage.load("a/a.key").unwrap(), None);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        FileStorage::new(folder.path().join("new")).check().unwrap();
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 0);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for root in [file.clone(), file.join("below")] {
            let error = FileStorage::new(&root).check().unwrap_err().to_string();
            assert!(error.contains(&root.display().to_string()), "{error}");
        }
    }

    #[test]
    fn no_key_leaves_the_folder() {
        let storage = FileStorage::new("/nonexistent");
        for key in ["", "/etc/passwd", "../x", "a/../../x", "."] {
            assert_eq!(storage.load(key).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{key}");
        }
    }

    #[test]
    fn a_write_that_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path());
        storage.store("a/b/c", b"x").unwrap();
        // A folder stands where the value should.
        let error = storage.store("a/b", b"y").unwrap_err().to_string();
        assert!(error.contains(&folder.path().join("a/b").display().to_string()), "{error}");
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
    }
}
