//! Why a token does not open: what the log says, what the client is told (RFC 6750 §3).

use http::{HeaderValue, header};

use super::HANDLER;
use crate::http::error::{HandlerError, Refusal};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Missing,
    TooLong,
    Malformed,
    Critical,
    Algorithm,
    UnknownKey,
    Signature,
    NoExpiry,
    Expired,
    NotYet,
    Issuer,
    Audience,
    User,
    /// A claim that `require` asks for.
    Claim,
    /// The issuer's keys could not be fetched, and none are known from before.
    NoKeys,
}

impl Fault {
    /// The log's words, and those for the client: who has no valid token learns little about what is checked.
    const fn words(self) -> (&'static str, &'static str) {
        const INVALID: &str = "The token is not valid.";
        match self {
            Self::Missing => (
                "missing token",
                "You didn't provide a token. Send it in an Authorization header using Bearer auth (Authorization: Bearer YOUR_TOKEN).",
            ),
            Self::TooLong => ("token is too long", INVALID),
            Self::Malformed => ("not a signed JSON Web Token", INVALID),
            Self::Critical => ("token has an extension that must be understood", INVALID),
            Self::Algorithm => ("signature algorithm is not accepted", INVALID),
            Self::UnknownKey => ("no key has the id that the token names", INVALID),
            Self::Signature => ("signature does not verify", INVALID),
            Self::NoExpiry => ("token does not expire", "The token has no expiry."),
            Self::Expired => ("token has expired", "The token has expired."),
            Self::NotYet => ("token is not valid yet", "The token is not valid yet."),
            Self::Issuer => ("token is of another issuer", "The token is of another issuer."),
            Self::Audience => ("token is for another audience", "The token is for another audience."),
            Self::User => ("token does not name its user", "The token does not name its user."),
            Self::Claim => ("token lacks a required claim", "The token does not give the rights that this needs."),
            Self::NoKeys => ("the issuer's keys are not available", "The token cannot be checked at this moment."),
        }
    }
}

impl From<Fault> for HandlerError {
    fn from(fault: Fault) -> Self {
        let (reason, message) = fault.words();
        let (status, code, challenge) = match fault {
            Fault::Missing => (401, Some("invalid_api_key"), "Bearer"),
            Fault::Claim => (403, None, "Bearer error=\"insufficient_scope\""),
            Fault::NoKeys => (503, None, ""),
            Fault::Expired => (401, Some("token_expired"), "Bearer error=\"invalid_token\""),
            _ => (401, Some("invalid_api_key"), "Bearer error=\"invalid_token\""),
        };
        let refusal = Refusal { message: message.into(), code, ..Refusal::default() };
        let mut error = HandlerError::refusal(status, HANDLER.id, refusal);
        error.message = reason.into();
        match challenge {
            "" => error.header(header::RETRY_AFTER, HeaderValue::from_static("5")),
            challenge => error.header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)),
        }
    }
}
