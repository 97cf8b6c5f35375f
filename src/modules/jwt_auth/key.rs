//! Keys that verify tokens. Each is bound to its algorithms when it is made, so that a token cannot choose how the key is
//! used: a public key never serves as a shared secret (RFC 8725 §3.1).

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::fault::Fault;
use super::token::Token;

/// Signature algorithms of RFC 7518 and RFC 8037 that are accepted; `none` is not one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    pub const NAMES: [(&str, Self); 12] = [
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];

    /// By its name in a token's header; RFC 9864 calls EdDSA with Curve25519 `Ed25519`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let name = if name == "Ed25519" { "EdDSA" } else { name };
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Whether who verifies could sign too.
    #[must_use]
    pub fn is_shared(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

/// Shorter secrets can be guessed from one token (RFC 7518 §3.2 asks for the length of the digest).
pub const MIN_SECRET: usize = 32;

/// NIST SP 800-131A: shorter RSA keys are not to be trusted.
const MIN_RSA_BITS: usize = 2048;

/// A key and how it may be used. No `Debug`: it may be a secret.
pub struct Key {
    /// `kid`; a key without one may be meant by any token.
    id: Option<Box<str>>,
    verifiers: Vec<(Algorithm, Verifier)>,
}

enum Verifier {
    Public(ParsedPublicKey),
    Shared(hmac::Key),
}

impl Key {
    /// A shared secret, for HS256, HS384 and HS512.
    pub fn secret(secret: &[u8]) -> Result<Self, &'static str> {
        if secret.len() < MIN_SECRET {
            return Err("a secret has at least 32 characters");
        }
        let key = |algorithm, digest| (algorithm, Verifier::Shared(hmac::Key::new(digest, secret)));
        let verifiers = vec![
            key(Algorithm::Hs256, hmac::HMAC_SHA256),
            key(Algorithm::Hs384, hmac::HMAC_SHA384),
            key(Algorithm::Hs512, hmac::HMAC_SHA512),
        ];
        Ok(Self { id: None, verifiers })
    }

    /// The keys of a file: PEM (public keys, certificates) or a JSON Web Key or key set.
    pub fn read_file(text: &[u8]) -> Result<Vec<Self>, &'static str> {
        if text.trim_ascii_start().first() == Some(&b'{') {
            return Self::read_set(text);
        }
        let mut keys = Vec::new();
        for block in Pem::iter_from_buffer(text) {
            let block = block.map_err(|_| "a PEM block is broken")?;
            keys.push(match block.label.as_str() {
                "PUBLIC KEY" => Self::of_spki(&block.contents)?,
                "RSA PUBLIC KEY" => {
                    let parsed = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &block.contents);
                    Self::of_rsa(&parsed.map_err(|_| "an RSA key is broken")?)?
                }
                "CERTIFICATE" => {
                    let (_, certificate) =
                        X509Certificate::from_der(&block.contents).map_err(|_| "a certificate is broken")?;
                    Self::of_spki(certificate.public_key().raw)?
                }
                label if label.contains("PRIVATE KEY") => {
                    return Err("it holds a private key: give the public one (`openssl pkey -in FILE -pubout`)");
                }
                _ => return Err("it holds something else than public keys"),
            });
        }
        if keys.is_empty() { Err("it holds no public key in PEM or JSON") } else { Ok(keys) }
    }

    /// A JSON Web Key set (RFC 7517 §5) or a single key. Keys that cannot verify signatures here are passed over, as the
    /// RFC asks; so are shared secrets, which are not to be published.
    pub fn read_set(json: &[u8]) -> Result<Vec<Self>, &'static str> {
        /// More keys than anybody publishes.
        const MAX_KEYS: usize = 256;
        let value: Value = serde_json::from_slice(json).map_err(|_| "it is not JSON")?;
        let list = match value.get("keys") {
            Some(Value::Array(list)) => list.as_slice(),
            Some(_) => return Err("`keys` is not a list"),
            None => std::slice::from_ref(&value),
        };
        let keys: Vec<_> = list.iter().take(MAX_KEYS).filter_map(Self::of_jwk).collect();
        if keys.is_empty() { Err("it holds no key that could verify a signature") } else { Ok(keys) }
    }

    fn of_jwk(value: &Value) -> Option<Self> {
        let jwk = Jwk::deserialize(value).ok()?;
        let for_signatures = jwk.usage.as_deref().is_none_or(|u| u == "sig")
            && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !for_signatures {
            return None;
        }
        let bytes = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_deref()?.trim_end_matches('=')).ok();
        let mut key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                let components = RsaPublicKeyComponents { n: bytes(&jwk.n)?, e: bytes(&jwk.e)? };
                Self::of_rsa(&components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).ok()?).ok()?
            }
            ("EC", Some("P-256")) => Self::of_ec(&point(&bytes(&jwk.x)?, &bytes(&jwk.y)?, 32)?)?,
            ("EC", Some("P-384")) => Self::of_ec(&point(&bytes(&jwk.x)?, &bytes(&jwk.y)?, 48)?)?,
            ("OKP", Some("Ed25519")) => Self::single(Algorithm::EdDsa, &ED25519, &bytes(&jwk.x)?)?,
            _ => return None,
        };
        key.id = jwk.kid.map(String::into_boxed_str);
        if let Some(name) = &jwk.alg {
            let only = Algorithm::named(name)?;
            key.verifiers.retain(|(algorithm, _)| *algorithm == only);
        }
        (!key.verifiers.is_empty()).then_some(key)
    }

    /// A SubjectPublicKeyInfo (RFC 5280).
    fn of_spki(der: &[u8]) -> Result<Self, &'static str> {
        let ed25519 = || Self::single(Algorithm::EdDsa, &ED25519, der);
        if let Some(key) = Self::of_ec(der).or_else(ed25519) {
            return Ok(key);
        }
        let rsa = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der);
        Self::of_rsa(&rsa.map_err(|_| "a key is neither RSA nor EC P-256 or P-384 nor Ed25519")?)
    }

    fn of_ec(key: &[u8]) -> Option<Self> {
        let p384 = || Self::single(Algorithm::Es384, &ECDSA_P384_SHA384_FIXED, key);
        Self::single(Algorithm::Es256, &ECDSA_P256_SHA256_FIXED, key).or_else(p384)
    }

    fn of_rsa(key: &ParsedPublicKey) -> Result<Self, &'static str> {
        const BROKEN: &str = "an RSA key is broken";
        const USES: [(Algorithm, &RsaParameters); 6] = [
            (Algorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
            (Algorithm::Rs384, &RSA_PKCS1_2048_8192_SHA384),
            (Algorithm::Rs512, &RSA_PKCS1_2048_8192_SHA512),
            (Algorithm::Ps256, &RSA_PSS_2048_8192_SHA256),
            (Algorithm::Ps384, &RSA_PSS_2048_8192_SHA384),
            (Algorithm::Ps512, &RSA_PSS_2048_8192_SHA512),
        ];
        let der = key.as_der().map_err(|_| BROKEN)?;
        let (_, spki) = SubjectPublicKeyInfo::from_der(der.as_ref()).map_err(|_| BROKEN)?;
        match spki.parsed() {
            Ok(PublicKey::RSA(rsa)) if rsa.key_size() >= MIN_RSA_BITS => {}
            Ok(PublicKey::RSA(_)) => return Err("an RSA key is shorter than 2048 bits"),
            _ => return Err("a key is not one for RSA"),
        }
        let mut verifiers = Vec::with_capacity(USES.len());
        for (algorithm, parameters) in USES {
            let parsed = ParsedPublicKey::new(parameters, der.as_ref()).map_err(|_| BROKEN)?;
            verifiers.push((algorithm, Verifier::Public(parsed)));
        }
        Ok(Self { id: None, verifiers })
    }

    fn single(algorithm: Algorithm, with: &'static dyn VerificationAlgorithm, key: &[u8]) -> Option<Self> {
        let parsed = ParsedPublicKey::new(with, key).ok()?;
        Some(Self { id: None, verifiers: vec![(algorithm, Verifier::Public(parsed))] })
    }

    pub fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.verifiers.iter().map(|(algorithm, _)| *algorithm)
    }

    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.verifiers.iter().any(|(known, verifier)| {
            *known == algorithm
                && match verifier {
                    Verifier::Public(key) => key.verify_sig(message, signature).is_ok(),
                    Verifier::Shared(key) => hmac::verify(key, message, signature).is_ok(),
                }
        })
    }
}

