//! Certificates that clients show (mutual TLS): who must, and which are believed.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// What a policy asks of its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// A client without a certificate is refused.
    pub required: bool,
    /// A certificate must be one of these or be signed by one; `None` = any will do, if its key signs the handshake.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
    /// Besides, the certificate must be one of these. Implies `required`, as in Caddy.
    pub leaves: Option<Vec<CertificateDer<'static>>>,
}

impl ClientAuth {
    /// Tells apart what two settings let in.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update([u8::from(self.required)]);
        for list in [&self.authorities, &self.leaves] {
            hash.update([u8::from(list.is_some())]);
            for der in list.iter().flatten() {
                hash.update((der.len() as u64).to_be_bytes());
                hash.update(der);
            }
        }
        hash.finalize().into()
    }

    /// # Errors
    /// When a trusted certificate cannot be read.
    pub fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let mut hints = Vec::new();
        let chains = match &self.authorities {
            None => Chains::Any,
            // Its source holds nothing (yet): nobody is believed.
            Some(authorities) if authorities.is_empty() => Chains::Nobody,
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in authorities {
                    roots.add(authority.clone())?;
                }
                hints.extend(roots.subjects());
                let chains = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                    .build()
                    .map_err(|e| Error::General(e.to_string()))?;
                Chains::Of(chains, authorities.clone())
            }
        };
        Ok(Arc::new(Verifier {
            required: self.required || self.leaves.is_some(),
            chains,
            leaves: self.leaves.clone(),
            hints,
            algorithms: provider.signature_verification_algorithms,
        }))
    }
}

#[derive(Debug)]
enum Chains {
    Any,
    Nobody,
    Of(Arc<dyn ClientCertVerifier>, Vec<CertificateDer<'static>>),
}

#[derive(Debug)]
struct Verifier {
    required: bool,
    chains: Chains,
    leaves: Option<Vec<CertificateDer<'static>>>,
    /// Names of the authorities, by which clients choose among their certificates.
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.chains {
            Chains::Any => {}
            Chains::Nobody => return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
            Chains::Of(chains, authorities) => match chains.verify_client_cert(end_entity, intermediates, now) {
                Ok(_) => {}
                // As in Go, a trusted certificate may be shown itself: the self-signed ones that `openssl req -x509`
                // makes are marked as authorities, which webpki refuses. That comes as this error, and no other does.
                Err(Error::InvalidCertificate(CertificateError::Other(_)))
                    if authorities.contains(end_entity) && is_for_clients_now(end_entity, now) => {}
                Err(error) => return Err(error),
            },
        }
        match &self.leaves {
            Some(leaves) if !leaves.contains(end_entity) => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Within its validity, and not made for something else.
fn is_for_clients_now(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let now = i64::try_from(now.as_secs()).ok().and_then(|secs| ASN1Time::from_timestamp(secs).ok());
    let usage = match parsed.extended_key_usage() {
        Ok(Some(usage)) => usage.value.any || usage.value.client_auth,
        Ok(None) => true,
        Err(_) => false,
    };
    usage && now.is_some_and(|now| parsed.validity().is_valid_at(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use rustls::crypto::aws_lc_rs;
    use std::time::Duration;

    fn params(name: &str) -> CertificateParams {
        CertificateParams::new(vec![name.to_owned()]).unwrap()
    }

    fn verify(auth: &ClientAuth, leaf: &CertificateDer<'_>, now: UnixTime) -> bool {
        let verifier = auth.verifier(&Arc::new(aws_lc_rs::default_provider())).unwrap();
        verifier.verify_client_cert(leaf, &[], now).is_ok()
    }

    #[test]
    fn signed_by_an_authority_or_one_of_them_itself() {
        let (ca_key, leaf_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut ca = params("ca");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_der = ca.self_signed(&ca_key).unwrap().der().clone();
        let issuer = Issuer::new(ca, ca_key);
        let mut leaf = params("leaf");
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap().der().clone();
        let mut other = params("other");
        other.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let for_servers = other.signed_by(&leaf_key, &issuer).unwrap().der().clone();
        let stranger = params("stranger").self_signed(&leaf_key).unwrap().der().clone();
        let now = UnixTime::now();

        let signed = ClientAuth { required: true, authorities: Some(vec![ca_der.clone()]), leaves: None };
        assert!(verify(&signed, &leaf, now));
        assert!(verify(&signed, &ca_der, now), "the authority itself");
        assert!(!verify(&signed, &for_servers, now));
        assert!(!verify(&signed, &stranger, now));
        assert!(!verify(&signed, &ca_der, UnixTime::since_unix_epoch(Duration::from_secs(1))), "not valid yet");

        let pinned = ClientAuth { leaves: Some(vec![leaf.clone()]), ..signed.clone() };
        assert!(verify(&pinned, &leaf, now));
        assert!(!verify(&pinned, &ca_der, now));

        let any = ClientAuth { required: true, authorities: None, leaves: None };
        assert!(verify(&any, &stranger, now));
        let nobody = ClientAuth { required: true, authorities: Some(vec![]), leaves: None };
        assert!(!verify(&nobody, &leaf, now));
    }

    #[test]
    fn settings_that_let_in_others_differ_in_their_digest() {
        let der = || Some(vec![CertificateDer::from(vec![1, 2, 3])]);
        let all = [
            ClientAuth { required: true, authorities: None, leaves: None },
            ClientAuth { required: false, authorities: None, leaves: None },
            ClientAuth { required: true, authorities: der(), leaves: None },
            ClientAuth { required: true, authorities: None, leaves: der() },
            ClientAuth { required: true, authorities: Some(vec![]), leaves: None },
        ];
        for (i, one) in all.iter().enumerate() {
            assert_ne!(one.digest(), [0; 32]);
            assert!(all.iter().skip(i + 1).all(|other| other.digest() != one.digest()), "{one:?}");
        }
    }
}
