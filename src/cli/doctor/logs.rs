//! Looks for the doctor's token in what the gateway has written.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::report::{GATEWAY, Report};

/// Of each file, its end.
const MAX_READ: u64 = 32 << 20;
const MAX_FILES: usize = 1000;

/// `places` are files, or folders whose files are searched, two levels deep.
pub fn search(places: &[PathBuf], token: Option<&str>, report: &mut Report) {
    const FIX: &str =
        "`log` takes credentials out by itself: remove `log_credentials`; for other programs, their debug log";
    let Some(token) = token.filter(|_| !places.is_empty()) else {
        return report.skip(&[GATEWAY], "log", "name the gateway's log with --log, and give a token");
    };
    let mut files = Vec::new();
    for place in places {
        collect(place, 0, &mut files);
    }
    for file in files {
        match holds(&file, token) {
            Ok(false) => {}
            Ok(true) => {
                let why = format!("{} holds the client's token in clear", file.display());
                return report.fault(&[GATEWAY], "log", why, FIX);
            }
            Err(error) => {
                let why = format!("{} cannot be read: {error}", file.display());
                return report.warn(&[GATEWAY], "log", why, "");
            }
        }
    }
    report.ok(&[GATEWAY], "log");
}

fn collect(place: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    if files.len() >= MAX_FILES {
        return;
    }
    match std::fs::read_dir(place) {
        Ok(entries) if depth < 8 => entries.flatten().for_each(|e| collect(&e.path(), depth + 1, files)),
        Ok(_) => {}
        Err(_) => files.push(place.to_owned()),
    }
}

fn holds(file: &Path, token: &str) -> std::io::Result<bool> {
    let mut file = std::fs::File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_READ)))?;
    let mut text = Vec::new();
    file.take(MAX_READ).read_to_end(&mut text)?;
    Ok(memchr::memmem::find(&text, token.as_bytes()).is_some())
}
