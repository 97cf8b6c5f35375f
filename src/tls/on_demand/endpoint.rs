//! An address that the admin gave, asked with a few parameters: one GET, bounded in time and size, following no redirect.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::client::{Address, Scheme, Target, TargetOptions, simple};

/// Longest that one answer may take (Caddy's limit for permission).
const TIMEOUT: Duration = Duration::from_secs(10);

/// What Go's `url.QueryEscape` leaves as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub struct Endpoint {
    /// As written: what makes two of them the same.
    url: String,
    target: Arc<Target>,
    host: HeaderValue,
    path: String,
    /// Decoded.
    query: Vec<(String, String)>,
    /// From `user:password@` in the URL. Secret.
    login: Option<HeaderValue>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.target.label())
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url
    }
}

impl Endpoint {
    /// # Errors
    /// What is wrong with the URL, without repeating it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "not a URL")?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("the URL must begin with http:// or https://".into()),
        };
        let authority = uri.authority().ok_or("the URL has no host")?;
        let host = authority.host();
        if host.is_empty() {
            return Err("the URL has no host".into());
        }
        let (login, host_and_port) = match authority.as_str().rsplit_once('@') {
            Some((login, rest)) => (Some(basic(login)?), rest),
            None => (None, authority.as_str()),
        };
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let address = Address::Tcp { host: host.trim_matches(['[', ']']).into(), port };
        let options = TargetOptions::new(if https { Scheme::Https } else { Scheme::Http }, address);
        let target = Target::new(options).map(Arc::new).map_err(|e| e.to_string())?;
        let host = HeaderValue::from_str(host_and_port).map_err(|_| "the host is not one")?;
        let query = uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty()).map(decoded).collect();
        Ok(Self { url: url.to_owned(), target, host, path: uri.path().to_owned(), query, login })
    }

    /// Asks with these parameters, each in the place of one of its name. `limit`: longest answer that is read.
    ///
    /// # Errors
    /// Why there was no answer, naming host and port.
    pub async fn get(&self, parameters: &[(&str, &str)], limit: usize) -> Result<(StatusCode, Bytes), String> {
        let mut request = Request::get(self.path_with(parameters)).header(header::HOST, &self.host);
        let agent = HeaderValue::from_static(concat!("llmproxy/", env!("CARGO_PKG_VERSION")));
        request = request.header(header::USER_AGENT, agent);
        if let Some(login) = &self.login {
            request = request.header(header::AUTHORIZATION, login);
        }
        let request = request.body(Bytes::new()).map_err(|e| e.to_string())?;
        let answer = simple::request(&self.target, request, limit, TIMEOUT).await.map_err(|e| e.to_string())?;
        let (head, body) = answer.into_parts();
        Ok((head.status, body))
    }

    /// Sorted by name, as Go's `url.Values.Encode` does.
    fn path_with(&self, parameters: &[(&str, &str)]) -> String {
        let own = self.query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let own = own.filter(|(name, _)| !parameters.iter().any(|(set, _)| set == name));
        let mut all: Vec<(&str, &str)> = own.chain(parameters.iter().copied()).collect();
        all.sort_by_key(|(name, _)| *name);
        let escape = |text: &str| utf8_percent_encode(text, QUERY).to_string().replace("%20", "+");
        let pairs: Vec<String> =
            all.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
        format!("{}?{}", self.path, pairs.join("&"))
    }
}

fn decoded(pair: &str) -> (String, String) {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    (decode(name), decode(value))
}

fn basic(login: &str) -> Result<HeaderValue, String> {
    let login: Vec<u8> = percent_decode_str(login).collect();
    let value = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login));
    let mut value = HeaderValue::from_str(&value).map_err(|_| "the login is not one")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_set_as_go_sets_them() {
        for (url, asked) in [
            ("http://a.test", "/?domain=b.test"),
            ("http://a.test/check?z=1&a=b&domain=x", "/check?a=b&domain=b.test&z=1"),
            ("https://a.test:8443/c?k=a%20b%26", "/c?domain=b.test&k=a+b%26"),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap().path_with(&[("domain", "b.test")]), asked, "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_a_login_is_not_shown() {
        for url in ["", "not-a-url", "/check", "ftp://a.test/", "http:///x", "unix//run/x.sock"] {
            assert!(Endpoint::parse(url).is_err(), "{url}");
        }
        let endpoint = Endpoint::parse("http://user:hunter2@[::1]:8080/check").unwrap();
        assert_eq!(endpoint.host, "[::1]:8080");
        assert_eq!(endpoint.login.as_ref().unwrap(), "Basic dXNlcjpodW50ZXIy");
        assert!(!format!("{endpoint:?}").contains("hunter2"));
    }
}
