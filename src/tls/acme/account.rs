//! Accounts at CAs, kept as Caddy keeps them: `acme/CA/users/EMAIL/NAME.{json,key}`.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use instant_acme::{Account, ExternalAccountKey, Key, NewAccount};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use super::eab;
use super::http::Http;
use super::{AcmeError, directory};
use crate::config::tls_types::AcmeIssuer;
use crate::storage::FileStorage;
use crate::storage::key::safe;

/// The registration as the CA tells it. Fields that we do not use are kept as Caddy writes them.
#[derive(Serialize, Deserialize)]
struct Registration {
    status: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    contact: Vec<String>,
    #[serde(default, rename = "termsOfServiceAgreed")]
    terms_of_service_agreed: bool,
    #[serde(default)]
    orders: String,
    /// The account's URL.
    location: String,
}

/// Keys of an account's files.
struct Keys {
    registration: String,
    private_key: String,
}

impl Keys {
    fn of(issuer_key: &str, email: &str) -> Self {
        let email = if email.is_empty() { "default" } else { email };
        let name = match email.split('@').next() {
            None | Some("") => "registration",
            Some(name) => name,
        };
        let stem = format!("acme/{issuer_key}/users/{}/{}", safe(email), safe(name));
        Self { registration: format!("{stem}.json"), private_key: format!("{stem}.key") }
    }
}

/// An account ready to be used.
pub struct Opened {
    pub account: Account,
    /// For what the protocol's library does not sign.
    pub key: PrivatePkcs8KeyDer<'static>,
}

/// The account that is kept, else a new one. The terms of service are agreed to, as Caddy does: who asks for a
/// certificate means so.
pub async fn open(
    issuer: &AcmeIssuer,
    issuer_key: &str,
    storage: &FileStorage,
    http: Http,
) -> Result<Opened, AcmeError> {
    let keys = Keys::of(issuer_key, &issuer.email);
    let kept = match load(&keys, storage)? {
        Some(kept) => kept,
        None => {
            // Two processes, or two names of this one, must not make two accounts: whoever waited finds the other's.
            let _lock = storage.lock(&format!("acme_account_{issuer_key}_{}", issuer.email)).await.ok();
            match load(&keys, storage)? {
                Some(kept) => kept,
                None => return create(issuer, &keys, storage, http).await,
            }
        }
    };
    let (registration, key) = kept;
    let account = Account::builder_with_http(Box::new(http))
        .from_parts(registration.location, key.clone_key(), directory(issuer).to_owned())
        .await
        .map_err(|e| AcmeError::new("opening the ACME account", e))?;
    Ok(Opened { account, key })
}

/// Lets go of an account that the CA does not know any more; not of one that another order has made meanwhile.
pub fn forget(account: &Opened, issuer: &AcmeIssuer, issuer_key: &str, storage: &FileStorage) {
    let keys = Keys::of(issuer_key, &issuer.email);
    if load(&keys, storage).is_ok_and(|kept| kept.is_some_and(|(kept, _)| kept.location != account.account.id())) {
        return;
    }
    for key in [&keys.registration, &keys.private_key] {
        if let Err(error) = storage.delete(key) {
            tracing::warn!(%error, "the ACME account that is of no use any more cannot be removed");
        }
    }
}

fn load(keys: &Keys, storage: &FileStorage) -> Result<Option<(Registration, PrivatePkcs8KeyDer<'static>)>, AcmeError> {
    let read = |key: &str| storage.load(key).map_err(|e| AcmeError::new("reading the ACME account", e));
    let (Some(registration), Some(key)) = (read(&keys.registration)?, read(&keys.private_key)?) else {
        return Ok(None);
    };
    let registration: Registration =
        serde_json::from_slice(&registration).map_err(|e| AcmeError::new(&keys.registration, e))?;
    if registration.location.is_empty() || registration.status != "valid" {
        return Ok(None);
    }
    Ok(pkcs8(&key).ok().map(|key| (registration, key)))
}

/// Keeps files aside that are about to be replaced although they may be of use to somebody: an account whose key is of a
/// kind that we cannot sign with (Caddy can, with any).
fn keep_aside(keys: &Keys, storage: &FileStorage) {
    let Some(key) = storage.load(&keys.private_key).ok().flatten().filter(|key| pkcs8(key).is_err()) else { return };
    let aside = |of: &str| format!("{of}.unusable");
    tracing::warn!(
        key = keys.private_key,
        aside = aside(&keys.private_key),
        "the key of the ACME account that is kept is not one of the curve P-256, so it cannot be used: another account is made, and this one kept aside"
    );
    let kept =
        storage.store(&aside(&keys.private_key), &key).and_then(|()| match storage.load(&keys.registration)? {
            Some(registration) => storage.store(&aside(&keys.registration), &registration),
            None => Ok(()),
        });
    if let Err(error) = kept {
        tracing::warn!(%error, "the ACME account that cannot be used is not kept aside");
    }
}

/// Whether orders can be signed with a key, PEM.
#[must_use]
pub fn is_usable(pem: &str) -> bool {
    pkcs8(pem.as_bytes()).is_ok()
}

