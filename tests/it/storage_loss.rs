//! The disk under the certificate storage fills up, becomes read-only or goes away: what is served goes on, renewals too.

use crate::harness::in_parallel;
use crate::harness::process::{Proxy, Which, free_port, run_within};
use crate::harness::tls;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A small file system of its own; unmounted on drop.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None`, with a message, where this process may not mount.
    fn mount() -> Option<Self> {
        let disk = Self { folder: tempfile::tempdir().unwrap() };
        if mount(&["-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs"], disk.folder.path()) {
            return Some(disk);
        }
        eprintln!("skipped: not allowed to mount a file system");
        None
    }

    fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).output();
    }
}

fn mount(arguments: &[&str], folder: &Path) -> bool {
    Command::new("mount").args(arguments).arg(folder).output().is_ok_and(|output| output.status.success())
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    Full,
    ReadOnly,
    Removed,
}

impl Loss {
    fn strike(self, disk: &Disk) {
        match self {
            Self::Full => {
                let mut filler = std::fs::File::create(disk.folder.path().join("filler")).unwrap();
                while filler.write_all(&[0; 4096]).is_ok() {}
                while filler.write_all(&[0]).is_ok() {}
            }
            Self::ReadOnly => assert!(mount(&["-o", "remount,ro"], disk.folder.path())),
            Self::Removed => {
                std::fs::rename(disk.storage(), disk.folder.path().join("gone")).unwrap();
                std::fs::write(disk.storage(), "in its place").unwrap();
            }
        }
    }

    fn mend(self, disk: &Disk) {
        match self {
            Self::Full => std::fs::remove_file(disk.folder.path().join("filler")).unwrap(),
            Self::ReadOnly => assert!(mount(&["-o", "remount,rw"], disk.folder.path())),
            Self::Removed => {
                std::fs::remove_file(disk.storage()).unwrap();
                std::fs::rename(disk.folder.path().join("gone"), disk.storage()).unwrap();
            }
        }
    }
}

fn file(http: u16, https: u16, storage: &Path, hosts: &str) -> String {
    format!(
        "{{\n\tadmin off\n\trenew_interval 1s\n\thttp_port {http}\n\thttps_port {https}\n\tstorage file_system {}\n}}\n{hosts} {{\n\ttls {{\n\t\tissuer internal {{\n\t\t\tlifetime 12s\n\t\t}}\n\t}}\n\trespond {{host}}\n}}\n",
        storage.display()
    )
}

/// The certificate that is served to a client that trusts the root alone, after a request over it was answered.
fn served(port: u16, name: &str, authority: &str, log: impl Fn() -> String) -> Vec<u8> {
    let mut connection = tls::connect(port, name, authority);
    connection.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    let answer = connection.response().unwrap_or_else(|why| panic!("{why:?}: {}", log()));
    assert_eq!(answer.text(), name);
    connection.stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn a_storage_that_is_lost_stops_neither_service_nor_renewals() {
    in_parallel(&[Loss::Full, Loss::ReadOnly, Loss::Removed], |loss| {
        let Some(disk) = Disk::mount() else { return };
        let (http, https) = (free_port(), free_port());
        let proxy = Proxy::start(Which::Llmproxy, &file(http, https, &disk.storage(), "localhost"), https);
        let authority = std::fs::read_to_string(disk.storage().join("pki/authorities/local/root.crt")).unwrap();
        let first = served(https, "localhost", &authority, || proxy.log());
        loss.strike(&disk);
        let until_another = |than: &[u8], times: usize| {
            let (began, mut last, mut seen) = (Instant::now(), than.to_vec(), 0);
            while seen < times {
                assert!(began.elapsed() < Duration::from_secs(40), "{loss:?}: not renewed: {}", proxy.log());
                let now = served(https, "localhost", &authority, || proxy.log());
                if now != last {
                    (last, seen) = (now, seen + 1);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            last
        };
        let last = until_another(&first, 2);
        assert!(proxy.log().contains("cannot be kept"), "{loss:?}: {}", proxy.log());
        // A configuration may change meanwhile, with a name that has no certificate yet.
        std::fs::write(&proxy.config, file(http, https, &disk.storage(), "localhost, other.localhost")).unwrap();
        let reload = run_within(proxy.command(Which::Llmproxy).arg("reload"), Duration::from_secs(30));
        assert!(reload.status.success(), "{loss:?}: {reload:?}");
        served(https, "other.localhost", &authority, || proxy.log());
        loss.mend(&disk);
        until_another(&last, 1);
        let kept = disk.storage().join("certificates/local/localhost/localhost.crt");
        let began = Instant::now();
        while !std::fs::read_to_string(&kept).is_ok_and(|pem| pem.contains("BEGIN")) {
            assert!(began.elapsed() < Duration::from_secs(20), "{loss:?}: not kept again: {}", proxy.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!proxy.log().contains("panicked"));
    });
}
