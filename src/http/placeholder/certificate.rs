//! `{http.request.tls.client.*}`: what a client's certificate says, in the forms that Go prints.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

/// A field of the certificate by its name after `client.`; `None` when unknown or unreadable.
pub fn field(der: &[u8], name: &str) -> Option<String> {
    match name {
        "fingerprint" => return Some(hex(&Sha256::digest(der))),
        "certificate_pem" => return Some(pem(der)),
        "certificate_der_base64" => return Some(BASE64.encode(der)),
        _ => {}
    }
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    if let Some(rest) = name.strip_prefix("san.") {
        return alternative_name(&cert, rest);
    }
    Some(match name {
        "public_key" => hex(&cert.public_key().subject_public_key.data),
        "public_key_sha256" => hex(&Sha256::digest(&cert.public_key().subject_public_key.data)),
        "issuer" => distinguished_name(cert.issuer()),
        "subject" => distinguished_name(cert.subject()),
        "serial" => cert.serial.to_string(),
        _ => return None,
    })
}

/// `dns_names`, `emails`, `ips` or `uris`, all of them or one by its index.
fn alternative_name(cert: &X509Certificate<'_>, name: &str) -> Option<String> {
    let (kind, index) = match name.split_once('.') {
        Some((kind, index)) => (kind, Some(index.parse::<usize>().ok()?)),
        None => (name, None),
    };
    if !matches!(kind, "dns_names" | "emails" | "ips" | "uris") {
        return None;
    }
    let extension = cert.subject_alternative_name().ok().flatten();
    let names = extension.iter().flat_map(|e| e.value.general_names.iter());
    let mut values = names.filter_map(|general| match (kind, general) {
        ("dns_names", GeneralName::DNSName(n)) => Some((*n).to_owned()),
        ("emails", GeneralName::RFC822Name(n)) => Some((*n).to_owned()),
        ("uris", GeneralName::URI(n)) => Some((*n).to_owned()),
        ("ips", GeneralName::IPAddress(bytes)) => ip(bytes),
        _ => None,
    });
    Some(match index {
        Some(n) => values.nth(n).unwrap_or_default(),
        None => format!("[{}]", values.collect::<Vec<_>>().join(" ")),
    })
}

fn ip(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string())
}

/// A name as Go's `pkix.Name` prints it: most specific first, several values of one kind joined by `+`, unknown kinds
/// last by their number.
fn distinguished_name(name: &X509Name<'_>) -> String {
    const KINDS: [(&str, &str); 9] = [
        ("2.5.4.5", "SERIALNUMBER"),
        ("2.5.4.3", "CN"),
        ("2.5.4.17", "POSTALCODE"),
        ("2.5.4.9", "STREET"),
        ("2.5.4.8", "ST"),
        ("2.5.4.7", "L"),
        ("2.5.4.11", "OU"),
        ("2.5.4.10", "O"),
        ("2.5.4.6", "C"),
    ];
    let attributes: Vec<(String, String)> = name
        .iter_attributes()
        .map(|a| (a.attr_type().to_id_string(), a.as_str().map_or_else(|_| hex(a.as_slice()), str::to_owned)))
        .collect();
    let mut parts = Vec::new();
    for (oid, label) in KINDS {
        let values: Vec<String> = attributes
            .iter()
            .filter(|(o, _)| o == oid)
            .map(|(_, value)| format!("{label}={}", escape_value(value)))
            .collect();
        if !values.is_empty() {
            parts.push(values.join("+"));
        }
    }
    let known = |oid: &str| KINDS.iter().any(|(k, _)| *k == oid);
    parts.extend(attributes.iter().rev().filter(|(o, _)| !known(o)).map(|(o, v)| format!("{o}={}", escape_value(v))));
    parts.join(",")
}

/// RFC 2253 escapes.
fn escape_value(value: &str) -> String {
    let last = value.len().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (i, c) in value.char_indices() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (c == ' ' && (i == 0 || i == last))
            || (c == '#' && i == 0);
        if special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn pem(der: &[u8]) -> String {
    let encoded = BASE64.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out + "-----END CERTIFICATE-----\n"
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_certificate() {
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned(), "b.test".to_owned()]).unwrap();
        params.serial_number = Some(rcgen::SerialNumber::from(4711_u64));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Acme, Inc");
        params.distinguished_name.push(rcgen::DnType::CommonName, "client");
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let der = cert.der();
        assert_eq!(field(der, "subject").unwrap(), "CN=client,O=Acme\\, Inc");
        assert_eq!(field(der, "serial").unwrap(), "4711");
        assert_eq!(field(der, "san.dns_names").unwrap(), "[a.test b.test]");
        assert_eq!(field(der, "san.dns_names.1").unwrap(), "b.test");
        assert_eq!(field(der, "san.dns_names.2").unwrap(), "");
        assert_eq!(field(der, "san.nope"), None);
        assert_eq!(field(der, "fingerprint").unwrap().len(), 64);
        assert_eq!(field(b"junk", "subject"), None);
    }
}
