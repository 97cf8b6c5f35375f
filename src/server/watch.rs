//! Watches the files of a configuration and says when their content has changed.
//!
//! Directories are watched, not files: editors rename over a file, container runtimes swap a symlink above it. What
//! counts in the end is content: an event only makes us look, and a slow poll looks where events are not delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Quiet time after an event before looking: an editor's save is several events.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Looking is put off no longer than this: a log written beside the configuration is never quiet.
const LONGEST_DEBOUNCE: Duration = Duration::from_millis(500);
/// How often to look without an event (network file systems deliver none).
const POLL: Duration = Duration::from_secs(5);

/// Watches a set of paths.
pub struct FileWatch {
    watcher: Option<notify::RecommendedWatcher>,
    events: mpsc::UnboundedReceiver<()>,
    directories: BTreeSet<PathBuf>,
    /// Each watched path and a hash of what it held when last looked at.
    seen: BTreeMap<PathBuf, u64>,
    /// It was told that a file is empty.
    told_empty: bool,
}

impl Default for FileWatch {
    fn default() -> Self {
        Self::new()
    }
}

impl FileWatch {
    #[must_use]
    pub fn new() -> Self {
        let (send, events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |_| {
            // The receiver lives as long as the watcher; a failed send means the program is ending.
            let _ = send.send(());
        });
        let watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "file notification is not available: looking every {} s", POLL.as_secs());
                None
            }
        };
        Self { watcher, events, directories: BTreeSet::new(), seen: BTreeMap::new(), told_empty: false }
    }

    /// Watches exactly these paths from now on (files, and directories for the list of their entries). The content of
    /// this moment counts as known for paths that are new; one watched before may have changed since it was read, so
    /// what is known of it stays.
    pub fn set(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let paths: BTreeSet<PathBuf> = paths.into_iter().map(|p| std::path::absolute(&p).unwrap_or(p)).collect();
        let wanted: BTreeSet<PathBuf> = paths.iter().flat_map(|p| directories_of(p)).collect();
        if let Some(watcher) = &mut self.watcher {
            for gone in self.directories.difference(&wanted) {
                let _ = watcher.unwatch(gone);
            }
            for new in wanted.difference(&self.directories) {
                // A directory that does not exist yet is found by the poll.
                if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                    tracing::debug!(directory = %new.display(), %error, "cannot watch");
                }
            }
        }
        self.directories = wanted;
        let known = std::mem::take(&mut self.seen);
        let seen = |path: PathBuf| {
            let hash = known.get(&path).copied().unwrap_or_else(|| fingerprint(&path));
            (path, hash)
        };
        self.seen = paths.into_iter().map(seen).collect();
    }

    /// What the paths hold now counts as known. To be called before they are read: what changes after is then seen.
    pub fn look(&mut self) {
        self.seen = self.now();
    }

    fn now(&self) -> BTreeMap<PathBuf, u64> {
        self.seen.keys().map(|path| (path.clone(), fingerprint(path))).collect()
    }

    /// Whether a file lost all its content: most often it is about to be written, or the disk was full when it was. An
    /// empty file would take every site away, so it waits for content, or for an explicit reload.
    fn is_being_written(&mut self, now: &BTreeMap<PathBuf, u64>) -> bool {
        let changed = now.iter().filter(|(path, hash)| self.seen.get(*path) != Some(hash)).map(|(path, _)| path);
        let is_empty = |path: &&PathBuf| std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == 0);
        let Some(path) = changed.into_iter().find(is_empty) else { return false };
        if !self.told_empty {
            self.told_empty = true;
            tracing::warn!(file = %path.display(), "a file of the configuration is empty: it is loaded once it has content, or by `llmproxy reload`");
        }
        true
    }

    /// Resolves when the content of some watched path differs from what was known; it is then known.
    /// Cancel-safe: nothing is lost when the future is dropped.
    pub async fn changed(&mut self) {
        loop {
            let mut watcher_works = self.watcher.is_some();
            tokio::select! {
                event = self.events.recv(), if watcher_works => watcher_works = event.is_some(),
                () = tokio::time::sleep(POLL) => {}
            }
            let quiet = async {
                while watcher_works
                    && tokio::time::timeout(DEBOUNCE, self.events.recv()).await.is_ok_and(|e| e.is_some())
                {
                }
            };
            let _ = tokio::time::timeout(LONGEST_DEBOUNCE, quiet).await;
            while self.events.try_recv().is_ok() {}
            let now = self.now();
            if now == self.seen || self.is_being_written(&now) {
                continue;
            }
            self.seen = now;
            self.told_empty = false;
            return;
        }
    }
}

