//! The handler: takes the token off the request, checks it, and names the caller.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::HANDLER;
use super::claims::{Caller, Rules};
use super::fault::Fault;
use super::jwks::Jwks;
use super::key::{Algorithm, KeySet};
use super::token::{MAX_TOKEN, Token};
use super::verified::{Digest, Verified};
use crate::http::credentials;
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::handler::{AsyncHandler, Flow, LocalFuture, Step};
use crate::http::model_rights;

pub struct Gate {
    pub algorithms: Vec<Algorithm>,
    /// Those of files and secrets.
    pub keys: Arc<KeySet>,
    pub rules: Rules,
    /// Headers that are looked at and taken off.
    pub headers: Box<[HeaderName]>,
    pub cookies: Box<[String]>,
    pub verified: Verified,
    /// The issuer's published keys, and how often they are renewed.
    pub jwks: Option<(Arc<Jwks>, Duration)>,
}

impl Gate {
    /// Whether a request may have to wait: for keys, or for the body that names its model.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.jwks.is_some() || self.rules.models_claim.is_some()
    }
}

/// When no request has to wait.
impl Step for Gate {
    fn run(&self, ex: &mut Exchange) -> Flow {
        match self.take(ex).and_then(|token| self.judge(&token)) {
            Ok(caller) => {
                ex.user = Some(caller.user.clone());
                Flow::Next
            }
            Err(fault) => Flow::Fail(fault.into()),
        }
    }
}

impl AsyncHandler for Gate {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
        Box::pin(async move {
            match self.admit(ex).await {
                Ok(()) => Flow::Next,
                Err(error) => Flow::Fail(error),
            }
        })
    }
}

impl Gate {
    async fn admit(&self, ex: &mut Exchange) -> Result<(), HandlerError> {
        let token = self.take(ex)?;
        let caller = match &self.jwks {
            Some((jwks, refresh)) => self.judge_published(&token, jwks, *refresh).await?,
            None => self.judge(&token)?,
        };
        // The caller is known from here on, to the log too when it may not go on.
        ex.user = Some(caller.user.clone());
        match &caller.user.models {
            Some(models) => model_rights::allow(ex, models, HANDLER.id).await,
            None => Ok(()),
        }
    }

    fn judge(&self, token: &[u8]) -> Result<Arc<Caller>, Fault> {
        let (digest, now) = (self.verified.digest(token), now());
        if let Some(caller) = self.verified.find(&digest, &[&self.keys], now) {
            return Ok(caller);
        }
        let token = self.read(token)?;
        self.keys.check(&token)?;
        self.conclude(&token, digest, &self.keys, now)
    }

    async fn judge_published(&self, token: &[u8], jwks: &Arc<Jwks>, refresh: Duration) -> Result<Arc<Caller>, Fault> {
        let (digest, now) = (self.verified.digest(token), now());
        let at_hand = jwks.at_hand(refresh);
        let known = match &at_hand {
            Some(published) => self.verified.find(&digest, &[&self.keys, published], now),
            None => self.verified.find(&digest, &[&self.keys], now),
        };
        if let Some(caller) = known {
            return Ok(caller);
        }
        let token = self.read(token)?;
        if self.keys.check(&token).is_ok() {
            return self.conclude(&token, digest, &self.keys, now);
        }
        if token.algorithm.is_shared() {
            return Err(Fault::Signature);
        }
        let published = jwks.keys(token.key_id.as_deref(), refresh).await?;
        published.check(&token)?;
        self.conclude(&token, digest, &published, now)
    }

    fn read<'t>(&self, token: &'t [u8]) -> Result<Token<'t>, Fault> {
        let token = Token::parse(token)?;
        if self.algorithms.contains(&token.algorithm) { Ok(token) } else { Err(Fault::Algorithm) }
    }

    /// Judges what a token claims whose signature is right.
    fn conclude(&self, token: &Token<'_>, digest: Digest, keys: &Arc<KeySet>, now: i64) -> Result<Arc<Caller>, Fault> {
        let caller = Arc::new(self.rules.judge(&token.claims()?, now)?);
        self.verified.remember(digest, Arc::clone(keys), Arc::clone(&caller));
        Ok(caller)
    }

    /// The token that the request shows: the first that looks like one, else the first credential of any kind. All are taken
    /// off, so that none is seen or sent further on, whatever becomes of the request.
    fn take(&self, ex: &mut Exchange) -> Result<Vec<u8>, Fault> {
        let (mut token, mut other) = (None, None);
        credentials::take(ex, &self.headers, |credential| {
            let is_token = looks_like_a_token(credential);
            let slot = if is_token { &mut token } else { &mut other };
            slot.get_or_insert_with(|| credential.to_vec());
            is_token
        });
        for name in &self.cookies {
            let cookie = take_cookie(&mut ex.headers, name);
            token = token.or_else(|| cookie.map(|value| value.as_bytes().to_vec()));
        }
        let token = token.or(other).ok_or(Fault::Missing)?;
        if token.len() > MAX_TOKEN { Err(Fault::TooLong) } else { Ok(token) }
    }
}

/// Three parts, of which the first is the beginning of a JSON object.
fn looks_like_a_token(credential: &[u8]) -> bool {
    credential.starts_with(b"ey") && memchr::memchr_iter(b'.', credential).count() == 2
}

/// The value of a cookie, which is taken out; the others stay as they are.
fn take_cookie(headers: &mut HeaderMap, name: &str) -> Option<HeaderValue> {
    let is_it = |pair: &[u8]| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='))
    };
    let lines: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    if !lines.iter().any(|line| line.as_bytes().split(|b| *b == b';').any(is_it)) {
        return None;
    }
    let mut found = None;
    headers.remove(header::COOKIE);
    for line in lines {
        let mut kept: Vec<&[u8]> = Vec::new();
        for pair in line.as_bytes().split(|b| *b == b';') {
            if is_it(pair) {
                let value = pair.trim_ascii().get(name.len() + 1..).unwrap_or_default();
                found = found.or_else(|| HeaderValue::from_bytes(value).ok().filter(|v| !v.is_empty()));
            } else if !pair.trim_ascii().is_empty() {
                kept.push(pair.trim_ascii());
            }
        }
        if let (false, Ok(value)) = (kept.is_empty(), HeaderValue::from_bytes(&kept.join(&b"; "[..]))) {
            headers.append(header::COOKIE, value);
        }
    }
    found
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cookie_is_taken_out_of_many() {
        let mut headers = HeaderMap::new();
        for line in ["a=1; session=t.o.k; b=\"2\"", "session=other", "sessions=3"] {
            headers.append(header::COOKIE, HeaderValue::from_static(line));
        }
        assert_eq!(take_cookie(&mut headers, "session").unwrap(), "t.o.k");
        let left: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(left, ["a=1; b=\"2\"", "sessions=3"]);
        assert_eq!(take_cookie(&mut headers, "session"), None);
    }
}
