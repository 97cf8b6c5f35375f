//! The files of a folder: how they are called, how many bytes they take together, and which go first.
//!
//! Only files with names of ours are counted and removed; whatever else lies in the folder is left alone.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::folder::Start;

/// Opens a file with these options; another in tests of a disk that is full.
pub type OpenFile = fn(&OpenOptions, PathBuf) -> io::Result<File>;

pub const WHOLE: &str = ".jsonl";
/// A record under way, or one that a crash left.
pub const PART: &str = ".jsonl.part";

pub struct Files {
    folder: PathBuf,
    open: OpenFile,
    /// Ended records, oldest first; `None` until the folder has been read.
    ended: Option<VecDeque<(String, u64)>>,
    /// Bytes of the ended and of those under way.
    total: u64,
}

impl Files {
    pub fn new(folder: PathBuf, open: OpenFile) -> Self {
        Self { folder, open, ended: None, total: 0 }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the file of a new record, readable by its owner alone.
    pub fn create(&mut self, stem: &str) -> io::Result<File> {
        // Anew each time: somebody may have removed the folder.
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        if self.ended.is_none() {
            self.read_folder()?;
        }
        // A name that is taken, be it by a link, is refused.
        (self.open)(OpenOptions::new().append(true).create_new(true).mode(0o600), self.path(stem, PART))
    }

    /// The record is whole: it gets its final name, and counts as ended.
    pub fn finish(&mut self, stem: &str, size: u64) -> io::Result<()> {
        let name = format!("{stem}{WHOLE}");
        std::fs::rename(self.path(stem, PART), self.folder.join(&name))?;
        self.ended.get_or_insert_default().push_back((name, size));
        Ok(())
    }

    pub fn discard(&mut self, stem: &str, size: u64) {
        let _ = std::fs::remove_file(self.path(stem, PART));
        self.total = self.total.saturating_sub(size);
    }

    /// Makes room for `more` bytes within `limit` by removing the oldest records; false when there are not enough.
    pub fn make_room(&mut self, more: u64, limit: u64) -> bool {
        while self.total + more > limit {
            let Some((name, size)) = self.ended.as_mut().and_then(VecDeque::pop_front) else { return false };
            // Removed by somebody else is as good.
            match std::fs::remove_file(self.folder.join(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(file = %self.folder.join(&name).display(), %error, "cannot remove an old record");
                }
                _ => self.total = self.total.saturating_sub(size),
            }
        }
        self.total += more;
        true
    }

    fn path(&self, stem: &str, suffix: &str) -> PathBuf {
        self.folder.join(format!("{stem}{suffix}"))
    }

    fn read_folder(&mut self) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if is_record(&name) && entry.file_type().is_ok_and(|t| t.is_file()) {
                let size = entry.metadata().map_or(0, |m| m.len());
                self.total += size;
                found.push((name, size));
            }
        }
        // The time is in front.
        found.sort_unstable();
        self.ended = Some(found.into());
        Ok(())
    }
}

/// `20261121T144358.120Z-ID`: sorts by time, and holds nothing that a path could not.
pub fn stem(start: &Start) -> String {
    let id: String = start.id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    format!("{}-{id}", stamp(start.unix_nanos, true))
}

/// A time in UTC: `2026-11-21T14:43:58.120Z`, or without the marks.
pub fn stamp(unix_nanos: i64, compact: bool) -> String {
    let t = OffsetDateTime::from_unix_timestamp_nanos(unix_nanos.into()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (dash, colon) = if compact { ("", "") } else { ("-", ":") };
    format!(
        "{:04}{dash}{:02}{dash}{:02}T{:02}{colon}{:02}{colon}{:02}.{:03}Z",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.millisecond()
    )
}

fn is_record(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(WHOLE).or_else(|| name.strip_suffix(PART)) else { return false };
    let shape = b"00000000T000000.000Z-";
    stem.len() > shape.len()
        && stem.bytes().zip(shape).all(|(b, s)| if *s == b'0' { b.is_ascii_digit() } else { b == *s })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_time_and_are_known_again() {
        let at = |unix_nanos| stem(&Start { id: "../a/b-1".into(), unix_nanos });
        assert_eq!(at(1_795_272_238_120_000_000), "20261121T144358.120Z-ab-1");
        assert_eq!(stamp(1_795_272_238_120_000_000, false), "2026-11-21T14:43:58.120Z");
        assert!(at(1_795_272_238_120_000_000) < at(1_795_272_239_000_000_000));
        assert!(is_record(&format!("{}.jsonl", at(0))) && is_record(&format!("{}.jsonl.part", at(0))));
        for other in ["notes.jsonl", "20261121T144358.120Z-.txt", "20261121T144358.120Z-.jsonl", "x.jsonl.part", ""] {
            assert!(!is_record(other), "{other}");
        }
    }

    #[test]
    fn the_oldest_go_first_and_strangers_stay() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(folder.path().join(name), [0; 100]).unwrap();
        let names =
            ["20250101T000000.000Z-b.jsonl", "20240101T000000.000Z-a.jsonl.part", "20260101T000000.000Z-c.jsonl"];
        for name in names {
            write(name);
        }
        write("notes.jsonl");
        let mut files = Files::new(folder.path().into(), OpenOptions::open);
        files.create("20270101T000000.000Z-d").unwrap();
        assert!(files.make_room(50, 240));
        let left = |name: &str| folder.path().join(name).exists();
        assert_eq!(names.map(left), [false, false, true]);
        assert!(files.make_room(95, 240) && !left(names[2]));
        assert!(!files.make_room(200, 240), "what is under way is not removed");
        assert!(left("notes.jsonl"));
        files.finish("20270101T000000.000Z-d", 145).unwrap();
        assert!(files.make_room(200, 240) && !left("20270101T000000.000Z-d.jsonl"));
    }
}
