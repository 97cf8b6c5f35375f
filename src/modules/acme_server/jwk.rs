//! Keys of accounts as JSON Web Keys (RFC 7517): read, told apart by their thumbprint (RFC 7638), used to verify.
//!
//! A key verifies with one algorithm alone, that of its kind, so that a message cannot choose how the key is used.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::problem::{Kind, Problem};

/// Signature algorithms that are accepted.
pub const ALGORITHMS: [&str; 6] = ["ES256", "ES384", "ES512", "EdDSA", "Ed25519", "RS256"];

const MIN_RSA_BITS: usize = 2048;
const MAX_RSA_BITS: usize = 8192;

/// The members of a JSON Web Key that matter here; others are passed over, as the RFC asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    pub kty: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
}

/// A public key of a kind that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// An uncompressed point (SEC 1 section 2.3.3) with the length of a coordinate.
    Ec(&'static Curve, Vec<u8>),
    Ed25519(Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub struct Curve {
    name: &'static str,
    algorithm: &'static str,
    length: usize,
}

static CURVES: [Curve; 3] = [
    Curve { name: "P-256", algorithm: "ES256", length: 32 },
    Curve { name: "P-384", algorithm: "ES384", length: 48 },
    Curve { name: "P-521", algorithm: "ES512", length: 66 },
];

impl TryFrom<&Jwk> for Key {
    type Error = Problem;

    fn try_from(jwk: &Jwk) -> Result<Self, Problem> {
        let bad = |why: &'static str| Problem::new(Kind::BadPublicKey, why);
        let bytes = |member: &Option<String>| {
            let text = member.as_deref().ok_or_else(|| bad("the key lacks a member"))?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| bad("a member of the key is not base64url without padding"))
        };
        match jwk.kty.as_str() {
            "EC" => {
                let named = |curve: &&Curve| jwk.crv.as_deref() == Some(curve.name);
                let curve = CURVES.iter().find(named).ok_or_else(|| bad("the curve is none of P-256, P-384, P-521"))?;
                let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
                if x.len() != curve.length || y.len() != curve.length {
                    return Err(bad("the coordinates are not of the curve's length"));
                }
                Ok(Self::Ec(curve, [&[4], &x[..], &y[..]].concat()))
            }
            "OKP" if jwk.crv.as_deref() == Some("Ed25519") => {
                let x = bytes(&jwk.x)?;
                if x.len() == 32 { Ok(Self::Ed25519(x)) } else { Err(bad("the key is not of Ed25519's length")) }
            }
            "RSA" => {
                let (n, e) = (without_zeros(bytes(&jwk.n)?), without_zeros(bytes(&jwk.e)?));
                let bits = n.len() * 8 - n.first().map_or(0, |b| b.leading_zeros() as usize);
                if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
                    return Err(bad("RSA keys have 2048 to 8192 bits here"));
                }
                if e.is_empty() || e.len() > 4 || e == [1] || e.last().is_some_and(|b| b % 2 == 0) {
                    return Err(bad("the exponent of the RSA key is not one that is used"));
                }
                Ok(Self::Rsa { n, e })
            }
            _ => Err(bad("the key is none of EC, RSA, and OKP with Ed25519")),
        }
    }
}

impl Key {
    /// # Errors
    /// When the algorithm is not that of the key, or the signature not one of it.
    pub fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> Result<(), Problem> {
        if !self.has(algorithm) {
            let told = "the algorithm is not accepted, or is not that of the key";
            return Err(Problem { algorithms: true, ..Problem::new(Kind::BadSignatureAlgorithm, told) });
        }
        let fixed = |with: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(with, key).verify(message, signature).is_ok()
        };
        let verified = match self {
            Self::Ec(curve, point) => match curve.length {
                32 => fixed(&ECDSA_P256_SHA256_FIXED, point),
                48 => fixed(&ECDSA_P384_SHA384_FIXED, point),
                _ => fixed(&ECDSA_P521_SHA512_FIXED, point),
            },
            Self::Ed25519(key) => fixed(&ED25519, key),
            Self::Rsa { n, e } => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
        };
        if verified { Ok(()) } else { Err(Problem::malformed("the signature does not verify").status(403)) }
    }

    fn has(&self, algorithm: &str) -> bool {
        match self {
            Self::Ec(curve, _) => algorithm == curve.algorithm,
            // RFC 9864 gives EdDSA with Curve25519 a name of its own.
            Self::Ed25519(_) => matches!(algorithm, "EdDSA" | "Ed25519"),
            Self::Rsa { .. } => algorithm == "RS256",
        }
    }

    /// SHA-256 of the key's required members in order (RFC 7638 section 3).
    #[must_use]
    pub fn thumbprint(&self) -> [u8; 32] {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let canonical = match self {
            Self::Ec(curve, point) => {
                let (x, y) = point[1..].split_at(curve.length);
                format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, curve.name, text(x), text(y))
            }
            Self::Ed25519(key) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, text(key)),
            Self::Rsa { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, text(e), text(n)),
        };
        Sha256::digest(canonical).into()
    }

    /// Whether a certificate or signing request has this key.
    #[must_use]
    pub fn is(&self, info: &SubjectPublicKeyInfo<'_>) -> bool {
        match (self, info.parsed()) {
            (Self::Ec(_, point), Ok(PublicKey::EC(other))) => other.data() == point,
            (Self::Rsa { n, e }, Ok(PublicKey::RSA(other))) => {
                without_zeros(other.modulus.to_vec()) == *n && without_zeros(other.exponent.to_vec()) == *e
            }
            (Self::Ed25519(key), _) => info.subject_public_key.data.as_ref() == key,
            _ => false,
        }
    }
}

