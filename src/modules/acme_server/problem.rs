//! Why a request is refused: a problem document (RFC 7807) with a type of ACME (RFC 8555 section 6.7).

use std::borrow::Cow;

use serde_json::{Value, json};

use super::identifier::Identifier;

/// Error types of ACME that this CA gives, with the status they come with unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    AccountDoesNotExist,
    AlreadyReplaced,
    AlreadyRevoked,
    BadCsr,
    BadNonce,
    BadPublicKey,
    BadRevocationReason,
    BadSignatureAlgorithm,
    Connection,
    Dns,
    ExternalAccountRequired,
    IncorrectResponse,
    InvalidContact,
    Malformed,
    OrderNotReady,
    RateLimited,
    RejectedIdentifier,
    ServerInternal,
    Tls,
    Unauthorized,
    UnsupportedContact,
    UnsupportedIdentifier,
}

impl Kind {
    const fn facts(self) -> (&'static str, u16) {
        match self {
            Self::AccountDoesNotExist => ("accountDoesNotExist", 400),
            Self::AlreadyReplaced => ("alreadyReplaced", 409),
            Self::AlreadyRevoked => ("alreadyRevoked", 400),
            Self::BadCsr => ("badCSR", 400),
            Self::BadNonce => ("badNonce", 400),
            Self::BadPublicKey => ("badPublicKey", 400),
            Self::BadRevocationReason => ("badRevocationReason", 400),
            Self::BadSignatureAlgorithm => ("badSignatureAlgorithm", 400),
            Self::Connection => ("connection", 400),
            Self::Dns => ("dns", 400),
            Self::ExternalAccountRequired => ("externalAccountRequired", 403),
            Self::IncorrectResponse => ("incorrectResponse", 403),
            Self::InvalidContact => ("invalidContact", 400),
            Self::Malformed => ("malformed", 400),
            Self::OrderNotReady => ("orderNotReady", 403),
            Self::RateLimited => ("rateLimited", 429),
            Self::RejectedIdentifier => ("rejectedIdentifier", 400),
            Self::ServerInternal => ("serverInternal", 500),
            Self::Tls => ("tls", 400),
            Self::Unauthorized => ("unauthorized", 403),
            Self::UnsupportedContact => ("unsupportedContact", 400),
            Self::UnsupportedIdentifier => ("unsupportedIdentifier", 400),
        }
    }
}

/// A problem, and what its answer carries beside it.
#[derive(Debug, Clone)]
pub struct Problem {
    pub kind: Kind,
    pub status: u16,
    /// For a person; public.
    pub detail: Cow<'static, str>,
    /// The identifiers at fault, when they are not all.
    pub at_fault: Vec<(Identifier, Kind, &'static str)>,
    /// Algorithms that would do (with `badSignatureAlgorithm`).
    pub algorithms: bool,
    pub location: Option<String>,
    /// Seconds after which to try again.
    pub retry_after: Option<u64>,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            status: kind.facts().1,
            detail: detail.into(),
            at_fault: Vec::new(),
            algorithms: false,
            location: None,
            retry_after: None,
        }
    }

    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Malformed, detail)
    }

    /// Nothing here, or nothing of this account: which of both is not told.
    pub fn not_found(what: &str) -> Self {
        Self::malformed(format!("there is no such {what} of this account")).status(404)
    }

    /// A fault on our side; the log has its cause.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "the ACME server cannot do its work");
        Self::new(Kind::ServerInternal, "the CA has a fault; its log tells more")
    }

    pub fn limited(detail: impl Into<Cow<'static, str>>, retry_after: u64) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Kind::RateLimited, detail) }
    }

    #[must_use]
    pub fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut out = document(self.kind, &self.detail);
        out["status"] = json!(self.status);
        if self.algorithms {
            out["algorithms"] = json!(super::jwk::ALGORITHMS);
        }
        if !self.at_fault.is_empty() {
            let one = |(identifier, kind, detail): &(Identifier, Kind, &str)| {
                let mut sub = document(*kind, detail);
                sub["identifier"] = json!(identifier);
                sub
            };
            out["subproblems"] = self.at_fault.iter().map(one).collect();
        }
        out
    }
}

fn document(kind: Kind, detail: &str) -> Value {
    json!({"type": format!("urn:ietf:params:acme:error:{}", kind.facts().0), "detail": detail})
}
