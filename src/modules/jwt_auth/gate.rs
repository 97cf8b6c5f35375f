//! The handler: takes the token off the request, checks it, and names the caller.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::claims::{Caller, Rules};
use super::fault::Fault;
use super::jwks::Jwks;
use super::key::{Algorithm, KeySet};
use super::token::{MAX_TOKEN, Token};
use super::verified::{Digest, Verified};
use crate::http::exchange::{Exchange, Lookup};
use crate::http::handler::{AsyncHandler, Flow, LocalFuture, Step};

/// Checks tokens with keys that it has: never waits.
pub struct Gate {
    pub algorithms: Vec<Algorithm>,
    pub keys: Arc<KeySet>,
    pub rules: Rules,
    /// Where to look when there is no `Authorization: Bearer`.
    pub carriers: Vec<Carrier>,
    pub verified: Verified,
}

pub enum Carrier {
    Header(HeaderName),
    Cookie(String),
}

/// Also asks the issuer for keys.
pub struct Waiting {
    pub gate: Gate,
    pub jwks: Arc<Jwks>,
    pub refresh: Duration,
}

impl Step for Gate {
    fn run(&self, ex: &mut Exchange) -> Flow {
        let judged = self.take(&mut ex.headers).and_then(|token| self.judge(token.as_bytes()));
        conclude(ex, judged)
    }
}

impl AsyncHandler for Waiting {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
        Box::pin(async move {
            let judged = match self.gate.take(&mut ex.headers) {
                Ok(token) => self.judge(token.as_bytes()).await,
                Err(fault) => Err(fault),
            };
            conclude(ex, judged)
        })
    }
}

fn conclude(ex: &mut Exchange, judged: Result<Arc<Caller>, Fault>) -> Flow {
    match judged {
        Ok(caller) => {
            ex.user = Some(caller.user.clone());
            let claims: Arc<dyn Lookup> = caller;
            ex.lookups.push(claims);
            Flow::Next
        }
        Err(fault) => Flow::Fail(fault.into()),
    }
}

impl Gate {
    fn judge(&self, token: &[u8]) -> Result<Arc<Caller>, Fault> {
        let (digest, now) = (self.verified.digest(token), now());
        if let Some(caller) = self.verified.find(&digest, &[&self.keys], now) {
            return Ok(caller);
        }
        let token = self.read(token)?;
        self.verify(&token, &self.keys)?;
        self.admit(&token, digest, &self.keys, now)
    }

    fn read<'t>(&self, token: &'t [u8]) -> Result<Token<'t>, Fault> {
        let token = Token::parse(token)?;
        if self.algorithms.contains(&token.algorithm) { Ok(token) } else { Err(Fault::Algorithm) }
    }

    fn verify(&self, token: &Token<'_>, keys: &KeySet) -> Result<(), Fault> {
        let id = token.key_id.as_deref();
        if keys.verifies(id, token.algorithm, token.message, &token.signature) {
            return Ok(());
        }
        Err(if keys.has(id) { Fault::Signature } else { Fault::UnknownKey })
    }

    fn admit(&self, token: &Token<'_>, digest: Digest, keys: &Arc<KeySet>, now: i64) -> Result<Arc<Caller>, Fault> {
        let caller = Arc::new(self.rules.judge(&token.claims()?, now)?);
        self.verified.remember(digest, Arc::clone(keys), Arc::clone(&caller));
        Ok(caller)
    }

    /// The token that the request offers. Every credential is taken off, so that none of them is seen or sent further on,
    /// whatever becomes of the request.
    fn take(&self, headers: &mut HeaderMap) -> Result<HeaderValue, Fault> {
        let mut found = headers.get(header::AUTHORIZATION).and_then(bearer);
        for name in &CREDENTIAL_HEADERS {
            // A carrier may be one of them.
            if !self.carriers.iter().any(|c| matches!(c, Carrier::Header(carrier) if carrier == name)) {
                headers.remove(name);
            }
        }
        for carrier in &self.carriers {
            let carried = match carrier {
                Carrier::Header(name) => headers.remove(name).as_ref().and_then(bearer),
                Carrier::Cookie(name) => take_cookie(headers, name),
            };
            found = found.or(carried);
        }
        let token = found.ok_or(Fault::Missing)?;
        if token.len() > MAX_TOKEN { Err(Fault::TooLong) } else { Ok(token) }
    }
}

impl Waiting {
    async fn judge(&self, token: &[u8]) -> Result<Arc<Caller>, Fault> {
        let Self { gate, jwks, refresh } = self;
        let (digest, now) = (gate.verified.digest(token), now());
        let published = jwks.at_hand(*refresh);
        let caller = match &published {
            Some(published) => gate.verified.find(&digest, &[&gate.keys, published], now),
            None => gate.verified.find(&digest, &[&gate.keys], now),
        };
        if let Some(caller) = caller {
            return Ok(caller);
        }
        let token = gate.read(token)?;
        if gate.verify(&token, &gate.keys).is_ok() {
            return gate.admit(&token, digest, &gate.keys, now);
        }
        if token.algorithm.is_shared() {
            return Err(Fault::Signature);
        }
        let published = jwks.keys(token.key_id.as_deref(), *refresh).await?;
        gate.verify(&token, &published)?;
        gate.admit(&token, digest, &published, now)
    }
}

const CREDENTIAL_HEADERS: [HeaderName; 4] = [
    header::AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// `Bearer TOKEN` (the scheme in any case), or a token alone; `None` for other schemes.
fn bearer(value: &HeaderValue) -> Option<HeaderValue> {
    let bytes = value.as_bytes().trim_ascii();
    let token = match bytes.split_first_chunk::<7>() {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"Bearer ") => rest.trim_ascii(),
        _ => bytes,
    };
    let is_token = !token.is_empty() && !token.contains(&b' ') && !token.eq_ignore_ascii_case(b"Bearer");
    if is_token { HeaderValue::from_bytes(token).ok() } else { None }
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
    fn bearer_and_bare_tokens_but_no_other_scheme() {
        let read = |text: &str| bearer(&HeaderValue::from_str(text).unwrap()).map(|v| v.to_str().unwrap().to_owned());
        for text in ["Bearer a.b.c", "bearer  a.b.c ", "a.b.c"] {
            assert_eq!(read(text).as_deref(), Some("a.b.c"), "{text}");
        }
        for text in ["", " ", "Bearer", "Bearer ", "Basic abc", "Bearer a b"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

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