/// All keys that a token may be verified with.
#[derive(Default)]
pub struct KeySet(pub Vec<Key>);

impl KeySet {
    /// Whether a key of this id may be among them; a token without an id may mean any.
    #[must_use]
    pub fn has(&self, id: Option<&str>) -> bool {
        self.meant(id).next().is_some()
    }

    /// Whether one of the keys that the token may mean made its signature.
    pub fn check(&self, token: &Token<'_>) -> Result<(), Fault> {
        /// Bounds what a token without an id costs.
        const MAX_TRIES: usize = 8;
        let mut meant = self.meant(token.key_id.as_deref()).peekable();
        if meant.peek().is_none() {
            return Err(Fault::UnknownKey);
        }
        let mut able = meant.filter(|key| key.algorithms().any(|known| known == token.algorithm)).take(MAX_TRIES);
        if able.any(|key| key.verifies(token.algorithm, token.message, &token.signature)) {
            Ok(())
        } else {
            Err(Fault::Signature)
        }
    }

    fn meant(&self, id: Option<&str>) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| match (id, &key.id) {
            (Some(wanted), Some(known)) => *wanted == **known,
            _ => true,
        })
    }
}

/// The fields of a JSON Web Key that matter here; others are passed over, as the RFC asks.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// An uncompressed point (SEC 1 §2.3.3).
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [&[4], x, y].concat())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Signer, pem};
    use super::*;
    use serde_json::json;

    fn verifies(keys: Vec<Key>, token: &str) -> bool {
        let token = Token::parse(token.as_bytes()).unwrap();
        KeySet(keys).check(&token).is_ok()
    }

    /// RFC 7515 A.1 and A.3, RFC 8037 A.4.
    #[test]
    fn the_examples_of_the_rfcs_verify() {
        let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let hs256 = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert!(verifies(vec![Key::secret(&URL_SAFE_NO_PAD.decode(secret).unwrap()).unwrap()], hs256));
        let jwk = json!({"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
        let es256 = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        assert!(verifies(Key::read_set(jwk.to_string().as_bytes()).unwrap(), es256));
        let jwk = json!({"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let eddsa = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert!(verifies(Key::read_set(jwk.to_string().as_bytes()).unwrap(), eddsa));
        assert!(!verifies(Key::read_set(jwk.to_string().as_bytes()).unwrap(), &eddsa.replace("KAg", "KAw")));
    }

    #[test]
    fn each_algorithm_verifies_from_pem_and_jwk_and_no_other_key_does() {
        let signers = Signer::all();
        for signer in &signers {
            let token = signer.sign(&json!({"sub":"a"}), None);
            for other in &signers {
                let same = std::ptr::eq(signer, other);
                assert_eq!(verifies(other.keys(), &token), same, "{} by {}", signer.name(), other.name());
                if let Some(jwk) = other.jwk("k") {
                    let set = json!({"keys":[jwk]}).to_string();
                    assert_eq!(verifies(Key::read_set(set.as_bytes()).unwrap(), &token), same);
                }
            }
        }
    }

    #[test]
    fn a_public_key_is_no_secret() {
        // The classic confusion: the token is signed with HS256, the bytes of the public key taken for the secret.
        let rsa = Signer::rsa();
        let public = rsa.pem();
        let forged = Signer::secret(public.as_bytes()).sign(&json!({"sub":"a"}), None);
        assert!(!verifies(Key::read_file(public.as_bytes()).unwrap(), &forged));
    }

    #[test]
    fn keys_that_are_not_for_this_are_passed_over() {
        let Some(good) = Signer::ec().jwk("good") else { panic!("no key") };
        let with = |name: &str, value: Value| {
            let mut jwk = good.clone();
            jwk[name] = value;
            jwk
        };
        let set = |keys: Vec<Value>| Key::read_set(json!({"keys":keys}).to_string().as_bytes()).map(|k| k.len());
        let useless = [
            with("use", "enc".into()),
            with("key_ops", json!(["sign"])),
            with("alg", "RS256".into()),
            with("alg", "none".into()),
            with("x", "AAAA".into()),
            with("crv", "P-521".into()),
            with("kty", 5.into()),
            json!({"kty":"oct","k":URL_SAFE_NO_PAD.encode([7; 32]),"alg":"HS256"}),
            json!({"kty":"RSA","n":URL_SAFE_NO_PAD.encode([255; 128]),"e":"AQAB"}),
            json!({"kty":"RSA","n":"","e":""}),
            json!(null),
        ];
        for jwk in &useless {
            assert!(set(vec![jwk.clone()]).is_err(), "{jwk}");
        }
        let all = useless.into_iter().chain([good.clone(), with("use", "sig".into())]).collect();
        assert_eq!(set(all), Ok(2));
    }

    #[test]
    fn what_is_no_key_file_is_said_to_be_none() {
        for (text, why) in [
            ("", "no public key"),
            ("hello", "no public key"),
            ("{}", "no key"),
            ("{\"keys\":1}", "not a list"),
            (&pem("PRIVATE KEY", b"x"), "private key"),
            (&pem("EC PRIVATE KEY", b"x"), "private key"),
            (&pem("PUBLIC KEY", b"x"), "neither"),
            (&pem("CERTIFICATE", b"x"), "certificate"),
            (&pem("X509 CRL", b"x"), "something else"),
        ] {
            let Err(said) = Key::read_file(text.as_bytes()) else { panic!("{text} was read") };
            assert!(said.contains(why), "{text}: {said}");
        }
        assert!(Key::secret(&[b'a'; 31]).is_err());
    }

    #[test]
    fn a_key_with_an_id_is_for_tokens_with_this_id_or_none() {
        let signer = Signer::ec();
        let set = KeySet(Key::read_set(signer.jwk("one").unwrap().to_string().as_bytes()).unwrap());
        assert!(set.has(Some("one")) && set.has(None) && !set.has(Some("two")));
        assert!(KeySet(signer.keys()).has(Some("any")));
    }
}
