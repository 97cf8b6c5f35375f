//! What an entry shows of a request beside its headers.

use std::net::IpAddr;

use http::{Method, Uri, Version};

use crate::http::exchange::{Conn, Exchange, Peer, TlsFacts};
use crate::telemetry::line::{Line, Value, key};
use crate::telemetry::query;

/// The request's own facts: its connection, its first line.
pub struct RequestLine<'r> {
    pub conn: &'r Conn,
    pub client_ip: Option<IpAddr>,
    pub version: Version,
    pub method: &'r Method,
    pub uri: &'r Uri,
    /// Shows credentials.
    pub credentials: bool,
}

impl<'r> RequestLine<'r> {
    /// As the client sent it, whatever handlers did since.
    pub fn of(ex: &'r Exchange) -> Self {
        Self {
            conn: &ex.conn,
            client_ip: ex.client_ip(),
            version: ex.version,
            method: &ex.original.method,
            uri: &ex.original.uri,
            credentials: ex.server.log_credentials,
        }
    }

    /// The object's fields, with headers that `headers` writes.
    pub fn write(&self, line: &mut Line<'_>, host: &[u8], chunked: bool, headers: impl FnOnce(&mut Line<'_>)) {
        self.write_start(line, host);
        line.object(key!("headers"), headers);
        if chunked {
            line.field(key!("transfer_encoding"), Value::List(&[b"chunked"]));
        }
        if let Some(tls) = &self.conn.tls {
            line.object(key!("tls"), |line| write_tls(line, tls));
        }
    }

    /// The fields before the headers.
    pub fn write_start(&self, line: &mut Line<'_>, host: &[u8]) {
        match &self.conn.peer {
            Peer::Ip(addr) => {
                line.field(key!("remote_ip"), Value::Plain(self.conn.peer_ip_value.as_bytes()));
                line.number_text(key!("remote_port"), addr.port().into());
            }
            // As Go names the peer of a unix socket.
            Peer::Unix => {
                line.text(key!("remote_ip"), "@");
                line.text(key!("remote_port"), "");
            }
        }
        match (self.client_ip, &self.conn.peer) {
            // Formatted once a connection.
            (Some(ip), Peer::Ip(peer)) if ip == peer.ip() => {
                line.field(key!("client_ip"), Value::Plain(self.conn.peer_ip_value.as_bytes()));
            }
            (Some(ip), _) => line.text(key!("client_ip"), &ip.to_string()),
            (None, _) => line.text(key!("client_ip"), ""),
        }
        line.field(key!("proto"), Value::Plain(proto(self.version).as_bytes()));
        // A token.
        line.field(key!("method"), Value::Plain(self.method.as_str().as_bytes()));
        line.field(key!("host"), Value::Text(host));
        let target = self.uri.path_and_query().map_or("", |target| target.as_str());
        if self.credentials {
            line.text(key!("uri"), target);
        } else {
            line.text(key!("uri"), &query::redact(target));
        }
    }
}

fn proto(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

fn write_tls(line: &mut Line<'_>, tls: &TlsFacts) {
    line.bool(key!("resumed"), tls.resumed);
    line.number(key!("version"), if tls.version == "tls1.2" { 0x0303 } else { 0x0304 });
    line.number(key!("cipher_suite"), cipher_number(tls.cipher).into());
    line.text(key!("proto"), tls.alpn.as_deref().unwrap_or(""));
    line.text(key!("server_name"), tls.server_name.as_deref().unwrap_or(""));
    line.bool(key!("ech"), false);
    let Some(der) = tls.client_certs.first() else { return };
    if let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) {
        let name = certificate.subject().iter_common_name().last().and_then(|n| n.as_str().ok()).unwrap_or("");
        line.text(key!("client_common_name"), name);
        line.text(key!("client_serial"), &certificate.serial.to_string());
    }
}

/// IANA's number of a cipher suite that rustls speaks; 0 for another.
fn cipher_number(name: &str) -> u16 {
    match name {
        "TLS_AES_128_GCM_SHA256" => 0x1301,
        "TLS_AES_256_GCM_SHA384" => 0x1302,
        "TLS_CHACHA20_POLY1305_SHA256" => 0x1303,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => 0xc02b,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => 0xc02c,
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => 0xc02f,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => 0xc030,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => 0xcca8,
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => 0xcca9,
        _ => 0,
    }
}
