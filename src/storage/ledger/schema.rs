//! The file: its tables, how it is opened, and what happens to one that is broken.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, params};
use rustix::fs::Access;
use time::OffsetDateTime;
use time::macros::format_description;

/// Version of the tables.
const VERSION: i32 = 1;
/// `LLMP`: says that a file is a ledger of ours.
const APPLICATION: i32 = 0x4c4c_4d50;
/// How long a statement waits for another program that has the file.
const BUSY: Duration = Duration::from_secs(5);
/// Files up to this size are read through when they are opened.
const CHECKED: u64 = 64 << 20;
const MAGIC: &[u8] = b"SQLite format 3\0";

/// The tables, as `docs/reference/usage.md` describes them for those who query them.
const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    user TEXT, team TEXT, app TEXT, tags TEXT,
    model TEXT, served TEXT,
    endpoint TEXT NOT NULL, route TEXT NOT NULL, upstream TEXT NOT NULL,
    status INTEGER NOT NULL, stream INTEGER NOT NULL, certainty TEXT NOT NULL,
    input INTEGER NOT NULL, cached INTEGER NOT NULL, cache_write INTEGER NOT NULL, cache_write_1h INTEGER NOT NULL,
    audio_input INTEGER NOT NULL,
    output INTEGER NOT NULL, reasoning INTEGER NOT NULL, audio_output INTEGER NOT NULL,
    service_tier TEXT,
    cost INTEGER,
    first_byte_ms INTEGER, duration_ms INTEGER NOT NULL, retries INTEGER NOT NULL
);
CREATE INDEX calls_at ON calls (at);
CREATE TABLE charges (
    call INTEGER,
    budget TEXT NOT NULL, key TEXT NOT NULL, per TEXT NOT NULL, period INTEGER NOT NULL,
    cost INTEGER NOT NULL, tokens INTEGER NOT NULL
);
CREATE INDEX charges_call ON charges (call);
CREATE TABLE spend (
    budget TEXT NOT NULL, key TEXT NOT NULL, per TEXT NOT NULL, period INTEGER NOT NULL,
    cost INTEGER NOT NULL, tokens INTEGER NOT NULL,
    PRIMARY KEY (budget, key, per, period)
) WITHOUT ROWID;
CREATE TABLE days (
    day TEXT NOT NULL, user TEXT NOT NULL, team TEXT NOT NULL, app TEXT NOT NULL, model TEXT NOT NULL,
    endpoint TEXT NOT NULL, route TEXT NOT NULL, upstream TEXT NOT NULL,
    calls INTEGER NOT NULL, failed INTEGER NOT NULL, estimated INTEGER NOT NULL, aborted INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    input INTEGER NOT NULL, cached INTEGER NOT NULL, cache_write INTEGER NOT NULL,
    output INTEGER NOT NULL, reasoning INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    PRIMARY KEY (day, user, team, app, model, endpoint, route, upstream)
) WITHOUT ROWID;
";

/// Why a ledger cannot be used.
#[derive(Debug)]
pub enum Fault {
    /// Somebody has to mend the configuration or the folder: waiting does not help.
    Refused(String),
    /// The file is broken.
    Corrupt(String),
    /// The disk is full, the file is locked: it may be over by and by.
    Passing(String),
    /// What was to be written cannot be.
    Row(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Refused(text) | Self::Corrupt(text) | Self::Passing(text) | Self::Row(text)) = self;
        f.write_str(text)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt(text),
            Some(
                ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::ReadOnly
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OperationInterrupted
                | ErrorCode::PermissionDenied,
            ) => Self::Passing(text),
            _ => Self::Row(text),
        }
    }
}

/// Opens a ledger to write, making it when there is none.
pub fn open(path: &Path) -> Result<Connection, Fault> {
    prepare(path)?;
    open_prepared(path).map_err(|fault| match fault {
        Fault::Corrupt(found) => of_no_ledger(path, found),
        other => other,
    })
}

