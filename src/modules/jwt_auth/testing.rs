//! Issuers for the tests: they sign tokens of every kind.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::key::Key;

pub enum Signer {
    Secret(Vec<u8>),
    Rsa(RsaKeyPair),
    RsaPss(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ec384(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub fn all() -> Vec<Self> {
        let pss = Self::RsaPss(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        let ec384 = Self::Ec384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap());
        let ed = Self::Ed(Ed25519KeyPair::generate().unwrap());
        vec![Self::secret(&[b'x'; 40]), Self::rsa(), pss, Self::ec(), ec384, ed]
    }

    pub fn secret(secret: &[u8]) -> Self {
        Self::Secret(secret.to_vec())
    }

    pub fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Secret(_) => "HS256",
            Self::Rsa(_) => "RS256",
            Self::RsaPss(_) => "PS512",
            Self::Ec(_) => "ES256",
            Self::Ec384(_) => "ES384",
            Self::Ed(_) => "EdDSA",
        }
    }

    pub fn sign(&self, claims: &Value, id: Option<&str>) -> String {
        let mut header = json!({"alg":self.name(),"typ":"JWT"});
        if let Some(id) = id {
            header["kid"] = id.into();
        }
        self.sign_as(&header, claims)
    }

    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = self.signature(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding| {
            let mut out = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &random, message, &mut out).unwrap();
            out
        };
        match self {
            Self::Secret(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec(),
            Self::Rsa(pair) => rsa(pair, &RSA_PKCS1_SHA256),
            Self::RsaPss(pair) => rsa(pair, &RSA_PSS_SHA512),
            Self::Ec(pair) | Self::Ec384(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    fn spki(&self) -> Vec<u8> {
        match self {
            Self::Secret(_) => panic!("a secret has no public half"),
            Self::Rsa(pair) | Self::RsaPss(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ec(pair) | Self::Ec384(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
        }
    }

    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki())
    }

    pub fn keys(&self) -> Vec<Key> {
        match self {
            Self::Secret(secret) => vec![Key::secret(secret).unwrap()],
            signer => Key::read_file(signer.pem().as_bytes()).unwrap(),
        }
    }

    /// `None` for secrets.
    pub fn jwk(&self, id: &str) -> Option<Value> {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let curve = |name: &str, point: &[u8]| {
            let (x, y) = point[1..].split_at(point.len() / 2);
            json!({"kty":"EC","crv":name,"x":b64(x),"y":b64(y)})
        };
        let mut jwk = match self {
            Self::Secret(_) => return None,
            Self::Rsa(pair) | Self::RsaPss(pair) => {
                let parts: rsa::PublicKeyComponents<Vec<u8>> = pair.public_key().into();
                json!({"kty":"RSA","n":b64(&parts.n),"e":b64(&parts.e),"alg":self.name()})
            }
            Self::Ec(pair) => curve("P-256", pair.public_key().as_ref()),
            Self::Ec384(pair) => curve("P-384", pair.public_key().as_ref()),
            Self::Ed(pair) => json!({"kty":"OKP","crv":"Ed25519","x":b64(pair.public_key().as_ref())}),
        };
        jwk["kid"] = id.into();
        Some(jwk)
    }
}

pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
