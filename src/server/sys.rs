//! The system calls that take descriptors by number, which safe Rust does not offer. The only `unsafe` of the program.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A copy of a descriptor that the parent process opened for us (systemd socket activation, `fd/N`).
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks whether the number is an open descriptor.
    if fd < 3 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no such inherited descriptor"));
    }
    // SAFETY: the descriptor is open; duplicating it leaves the inherited one as it is, for a later reload.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `copy` is fresh; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Which of these sockets (by index) the peer has closed, in one system call. The caller keeps them open meanwhile.
pub fn closed_by_peer(sockets: &[RawFd]) -> Vec<usize> {
    if sockets.is_empty() {
        return Vec::new();
    }
    let mut polled: Vec<libc::pollfd> =
        sockets.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLRDHUP, revents: 0 }).collect();
    // SAFETY: pointer and length describe `polled`; poll keeps neither. A number that is no longer a socket of ours
    // would only be looked at.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, 0) };
    if ready <= 0 {
        return Vec::new();
    }
    let gone = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
    polled.iter().enumerate().filter(|(_, p)| p.revents & gone != 0).map(|(i, _)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn only_closed_peers_are_told() {
        let (a, keep) = UnixStream::pair().unwrap();
        let (b, gone) = UnixStream::pair().unwrap();
        drop(gone);
        assert_eq!(closed_by_peer(&[a.as_raw_fd(), b.as_raw_fd()]), vec![1]);
        drop(keep);
    }

    #[test]
    fn standard_streams_and_closed_numbers_are_not_inherited_sockets() {
        assert!(inherited(0).is_err());
        assert!(inherited(9999).is_err());
    }
}
