//! How the CA is spoken to: our own client, one connection a request, bounded in time and size. It also listens to what
//! the protocol's library does not tell: when to come back, of what kind a refusal was, where other chains are.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::uri::Scheme as UriScheme;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use serde::Deserialize;

use super::AcmeError;
use crate::client::{
    Address, ProxyChoice, ProxyUrl, RootSource, Scheme, Target, TargetOptions, TlsClient, TlsClientOptions, Trust,
    Versions, simple,
};
use crate::config::tls_types::AcmeIssuer;

/// Longest answer that is read.
const MAX_ANSWER: usize = 1 << 20;
/// Longest that one answer may take.
const TIMEOUT: Duration = Duration::from_mins(1);
/// More chains than this are not looked at.
const MAX_ALTERNATES: usize = 8;

/// Clones share what was heard.
#[derive(Clone)]
pub struct Http {
    tls: Option<TlsClient>,
    proxy: ProxyChoice,
    heard: Arc<Mutex<Heard>>,
}

/// What the latest answers said besides their bodies.
#[derive(Default)]
struct Heard {
    /// Of the latest refusal.
    retry_after: Option<Duration>,
    /// The last word of the latest refusal's type, such as `rateLimited`.
    problem: String,
    /// Of the latest certificate.
    alternates: Vec<String>,
}

impl Http {
    /// The issuer's roots are trusted instead of the system's; its proxy is used instead of the environment's.
    pub fn new(issuer: &AcmeIssuer) -> Result<Self, AcmeError> {
        let tls = match issuer.trusted_roots_pem_files.as_slice() {
            [] => None,
            roots => {
                let trust = Trust::Only(roots.iter().map(|file| RootSource::PemFile(file.into())).collect());
                let options = TlsClientOptions { trust, ..TlsClientOptions::default() };
                Some(options.build(Versions::default()).map_err(|e| AcmeError::new("the roots of the CA", e))?)
            }
        };
        Ok(Self { tls, proxy: proxy(issuer)?, heard: Arc::default() })
    }

    /// Sends a request with an absolute URI.
    pub async fn send(self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let (mut head, body) = request.into_parts();
        let (target, asked) = (self.target(&head.uri)?, head.uri.clone());
        if let Some(host) = head.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok()) {
            head.headers.insert(header::HOST, host);
        }
        head.headers
            .insert(header::USER_AGENT, HeaderValue::from_static(concat!("llmproxy/", env!("CARGO_PKG_VERSION"))));
        let path = head.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        head.uri = path.parse().map_err(|_| "not a URI")?;
        let answer = simple::request(&target, Request::from_parts(head, body), MAX_ANSWER, TIMEOUT).await;
        let answer = answer.map_err(|e| e.to_string())?;
        self.heard().note(&asked, &answer);
        Ok(answer)
    }

    /// How long the CA wants to be left alone, when its latest refusal said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.heard().retry_after
    }

    /// Whether the latest refusal was of this kind (RFC 8555 section 6.7), such as `accountDoesNotExist`.
    #[must_use]
    pub fn was_refused_as(&self, kind: &str) -> bool {
        self.heard().problem == kind
    }

    /// Where other chains for the latest certificate are.
    #[must_use]
    pub fn alternates(&self) -> Vec<String> {
        self.heard().alternates.clone()
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self, uri: &Uri) -> Result<Arc<Target>, String> {
        let https = match uri.scheme() {
            Some(s) if *s == UriScheme::HTTPS => true,
            Some(s) if *s == UriScheme::HTTP => false,
            _ => return Err("an ACME URL must begin with https://".into()),
        };
        let host = uri.host().ok_or("an ACME URL without a host")?.trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let address = Address::Tcp { host: host.into(), port };
        let mut options = TargetOptions::new(if https { Scheme::Https } else { Scheme::Http }, address);
        options.tls.clone_from(&self.tls);
        options.proxy = self.proxy.clone();
        Target::new(options).map(Arc::new).map_err(|e| e.to_string())
    }
}

/// Whether a CA can be spoken to under this URL.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> Result<(), &'static str> {
    let uri: Uri = url.parse().map_err(|_| "it is not a URL")?;
    match uri.scheme() {
        Some(s) if *s == UriScheme::HTTPS || *s == UriScheme::HTTP => {}
        _ => return Err("it does not begin with https://"),
    }
    if uri.host().is_none_or(str::is_empty) { Err("it has no host") } else { Ok(()) }
}

/// `network_proxy` of an issuer, in Caddy's form: `{"from": "url", "url": …}` or `{"from": "none"}`.
pub fn proxy(issuer: &AcmeIssuer) -> Result<ProxyChoice, AcmeError> {
    let Some(module) = &issuer.network_proxy else { return Ok(ProxyChoice::Environment) };
    let text = |field: &str| module.get(field).and_then(serde_json::Value::as_str).unwrap_or_default();
    match text("from") {
        "none" => Ok(ProxyChoice::None),
        "url" => ProxyUrl::parse(text("url"))
            .map(|url| ProxyChoice::Url(Arc::new(url)))
            .map_err(|e| AcmeError::new("the proxy to the CA", e)),
        other => Err(AcmeError(format!("`{other}` is not a kind of proxy to a CA"))),
    }
}

