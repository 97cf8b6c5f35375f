//! The challenge over HTTP (RFC 8555 section 8.3).

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};

use super::{Job, Validator};
use crate::client::{Address, ProxyChoice, Scheme, Target, TargetOptions, TlsClientOptions, Versions, simple};
use crate::modules::acme_server::identifier::Identifier;
use crate::modules::acme_server::problem::{Kind, Problem};

/// A key authorisation has less than 200 bytes; white space may follow it.
const MAX_ANSWER: usize = 4096;
const MAX_REDIRECTS: usize = 10;
const TIMEOUT: Duration = Duration::from_secs(10);

pub async fn ask(validator: &Validator, job: &Job) -> Result<(), Problem> {
    let host = match job.identifier.address() {
        Some(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => job.identifier.value.clone(),
    };
    let port = match validator.http_port {
        80 => String::new(),
        port => format!(":{port}"),
    };
    let mut url = format!("http://{host}{port}/.well-known/acme-challenge/{}", job.token);
    for _ in 0..=MAX_REDIRECTS {
        let answer = get(validator, &url).await?;
        let status = answer.status();
        if status.is_redirection() {
            url = follow(&url, answer.headers().get(header::LOCATION))?;
            continue;
        }
        if status != 200 {
            return Err(Problem::new(Kind::Unauthorized, format!("{url} answers with status {}", status.as_u16())));
        }
        if answer.body().trim_ascii_end() != job.key_authorization.as_bytes() {
            return Err(Problem::new(Kind::IncorrectResponse, format!("{url} answers with something else")));
        }
        return Ok(());
    }
    Err(Problem::new(Kind::Connection, "too many redirects"))
}

async fn get(validator: &Validator, url: &str) -> Result<Response<Bytes>, Problem> {
    let failed = |why: String| Problem::new(Kind::Connection, format!("{url}: {why}"));
    let uri: Uri = url.parse().map_err(|_| failed("not a URL".into()))?;
    let (host, https) = (uri.host().unwrap_or_default(), uri.scheme_str() == Some("https"));
    let (default, allowed) = if https { (443, validator.https_port) } else { (80, validator.http_port) };
    let port = uri.port_u16().unwrap_or(default);
    // A machine that can redirect us elsewhere must not make us knock at any port of the network.
    if port != allowed {
        return Err(failed(format!("only port {allowed} is asked here")));
    }
    let name = host.trim_matches(['[', ']']);
    let identifier = Identifier::of_text(name).map_err(|why| failed(why.into()))?;
    let mut last = failed("no address".into());
    for address in validator.names.addresses(&identifier, port).await? {
        let host = address.ip().to_string();
        let scheme = if https { Scheme::Https } else { Scheme::Http };
        let mut options = TargetOptions::new(scheme, Address::Tcp { host: host.into(), port });
        options.proxy = ProxyChoice::None;
        options.server_name = Some(name.to_owned());
        options.versions = Versions { h1: true, h2: false };
        if https {
            // What is redirected to has no certificate yet, or it would not ask for one.
            let tls = TlsClientOptions { insecure_skip_verify: true, ..TlsClientOptions::default() };
            options.tls = Some(tls.build(options.versions).map_err(|e| failed(e.to_string()))?);
        }
        let target = Target::new(options).map_err(|e| failed(e.to_string()))?;
        let authority = uri.authority().map_or("", |a| a.as_str());
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let request = Request::get(path)
            .header(header::HOST, authority)
            .header(header::USER_AGENT, concat!("llmproxy/", env!("CARGO_PKG_VERSION"), " acme_server"))
            .body(Bytes::new())
            .map_err(|e| failed(e.to_string()))?;
        match simple::request(&target, request, MAX_ANSWER, TIMEOUT).await {
            Ok(answer) => return Ok(answer),
            Err(error) => last = failed(error.to_string()),
        }
    }
    Err(last)
}

/// Where a redirect leads.
fn follow(from: &str, location: Option<&HeaderValue>) -> Result<String, Problem> {
    let bad = |why: &str| Problem::new(Kind::Connection, format!("{from} redirects {why}"));
    let to = location.and_then(|value| value.to_str().ok()).ok_or_else(|| bad("nowhere"))?;
    if to.len() > 2048 {
        return Err(bad("to a URL that is too long"));
    }
    let begin = |scheme: &str| to.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    if begin("http://") || begin("https://") {
        return Ok(to.to_owned());
    }
    // Of relative references the plain ones are followed: no client's server writes others here.
    let origin = from.match_indices('/').nth(2).map_or(from, |(at, _)| &from[..at]);
    if to.starts_with('/') && !to.starts_with("//") { Ok(format!("{origin}{to}")) } else { Err(bad("to no http URL")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_http_alone() {
        let to = |location: &str| follow("http://a.test:81/x", HeaderValue::from_str(location).ok().as_ref()).ok();
        assert_eq!(to("https://b.test/y").as_deref(), Some("https://b.test/y"));
        assert_eq!(to("HTTP://b.test/").as_deref(), Some("HTTP://b.test/"));
        assert_eq!(to("/y?z").as_deref(), Some("http://a.test:81/y?z"));
        for bad in ["", "//b.test/y", "y", "ftp://b.test", "file:///etc/passwd", &format!("/{}", "a".repeat(3000))] {
            assert_eq!(to(bad), None, "{bad}");
        }
        assert!(follow("http://a.test/", None).is_err());
    }
}
