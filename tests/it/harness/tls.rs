//! TLS as a test client: trusts one authority, offers one protocol.

use super::client::{Connection, NoResponse, Response};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

pub type TlsConnection = Connection<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>;

/// Connects to loopback as to `name`, trusting `authority` (PEM), with the ALPN protocol `http/1.1`.
pub fn connect(port: u16, name: &str, authority: &str) -> TlsConnection {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    over(stream, name, authority)
}

/// As [`connect`], over a connection made already.
pub fn over(stream: TcpStream, name: &str, authority: &str) -> TlsConnection {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    Connection::over(rustls::StreamOwned::new(connection, stream))
}

/// `GET /` over one connection, as to the host `name`; no answer when the handshake fails.
pub fn get(port: u16, name: &str, authority: &str) -> Result<Response, NoResponse> {
    let mut connection = connect(port, name, authority);
    connection.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    connection.response()
}
