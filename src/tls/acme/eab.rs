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
    by_email(ZEROSSL_CREDENTIALS, &issuer.email, http).await.map(Some)
}

async fn by_email(service: &str, email: &str, http: &Http) -> Result<(String, Vec<u8>), AcmeError> {
    let failed = |e: String| AcmeError::new("asking ZeroSSL for account credentials", e);
    let email: String = percent_encoding::utf8_percent_encode(email, percent_encoding::NON_ALPHANUMERIC).collect();
    let request = Request::post(service)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Bytes::from(format!("email={email}")))
        .map_err(|e| failed(e.to_string()))?;
    let answer = http.clone().send(request).await.map_err(failed)?;
    let answer: Answer = serde_json::from_slice(answer.body())
        .map_err(|_| failed(format!("status {}, no credentials in the answer", answer.status().as_u16())))?;
    decode(&answer.eab_kid, &answer.eab_hmac_key)
}

fn decode(id: &str, key: &str) -> Result<(String, Vec<u8>), AcmeError> {
    let bytes = URL_SAFE_NO_PAD.decode(key).or_else(|_| URL_SAFE.decode(key));
    // Not shown: it is a secret.
    let bytes = bytes.map_err(|_| AcmeError("the MAC key of the external account is not base64url".into()))?;
    Ok((id.to_owned(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Asks a service that answers so; what it was sent, and what came of it.
    fn asked(answer: &'static str) -> (String, Result<(String, Vec<u8>), AcmeError>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/acme/eab-credentials-email", listener.local_addr().unwrap());
        let service = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut sent, mut buffer) = (String::new(), [0; 4096]);
            while !sent.contains("email=") {
                let n = stream.read(&mut buffer).unwrap();
                sent.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
            }
            let length = answer.len();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{answer}").unwrap();
            sent
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let http = Http::new(&AcmeIssuer::default()).unwrap();
        let result = runtime.block_on(by_email(&url, "me+tls@example.com", &http));
        (service.join().unwrap(), result)
    }

    #[test]
    fn an_address_gives_credentials() {
        let (sent, result) = asked(r#"{"success": true, "eab_kid": "kid", "eab_hmac_key": "c2VjcmV0"}"#);
        assert!(sent.starts_with("POST /acme/eab-credentials-email HTTP/1.1\r\n"), "{sent}");
        assert!(sent.ends_with("\r\n\r\nemail=me%2Btls%40example%2Ecom"), "{sent}");
        assert_eq!(result.unwrap(), ("kid".to_owned(), b"secret".to_vec()));
        let (_, refused) = asked(r#"{"success": false, "error": {"code": 2900}}"#);
        assert!(refused.unwrap_err().to_string().contains("no credentials"));
        let (_, broken) = asked(r#"{"eab_kid": "kid", "eab_hmac_key": "%%secret%%"}"#);
        assert!(!broken.unwrap_err().to_string().contains("secret%%"), "the key is not shown");
    }
}
