//! The client of `handshake.py`: shakes hands with a server on loopback, many times, and closes.
//!
//! `handshake_load PORT NAME COUNT full|post-quantum|resumed`: prints how many were as asked.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken assumption ends the benchmark

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // Cargo runs benchmarks without arguments, or with its own.
    let [port, name, count, mode] = args.as_slice() else { return };
    let (port, count): (u16, u32) = (port.parse().unwrap(), count.parse().unwrap());
    let mut provider = default_provider();
    provider.kx_groups = vec![if mode == "post-quantum" { kx_group::X25519MLKEM768 } else { kx_group::X25519 }];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any))
        .with_no_client_auth();
    let resumed = mode == "resumed";
    config.resumption = if resumed { Resumption::in_memory_sessions(64) } else { Resumption::disabled() };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let (left, good) = (AtomicU32::new(count), AtomicU32::new(0));
    if resumed {
        // Tickets to begin with.
        for _ in 0..4 {
            let _ = shake(&config, port, name, true);
        }
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                    let wanted = if resumed { HandshakeKind::Resumed } else { HandshakeKind::Full };
                    if shake(&config, port, name, resumed) == Some(wanted) {
                        good.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    println!("{}", good.load(Ordering::Relaxed));
}

/// `ask`: also sends a request, as tickets come behind the handshake.
fn shake(config: &Arc<ClientConfig>, port: u16, name: &str, ask: bool) -> Option<HandshakeKind> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = rustls::StreamOwned::new(session, TcpStream::connect(("127.0.0.1", port)).ok()?);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).ok()?;
    }
    let kind = stream.conn.handshake_kind();
    if ask {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n").ok()?;
    } else {
        stream.conn.send_close_notify();
        stream.flush().ok()?;
    }
    // Until the server has done its part.
    let _ = stream.read_to_end(&mut Vec::new());
    kind
}

#[derive(Debug)]
struct Any;

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