fn open_prepared(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    if number(&connection, "PRAGMA schema_version")? == 0 {
        // Before the first table: space that old calls leave can be given back.
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    }
    // A commit is on the disk when it is told; readers never wait for the writer.
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 1000")?;
    let tables = number(&connection, "SELECT count(*) FROM sqlite_master")?;
    if tables == 0 {
        make(&connection)?;
    }
    if number(&connection, "PRAGMA application_id")? != APPLICATION {
        return Err(Fault::Refused(format!("{} is a database, but not a ledger of llmproxy", path.display())));
    }
    let version = number(&connection, "PRAGMA user_version")?;
    if version != VERSION {
        return Err(Fault::Refused(format!(
            "{} is a ledger of another version of llmproxy ({version} and not {VERSION})",
            path.display()
        )));
    }
    check(&connection, path)?;
    Ok(connection)
}

/// Opens a ledger to read, beside whoever writes it.
pub fn open_to_read(path: &Path) -> Result<Connection, Fault> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|error| Fault::Refused(format!("{}: {error}", path.display())))?;
    connection.busy_timeout(BUSY)?;
    let no_ledger = || Fault::Refused(format!("{} is not a ledger of llmproxy", path.display()));
    match number(&connection, "PRAGMA application_id") {
        Ok(APPLICATION) => {}
        Ok(_) | Err(Fault::Corrupt(_)) => return Err(no_ledger()),
        Err(fault) => return Err(fault),
    }
    let version = number(&connection, "PRAGMA user_version")?;
    if version != VERSION {
        return Err(Fault::Refused(format!("{} is a ledger of another version of llmproxy", path.display())));
    }
    Ok(connection)
}

/// Gives a broken file, with what belongs to it, a name with the date, so that a new one can be made in its place; what
/// budgets have spent is taken over as far as it can be read. Answers the new name.
pub fn set_aside(path: &Path, now: OffsetDateTime) -> Result<PathBuf, Fault> {
    let stamp = now.format(format_description!("[year][month][day]T[hour][minute][second]Z")).unwrap_or_default();
    let mut aside = with_suffix(path, &format!(".corrupt-{stamp}"));
    let mut n = 1;
    while aside.exists() {
        n += 1;
        aside = with_suffix(path, &format!(".corrupt-{stamp}-{n}"));
    }
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::rename(with_suffix(path, suffix), with_suffix(&aside, suffix));
    }
    std::fs::rename(path, &aside).map_err(|error| Fault::Passing(format!("{}: {error}", path.display())))?;
    Ok(aside)
}

/// Copies what budgets have spent from a file that was set aside; answers how many sums could be read.
pub fn take_over_spend(from: &Path, to: &Connection) -> usize {
    let Ok(old) = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY) else { return 0 };
    let Ok(mut read) = old.prepare("SELECT budget, key, per, period, cost, tokens FROM spend") else { return 0 };
    let Ok(mut rows) = read.query([]) else { return 0 };
    let mut taken = 0;
    // Up to the first page that cannot be read.
    while let Ok(Some(row)) = rows.next() {
        type Sum = (String, String, String, i64, i64, i64);
        let sum = (|| -> rusqlite::Result<Sum> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        })();
        let Ok((budget, key, per, period, cost, tokens)) = sum else { continue };
        let insert = "INSERT OR IGNORE INTO spend VALUES (?, ?, ?, ?, ?, ?)";
        taken += to.execute(insert, params![budget, key, per, period, cost, tokens]).unwrap_or(0);
    }
    taken
}

fn make(connection: &Connection) -> Result<(), Fault> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};
         INSERT INTO meta VALUES ('schema', '{VERSION}'), ('created', strftime('%Y-%m-%dT%H:%M:%SZ')); COMMIT"
    ))?;
    Ok(())
}

