//! `dns cloudflare`: the record is set and cleared over Cloudflare's API, version 4.
//!
//! <https://developers.cloudflare.com/api/resources/dns/subresources/records/>. The zone is asked of the API itself, from
//! the longest name upwards, so that no DNS is needed to find it. The tokens appear in no message.

use bytes::Bytes;
use http::{Method, Request, Uri, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::super::http::Http;
use super::masked::masked;
use super::{Record, filled};
use crate::config::dns_provider::CloudflareProvider;
use crate::config::tls_types::AcmeIssuer;

const ENDPOINT: &str = "https://api.cloudflare.com/client/v4";
/// Seconds; the least that every plan allows.
const LEAST_TTL: u64 = 60;
const GREATEST_TTL: u64 = 86_400;
/// "An identical record already exists."
const IDENTICAL: i64 = 81_058;
/// "A record with the same settings already exists" (older).
const EXISTS: i64 = 81_057;

pub struct Cloudflare {
    api_token: String,
    zone_token: String,
    endpoint: String,
    /// The id of the record's zone, once it is known.
    zone: OnceCell<String>,
}

/// What every answer looks like.
#[derive(Deserialize)]
struct Answer {
    success: bool,
    #[serde(default)]
    errors: Vec<ApiError>,
    #[serde(default)]
    result: Value,
}

#[derive(Deserialize)]
struct ApiError {
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct Zone {
    id: String,
}

#[derive(Deserialize)]
struct TxtRecord {
    id: String,
    content: String,
}

/// Why a request did not do what it was for.
struct Refusal {
    codes: Vec<i64>,
    text: String,
}

impl Cloudflare {
    pub fn of(config: &CloudflareProvider) -> Result<Self, String> {
        let token = |field: &str, text: &str| {
            let token = filled(text).map_err(|why| format!("`{field}`: {why}"))?;
            let is_usable = token.bytes().all(|b| b.is_ascii_graphic());
            if is_usable { Ok(token) } else { Err(format!("`{field}` is not a token: it holds a blank or a sign")) }
        };
        let api_token = token("api_token", &config.api_token)?;
        if api_token.is_empty() {
            return Err("`api_token` is empty: is the variable set where llmproxy runs?".into());
        }
        let zone_token = token("zone_token", &config.zone_token)?;
        let endpoint = if config.endpoint.is_empty() { ENDPOINT } else { config.endpoint.trim_end_matches('/') };
        is_safe(endpoint).then_some(()).ok_or("`endpoint` must be an `https://` URL: tokens are sent there")?;
        let zone_token = if zone_token.is_empty() { api_token.clone() } else { zone_token };
        Ok(Self { api_token, zone_token, endpoint: endpoint.to_owned(), zone: OnceCell::new() })
    }

    pub async fn set(&self, record: &Record) -> Result<(), String> {
        let zone = self.zone_of(&record.name).await?;
        let ttl = record.ttl.map_or(LEAST_TTL, |ttl| ttl.as_secs().clamp(LEAST_TTL, GREATEST_TTL));
        let body = json!({
            "type": "TXT", "name": record.name, "content": format!("\"{}\"", record.value), "ttl": ttl,
            "comment": "ACME challenge, set by llmproxy",
        });
        let path = format!("/zones/{}/dns_records", encoded(zone));
        match self.ask(Method::POST, &path, Some(body), &self.api_token).await {
            // Left by an order that was cut short, or by another process that proves the same.
            Err(refusal) if refusal.codes.iter().any(|code| [IDENTICAL, EXISTS].contains(code)) => Ok(()),
            other => other.map(drop).map_err(|refusal| refusal.text),
        }
    }

    /// Deletes what has this name and value; others of the name belong to other orders.
    pub async fn clear(&self, record: &Record) -> Result<(), String> {
        let zone = encoded(self.zone_of(&record.name).await?);
        let path = format!("/zones/{zone}/dns_records?type=TXT&name={}", encoded(&record.name));
        let found = self.ask(Method::GET, &path, None, &self.api_token).await.map_err(|refusal| refusal.text)?;
        let found: Vec<TxtRecord> = serde_json::from_value(found).map_err(|_| garbled())?;
        for found in found.iter().filter(|found| found.content.trim_matches('"') == record.value) {
            let path = format!("/zones/{zone}/dns_records/{}", encoded(&found.id));
            self.ask(Method::DELETE, &path, None, &self.api_token).await.map_err(|refusal| refusal.text)?;
        }
        Ok(())
    }

    /// The id of the zone that a name is in.
    async fn zone_of(&self, name: &str) -> Result<&str, String> {
        self.zone.get_or_try_init(|| self.find_zone(name)).await.map(String::as_str)
    }

    async fn find_zone(&self, name: &str) -> Result<String, String> {
        let mut rest = name;
        while rest.contains('.') {
            // No zone begins with a sign that host names lack.
            if !rest.starts_with('_') {
                let path = format!("/zones?name={}", encoded(rest));
                let found = self.ask(Method::GET, &path, None, &self.zone_token).await.map_err(|r| r.text)?;
                let found: Vec<Zone> = serde_json::from_value(found).map_err(|_| garbled())?;
                if let Some(zone) = found.into_iter().next() {
                    return Ok(zone.id);
                }
            }
            rest = rest.split_once('.').map_or("", |(_, parent)| parent);
        }
        Err(format!("Cloudflare: the token sees no zone of {name}"))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>, token: &str) -> Result<Value, Refusal> {
        let other = |text: String| Refusal { codes: Vec::new(), text };
        let what = format!("Cloudflare: {method} {}", path.split('?').next().unwrap_or(path));
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.endpoint))
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string())))
            .map_err(|_| other(format!("{what}: not a request")))?;
        let http = Http::new(&AcmeIssuer::default()).map_err(|e| other(e.to_string()))?;
        let response = http.send(request).await.map_err(|why| other(format!("{what}: {why}")))?;
        let status = response.status().as_u16();
        let Ok(answer) = serde_json::from_slice::<Answer>(response.body()) else {
            return Err(other(format!("{what}: status {status}, not an answer of the API")));
        };
        if answer.success && response.status().is_success() {
            return Ok(answer.result);
        }
        let codes: Vec<i64> = answer.errors.iter().map(|error| error.code).collect();
        let said: Vec<String> = answer.errors.iter().map(|e| format!("{} ({})", e.message, e.code)).collect();
        let said = masked(&said.join("; "), [self.api_token.as_str(), &self.zone_token]);
        let hint = if matches!(status, 401 | 403) {
            "; the token needs the permissions Zone:Read and DNS:Edit for the zone"
        } else {
            ""
        };
        Err(Refusal { codes, text: format!("{what}: status {status}: {said}{hint}") })
    }
}

