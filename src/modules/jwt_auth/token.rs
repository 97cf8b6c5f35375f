//! A token as it comes: compact serialisation (RFC 7515 §7.1), read strictly and within bounds.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::fault::Fault;
use super::key::Algorithm;

/// Longer ones are refused unread; servers of OpenID Connect stay far below.
pub const MAX_TOKEN: usize = 8 << 10;

/// A token whose signature has not been looked at.
pub struct Token<'a> {
    pub algorithm: Algorithm,
    /// `kid`: which key it was signed with.
    pub key_id: Option<String>,
    /// What was signed.
    pub message: &'a [u8],
    pub signature: Vec<u8>,
    payload: &'a [u8],
}

impl<'a> Token<'a> {
    pub fn parse(text: &'a [u8]) -> Result<Self, Fault> {
        if text.len() > MAX_TOKEN {
            return Err(Fault::TooLong);
        }
        let mut parts = text.split(|b| *b == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::Malformed);
        };
        let message = text.get(..header.len() + 1 + payload.len()).ok_or(Fault::Malformed)?;
        let header = object(header)?;
        // An extension that must be understood, and none is (RFC 7515 §4.1.11).
        if header.contains_key("crit") {
            return Err(Fault::Critical);
        }
        let name = header.get("alg").and_then(Value::as_str).ok_or(Fault::Malformed)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Fault::Malformed),
        };
        Ok(Self {
            algorithm: Algorithm::named(name).ok_or(Fault::Algorithm)?,
            key_id,
            message,
            signature: decode(signature)?,
            payload,
        })
    }

    /// What it claims; to be asked for once the signature has been verified.
    pub fn claims(&self) -> Result<Map<String, Value>, Fault> {
        object(self.payload)
    }
}

fn object(part: &[u8]) -> Result<Map<String, Value>, Fault> {
    serde_json::from_slice(&decode(part)?).map_err(|_| Fault::Malformed)
}

/// Without padding and without stray bits: one token has one spelling.
fn decode(part: &[u8]) -> Result<Vec<u8>, Fault> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Malformed)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Signer;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn fault(header: &Value, rest: &str) -> Option<Fault> {
        let text = format!("{}{rest}", URL_SAFE_NO_PAD.encode(header.to_string()));
        Token::parse(text.as_bytes()).err()
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", ".", "..", "a.b", "e30.e30.", "a.b.c.d", "e30.e30.AA.AA.AA", "e30=.e30.AA", "bnVsbA.e30.AA"] {
            assert_eq!(Token::parse(text.as_bytes()).err(), Some(Fault::Malformed), "{text}");
        }
        assert_eq!(Token::parse(&vec![b'a'; MAX_TOKEN + 1]).err(), Some(Fault::TooLong));
        assert_eq!(fault(&json!({"alg":"none"}), ".e30."), Some(Fault::Algorithm));
        assert_eq!(fault(&json!({"alg":"None"}), ".e30.AA"), Some(Fault::Algorithm));
        assert_eq!(fault(&json!({"alg":"hs256"}), ".e30.AA"), Some(Fault::Algorithm));
        assert_eq!(fault(&json!({"alg":["HS256"]}), ".e30.AA"), Some(Fault::Malformed));
        assert_eq!(fault(&json!({"alg":"HS256","kid":1}), ".e30.AA"), Some(Fault::Malformed));
        assert_eq!(fault(&json!({"alg":"HS256","crit":["exp"]}), ".e30.AA"), Some(Fault::Critical));
        assert_eq!(fault(&json!({"alg":"HS256","crit":null}), ".e30.AA"), Some(Fault::Critical));
        // The last character holds bits that are not part of the signature: another spelling of the same.
        assert_eq!(fault(&json!({"alg":"HS256"}), ".e30.AB"), Some(Fault::Malformed));
    }

    #[test]
    fn its_parts_are_told() {
        let text = Signer::ec().sign(&json!({"sub":"a"}), Some("k1"));
        let token = Token::parse(text.as_bytes()).unwrap();
        assert_eq!((token.algorithm, token.key_id.as_deref()), (Algorithm::Es256, Some("k1")));
        assert_eq!(token.message, &text.as_bytes()[..text.rfind('.').unwrap()]);
        assert_eq!(token.claims().unwrap()["sub"], "a");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(token) = Token::parse(&text) {
                let _ = token.claims();
            }
        }

        #[test]
        fn any_header_and_payload_are_read_without_a_panic(header in ".{0,80}", payload in ".{0,80}") {
            let text = format!("{}.{}.AA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
            if let Ok(token) = Token::parse(text.as_bytes()) {
                let _ = token.claims();
            }
        }
    }
}
