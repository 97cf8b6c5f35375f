//! External accounts: who may have an account here at all (RFC 8555 section 7.3.4).

use std::collections::HashMap;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::jwk::{Jwk, Key};
use super::jws::{Jws, Signer};
use super::problem::{Kind, Problem};

/// Shorter keys can be guessed from one message.
const MIN_KEY: usize = 16;

/// Keys by their id. No `Debug`: secrets.
#[derive(Default)]
pub struct ExternalKeys(HashMap<String, Zeroizing<Vec<u8>>>);

impl ExternalKeys {
    /// Adds a key, base64url.
    ///
    /// # Errors
    /// What is wrong with it; it is not shown.
    pub fn add(&mut self, id: &str, key: &str) -> Result<(), &'static str> {
        let decoded = URL_SAFE_NO_PAD.decode(key).or_else(|_| URL_SAFE.decode(key));
        let bytes = Zeroizing::new(decoded.map_err(|_| "the MAC key is not base64url")?);
        if bytes.len() < MIN_KEY {
            return Err("the MAC key has less than 16 bytes");
        }
        match self.0.insert(id.to_owned(), bytes) {
            None => Ok(()),
            Some(_) => Err("the key id is there twice"),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// Checks that an external account vouches for the key of a new account; answers its id.
    pub fn check(&self, binding: &[u8], url: &str, account: &Key) -> Result<String, Problem> {
        let refused = |why: &'static str| Problem::new(Kind::Unauthorized, why);
        let jws = Jws::read(binding)?;
        let Signer::Id(id) = jws.signer else {
            return Err(Problem::malformed("the binding names its key with `kid`"));
        };
        if jws.nonce.is_some() || jws.url != url {
            return Err(Problem::malformed("the binding has the URL of this request, and no nonce"));
        }
        let algorithm = match jws.algorithm.as_str() {
            "HS256" => hmac::HMAC_SHA256,
            "HS384" => hmac::HMAC_SHA384,
            "HS512" => hmac::HMAC_SHA512,
            _ => {
                return Err(Problem::new(
                    Kind::BadSignatureAlgorithm,
                    "the binding is signed with HS256, HS384 or HS512",
                ));
            }
        };
        // One answer for both, so that nobody learns which ids there are.
        let verified = self
            .0
            .get(&id)
            .is_some_and(|key| hmac::verify(&hmac::Key::new(algorithm, key), &jws.message, &jws.signature).is_ok());
        if !verified {
            return Err(refused("the external account is not known, or its key did not sign this"));
        }
        let bound: Jwk = serde_json::from_slice(&jws.payload)
            .map_err(|_| Problem::malformed("the payload of the binding is not a JSON Web Key"))?;
        if Key::try_from(&bound)? != *account {
            return Err(refused("the binding is for another key"));
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn jwk(byte: u8) -> Value {
        json!({"kty":"OKP","crv":"Ed25519","x":URL_SAFE_NO_PAD.encode([byte; 32])})
    }

    fn binding(head: &Value, payload: &Value, secret: &[u8]) -> Vec<u8> {
        let (protected, payload) =
            (URL_SAFE_NO_PAD.encode(head.to_string()), URL_SAFE_NO_PAD.encode(payload.to_string()));
        let message = format!("{protected}.{payload}");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        let body = json!({"protected":protected,"payload":payload,"signature":URL_SAFE_NO_PAD.encode(tag)});
        body.to_string().into_bytes()
    }

    #[test]
    fn who_holds_the_key_may_bind_the_key_of_the_account() {
        let mut keys = ExternalKeys::default();
        keys.add("team", &URL_SAFE_NO_PAD.encode(SECRET)).unwrap();
        let account = Key::try_from(&serde_json::from_value::<Jwk>(jwk(1)).unwrap()).unwrap();
        let head = json!({"alg":"HS256","kid":"team","url":"u"});
        let check = |body: Vec<u8>| keys.check(&body, "u", &account);
        assert_eq!(check(binding(&head, &jwk(1), SECRET)).unwrap(), "team");
        let with = |name: &str, value: Value| {
            let mut head = head.clone();
            head[name] = value;
            binding(&head, &jwk(1), SECRET)
        };
        for bad in [
            binding(&head, &jwk(2), SECRET),
            binding(&head, &jwk(1), b"another"),
            binding(&head, &json!({}), SECRET),
            with("kid", "other".into()),
            with("url", "v".into()),
            with("nonce", "n".into()),
            with("alg", "HS384".into()),
            with("alg", "none".into()),
            b"{}".to_vec(),
        ] {
            assert!(check(bad.clone()).is_err(), "{}", String::from_utf8_lossy(&bad));
        }
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        let mut keys = ExternalKeys::default();
        assert!(keys.add("a", "+++").unwrap_err().contains("base64url"));
        assert!(keys.add("a", "c2hvcnQ").unwrap_err().contains("16 bytes"));
        let good = URL_SAFE_NO_PAD.encode(SECRET);
        keys.add("a", &good).unwrap();
        assert!(keys.add("a", &good).unwrap_err().contains("twice"));
    }
}
