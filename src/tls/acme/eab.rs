//! External account binding: how an ACME account is tied to one at the CA (RFC 8555 section 7.3.4).

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Request;
use serde::Deserialize;

use super::http::Http;
use super::{AcmeError, ZEROSSL, directory};
use crate::config::tls_types::AcmeIssuer;

/// Where ZeroSSL gives credentials for an e-mail address.
const ZEROSSL_CREDENTIALS: &str = "https://api.zerossl.com/acme/eab-credentials-email";

/// What ZeroSSL answers.
#[derive(Deserialize)]
struct Answer {
    eab_kid: String,
    eab_hmac_key: String,
}

/// The key id and the key, when the CA wants them: from the configuration, or from ZeroSSL for the address.
pub async fn credentials(issuer: &AcmeIssuer, http: &Http) -> Result<Option<(String, Vec<u8>)>, AcmeError> {
    if let Some(external) = &issuer.external_account {
        return decode(&external.key_id, &external.mac_key).map(Some);
    }
    if directory(issuer) != ZEROSSL {
        return Ok(None);
    }
    let failed = |e: String| AcmeError::new("asking ZeroSSL for account credentials", e);
    let email: String =
        percent_encoding::utf8_percent_encode(&issuer.email, percent_encoding::NON_ALPHANUMERIC).collect();
    let request = Request::post(ZEROSSL_CREDENTIALS)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Bytes::from(format!("email={email}")))
        .map_err(|e| failed(e.to_string()))?;
    let answer = http.clone().send(request).await.map_err(failed)?;
    let answer: Answer = serde_json::from_slice(answer.body())
        .map_err(|_| failed(format!("status {}, no credentials in the answer", answer.status().as_u16())))?;
    decode(&answer.eab_kid, &answer.eab_hmac_key).map(Some)
}

fn decode(id: &str, key: &str) -> Result<(String, Vec<u8>), AcmeError> {
    let bytes = URL_SAFE_NO_PAD.decode(key).or_else(|_| URL_SAFE.decode(key));
    // Not shown: it is a secret.
    let bytes = bytes.map_err(|_| AcmeError("the MAC key of the external account is not base64url".into()))?;
    Ok((id.to_owned(), bytes))
}
