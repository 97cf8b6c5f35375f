//! A URL that the proxy itself asks, taken apart.

use http::Uri;

use super::target::{Address, Scheme, Target, TargetOptions};

/// The URL of a service: key sets, webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUrl {
    pub scheme: Scheme,
    /// Without brackets.
    pub host: String,
    pub port: u16,
    /// As it stands in the URL, for the field `host`.
    pub authority: String,
    /// With the query.
    pub path: String,
}

impl ServiceUrl {
    /// # Errors
    /// Why it is none, for a person; says nothing of what is in it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "it is not a URL")?;
        let (scheme, default_port) = match uri.scheme_str() {
            Some("https") => (Scheme::Https, 443),
            Some("http") => (Scheme::Http, 80),
            _ => return Err("it does not begin with `https://`".to_owned()),
        };
        let authority = uri.authority().ok_or("it has no host")?;
        if authority.as_str().contains('@') {
            return Err("it holds a user name".to_owned());
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err("it has no host".to_owned());
        }
        Ok(Self {
            scheme,
            host,
            port: authority.port_u16().unwrap_or(default_port),
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// Where it is, with the defaults for everything on the way.
    ///
    /// # Errors
    /// When TLS cannot be set up for it, or the environment names a proxy that makes no sense.
    pub fn target(&self) -> Result<Target, String> {
        let address = Address::Tcp { host: self.host.as_str().into(), port: self.port };
        Target::new(TargetOptions::new(self.scheme, address)).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = ServiceUrl::parse("https://[::1]:8443/a?b=c").unwrap();
        assert_eq!((url.scheme, url.host.as_str(), url.port), (Scheme::Https, "::1", 8443));
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("[::1]:8443", "/a?b=c"));
        let url = ServiceUrl::parse("http://a.test").unwrap();
        assert_eq!((url.scheme, url.port, url.path.as_str()), (Scheme::Http, 80, "/"));
        for wrong in ["", "a.test/x", "ftp://a.test", "https://u:p@a.test", "https:///x", "/x"] {
            assert!(ServiceUrl::parse(wrong).is_err(), "{wrong}");
        }
    }
}
