//! TCP keep-alive on a listening socket: the kernel hands its settings on to every connection that is accepted there, so
//! accepting one costs no call more.

use std::io;
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

use crate::compile::keep_alive::KeepAlive;

/// What the kernel takes (`MAX_TCP_KEEPIDLE`, `MAX_TCP_KEEPINTVL`, `MAX_TCP_KEEPCNT` of Linux).
const LONGEST: u64 = 32767;
const MOST: u32 = 127;

/// Sets it for connections accepted from now on; `None` turns it off. Nothing to do for a unix socket.
pub fn set(socket: &Socket, wanted: Option<KeepAlive>) -> io::Result<()> {
    if !matches!(socket.domain()?, socket2::Domain::IPV4 | socket2::Domain::IPV6) {
        return Ok(());
    }
    let Some(wanted) = wanted else { return socket.set_keepalive(false) };
    let mut probes = TcpKeepalive::new();
    if let Some(idle) = wanted.idle {
        probes = probes.with_time(whole_seconds(idle));
    }
    if let Some(interval) = wanted.interval {
        probes = probes.with_interval(whole_seconds(interval));
    }
    if let Some(count) = wanted.count {
        probes = probes.with_retries(count.clamp(1, MOST));
    }
    socket.set_tcp_keepalive(&probes)
}

/// As the kernel counts; rounded up, as Go does.
fn whole_seconds(told: Duration) -> Duration {
    let seconds = told.as_secs() + u64::from(told.subsec_nanos() > 0);
    Duration::from_secs(seconds.clamp(1, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::{TcpListener, TcpStream};

    /// On or off, idle, interval and count of a connection accepted now.
    fn accepted(listener: &TcpListener) -> (bool, u64, u64, u32) {
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = SockRef::from(&accepted);
        let (idle, interval) = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
        (socket.keepalive().unwrap(), idle.as_secs(), interval.as_secs(), socket.tcp_keepalive_retries().unwrap())
    }

    #[test]
    fn accepted_connections_have_what_the_listener_was_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = Socket::from(listener.try_clone().unwrap());
        set(&socket, Some(KeepAlive::default())).unwrap();
        assert_eq!(accepted(&listener), (true, 15, 15, 9));
        let told = KeepAlive {
            idle: Some(Duration::from_millis(8001)),
            interval: Some(Duration::from_secs(1 << 40)),
            count: Some(1000),
        };
        set(&socket, Some(told)).unwrap();
        assert_eq!(accepted(&listener), (true, 9, LONGEST, MOST));
        // What is left to the system stays.
        set(&socket, Some(KeepAlive { idle: None, interval: Some(Duration::from_secs(7)), count: None })).unwrap();
        assert_eq!(accepted(&listener), (true, 9, 7, MOST));
        set(&socket, None).unwrap();
        assert!(!accepted(&listener).0);
    }

    #[test]
    fn a_unix_socket_has_none() {
        let socket = Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        set(&socket, Some(KeepAlive::default())).unwrap();
    }
}
