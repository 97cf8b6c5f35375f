//! Where lines end up: one writer thread for each file and standard stream of the process.
//!
//! A sink lives as long as something refers to it, so it survives reloads. Its queue is bounded: when the disk or the
//! reader of a pipe does not keep up, lines are dropped and counted, and traffic goes on.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::file::{FileOptions, LogFile};

/// Buffers that may wait for a writer thread.
const QUEUE: usize = 128;
/// Written buffers kept for lines to come.
const SPARE: usize = 4;
/// Between two warnings about the same sink.
const QUIET: Duration = Duration::from_secs(10);

/// Where a log writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Stdout,
    Stderr,
    File(FileOptions),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Stdout,
    Stderr,
    File(PathBuf),
}

static SINKS: LazyLock<Mutex<HashMap<Key, Weak<Sink>>>> = LazyLock::new(Mutex::default);

fn sinks() -> MutexGuard<'static, HashMap<Key, Weak<Sink>>> {
    SINKS.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Job {
    Lines(Vec<u8>, u64),
    Options(FileOptions),
    /// Answer once everything before it is written.
    Flush(SyncSender<()>),
}

/// The sending side of a writer thread.
pub struct Sink {
    queue: SyncSender<Job>,
    lost: Arc<AtomicU64>,
    spare: Arc<Spare>,
}

/// Buffers that were written out, with their room: memory that goes from thread to thread is dear to allocate.
type Spare = Mutex<Vec<Vec<u8>>>;

impl Sink {
    /// The sink of the target: the one at work, or a new one. A file is opened here, so that failing is an answer.
    pub fn open(target: &Target) -> io::Result<Arc<Self>> {
        let key = match target {
            Target::Stdout => Key::Stdout,
            Target::Stderr => Key::Stderr,
            Target::File(options) => Key::File(std::path::absolute(&options.path)?),
        };
        let mut sinks = sinks();
        if let Some(sink) = sinks.get(&key).and_then(Weak::upgrade) {
            if let Target::File(options) = target {
                let _ = sink.queue.try_send(Job::Options(options.clone()));
            }
            return Ok(sink);
        }
        let output = match target {
            Target::Stdout => Output::Stdout,
            Target::Stderr => Output::Stderr,
            Target::File(options) => {
                // The working directory may change under a relative path; the file must not.
                let path = std::path::absolute(&options.path)?;
                Output::File(Box::new(LogFile::open(FileOptions { path, ..options.clone() })?))
            }
        };
        let sink = Self::spawn(output, QUEUE)?;
        sinks.retain(|_, sink| sink.strong_count() > 0);
        sinks.insert(key, Arc::downgrade(&sink));
        Ok(sink)
    }

    fn spawn(output: Output, queue: usize) -> io::Result<Arc<Self>> {
        let (send, jobs) = sync_channel(queue);
        let lost: Arc<AtomicU64> = Arc::default();
        let spare: Arc<Spare> = Arc::default();
        let (lost_too, spare_too) = (Arc::clone(&lost), Arc::clone(&spare));
        let writer = Writer { output, jobs, lost: lost_too, spare: spare_too, warned: None, failing: false };
        std::thread::Builder::new().name("log-writer".into()).spawn(move || writer.run())?;
        Ok(Arc::new(Self { queue: send, lost, spare }))
    }

    /// An empty buffer, with room from lines before if there is one.
    pub fn spare(&self) -> Vec<u8> {
        self.spare.try_lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_default()
    }