/// Caddy writes SEC1, the protocol's library reads PKCS 8.
fn pkcs8(pem: &[u8]) -> Result<PrivatePkcs8KeyDer<'static>, AcmeError> {
    let unusable = || AcmeError("the ACME account's key is not usable: it must be one of the curve P-256".into());
    match PrivateKeyDer::from_pem_slice(pem).map_err(|_| unusable())? {
        PrivateKeyDer::Pkcs8(key) => {
            Key::from_pkcs8_der(key.clone_key()).map_err(|_| unusable())?;
            Ok(key)
        }
        PrivateKeyDer::Sec1(key) => {
            let key = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_sec1_der());
            let document = key.map_err(|_| unusable())?.to_pkcs8v1().map_err(|_| unusable())?;
            Ok(PrivatePkcs8KeyDer::from(document.as_ref().to_vec()))
        }
        _ => Err(unusable()),
    }
}

async fn create(issuer: &AcmeIssuer, keys: &Keys, storage: &FileStorage, http: Http) -> Result<Opened, AcmeError> {
    let external = eab::credentials(issuer, &http).await?;
    let external = external.map(|(id, key)| ExternalAccountKey::new(id, &key));
    let contact: Vec<String> =
        if issuer.email.is_empty() { Vec::new() } else { vec![format!("mailto:{}", issuer.email)] };
    let contacts: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
    let builder = Account::builder_with_http(Box::new(http));
    let failed = |e| AcmeError::new("making an ACME account", e);
    let (account, pem, key) = if issuer.account_key.is_empty() {
        let (account, credentials) =
            builder.create(&new, directory(issuer).to_owned(), external.as_ref()).await.map_err(failed)?;
        let pem = credentials_key(&credentials)?;
        let key = pkcs8(pem.as_bytes())?;
        (account, pem, key)
    } else if external.is_some() {
        return Err(AcmeError("an account key and an external account cannot stand together".into()));
    } else {
        let key = pkcs8(issuer.account_key.as_bytes())?;
        let signer = Key::from_pkcs8_der(key.clone_key()).map_err(failed)?;
        let pair = (signer, PrivateKeyDer::Pkcs8(key.clone_key()));
        let (account, _) = builder.create_from_key(pair, directory(issuer).to_owned()).await.map_err(failed)?;
        (account, issuer.account_key.clone(), key)
    };
    let registration = Registration {
        status: "valid".into(),
        contact,
        terms_of_service_agreed: true,
        orders: String::new(),
        location: account.id().to_owned(),
    };
    keep_aside(keys, storage);
    let kept = serde_json::to_vec_pretty(&registration).map_err(std::io::Error::from).and_then(|json| {
        storage.store(&keys.private_key, pem.as_bytes())?;
        storage.store(&keys.registration, &json)
    });
    if let Err(error) = kept {
        tracing::warn!(%error, "the ACME account cannot be kept: a new one will be made after a restart");
    }
    Ok(Opened { account, key })
}

/// The key that the library made, as PEM.
fn credentials_key(credentials: &instant_acme::AccountCredentials) -> Result<String, AcmeError> {
    let key = KeyPair::from_pkcs8_der_and_sign_algo(credentials.private_key(), &PKCS_ECDSA_P256_SHA256);
    key.map(|key| key.serialize_pem()).map_err(|e| AcmeError::new("the new ACME account's key", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_caddy_wrote_is_read() {
        use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        let pem = pem(sec1.as_ref());
        Key::from_pkcs8_der(pkcs8(pem.as_bytes()).unwrap()).unwrap();
        assert!(pkcs8(pem.replace('M', "A").as_bytes()).is_err());
    }

    #[test]
    fn an_account_whose_key_cannot_be_used_is_kept_aside_for_another() {
        let folder = tempfile::tempdir().unwrap();
        let (storage, keys) = (FileStorage::new(folder.path()), Keys::of("ca", "me@example.com"));
        let registration = br#"{"status": "valid", "location": "https://ca.test/account/1"}"#;
        let key = |algorithm| KeyPair::generate_for(algorithm).unwrap().serialize_pem();
        storage.store(&keys.registration, registration).unwrap();
        for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ED25519] {
            let pem = key(algorithm);
            storage.store(&keys.private_key, pem.as_bytes()).unwrap();
            assert!(load(&keys, &storage).unwrap().is_none() && !is_usable(&pem));
            keep_aside(&keys, &storage);
            let aside = |of: &str| storage.load(&format!("{of}.unusable")).unwrap().unwrap();
            assert_eq!(
                (aside(&keys.registration), aside(&keys.private_key)),
                (registration.to_vec(), pem.into_bytes())
            );
        }
        storage.store(&keys.private_key, key(&PKCS_ECDSA_P256_SHA256).as_bytes()).unwrap();
        assert!(load(&keys, &storage).unwrap().is_some());
    }

    fn pem(sec1: &[u8]) -> String {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(sec1);
        format!("-----BEGIN EC PRIVATE KEY-----\n{text}\n-----END EC PRIVATE KEY-----\n")
    }

    #[test]
    fn accounts_lie_where_caddy_looks() {
        let keys = Keys::of("acme-v02.api.letsencrypt.org-directory", "Me@Example.com");
        assert_eq!(keys.registration, "acme/acme-v02.api.letsencrypt.org-directory/users/me@example.com/me.json");
        assert_eq!(Keys::of("x", "").private_key, "acme/x/users/default/default.key");
        assert_eq!(Keys::of("x", "@a").private_key, "acme/x/users/@a/registration.key");
    }
}
