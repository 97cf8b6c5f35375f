//! Requests of an account that the protocol's library does not make: orders with an end of their own, other chains of a
//! certificate (RFC 8555 sections 6.2, 7.4 and 7.4.2).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, header};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};

use super::AcmeError;
use super::http::Http;

/// How often a nonce may be refused.
const ATTEMPTS: usize = 4;

/// An account that can sign.
pub struct Signer {
    key: EcdsaKeyPair,
    account: String,
    new_nonce: String,
    http: Http,
}

impl Signer {
    /// `account`: its URL; `new_nonce`: where the CA gives nonces.
    pub fn new(key: &PrivatePkcs8KeyDer<'_>, account: &str, new_nonce: String, http: &Http) -> Result<Self, AcmeError> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der())
            .map_err(|_| AcmeError("the ACME account's key is not usable".into()))?;
        Ok(Self { key, account: account.to_owned(), new_nonce, http: http.clone() })
    }

    /// Posts a payload, or asks for what is there (`None`). Any answer but a success is an error.
    pub async fn post(&self, url: &str, payload: Option<&Value>) -> Result<Response<Bytes>, AcmeError> {
        let mut attempt = 1;
        loop {
            let answer = self.attempt(url, payload).await?;
            if answer.status().is_success() {
                return Ok(answer);
            }
            if attempt == ATTEMPTS || !self.http.was_refused_as("badNonce") {
                let said = serde_json::from_slice::<instant_acme::Problem>(answer.body()).map(|p| p.to_string());
                let said = said.unwrap_or_else(|_| format!("status {}", answer.status().as_u16()));
                return Err(AcmeError(said));
            }
            attempt += 1;
        }
    }

    async fn attempt(&self, url: &str, payload: Option<&Value>) -> Result<Response<Bytes>, AcmeError> {
        let failed = |e: http::Error| AcmeError::new("asking the CA", e);
        let request = Request::head(&self.new_nonce).body(Bytes::new()).map_err(failed)?;
        let answer = self.http.clone().send(request).await.map_err(AcmeError)?;
        let nonce = answer.headers().get("replay-nonce").and_then(|v| v.to_str().ok());
        let nonce = nonce.ok_or_else(|| AcmeError("the CA gives no nonce".into()))?;
        let protected = json!({"alg": "ES256", "kid": self.account, "nonce": nonce, "url": url});
        let body = self.signed(&protected, payload)?;
        let request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/jose+json")
            .body(Bytes::from(body.to_string()))
            .map_err(failed)?;
        self.http.clone().send(request).await.map_err(AcmeError)
    }

    /// A JSON web signature in its flattened form.
    fn signed(&self, protected: &Value, payload: Option<&Value>) -> Result<Value, AcmeError> {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let (protected, payload) = (encode(protected), payload.map(encode).unwrap_or_default());
        let signature = self
            .key
            .sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes())
            .map_err(|_| AcmeError("the ACME account's key cannot sign".into()))?;
        Ok(json!({
            "protected": protected, "payload": payload, "signature": URL_SAFE_NO_PAD.encode(signature.as_ref()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, KeyPair, UnparsedPublicKey};

    #[test]
    fn what_is_signed_verifies_by_the_accounts_key() {
        let key = rcgen::KeyPair::generate().unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let http = Http::new(&crate::config::tls_types::AcmeIssuer::default()).unwrap();
        let signer = Signer::new(&key, "https://ca.test/account/1", String::new(), &http).unwrap();
        let protected = json!({"alg": "ES256", "kid": "https://ca.test/account/1"});
        let signed = signer.signed(&protected, None).unwrap();
        assert_eq!(signed["payload"], "");
        let text = format!("{}.", signed["protected"].as_str().unwrap());
        let signature = URL_SAFE_NO_PAD.decode(signed["signature"].as_str().unwrap()).unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, signer.key.public_key());
        public.verify(text.as_bytes(), &signature).unwrap();
    }
}