    /// Hands over whole lines without waiting; `count` of them are lost when the queue is full.
    pub fn send(&self, lines: Vec<u8>, count: u64) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(Job::Lines(lines, count))
        {
            self.lost.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Waits until everything sent so far is written, at most until `deadline`.
    fn flush(&self, deadline: Instant) {
        let (done, wait) = sync_channel(1);
        let mut job = Job::Flush(done);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(job) {
            if Instant::now() >= deadline {
                return;
            }
            job = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = wait.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Writes out what all sinks hold; for the end of the program. A sink that does not keep up is given up after `limit`.
pub fn flush_all(limit: Duration) {
    super::buffer::flush();
    let deadline = Instant::now() + limit;
    let open: Vec<_> = sinks().values().filter_map(Weak::upgrade).collect();
    for sink in open {
        sink.flush(deadline);
    }
}

enum Output {
    Stdout,
    Stderr,
    File(Box<LogFile>),
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

impl Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(lines),
            Self::File(file) => file.write(lines),
            #[cfg(test)]
            Self::Test(out) => out.write_all(lines),
        }
    }
}

struct Writer {
    output: Output,
    jobs: Receiver<Job>,
    lost: Arc<AtomicU64>,
    spare: Arc<Spare>,
    warned: Option<Instant>,
    /// The last write failed, and that was said.
    failing: bool,
}

impl Writer {
    /// Until the last sender is gone and the queue is empty.
    fn run(mut self) {
        loop {
            // While a loss is untold, come back to tell it even if nothing more is logged.
            let job = if self.lost.load(Ordering::Relaxed) > 0 {
                match self.jobs.recv_timeout(QUIET) {
                    Ok(job) => Some(job),
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => None,
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
                }
            } else {
                match self.jobs.recv() {
                    Ok(job) => Some(job),
                    Err(_) => return,
                }
            };
            match job {
                Some(Job::Lines(lines, count)) => {
                    self.write(&lines, count);
                    self.keep(lines);
                }
                Some(Job::Options(options)) => {
                    if let Output::File(file) = &mut self.output {
                        file.set_options(options);
                    }
                }
                Some(Job::Flush(done)) => {
                    let _ = done.send(());
                }
                None => {}
            }
            self.tell_losses();
        }
    }

    /// One that is mostly empty is of a log with little to do: its room is given back.
    fn keep(&self, mut lines: Vec<u8>) {
        if lines.len() > lines.capacity() / 4
            && let Ok(mut spare) = self.spare.try_lock()
            && spare.len() < SPARE
        {
            lines.clear();
            spare.push(lines);
        }
    }

    fn write(&mut self, lines: &[u8], count: u64) {
        match self.output.write(lines) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.lost.fetch_add(count, Ordering::Relaxed);
                if !self.failing {
                    self.failing = true;
                    tracing::warn!(log = %self.name(), %error, "cannot write to log");
                }
            }
        }
    }

    fn tell_losses(&mut self) {
        if self.lost.load(Ordering::Relaxed) == 0 || self.warned.is_some_and(|at| at.elapsed() < QUIET) {
            return;
        }
        self.warned = Some(Instant::now());
        let lines = self.lost.swap(0, Ordering::Relaxed);
        tracing::warn!(log = %self.name(), lines, "log lines were lost");
    }

    fn name(&self) -> String {
        match &self.output {
            Output::Stdout => "stdout".into(),
            Output::Stderr => "stderr".into(),
            Output::File(file) => file.path().display().to_string(),
            #[cfg(test)]
            Output::Test(_) => "test".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks each write until told to go on.
    struct Gate {
        go: Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.go.recv();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts_without_waiting() {
        let (go, gate) = sync_channel(100);
        let written = Arc::new(Mutex::new(Vec::new()));
        let output = Output::Test(Box::new(Gate { go: gate, written: Arc::clone(&written) }));
        let sink = Sink::spawn(output, 2).unwrap();
        for _ in 0..20 {
            sink.send(b"two\nlines\n".to_vec(), 2);
        }
        let lost = sink.lost.load(Ordering::Relaxed);
        // The writer may have taken none or one out of the queue of two.
        assert!(lost == 34 || lost == 36, "{lost}");
        for _ in 0..20 {
            go.send(()).unwrap();
        }
        sink.flush(Instant::now() + Duration::from_secs(10));
        let lines = written.lock().unwrap().split(|b| *b == b'\n').count() as u64 - 1;
        assert_eq!(lines + lost, 40);
        assert_eq!(sink.lost.load(Ordering::Relaxed), 0, "the loss was told");
    }

    #[test]
    fn one_file_is_one_sink_and_outlives_its_first_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let options = |mode| FileOptions { path: path.clone(), mode, dir_mode: 0o700, roll: None };
        let first = Sink::open(&Target::File(options(None))).unwrap();
        let second = Sink::open(&Target::File(options(Some(0o600)))).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        first.send(b"one\n".to_vec(), 1);
        drop(first);
        second.send(b"two\n".to_vec(), 1);
        second.flush(Instant::now() + Duration::from_secs(10));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        let missing = FileOptions { path: "/dev/null/log".into(), mode: None, dir_mode: 0o700, roll: None };
        assert!(Sink::open(&Target::File(missing)).is_err());
    }
}
