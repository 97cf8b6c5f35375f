//! Signed requests: JSON Web Signatures in flattened form (RFC 8555 section 6.2). Reads and shapes only: nothing of what
//! is read may be trusted before the signature was verified.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::jwk::Jwk;
use super::problem::Problem;

/// A request as signed; not verified.
#[derive(Debug, Clone)]
pub struct Jws {
    pub algorithm: String,
    pub nonce: Option<String>,
    pub url: String,
    pub signer: Signer,
    /// Empty for POST-as-GET.
    pub payload: Vec<u8>,
    /// What the signature is over.
    pub message: Vec<u8>,
    pub signature: Vec<u8>,
}

/// Who says to have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// The key itself.
    Key(Jwk),
    /// The URL of an account, or the id of an external one.
    Id(String),
}

#[derive(Deserialize)]
struct Flattened {
    protected: String,
    payload: String,
    signature: String,
    /// Not protected by the signature.
    header: Option<IgnoredAny>,
    signatures: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Protected {
    alg: String,
    nonce: Option<String>,
    url: String,
    jwk: Option<Jwk>,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
    b64: Option<IgnoredAny>,
}

impl Jws {
    /// Reads a body.
    ///
    /// # Errors
    /// `malformed` for anything that is not such a signature, or is one in a way that ACME does not allow.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let read: Flattened = serde_json::from_slice(body)
            .map_err(|_| Problem::malformed("the body is not a JSON Web Signature in flattened JSON"))?;
        if read.header.is_some() || read.signatures.is_some() {
            return Err(Problem::malformed("unprotected headers and several signatures are not allowed"));
        }
        let decode = |text: &str, what: &str| {
            let decoded = URL_SAFE_NO_PAD.decode(text);
            decoded.map_err(|_| Problem::malformed(format!("the {what} is not base64url without padding")))
        };
        let head = decode(&read.protected, "protected header")?;
        let (payload, signature) = (decode(&read.payload, "payload")?, decode(&read.signature, "signature")?);
        let head: Protected = serde_json::from_slice(&head)
            .map_err(|_| Problem::malformed("the protected header lacks `alg` or `url`, or is not JSON"))?;
        if head.crit.is_some() || head.b64.is_some() {
            return Err(Problem::malformed("the signature has an extension that is not known here"));
        }
        let signer = match (head.jwk, head.kid) {
            (Some(key), None) => Signer::Key(key),
            (None, Some(id)) => Signer::Id(id),
            _ => return Err(Problem::malformed("the protected header has either `jwk` or `kid`")),
        };
        Ok(Self {
            algorithm: head.alg,
            nonce: head.nonce,
            url: head.url,
            signer,
            payload,
            message: [read.protected.as_bytes(), b".", read.payload.as_bytes()].concat(),
            signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn body(head: &Value) -> Value {
        let protected = URL_SAFE_NO_PAD.encode(head.to_string());
        json!({"protected": protected, "payload": URL_SAFE_NO_PAD.encode("{}"), "signature": "AAAA"})
    }

    fn read(body: &Value) -> Result<Jws, Problem> {
        Jws::read(body.to_string().as_bytes())
    }

    #[test]
    fn what_is_signed_is_what_came() {
        let sent = body(&json!({"alg":"ES256","nonce":"n","url":"https://a.test/x","kid":"k"}));
        let jws = read(&sent).unwrap();
        assert_eq!((jws.signer, jws.payload.as_slice()), (Signer::Id("k".into()), &b"{}"[..]));
        let message = format!("{}.{}", sent["protected"].as_str().unwrap(), sent["payload"].as_str().unwrap());
        assert_eq!(jws.message, message.as_bytes());
    }

    #[test]
    fn what_acme_does_not_allow_is_refused() {
        let good = json!({"alg":"ES256","nonce":"n","url":"u","kid":"k"});
        assert!(read(&body(&good)).is_ok());
        let with = |name: &str, value: Value| {
            let mut head = good.clone();
            head[name] = value;
            body(&head)
        };
        let around = |name: &str, value: Value| {
            let mut sent = body(&good);
            sent[name] = value;
            sent
        };
        for bad in [
            with("jwk", json!({"kty":"EC"})),
            with("kid", Value::Null),
            with("alg", Value::Null),
            with("url", 1.into()),
            with("crit", json!(["x"])),
            with("b64", false.into()),
            around("header", json!({"kid":"other"})),
            around("signatures", json!([])),
            around("payload", "e30=".into()),
            around("payload", json!({})),
            around("signature", "+/+/".into()),
            around("protected", "".into()),
            json!([]),
            json!("a.b.c"),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
        assert!(Jws::read(b"").is_err() && Jws::read(&[255; 40]).is_err());
        // A member told twice could be read in two ways.
        let twice = body(&good).to_string().replacen('{', "{\"payload\":\"e30\",", 1);
        assert!(Jws::read(twice.as_bytes()).is_err());
    }

    /// The law of the fuzz target, on seeds: any bytes are read or refused, and what is read is within what came.
    #[test]
    fn any_bytes_are_read_or_refused() {
        let good = body(&json!({"alg":"ES256","nonce":"n","url":"u","kid":"k"})).to_string().into_bytes();
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let mut bytes = good.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..bytes.len().max(1));
                if at >= bytes.len() {
                    continue;
                }
                match random.u8(..3) {
                    0 => bytes[at] = random.u8(..),
                    1 => drop(bytes.remove(at)),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            if let Ok(jws) = Jws::read(&bytes) {
                assert!(jws.message.len() < bytes.len() && jws.payload.len() < bytes.len());
            }
        }
    }
}
