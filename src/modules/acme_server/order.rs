//! An order with its authorisations and challenges: states and how they follow one another (RFC 8555 section 7.1.6).
//! Pure: the clock and what a validation found come from outside.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::identifier::Identifier;
use super::problem::Problem;

/// How long an order may take.
pub const LIFETIME: i64 = 8 * 3600;
/// Names in one order.
pub const MAX_IDENTIFIERS: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    Ready,
    Processing,
    Valid,
    Invalid,
    Deactivated,
    Expired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    #[serde(rename = "http-01")]
    Http,
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
    #[serde(rename = "dns-01")]
    Dns,
}

impl Method {
    pub const ALL: [(&str, Self); 3] = [("http-01", Self::Http), ("tls-alpn-01", Self::TlsAlpn), ("dns-01", Self::Dns)];

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, method)| *method == self).map_or("", |(name, _)| name)
    }

    /// Wildcards are proved over DNS alone, addresses never (RFC 8738 section 7).
    fn fits(self, identifier: &Identifier) -> bool {
        match self {
            Self::Dns => identifier.address().is_none(),
            Self::Http | Self::TlsAlpn => identifier.wildcard().is_none(),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// Eight hexadecimal digits of the end in Unix seconds, then randomness.
    pub id: String,
    pub account: String,
    pub status: Status,
    pub identifiers: Vec<Identifier>,
    pub authorizations: Vec<Authorization>,
    /// Unix seconds, as asked for.
    pub not_before: Option<i64>,
    pub not_after: Option<i64>,
    /// Id of the certificate that it replaces (RFC 9773).
    pub replaces: Option<String>,
    /// Serial number of what was issued.
    pub certificate: Option<String>,
    pub error: Option<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Authorization {
    /// Without the `*.` of a wildcard.
    pub identifier: Identifier,
    pub wildcard: bool,
    pub status: Status,
    pub challenges: Vec<Challenge>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Challenge {
    pub method: Method,
    pub token: String,
    pub status: Status,
    /// When it was proved, in Unix seconds.
    pub validated: Option<i64>,
    pub error: Option<Value>,
}

impl Order {
    /// A new order; `token` makes the secret of each challenge.
    ///
    /// # Errors
    /// What `token` fails with.
    pub fn new(
        id: String,
        account: &str,
        identifiers: Vec<Identifier>,
        methods: &[Method],
        mut token: impl FnMut() -> Result<String, Problem>,
    ) -> Result<Self, Problem> {
        let mut authorizations = Vec::with_capacity(identifiers.len());
        for wanted in &identifiers {
            let mut challenges = Vec::new();
            for method in methods.iter().filter(|method| method.fits(wanted)) {
                let token = token()?;
                let status = Status::Pending;
                challenges.push(Challenge { method: *method, token, status, validated: None, error: None });
            }
            let wildcard = wanted.wildcard();
            let identifier = match wildcard {
                Some(name) => Identifier { r#type: wanted.r#type.clone(), value: name.to_owned() },
                None => wanted.clone(),
            };
            let wildcard = wildcard.is_some();
            authorizations.push(Authorization { identifier, wildcard, status: Status::Pending, challenges });
        }
        Ok(Self {
            id,
            account: account.to_owned(),
            status: Status::Pending,
            identifiers,
            authorizations,
            not_before: None,
            not_after: None,
            replaces: None,
            certificate: None,
            error: None,
        })
    }

    /// When the order of this id ends; `None` for what is no id.
    #[must_use]
    pub fn ends(id: &str) -> Option<i64> {
        id.get(..8).and_then(|digits| i64::from_str_radix(digits, 16).ok())
    }

    #[must_use]
    pub fn is_expired(&self, now: i64) -> bool {
        Self::ends(&self.id).is_none_or(|end| end <= now)
    }

    /// What it counts as at this moment: unfinished when its time is over is invalid.
    #[must_use]
    pub fn status(&self, now: i64) -> Status {
        match self.status {
            Status::Pending | Status::Ready if self.is_expired(now) => Status::Invalid,
            status => status,
        }
    }

    /// Begins a challenge; false when there is nothing to validate (any more).
    pub fn accept(&mut self, n: usize, method: Method, now: i64) -> bool {
        if self.status(now) != Status::Pending {
            return false;
        }
        let Some(authorization) = self.authorizations.get_mut(n).filter(|a| a.status == Status::Pending) else {
            return false;
        };
        match authorization.challenges.iter_mut().find(|c| c.method == method) {
            Some(challenge) if challenge.status == Status::Pending => {
                challenge.status = Status::Processing;
                true
            }
            _ => false,
        }
    }

    /// Notes what a validation found. What was decided meanwhile stays.
    pub fn settle(&mut self, n: usize, method: Method, result: Result<(), Problem>, now: i64) {
        let open = self.status(now) == Status::Pending;
        let Some(authorization) = self.authorizations.get_mut(n) else { return };
        let Some(challenge) = authorization.challenges.iter_mut().find(|c| c.method == method) else { return };
        if !open || authorization.status != Status::Pending || challenge.status != Status::Processing {
            return;
        }
        match result {
            Ok(()) => {
                challenge.status = Status::Valid;
                challenge.validated = Some(now);
                authorization.status = Status::Valid;
                if self.authorizations.iter().all(|a| a.status == Status::Valid) {
                    self.status = Status::Ready;
                }
            }
            Err(problem) => {
                let error = problem.to_json();
                challenge.status = Status::Invalid;
                challenge.error = Some(error.clone());
                authorization.status = Status::Invalid;
                self.status = Status::Invalid;
                self.error = Some(error);
            }
        }
    }

    /// Gives up an authorisation, and with it the order.
    pub fn deactivate(&mut self, n: usize) {
        let Some(authorization) = self.authorizations.get_mut(n) else { return };
        if matches!(authorization.status, Status::Pending | Status::Valid) {
            authorization.status = Status::Deactivated;
            if matches!(self.status, Status::Pending | Status::Ready) {
                self.status = Status::Invalid;
            }
        }
    }

    /// The resource; `base` is the URL of the CA.
    #[must_use]
    pub fn to_json(&self, base: &str, now: i64) -> Value {
        let id = &self.id;
        let urls = (0..self.authorizations.len()).map(|n| format!("{base}/authz/{id}/{n}"));
        let mut out = json!({
            "status": self.status(now),
            "expires": Self::ends(id).map(date),
            "identifiers": self.identifiers,
            "authorizations": urls.collect::<Vec<_>>(),
            "finalize": format!("{base}/order/{id}/finalize"),
        });
        let certificate = self.certificate.as_ref().map(|serial| json!(format!("{base}/certificate/{serial}")));
        let more = [
            ("notBefore", self.not_before.map(|t| json!(date(t)))),
            ("notAfter", self.not_after.map(|t| json!(date(t)))),
            ("replaces", self.replaces.as_ref().map(|id| json!(id))),
            ("certificate", certificate),
            ("error", self.error.clone()),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                out[name] = value;
            }
        }
        out
    }

    /// The resource of one authorisation.
    #[must_use]
    pub fn authorization_json(&self, n: usize, base: &str, now: i64) -> Option<Value> {
        let authorization = self.authorizations.get(n)?;
        let status = match authorization.status {
            Status::Pending | Status::Valid if self.is_expired(now) => Status::Expired,
            status => status,
        };
        // Once decided, only the challenge that decided it is of interest.
        let decided = |c: &&Challenge| authorization.status == Status::Pending || c.status != Status::Pending;
        let challenges = authorization.challenges.iter().filter(decided);
        let mut out = json!({
            "status": status,
            "expires": Self::ends(&self.id).map(date),
            "identifier": authorization.identifier,
            "challenges": challenges.map(|c| self.challenge_json(n, c, base)).collect::<Vec<_>>(),
        });
        if authorization.wildcard {
            out["wildcard"] = true.into();
        }
        Some(out)
    }

    #[must_use]
    pub fn challenge_json(&self, n: usize, challenge: &Challenge, base: &str) -> Value {
        let mut out = json!({
            "type": challenge.method,
            "url": format!("{base}/challenge/{}/{n}/{}", self.id, challenge.method.name()),
            "token": challenge.token,
            "status": challenge.status,
        });
        if let Some(at) = challenge.validated {
            out["validated"] = json!(date(at));
        }
        if let Some(error) = &challenge.error {
            out["error"] = error.clone();
        }
        out
    }
}

/// RFC 3339, of Unix seconds.
#[must_use]
pub fn date(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|t| t.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::problem::Kind;
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn order(names: &[&str]) -> Order {
        let methods = Method::ALL.map(|(_, method)| method);
        let names = names.iter().map(|name| Identifier::of_text(name).unwrap()).collect();
        let mut count = 0;
        let token = || {
            count += 1;
            Ok(format!("t{count}"))
        };
        Order::new(format!("{:08x}aa", NOW + LIFETIME), "acc", names, &methods, token).unwrap()
    }

    fn offered(order: &Order, n: usize) -> Vec<&'static str> {
        order.authorizations[n].challenges.iter().map(|c| c.method.name()).collect()
    }

    #[test]
    fn challenges_fit_the_name() {
        let order = order(&["a.test", "*.b.test", "10.0.0.1"]);
        assert_eq!(offered(&order, 0), ["http-01", "tls-alpn-01", "dns-01"]);
        assert_eq!(offered(&order, 1), ["dns-01"]);
        assert_eq!(offered(&order, 2), ["http-01", "tls-alpn-01"]);
        let shown = order.authorization_json(1, "https://ca.test/acme/local", NOW).unwrap();
        assert_eq!((&shown["identifier"]["value"], &shown["wildcard"]), (&json!("b.test"), &json!(true)));
        assert_eq!(order.to_json("b", NOW)["identifiers"][1]["value"], "*.b.test");
    }

    #[test]
    fn an_order_is_ready_when_all_its_names_are_proved() {
        let mut order = order(&["a.test", "b.test"]);
        assert!(order.accept(0, Method::Http, NOW));
        assert!(!order.accept(0, Method::Http, NOW), "already asked");
        order.settle(0, Method::Http, Ok(()), NOW + 1);
        assert!(!order.accept(0, Method::TlsAlpn, NOW), "already proved");
        assert_eq!(order.status(NOW), Status::Pending);
        assert!(order.accept(1, Method::Dns, NOW));
        order.settle(1, Method::TlsAlpn, Ok(()), NOW);
        assert_eq!(order.status(NOW), Status::Pending, "another challenge was asked");
        order.settle(1, Method::Dns, Ok(()), NOW);
        assert_eq!(order.status(NOW), Status::Ready);
        let shown = order.authorization_json(0, "b", NOW).unwrap();
        assert_eq!((shown["status"].as_str(), shown["challenges"].as_array().unwrap().len()), (Some("valid"), 1));
        assert_eq!(shown["challenges"][0]["validated"], "2027-01-15T08:00:01Z");
        assert_eq!(order.status(NOW + LIFETIME), Status::Invalid, "too late");
    }

    #[test]
    fn one_failure_ends_the_order() {
        let mut order = order(&["a.test", "b.test"]);
        order.accept(0, Method::Http, NOW);
        order.accept(1, Method::Http, NOW);
        order.settle(0, Method::Http, Err(Problem::new(Kind::Connection, "refused")), NOW);
        assert_eq!(order.status(NOW), Status::Invalid);
        order.settle(1, Method::Http, Ok(()), NOW);
        assert_eq!(order.status(NOW), Status::Invalid, "what was decided stays");
        assert!(!order.accept(1, Method::TlsAlpn, NOW));
        assert_eq!(order.to_json("b", NOW)["error"]["type"], "urn:ietf:params:acme:error:connection");
    }

    #[test]
    fn what_is_given_up_or_too_late_proves_nothing() {
        let mut given_up = order(&["a.test"]);
        given_up.accept(0, Method::Http, NOW);
        given_up.deactivate(0);
        given_up.settle(0, Method::Http, Ok(()), NOW);
        assert_eq!(given_up.status(NOW), Status::Invalid);
        let mut late = order(&["a.test"]);
        late.accept(0, Method::Http, NOW);
        late.settle(0, Method::Http, Ok(()), NOW + LIFETIME);
        assert_eq!(late.status(NOW + LIFETIME), Status::Invalid);
        assert!(!late.accept(0, Method::TlsAlpn, NOW + LIFETIME) && !late.accept(9, Method::Http, NOW));
        let shown = late.authorization_json(0, "b", NOW + LIFETIME).unwrap();
        assert_eq!(shown["status"], "expired");
    }
}