fn without_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    number.drain(..zeros);
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(jwk: serde_json::Value) -> Result<Key, Problem> {
        Key::try_from(&serde_json::from_value::<Jwk>(jwk).unwrap())
    }

    /// RFC 7638 section 3.1, RFC 8037 appendix A.3.
    #[test]
    fn thumbprints_of_the_rfcs() {
        let rsa = key(json!({"kty":"RSA","e":"AQAB","alg":"RS256","kid":"2011-04-29","n":
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}));
        assert_eq!(URL_SAFE_NO_PAD.encode(rsa.unwrap().thumbprint()), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        let ed = key(json!({"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}));
        assert_eq!(URL_SAFE_NO_PAD.encode(ed.unwrap().thumbprint()), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    /// RFC 7515 appendix A.3 and A.4, RFC 8037 appendix A.4.
    #[test]
    fn signatures_of_the_rfcs_verify_with_their_own_algorithm_alone() {
        let es256 = key(json!({"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}));
        let eddsa = key(json!({"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}));
        let (es256, eddsa) = (es256.unwrap(), eddsa.unwrap());
        let cases = [
            (
                &es256,
                "ES256",
                "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
            (
                &eddsa,
                "EdDSA",
                "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
                "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            ),
        ];
        for (key, algorithm, message, signature) in cases {
            let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            key.verify(algorithm, message.as_bytes(), &signature).unwrap();
            for other in ALGORITHMS.iter().chain(&["none", "HS256", "PS256", ""]) {
                let same = *other == algorithm || (algorithm == "EdDSA" && *other == "Ed25519");
                assert_eq!(key.verify(other, message.as_bytes(), &signature).is_ok(), same, "{other}");
            }
            assert!(key.verify(algorithm, &message.as_bytes()[1..], &signature).is_err());
            signature[9] ^= 1;
            assert!(key.verify(algorithm, message.as_bytes(), &signature).is_err());
            assert!(key.verify(algorithm, message.as_bytes(), b"").is_err());
        }
    }

    #[test]
    fn weak_and_broken_keys_are_refused() {
        let zeros = |length: usize| URL_SAFE_NO_PAD.encode(vec![255_u8; length]);
        for jwk in [
            json!({"kty":"oct","k":"AAAA"}),
            json!({"kty":"RSA","n":zeros(128),"e":"AQAB"}),
            json!({"kty":"RSA","n":zeros(2000),"e":"AQAB"}),
            json!({"kty":"RSA","n":zeros(256),"e":"AQ"}),
            json!({"kty":"RSA","n":zeros(256),"e":"Ag"}),
            json!({"kty":"RSA","n":zeros(256)}),
            json!({"kty":"RSA","n":"","e":""}),
            json!({"kty":"EC","crv":"secp256k1","x":zeros(32),"y":zeros(32)}),
            json!({"kty":"EC","crv":"P-256","x":zeros(33),"y":zeros(32)}),
            json!({"kty":"EC","crv":"P-256","x":zeros(32)}),
            json!({"kty":"EC","crv":"P-256","x":"+/==","y":zeros(32)}),
            json!({"kty":"OKP","crv":"X25519","x":zeros(32)}),
            json!({"kty":"OKP","crv":"Ed25519","x":zeros(31)}),
        ] {
            assert!(key(jwk.clone()).is_err(), "{jwk}");
        }
        // A point beside the curve is found out when it is used.
        let beside = key(json!({"kty":"EC","crv":"P-256","x":zeros(32),"y":zeros(32)})).unwrap();
        assert!(beside.verify("ES256", b"x", &[1; 64]).is_err());
    }
}
