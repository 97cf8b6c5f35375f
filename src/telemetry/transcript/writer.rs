//! The thread that writes the records of one folder. A disk that fails costs records, never traffic, and is told.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::files::{Files, OpenFile, stamp, stem};
use super::folder::{Job, Queue, Start, Ticket};
use super::line::{FORMAT, Line};

/// Between two warnings.
const QUIET: Duration = Duration::from_secs(10);
/// Written out once so much has gathered, at the latest when nothing more waits.
const BATCH: usize = 64 << 10;

pub struct Writer {
    files: Files,
    queue: Arc<Queue>,
    open: HashMap<Ticket, Open>,
    /// Records that are lost since that was last told, why the latest was, and when.
    lost: u64,
    why: Option<String>,
    told: Option<Instant>,
}

struct Open {
    stem: String,
    /// `None` once writing failed: what still comes is thrown away.
    file: Option<File>,
    /// Not yet written.
    buffer: Vec<u8>,
    written: u64,
    /// The folder was full, with nothing left to remove.
    cut: bool,
}

impl Writer {
    pub fn new(folder: PathBuf, queue: Arc<Queue>, open: OpenFile) -> Self {
        Self { files: Files::new(folder, open), queue, open: HashMap::new(), lost: 0, why: None, told: None }
    }

    /// Until the folder is gone and the queue empty.
    pub fn run(mut self) {
        while let Some(jobs) = self.queue.take() {
            for job in jobs {
                match job {
                    Job::Start(ticket, start) => self.start(ticket, &start),
                    Job::Event(ticket, event) => self.line(ticket, &Line::of(event)),
                    Job::End { ticket, at, gaps, truncated } => self.end(ticket, at, gaps, truncated),
                }
            }
            // Who looks at a record under way sees all of it but the last moment.
            let tickets: Vec<Ticket> = self.open.keys().copied().collect();
            for ticket in tickets {
                self.write_out(ticket);
            }
            self.tell_losses();
        }
    }

    fn start(&mut self, ticket: Ticket, start: &Start) {
        let stem = stem(start);
        let file = match self.files.create(&stem) {
            Ok(file) => Some(file),
            Err(error) => {
                self.lose(&error);
                None
            }
        };
        self.open.insert(ticket, Open { stem, file, buffer: Vec::new(), written: 0, cut: false });
        let mut line = Line::named(Duration::ZERO, "record");
        line.format = Some(FORMAT);
        line.id = Some(start.id.clone());
        line.time = Some(stamp(start.unix_nanos, false));
        self.line(ticket, &line);
    }

    fn line(&mut self, ticket: Ticket, line: &Line) {
        let Some(open) = self.open.get_mut(&ticket) else { return };
        if open.file.is_none() || open.cut {
            return;
        }
        line.write(&mut open.buffer);
        if open.buffer.len() >= BATCH {
            self.write_out(ticket);
        }
    }

    fn end(&mut self, ticket: Ticket, at: Duration, gaps: u64, truncated: bool) {
        self.write_out(ticket);
        let Some(open) = self.open.get_mut(&ticket) else { return };
        let mut line = Line::named(at, "end");
        line.gaps = (gaps > 0).then_some(gaps);
        line.truncated = truncated || open.cut;
        // The last line is short, and says that the record was cut: it is written whatever the folder holds.
        line.write(&mut open.buffer);
        open.cut = false;
        self.write_all(ticket, true);
        self.queue.one_closed();
        let Some(open) = self.open.remove(&ticket) else { return };
        if open.file.is_some()
            && let Err(error) = self.files.finish(&open.stem, open.written)
        {
            self.files.discard(&open.stem, open.written);
            self.lose(&error);
        }
    }

    fn write_out(&mut self, ticket: Ticket) {
        self.write_all(ticket, false);
    }

    /// `last`: although there is no room.
    fn write_all(&mut self, ticket: Ticket, last: bool) {
        let Some(open) = self.open.get_mut(&ticket) else { return };
        let Some(file) = &mut open.file else { return };
        if open.buffer.is_empty() {
            return;
        }
        let size = open.buffer.len() as u64;
        if !self.files.make_room(size, self.queue.total_size.load(Ordering::Relaxed)) && !last {
            open.cut = true;
            open.buffer.clear();
            return;
        }
        match file.write_all(&open.buffer) {
            Ok(()) => {
                open.written += size;
                open.buffer.clear();
            }
            Err(error) => {
                // Half a record would look like a whole one; and its room is needed.
                open.file = None;
                let (stem, size) = (open.stem.clone(), open.written + size);
                self.files.discard(&stem, size);
                self.lose(&error);
            }
        }
    }

    fn lose(&mut self, error: &io::Error) {
        self.lost += 1;
        self.why = Some(error.to_string());
    }

