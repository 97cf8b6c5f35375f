//! `get_certificate http URL`: certificates that another program has and hands out.

use http::StatusCode;
use time::OffsetDateTime;

use super::endpoint::Endpoint;
use crate::tls::certificate::Certificate;

/// Longest bundle of a chain and its key that is read.
const MAX_ANSWER: usize = 1 << 20;

#[derive(Debug, PartialEq)]
pub struct External {
    endpoint: Endpoint,
}

/// What a client said when it came, as the other program is told it.
#[derive(Debug)]
pub struct Offer {
    pub signature_schemes: Vec<u16>,
    pub cipher_suites: Vec<u16>,
    /// The address that the client reached us at; empty when it is none.
    pub local_ip: String,
}

impl External {
    /// # Errors
    /// What is wrong with the URL, without repeating it.
    pub fn new(url: &str) -> Result<Self, String> {
        Ok(Self { endpoint: Endpoint::parse(url)? })
    }

    /// Asks for a certificate; `None` when the other program has none for this name.
    ///
    /// # Errors
    /// Why there is none, without anything of the answer's content.
    pub async fn get(&self, name: &str, offer: &Offer) -> Result<Option<Certificate>, String> {
        let (schemes, suites) = (hexadecimal(&offer.signature_schemes), hexadecimal(&offer.cipher_suites));
        let mut parameters =
            vec![("cipher_suites", suites.as_str()), ("server_name", name), ("signature_schemes", &schemes)];
        if !offer.local_ip.is_empty() {
            parameters.push(("local_ip", &offer.local_ip));
        }
        let (status, bundle) = self.endpoint.get(&parameters, MAX_ANSWER).await?;
        match status {
            StatusCode::NO_CONTENT => Ok(None),
            StatusCode::OK => {
                let certificate = Certificate::from_pem(&bundle, &bundle, Vec::new()).map_err(|e| e.to_string())?;
                if certificate.validity.is_expired(OffsetDateTime::now_utc()) {
                    return Err("the certificate it gives has expired".into());
                }
                Ok(Some(certificate))
            }
            other => Err(format!("it answers {}", other.as_u16())),
        }
    }
}

/// As Caddy writes them: without leading zeros, with commas between.
fn hexadecimal(numbers: &[u16]) -> String {
    let words: Vec<String> = numbers.iter().map(|n| format!("{n:x}")).collect();
    words.join(",")
}