/// The directories whose entries decide what a path means: its own, and that of the file a symlink leads to.
fn directories_of(path: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    if path.is_dir() {
        out.push(path.to_path_buf());
    }
    for ancestor in path.ancestors().skip(1) {
        if ancestor.is_symlink()
            && let Some(parent) = ancestor.parent()
        {
            out.push(parent.to_path_buf());
        }
    }
    let mut path = path.to_path_buf();
    // Each link on the way; bounded, as links may form a ring.
    for _ in 0..8 {
        if let Some(parent) = path.parent() {
            out.push(parent.to_path_buf());
        }
        match std::fs::read_link(&path) {
            Ok(target) => path = path.parent().map_or(target.clone(), |p| p.join(&target)),
            Err(_) => break,
        }
    }
    if let Ok(real) = path.canonicalize()
        && let Some(parent) = real.parent()
    {
        out.push(parent.to_path_buf());
    }
    out
}

/// A hash of what the path holds now.
fn fingerprint(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let mut names: Vec<_> =
                std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
            names.sort();
            names.hash(&mut hasher);
        }
        Ok(_) => std::fs::read(path).ok().hash(&mut hasher),
        Err(_) => 0_u8.hash(&mut hasher),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn soon(watch: &mut FileWatch) -> bool {
        tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn every_way_an_editor_saves_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("Proxyfile");
        std::fs::write(&file, "a").unwrap();
        let mut watch = FileWatch::new();
        watch.set([file.clone()]);
        std::fs::write(&file, "b").unwrap();
        assert!(soon(&mut watch).await, "written in place");
        let temporary = dir.path().join("new");
        std::fs::write(&temporary, "c").unwrap();
        std::fs::rename(&temporary, &file).unwrap();
        assert!(soon(&mut watch).await, "renamed over");
        std::fs::remove_file(&file).unwrap();
        assert!(soon(&mut watch).await, "deleted");
        std::fs::write(&file, "d").unwrap();
        assert!(soon(&mut watch).await, "created again");
    }

    #[tokio::test]
    async fn a_swapped_symlink_and_a_new_file_of_a_directory_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            std::fs::create_dir(dir.path().join(version)).unwrap();
            std::fs::write(dir.path().join(version).join("Proxyfile"), version).unwrap();
        }
        let link = dir.path().join("current");
        std::os::unix::fs::symlink("v1", &link).unwrap();
        let sites = dir.path().join("sites");
        std::fs::create_dir(&sites).unwrap();
        let mut watch = FileWatch::new();
        watch.set([link.join("Proxyfile"), sites.clone()]);
        let swapped = dir.path().join("next");
        std::os::unix::fs::symlink("v2", &swapped).unwrap();
        std::fs::rename(&swapped, &link).unwrap();
        assert!(soon(&mut watch).await, "symlink swapped");
        std::fs::write(sites.join("a"), "").unwrap();
        assert!(soon(&mut watch).await, "directory gained a file");
    }

    #[tokio::test]
    async fn a_change_while_the_files_were_read_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("Proxyfile");
        std::fs::write(&file, "a").unwrap();
        let mut watch = FileWatch::new();
        watch.set([file.clone()]);
        watch.look();
        std::fs::write(&file, "b").unwrap();
        watch.set([file.clone()]);
        assert!(soon(&mut watch).await, "changed between reading and watching");
    }

    #[tokio::test]
    async fn an_emptied_file_waits_for_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("Proxyfile");
        std::fs::write(&file, "a").unwrap();
        let mut watch = FileWatch::new();
        watch.set([file.clone()]);
        std::fs::write(&file, "").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(400), watch.changed()).await.is_err(), "emptied");
        std::fs::write(&file, "b").unwrap();
        assert!(soon(&mut watch).await, "written");
    }

    #[tokio::test]
    async fn a_save_that_changes_nothing_is_not_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("Proxyfile");
        std::fs::write(&file, "a").unwrap();
        let mut watch = FileWatch::new();
        watch.set([file.clone()]);
        std::fs::write(&file, "a").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(400), watch.changed()).await.is_err());
    }
}
