//! A log file: appended to, rolled when large or old, opened anew when it was moved away.
//!
//! Rolled files are called `NAME-TIME-size.EXT` or `NAME-TIME-time.EXT`, as Caddy's are, and end in `.gz` once
//! compressed. Everything here blocks and runs on the writer thread of the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::encoder::now;
use super::go_layout::Layout;

/// Where and how a log file is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOptions {
    pub path: PathBuf,
    /// Permissions; `None` = 0600 for a new file, unchanged for one that is there.
    pub mode: Option<u32>,
    /// Permissions of directories that have to be made.
    pub dir_mode: u32,
    /// `None` = the file is never rolled.
    pub roll: Option<Roll>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roll {
    /// Bytes at which the file is rolled.
    pub size: u64,
    /// Roll after so long, whatever the size.
    pub interval: Option<Duration>,
    /// Seconds of the UTC day to roll at, sorted.
    pub at: Vec<u32>,
    pub compress: bool,
    /// Rolled files to keep.
    pub keep: usize,
    /// How long to keep rolled files.
    pub keep_for: Duration,
    /// The time in a rolled file's name.
    pub name_time: Layout,
}

impl Default for Roll {
    fn default() -> Self {
        Self {
            size: 100 << 20,
            interval: None,
            at: Vec::new(),
            compress: true,
            keep: 10,
            keep_for: Duration::from_hours(90 * 24),
            name_time: Layout::parse("2006-01-02T15-04-05.000"),
        }
    }
}

const SECOND: i64 = 1_000_000_000;

pub struct LogFile {
    options: FileOptions,
    file: File,
    size: u64,
    /// When to roll next because of the time.
    roll_at: Option<i64>,
    /// When the path was last seen to be our file.
    checked: i64,
    /// The last write broke off within a line.
    torn: bool,
}

impl LogFile {
    /// Opens or makes the file, and its directories.
    pub fn open(options: FileOptions) -> io::Result<Self> {
        let (file, size) = open(&options)?;
        let now = now();
        let roll_at = options.roll.as_ref().and_then(|roll| roll.next(now));
        Ok(Self { options, file, size, roll_at, checked: now, torn: false })
    }

    pub fn path(&self) -> &Path {
        &self.options.path
    }

    /// Takes over new options for the same file, whose path stays as it was opened.
    pub fn set_options(&mut self, options: FileOptions) {
        let options = FileOptions { path: self.options.path.clone(), ..options };
        if options != self.options {
            self.roll_at = options.roll.as_ref().and_then(|roll| roll.next(now()));
            self.options = options;
        }
    }

    /// Appends whole lines. On failure part of them may be written.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let now = now();
        if now - self.checked >= SECOND {
            self.checked = now;
            if self.is_moved() {
                self.reopen()?;
            }
        }
        self.roll_if_due(lines.len() as u64, now)?;
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        match self.file.write_all(lines) {
            Ok(()) => {
                self.size += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.torn = true;
                Err(error)
            }
        }
    }

    /// Whether the path no longer names the open file: a rotating tool moved or removed it.
    fn is_moved(&self) -> bool {
        let Ok(ours) = self.file.metadata() else { return true };
        fs::metadata(&self.options.path).map_or(true, |there| (there.dev(), there.ino()) != (ours.dev(), ours.ino()))
    }

    fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.size) = open(&self.options)?;
        self.torn = false;
        Ok(())
    }

    fn roll_if_due(&mut self, coming: u64, now: i64) -> io::Result<()> {
        let Some(roll) = &self.options.roll else { return Ok(()) };
        let reason = if self.roll_at.is_some_and(|at| now >= at) {
            self.roll_at = roll.next(now);
            "time"
        } else if self.size + coming > roll.size {
            "size"
        } else {
            return Ok(());
        };
        if self.size == 0 {
            return Ok(());
        }
        let rolled = rolled_path(&self.options.path, roll, now, reason);
        fs::rename(&self.options.path, &rolled)?;
        self.reopen()?;
        if let Some(roll) = &self.options.roll {
            // On the file's own thread: other lines wait in its queue meanwhile.
            tidy(&self.options.path, roll);
        }
        Ok(())
    }
}

impl Roll {
    /// The next time to roll after `now`.
    fn next(&self, now: i64) -> Option<i64> {
        let interval = self.interval.and_then(|d| i64::try_from(d.as_nanos()).ok()).map(|d| now.saturating_add(d));
        let second = now.div_euclid(SECOND);
        let midnight = second - second.rem_euclid(86_400);
        let clock = self.at.iter().map(|s| midnight + i64::from(*s)).find(|at| *at > second).or_else(|| {
            // The first one tomorrow.
            self.at.first().map(|s| midnight + 86_400 + i64::from(*s))
        });
        let clock = clock.map(|at| at * SECOND);
        interval.into_iter().chain(clock).min()
    }
}

