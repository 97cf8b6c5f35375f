//! Certificate signing requests (PKCS #10), read strictly: what is not understood is refused, what is signed is shown.

use std::collections::BTreeSet;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::identifier::Identifier;
use super::jwk::Key;

const MIN_RSA_BITS: usize = 2048;
const MAX_RSA_BITS: usize = 8192;

/// What a request asks for, its signature verified.
#[derive(Debug)]
pub struct Csr {
    pub identifiers: BTreeSet<Identifier>,
    /// SubjectPublicKeyInfo, DER.
    pub public_key: Vec<u8>,
}

impl Csr {
    /// # Errors
    /// Why no certificate is made for it.
    pub fn read(der: &[u8]) -> Result<Self, &'static str> {
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| "it is not PKCS #10 in DER")?;
        if !rest.is_empty() {
            return Err("bytes follow it");
        }
        let info = &request.certification_request_info;
        check_key(&info.subject_pki)?;
        request.verify_signature().map_err(|_| "its signature does not verify, or is of a kind not known here")?;
        let mut identifiers = BTreeSet::new();
        for common_name in info.subject.iter_common_name() {
            let name = common_name.as_str().map_err(|_| "its common name is not text")?;
            identifiers.insert(Identifier::of_text(name)?);
        }
        for extension in request.requested_extensions().into_iter().flatten() {
            match extension {
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        identifiers.insert(identifier(name)?);
                    }
                }
                ParsedExtension::BasicConstraints(basic) if basic.ca => return Err("it asks for a CA's certificate"),
                // How the key may be used is for the CA to say.
                _ => {}
            }
        }
        Ok(Self { identifiers, public_key: info.subject_pki.raw.to_vec() })
    }

    #[must_use]
    pub fn has_key(&self, key: &Key) -> bool {
        SubjectPublicKeyInfo::from_der(&self.public_key).is_ok_and(|(_, info)| key.is(&info))
    }
}

fn identifier(name: &GeneralName<'_>) -> Result<Identifier, &'static str> {
    match name {
        GeneralName::DNSName(name) => Identifier::dns(name),
        GeneralName::IPAddress(bytes) => {
            let address = match **bytes {
                [a, b, c, d] => std::net::IpAddr::from([a, b, c, d]),
                _ => <[u8; 16]>::try_from(*bytes).map(Into::into).map_err(|_| "an address has a wrong length")?,
            };
            Identifier::ip(&address.to_string())
        }
        _ => Err("it names something that is neither a DNS name nor an IP address"),
    }
}

/// RSA of a good length, P-256, P-384, Ed25519: what clients of today can verify.
fn check_key(info: &SubjectPublicKeyInfo<'_>) -> Result<(), &'static str> {
    match info.parsed() {
        Ok(PublicKey::RSA(rsa)) if (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&rsa.key_size()) => Ok(()),
        Ok(PublicKey::RSA(_)) => Err("RSA keys have 2048 to 8192 bits here"),
        _ => {
            rcgen::SubjectPublicKeyInfo::from_der(info.raw).map(drop).map_err(|_| "its key is of a kind not known here")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn request(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn names(der: &[u8]) -> Result<Vec<String>, &'static str> {
        Csr::read(der).map(|csr| csr.identifiers.into_iter().map(|i| i.value).collect())
    }

    #[test]
    fn every_name_counts_the_common_one_too() {
        let der = request(&["b.test", "A.test", "10.0.0.1", "::1", "b.test"], |params| {
            params.distinguished_name.push(rcgen::DnType::CommonName, "c.test");
        });
        assert_eq!(names(&der).unwrap(), ["a.test", "b.test", "c.test", "10.0.0.1", "::1"]);
        assert_eq!(names(&request(&[], |_| {})).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_signed_is_refused() {
        let other = |san: SanType| request(&[], |params| params.subject_alt_names = vec![san]);
        let text = |text: &str| rcgen::string::Ia5String::try_from(text).unwrap();
        for (der, why) in [
            (Vec::new(), "PKCS"),
            (vec![48, 0], "PKCS"),
            ([request(&["a.test"], |_| {}), vec![0]].concat(), "follow"),
            (request(&["a.test"], |p| p.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained)), "CA"),
            (other(SanType::Rfc822Name(text("a@b.test"))), "neither"),
            (other(SanType::URI(text("https://a.test"))), "neither"),
            (other(SanType::DnsName(text("a b"))), "not a DNS name"),
            (request(&[], |p| p.distinguished_name.push(rcgen::DnType::CommonName, "A person")), "not a DNS name"),
        ] {
            let said = names(&der).unwrap_err();
            assert!(said.contains(why), "{why}: {said}");
        }
        let mut changed = request(&["a.test"], |_| {});
        let at = changed.windows(6).position(|w| w == b"a.test").unwrap();
        changed[at] = b'b';
        assert!(names(&changed).unwrap_err().contains("signature"));
    }

    /// The law of the fuzz target, on seeds; and that what was changed on the way never asks for other names or another key.
    #[test]
    fn any_bytes_are_read_or_refused() {
        let good = request(&["a.test", "127.0.0.1"], |_| {});
        let meant = Csr::read(&good).unwrap();
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..2000 {
            let mut bytes = good.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            if let Ok(csr) = Csr::read(&bytes) {
                assert_eq!((csr.identifiers, csr.public_key), (meant.identifiers.clone(), meant.public_key.clone()));
            }
        }
    }
}