impl Heard {
    fn note(&mut self, asked: &Uri, answer: &Response<Bytes>) {
        #[derive(Deserialize)]
        struct Problem {
            r#type: String,
        }
        if answer.status().is_client_error() || answer.status().is_server_error() {
            self.retry_after = retry_after(answer.headers(), SystemTime::now());
            let problem = serde_json::from_slice::<Problem>(answer.body()).map(|p| p.r#type).unwrap_or_default();
            self.problem = problem.rsplit(':').next().unwrap_or_default().to_owned();
        }
        let kind = answer.headers().get(header::CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
        if kind.starts_with(b"application/pem-certificate-chain") {
            self.alternates = alternates(asked, answer.headers());
        }
    }
}

/// `Retry-After` as seconds or a date.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).ok(),
    }
}

/// `Link: <URL>;rel="alternate"` (RFC 8555 section 7.4.2), of the same CA only.
fn alternates(asked: &Uri, headers: &HeaderMap) -> Vec<String> {
    let links = headers.get_all(header::LINK).iter().filter_map(|v| v.to_str().ok());
    links
        .flat_map(|line| line.split(','))
        .filter_map(|link| {
            let (url, options) = link.trim().strip_prefix('<')?.split_once('>')?;
            let is_alternate = options
                .split(';')
                .filter_map(|o| o.trim().strip_prefix("rel="))
                .any(|rel| rel.trim_matches('"').eq_ignore_ascii_case("alternate"));
            let uri: Uri = url.parse().ok()?;
            (is_alternate && uri.scheme() == asked.scheme() && uri.authority() == asked.authority())
                .then(|| url.to_owned())
        })
        .take(MAX_ALTERNATES)
        .collect()
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let http = self.clone();
        Box::pin(async move {
            let other = |why: String| instant_acme::Error::Other(why.into());
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|e| other(e.to_string()))?.to_bytes();
            let response = http.send(Request::from_parts(head, body)).await.map_err(other)?;
            let (parts, body) = response.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &'static str) -> Response<Bytes> {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(Bytes::from_static(body.as_bytes())).unwrap()
    }

    #[test]
    fn a_refusal_tells_its_kind_and_when_to_come_back() {
        let (mut heard, asked) = (Heard::default(), Uri::from_static("https://ca.test/new-order"));
        let body = r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many"}"#;
        heard.note(&asked, &answer(429, &[("retry-after", "120")], body));
        assert_eq!((heard.retry_after, heard.problem.as_str()), (Some(Duration::from_mins(2)), "rateLimited"));
        heard.note(&asked, &answer(500, &[], "<html>"));
        assert_eq!((heard.retry_after, heard.problem.as_str()), (None, ""));

        let epoch = SystemTime::UNIX_EPOCH;
        let date = answer(503, &[("retry-after", "Thu, 01 Jan 1970 00:01:00 GMT")], "");
        assert_eq!(retry_after(date.headers(), epoch), Some(Duration::from_mins(1)));
        assert_eq!(retry_after(answer(503, &[("retry-after", "soon")], "").headers(), epoch), None);
    }

    #[test]
    fn other_chains_are_found_on_the_same_ca_alone() {
        let (mut heard, asked) = (Heard::default(), Uri::from_static("https://ca.test/cert/1"));
        let links = [
            ("content-type", "application/pem-certificate-chain"),
            ("link", "<https://ca.test/dir>;rel=\"index\""),
            (
                "link",
                "<https://ca.test/cert/1/1>;rel=\"alternate\", <https://ca.test/cert/1/2>; title=x; rel=alternate",
            ),
            ("link", "<https://elsewhere.test/cert>;rel=\"alternate\""),
        ];
        heard.note(&asked, &answer(200, &links, ""));
        assert_eq!(heard.alternates, ["https://ca.test/cert/1/1", "https://ca.test/cert/1/2"]);
    }

    #[test]
    fn an_issuer_may_have_a_proxy_of_its_own() {
        let issuer = |proxy: serde_json::Value| -> AcmeIssuer {
            serde_json::from_value(serde_json::json!({ "network_proxy": proxy })).unwrap()
        };
        let url = serde_json::json!({"from": "url", "url": "http://127.0.0.1:3128"});
        assert!(matches!(proxy(&issuer(url)), Ok(ProxyChoice::Url(_))));
        assert!(matches!(proxy(&issuer(serde_json::json!({"from": "none"}))), Ok(ProxyChoice::None)));
        assert!(proxy(&issuer(serde_json::json!({"from": "plugin"}))).is_err());
        assert!(matches!(proxy(&AcmeIssuer::default()), Ok(ProxyChoice::Environment)));
    }
}
