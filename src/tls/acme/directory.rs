//! What a CA offers, as far as we ask it ourselves and not through the protocol's library.

use bytes::Bytes;
use http::Request;
use serde::Deserialize;

use super::AcmeError;
use super::http::Http;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Directory {
    pub new_nonce: String,
    pub new_order: String,
    /// Where renewal windows are told (RFC 9773).
    pub renewal_info: Option<String>,
}

impl Directory {
    pub async fn fetch(url: &str, http: &Http) -> Result<Self, AcmeError> {
        let failed = |e: String| AcmeError::new("the directory of the CA", e);
        let request = Request::get(url).body(Bytes::new()).map_err(|e| failed(e.to_string()))?;
        let answer = http.clone().send(request).await.map_err(failed)?;
        serde_json::from_slice(answer.body())
            .map_err(|_| failed(format!("status {}, not a directory", answer.status().as_u16())))
    }
}
