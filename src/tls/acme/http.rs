//! How the CA is spoken to: our own client, one connection a request, bounded in time and size.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme as UriScheme;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};

use super::AcmeError;
use crate::client::{
    Address, RootSource, Scheme, Target, TargetOptions, TlsClient, TlsClientOptions, Trust, Versions, simple,
};

/// Longest answer that is read.
const MAX_ANSWER: usize = 1 << 20;
/// Longest that one answer may take.
const TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Clone)]
pub struct Http {
    tls: Option<TlsClient>,
}

impl Http {
    /// `roots`: PEM files to trust instead of the system's roots; none = the system's.
    pub fn new(roots: &[String]) -> Result<Self, AcmeError> {
        if roots.is_empty() {
            return Ok(Self { tls: None });
        }
        let trust = Trust::Only(roots.iter().map(|file| RootSource::PemFile(file.into())).collect());
        let options = TlsClientOptions { trust, ..TlsClientOptions::default() };
        let tls = options.build(Versions::default()).map_err(|e| AcmeError::new("the roots of the CA", e))?;
        Ok(Self { tls: Some(tls) })
    }

    /// Sends a request with an absolute URI.
    pub async fn send(self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let (mut head, body) = request.into_parts();
        let target = self.target(&head.uri)?;
        if let Some(host) = head.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok()) {
            head.headers.insert(header::HOST, host);
        }
        head.headers
            .insert(header::USER_AGENT, HeaderValue::from_static(concat!("llmproxy/", env!("CARGO_PKG_VERSION"))));
        let path = head.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        head.uri = path.parse().map_err(|_| "not a URI")?;
        simple::request(&target, Request::from_parts(head, body), MAX_ANSWER, TIMEOUT).await.map_err(|e| e.to_string())
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
        Target::new(options).map(Arc::new).map_err(|e| e.to_string())
    }
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