fn open(options: &FileOptions) -> io::Result<(File, u64)> {
    if let Some(parent) = options.path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(options.dir_mode).create(parent)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(options.mode.unwrap_or(0o600)).open(&options.path)?;
    let found = file.metadata()?;
    if let Some(mode) = options.mode
        && found.is_file()
        && found.permissions().mode() & 0o7777 != mode
    {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok((file, found.len()))
}

/// `access.log` → (`access-`, `.log`).
fn affixes(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    (format!("{stem}-"), extension)
}

fn rolled_path(path: &Path, roll: &Roll, now: i64, reason: &str) -> PathBuf {
    let (prefix, extension) = affixes(path);
    let mut time = Vec::new();
    roll.name_time.write(now, &mut time);
    let time = String::from_utf8_lossy(&time).replace('/', "-");
    let mut candidate = path.with_file_name(format!("{prefix}{time}-{reason}{extension}"));
    for n in 1..1000 {
        if !candidate.exists() && !gzip_path(&candidate).exists() {
            break;
        }
        candidate = path.with_file_name(format!("{prefix}{time}-{n}-{reason}{extension}"));
    }
    candidate
}

fn gzip_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

/// Rolled files of `path`, the newest first.
fn rolled_files(path: &Path) -> Vec<(SystemTime, PathBuf)> {
    let (prefix, extension) = affixes(path);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let plain = name.strip_suffix(".gz").unwrap_or(&name);
            let middle = plain.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(&extension));
            middle.is_some_and(|m| {
                m.starts_with(|c: char| c.is_ascii_digit()) && (m.ends_with("-size") || m.ends_with("-time"))
            })
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    found.reverse();
    found
}

/// Removes rolled files that are too many or too old, compresses the others.
fn tidy(path: &Path, roll: &Roll) {
    let oldest = SystemTime::now().checked_sub(roll.keep_for);
    for (n, (modified, file)) in rolled_files(path).into_iter().enumerate() {
        let result = if n >= roll.keep || oldest.is_some_and(|oldest| modified < oldest) {
            fs::remove_file(&file)
        } else if roll.compress && file.extension().is_none_or(|e| e != "gz") {
            compress(&file, modified)
        } else {
            Ok(())
        };
        if let Err(error) = result {
            tracing::warn!(file = %file.display(), %error, "cannot tidy a rolled log file");
        }
    }
}

/// Replaces the file by its gzip form, with the same permissions and time.
fn compress(file: &Path, modified: SystemTime) -> io::Result<()> {
    let target = gzip_path(file);
    let mode = fs::metadata(file)?.permissions().mode() & 0o7777;
    let written = (|| {
        let out = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&target)?;
        let mut gzip = flate2::write::GzEncoder::new(out, flate2::Compression::default());
        io::copy(&mut File::open(file)?, &mut gzip)?;
        gzip.finish()?.set_modified(modified)
    })();
    match written {
        Ok(()) => fs::remove_file(file),
        Err(error) => {
            let _ = fs::remove_file(&target);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn options(path: PathBuf, roll: Option<Roll>) -> FileOptions {
        FileOptions { path, mode: None, dir_mode: 0o700, roll }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_made_with_its_directories_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/access.log");
        let mut log = LogFile::open(options(path.clone(), None)).unwrap();
        log.write(b"one\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let with_mode = FileOptions { mode: Some(0o640), ..options(path.clone(), None) };
        LogFile::open(with_mode).unwrap().write(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_large_file_is_rolled_compressed_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        fs::write(folder.path().join("access-notes.log"), "not ours").unwrap();
        let roll = Roll { size: 10, keep: 2, ..Roll::default() };
        let mut log = LogFile::open(options(path.clone(), Some(roll))).unwrap();
        for n in 0..5 {
            log.write(format!("line {n}..\n").as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 4..\n");
        let names = names(folder.path());
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names.contains(&"access-notes.log".to_owned()));
        let rolled: Vec<_> = names.iter().filter(|n| n.ends_with("-size.log.gz")).collect();
        assert_eq!(rolled.len(), 2, "{names:?}");
        let mut text = String::new();
        let newest = File::open(folder.path().join(rolled[1])).unwrap();
        flate2::read::GzDecoder::new(newest).read_to_string(&mut text).unwrap();
        assert!(text.starts_with("line "), "{text}");
    }

    #[test]
    fn a_file_rolls_when_its_time_has_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access");
        let roll = Roll { interval: Some(Duration::from_nanos(1)), compress: false, ..Roll::default() };
        let mut log = LogFile::open(options(path, Some(roll))).unwrap();
        log.write(b"one\n").unwrap();
        log.write(b"two\n").unwrap();
        let names = names(folder.path());
        assert!(names.len() == 2 && names[1].ends_with("-time"), "{names:?}");
    }

    #[test]
    fn times_of_day() {
        let roll = Roll { at: vec![3600, 7200], ..Roll::default() };
        let hour = 3600 * SECOND;
        assert_eq!(roll.next(0), Some(hour));
        assert_eq!(roll.next(hour), Some(2 * hour));
        assert_eq!(roll.next(5 * hour), Some(25 * hour));
        assert_eq!(Roll::default().next(0), None);
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let moved = folder.path().join("access.log.1");
        let mut log = LogFile::open(options(path.clone(), None)).unwrap();
        log.write(b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        log.checked = 0;
        log.write(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\n");
    }
}