fn garbled() -> String {
    "Cloudflare: not an answer of the API".to_owned()
}

/// As a part of a path or a query.
fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Tokens go over TLS, or do not leave the machine.
fn is_safe(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => is_here,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(config: CloudflareProvider) -> String {
        Cloudflare::of(&config).err().unwrap_or_default()
    }

    #[test]
    fn tokens_are_there_and_go_over_tls() {
        let config = |token: &str, endpoint: &str| CloudflareProvider {
            api_token: token.into(),
            endpoint: endpoint.into(),
            ..CloudflareProvider::default()
        };
        for endpoint in ["", "https://cf.example/v4", "http://127.0.0.1:8080/", "http://localhost:1", "http://[::1]:1"]
        {
            assert_eq!(error(config("token", endpoint)), "", "{endpoint}");
        }
        for endpoint in ["http://cf.example/v4", "ftp://127.0.0.1", "cf.example", "https://", " "] {
            assert!(error(config("token", endpoint)).contains("endpoint"), "{endpoint}");
        }
        assert!(error(config("{env.SURELY_NOT_SET}", "")).contains("is empty"));
        assert!(error(config("two words", "")).contains("not a token"));
        let of_request = error(config("{http.request.host}", ""));
        assert!(of_request.contains("cannot come from a request"), "{of_request}");
    }
}