    fn tell_losses(&mut self) {
        if self.told.is_some_and(|at| at.elapsed() < QUIET) {
            return;
        }
        let refused = self.queue.refused.swap(0, Ordering::Relaxed);
        if self.lost + refused == 0 {
            return;
        }
        self.told = Some(Instant::now());
        let folder = self.files.folder().display();
        if let Some(error) = self.why.take() {
            tracing::error!(%folder, records = self.lost, %error, "cannot write records; requests go on unrecorded");
        }
        if refused > 0 {
            tracing::warn!(%folder, records = refused, "too many records at once; requests went unrecorded");
        }
        self.lost = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::{Direction, Event, Leg, What};
    use super::super::folder::Folder;
    use super::*;
    use bytes::Bytes;
    use std::fs::OpenOptions;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn start(n: u32) -> Start {
        Start { id: format!("id-{n}"), unix_nanos: i64::from(n) * 1_000_000_000 }
    }

    fn data(text: &str) -> Event {
        let what = What::Data(Direction::Response, Bytes::copy_from_slice(text.as_bytes()));
        Event { at: Duration::from_millis(5), leg: Leg::Client, what }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_record_is_private_and_gets_its_name_when_it_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/records");
        let folder = Folder::open(&path, 1 << 20).unwrap();
        let ticket = folder.begin(start(1)).unwrap();
        assert!(folder.push(ticket, data("x")));
        folder.flush(soon());
        assert_eq!(names(&path), ["19700101T000001.000Z-id-1.jsonl.part"]);
        folder.end(ticket, Duration::from_secs(1), 3, false);
        folder.flush(soon());
        assert_eq!(names(&path), ["19700101T000001.000Z-id-1.jsonl"]);
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        let file = path.join("19700101T000001.000Z-id-1.jsonl");
        assert_eq!((mode(&path), mode(&file)), (0o700, 0o600));
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<Line> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let events: Vec<&str> = lines.iter().map(|l| l.event.as_str()).collect();
        assert_eq!(events, ["record", "response_body", "end"]);
        assert_eq!((lines[0].time.as_deref(), lines[2].gaps), (Some("1970-01-01T00:00:01.000Z"), Some(3)));
    }

    #[test]
    fn a_folder_keeps_to_its_size() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path(), 10_000).unwrap();
        let text = "x".repeat(3_000);
        for n in 1..=6 {
            let ticket = folder.begin(start(n)).unwrap();
            folder.push(ticket, data(&text));
            folder.end(ticket, Duration::ZERO, 0, false);
            folder.flush(soon());
        }
        let left = names(root.path());
        assert!(left.len() >= 2 && left.len() <= 3 && left.last().unwrap().contains("id-6"), "{left:?}");
        // One that alone is larger is cut and says so.
        let ticket = folder.begin(start(7)).unwrap();
        for _ in 0..5 {
            folder.push(ticket, data(&text));
            folder.flush(soon());
        }
        folder.end(ticket, Duration::ZERO, 0, false);
        folder.flush(soon());
        let left = names(root.path());
        assert_eq!(left.len(), 1, "{left:?}");
        let text = std::fs::read_to_string(root.path().join(&left[0])).unwrap();
        assert!(text.len() < 10_200 && text.trim_end().ends_with("\"truncated\":true}"), "{}", text.len());
    }

    #[test]
    fn a_full_disk_costs_records_and_nothing_else() {
        fn full(_: &OpenOptions, _: PathBuf) -> io::Result<File> {
            OpenOptions::new().write(true).open("/dev/full")
        }
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::spawn(root.path().into(), 1 << 20, full).unwrap();
        for n in 1..2_000 {
            let ticket = folder.begin(start(n)).expect("those that failed are closed");
            folder.push(ticket, data("x"));
            folder.end(ticket, Duration::ZERO, 0, false);
            if n % 100 == 0 {
                folder.flush(soon());
            }
        }
        folder.flush(soon());
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_tried_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("records");
        std::fs::write(&path, "in the way").unwrap();
        let folder = Folder::open(&path, 1 << 20).unwrap();
        let record = |n| {
            let ticket = folder.begin(start(n)).unwrap();
            folder.end(ticket, Duration::ZERO, 0, false);
            folder.flush(soon());
        };
        record(1);
        std::fs::remove_file(&path).unwrap();
        record(2);
        assert_eq!(names(&path), ["19700101T000002.000Z-id-2.jsonl"]);
    }

    #[test]
    fn what_waits_is_bounded() {
        /// Waits until the test goes on.
        fn slow(options: &OpenOptions, path: PathBuf) -> io::Result<File> {
            while !path.with_file_name("go").exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
            options.open(path)
        }
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::spawn(root.path().into(), 1 << 30, slow).unwrap();
        let ticket = folder.begin(start(1)).unwrap();
        let text = "x".repeat(1 << 20);
        let taken = (0..100).filter(|_| folder.push(ticket, data(&text))).count();
        assert!((31..=64).contains(&taken), "{taken}");
        let more = (0..1_000).filter_map(|n| folder.begin(start(n + 2))).count();
        assert_eq!(more, 511);
        std::fs::write(root.path().join("go"), "").unwrap();
        folder.end(ticket, Duration::ZERO, 0, false);
        folder.flush(soon());
        assert!(folder.begin(start(2_000)).is_some(), "room again");
    }
}