/// The whole file when it is small, else what every writer touches.
fn check(connection: &Connection, path: &Path) -> Result<(), Fault> {
    let small = path.metadata().is_ok_and(|meta| meta.len() <= CHECKED);
    let found: String = if small {
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?
    } else {
        connection.query_row("SELECT 'ok' FROM meta, (SELECT max(id) FROM calls) LIMIT 1", [], |row| row.get(0))?
    };
    if found == "ok" { Ok(()) } else { Err(Fault::Corrupt(found)) }
}

fn number(connection: &Connection, question: &str) -> Result<i32, Fault> {
    Ok(connection.query_row(question, [], |row| row.get(0))?)
}

/// Makes folder and file, for their owner alone, and tells what cannot become a ledger.
///
/// A file that is there is not opened: closing it would take away the locks that SQLite holds on it in this process.
fn prepare(path: &Path) -> Result<(), Fault> {
    let fault = |error: io::Error| {
        let text = format!("{}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotFound
            | io::ErrorKind::AlreadyExists => Fault::Refused(text),
            _ => Fault::Passing(text),
        }
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fault)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other.map(drop).map_err(fault),
    }
    if !path.metadata().map_err(fault)?.is_file() {
        return Err(Fault::Refused(format!("{} is not a file", path.display())));
    }
    rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK).map_err(|error| fault(error.into()))
}

/// Whether a broken file was a ledger: another's, named by mistake, must not be moved away.
fn of_no_ledger(path: &Path, found: String) -> Fault {
    let named_so = path.extension().is_some_and(|e| ["db", "sqlite", "sqlite3"].iter().any(|known| e == *known));
    if named_so || File::open(path).and_then(has_magic).unwrap_or(true) {
        return Fault::Corrupt(found);
    }
    Fault::Refused(format!("{} is not a ledger of llmproxy", path.display()))
}

fn has_magic(mut file: File) -> io::Result<bool> {
    let mut head = Vec::with_capacity(MAGIC.len());
    file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut head)?;
    Ok(head == MAGIC)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_ledger_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/usage.db");
        drop(open(&path).unwrap());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let connection = open(&path).unwrap();
        connection.execute("INSERT INTO spend VALUES ('b', 'k', 'day', 0, 1, 2)", []).unwrap();
        assert_eq!(mode(&with_suffix(&path, "-wal")), 0o600);
        assert_eq!(number(&connection, "PRAGMA synchronous").unwrap(), 2);
    }

    #[test]
    fn what_is_not_a_ledger_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other.db");
        Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        assert!(matches!(open(&other), Err(Fault::Refused(_))));
        let newer = folder.path().join("newer.db");
        open(&newer).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        assert!(matches!(open(&newer), Err(Fault::Refused(_))));
        let text = folder.path().join("passwd");
        std::fs::write(&text, "root:x:0:0\n".repeat(20)).unwrap();
        assert!(matches!(open(&text), Err(Fault::Refused(_))));
        assert!(matches!(open(folder.path()), Err(Fault::Refused(_))));
        assert!(matches!(open(&text.join("usage.db")), Err(Fault::Refused(_))));
        assert!(matches!(open_to_read(&other), Err(Fault::Refused(_))));
        assert!(matches!(open_to_read(&folder.path().join("none.db")), Err(Fault::Refused(_))));
    }

    #[test]
    fn a_broken_file_is_told_and_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.db");
        std::fs::write(&path, [7; 5000]).unwrap();
        assert!(matches!(open(&path), Err(Fault::Corrupt(_))));
        let now = OffsetDateTime::from_unix_timestamp(1_795_219_200).unwrap();
        let aside = set_aside(&path, now).unwrap();
        assert_eq!(aside, folder.path().join("usage.db.corrupt-20261121T000000Z"));
        assert_eq!(std::fs::read(&aside).unwrap(), [7; 5000]);
        drop(open(&path).unwrap());
        assert_ne!(set_aside(&path, now).unwrap(), aside);
    }
}
