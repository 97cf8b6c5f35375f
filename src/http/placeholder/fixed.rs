//! Placeholders that do not depend on the request: environment, system, time, files.

use std::path::Path;

use time::OffsetDateTime;
use time::macros::format_description;

use super::key::TimeFormat;

/// Files beyond this are cut, as in Caddy.
const MAX_FILE: u64 = 1024 * 1024;

/// A variable of the environment that the configuration is loaded with; empty when it is not set.
pub fn env(name: &str) -> String {
    crate::base::env::current().get(name).unwrap_or_default().to_owned()
}

pub fn system(name: &str) -> Option<String> {
    Some(match name {
        "hostname" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        "slash" => std::path::MAIN_SEPARATOR.to_string(),
        "os" => match std::env::consts::OS {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        },
        "arch" => match std::env::consts::ARCH {
            "x86_64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            "x86" => "386".to_owned(),
            arch => arch.to_owned(),
        },
        "wd" => std::env::current_dir().map(|d| d.to_string_lossy().into_owned()).unwrap_or_default(),
        _ => return None,
    })
}

/// The time now, in UTC.
pub fn time(format: TimeFormat) -> String {
    let now = OffsetDateTime::now_utc();
    let text = match format {
        TimeFormat::Go => now.format(format_description!(
            "[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:9] +0000 UTC"
        )),
        TimeFormat::CommonLog => {
            now.format(format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000"))
        }
        TimeFormat::Http => return httpdate::fmt_http_date(std::time::SystemTime::now()),
        TimeFormat::Unix => return now.unix_timestamp().to_string(),
        TimeFormat::UnixMs => return (now.unix_timestamp_nanos() / 1_000_000).to_string(),
        TimeFormat::Year => return now.year().to_string(),
    };
    text.unwrap_or_default()
}

/// The contents of a file without the final line end; empty when it cannot be read.
pub fn file(path: &Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    // An unreadable file is an empty value, as in Caddy; the request must not fail for it.
    let _ = std::fs::File::open(path).and_then(|f| f.take(MAX_FILE).read_to_end(&mut bytes));
    let mut text = String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    if text.ends_with('\n') {
        text.pop();
    }
    if text.ends_with('\r') {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_loses_one_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "sec\nret\r\n").unwrap();
        assert_eq!(file(&path), "sec\nret");
        assert_eq!(file(&dir.path().join("absent")), "");
    }

    #[test]
    fn times_have_their_shapes() {
        assert!(time(TimeFormat::CommonLog).ends_with(" +0000"));
        assert!(time(TimeFormat::Go).ends_with(" +0000 UTC"));
        assert_eq!(time(TimeFormat::UnixMs).len(), time(TimeFormat::Unix).len() + 3);
    }
}
