//! The challenge in a TLS handshake (RFC 8737; for addresses RFC 8738 section 6).

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::extensions::GeneralName;

use super::{Job, Validator};
use crate::modules::acme_server::identifier::Identifier;
use crate::modules::acme_server::problem::{Kind, Problem};
use crate::tls::acme::ACME_TLS;

/// `id-pe-acmeIdentifier`.
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";

pub async fn ask(validator: &Validator, job: &Job) -> Result<(), Problem> {
    let connection =
        |e: &dyn std::fmt::Display| Problem::new(Kind::Connection, format!("{}: {e}", job.identifier.value));
    let addresses = validator.names.addresses(&job.identifier, validator.https_port).await?;
    let tcp = TcpStream::connect(addresses.as_slice()).await.map_err(|e| connection(&e))?;
    let tls = |e: &dyn std::fmt::Display| Problem::new(Kind::Tls, format!("{}: {e}", job.identifier.value));
    let name = ServerName::try_from(asked_name(&job.identifier)).map_err(|e| tls(&e))?;
    let connector = TlsConnector::from(config().map_err(|e| tls(&e))?);
    let stream = connector.connect(name, tcp).await.map_err(|e| tls(&e))?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(ACME_TLS) {
        return Err(tls(&"the protocol acme-tls/1 was not agreed on"));
    }
    let certificate =
        session.peer_certificates().and_then(|chain| chain.first()).ok_or_else(|| tls(&"no certificate"))?;
    let digest: [u8; 32] = Sha256::digest(job.key_authorization.as_bytes()).into();
    check(certificate, &job.identifier, &digest)
        .map_err(|why| Problem::new(Kind::IncorrectResponse, format!("{}: {why}", job.identifier.value)))
}

/// The name of the handshake: an address goes by its reverse name.
fn asked_name(identifier: &Identifier) -> String {
    match identifier.address() {
        None => identifier.value.clone(),
        Some(IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Some(IpAddr::V6(ip)) => {
            let digits = ip.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            digits.map(|digit| format!("{digit:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

/// A certificate of the one name, with the digest in its critical extension (RFC 8737 section 3).
fn check(certificate: &CertificateDer<'_>, wanted: &Identifier, digest: &[u8; 32]) -> Result<(), &'static str> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| "the certificate is not X.509")?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let named = match names.map(|names| names.value.general_names.as_slice()) {
        Some([GeneralName::DNSName(name)]) => wanted.r#type == "dns" && name.eq_ignore_ascii_case(&wanted.value),
        Some([GeneralName::IPAddress(bytes)]) => match wanted.address() {
            Some(IpAddr::V4(ip)) => ip.octets() == **bytes,
            Some(IpAddr::V6(ip)) => ip.octets() == **bytes,
            None => false,
        },
        _ => false,
    };
    if !named {
        return Err("the certificate is not of this name alone");
    }
    let mut found = certificate.extensions().iter().filter(|e| e.oid.to_id_string() == ACME_IDENTIFIER);
    let (Some(extension), None) = (found.next(), found.next()) else {
        return Err("the certificate has no acmeIdentifier, or several");
    };
    // An OCTET STRING of 32 bytes.
    let expected = [&[4, 32], &digest[..]].concat();
    if !extension.critical || extension.value != expected {
        return Err("the acmeIdentifier is not the one asked for");
    }
    Ok(())
}

fn config() -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// The certificate is of the challenger's own making: that it holds the digest is all that it proves, and who could
/// present another could have made this one. So neither chain nor signature say more.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, CustomExtension, KeyPair};

    fn certificate(names: &[&str], extensions: Vec<CustomExtension>) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.custom_extensions = extensions;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn the_certificate_is_of_the_name_alone_and_holds_the_digest() {
        let digest = [7; 32];
        let good = || CustomExtension::new_acme_identifier(&digest);
        let plain = || {
            let mut extension = good();
            extension.set_criticality(false);
            extension
        };
        for (names, extensions, wanted, passes) in [
            (&["a.test"][..], vec![good()], "a.test", true),
            (&["A.test"], vec![good()], "a.test", true),
            (&["10.0.0.1"], vec![good()], "10.0.0.1", true),
            (&["::1"], vec![good()], "::1", true),
            (&["b.test"], vec![good()], "a.test", false),
            (&["a.test", "b.test"], vec![good()], "a.test", false),
            (&["10.0.0.1"], vec![good()], "10.0.0.2", false),
            (&[], vec![good()], "a.test", false),
            (&["a.test"], vec![], "a.test", false),
            (&["a.test"], vec![plain()], "a.test", false),
            (&["a.test"], vec![CustomExtension::new_acme_identifier(&[8; 32])], "a.test", false),
        ] {
            let wanted = Identifier::of_text(wanted).unwrap();
            let checked = check(&certificate(names, extensions), &wanted, &digest);
            assert_eq!(checked.is_ok(), passes, "{names:?} for {wanted:?}: {checked:?}");
        }
        assert!(check(&CertificateDer::from(vec![1, 2]), &Identifier::dns("a.test").unwrap(), &digest).is_err());
    }

    #[test]
    fn addresses_go_by_their_reverse_names() {
        let name = |text: &str| asked_name(&Identifier::of_text(text).unwrap());
        assert_eq!(name("a.test"), "a.test");
        assert_eq!(name("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(name("2001:db8::1"), v6);
    }
}
