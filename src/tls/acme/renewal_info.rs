//! When a CA would like a certificate to be renewed (ARI, RFC 9773): asked for without an account, kept beside the
//! certificate in Caddy's form.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Request;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::extensions::ParsedExtension;

use super::directory::Directory;
use super::http::{Http, retry_after};
use super::{AcmeError, directory};
use crate::config::tls_types::AcmeIssuer;

/// Asked again after this when the CA does not say (RFC 9773 section 4.3.2 calls for about six hours).
const ASK_AGAIN: Duration = Duration::from_hours(6);
/// What a CA says is kept within these: it may neither be pestered nor forgotten.
const ASK_AGAIN_AT_LEAST: Duration = Duration::from_mins(1);
const ASK_AGAIN_AT_MOST: Duration = Duration::from_hours(24);

/// What was told, with the moment chosen from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalInfo {
    #[serde(rename = "suggestedWindow")]
    pub window: Window,
    #[serde(default, rename = "explanationURL", skip_serializing_if = "String::is_empty")]
    pub explanation_url: String,
    /// Not to be asked again before.
    #[serde(default = "long_ago", rename = "_retryAfter", with = "moment")]
    pub ask_again: OffsetDateTime,
    /// Chosen once at random within the window: all clients of a CA must not come at one moment.
    #[serde(default = "long_ago", rename = "_selectedTime", with = "moment")]
    pub selected: OffsetDateTime,
    /// Of the certificate that it is about.
    #[serde(default, rename = "_uniqueIdentifier")]
    pub identifier: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    #[serde(with = "moment")]
    pub start: OffsetDateTime,
    #[serde(with = "moment")]
    pub end: OffsetDateTime,
}

fn long_ago() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH
}

mod moment {
    use super::{OffsetDateTime, Rfc3339};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

    pub fn serialize<S: Serializer>(time: &OffsetDateTime, s: S) -> Result<S::Ok, S::Error> {
        time.format(&Rfc3339).map_err(ser::Error::custom)?.serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<OffsetDateTime, D::Error> {
        OffsetDateTime::parse(&String::deserialize(d)?, &Rfc3339).map_err(de::Error::custom)
    }
}

/// `base64url(key identifier of the authority) "." base64url(serial number)` (RFC 9773 section 4.1); `None` for a
/// certificate that does not name its authority's key.
#[must_use]
pub fn identifier(leaf: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let authority = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(key) => key.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })?;
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    Some(format!("{}.{}", encode(authority), encode(certificate.raw_serial())))
}

/// Asks the CA; `None` when it has no such service. What it told before keeps its chosen moment while the window stays.
pub async fn ask(
    issuer: &AcmeIssuer,
    leaf: &CertificateDer<'_>,
    before: Option<&RenewalInfo>,
) -> Result<Option<RenewalInfo>, AcmeError> {
    let Some(identifier) = identifier(leaf) else { return Ok(None) };
    let http = Http::new(issuer)?;
    let Some(service) = Directory::fetch(directory(issuer), &http).await?.renewal_info else { return Ok(None) };
    let failed = |e: String| AcmeError::new("asking when to renew", e);
    let url = format!("{}/{identifier}", service.trim_end_matches('/'));
    let request = Request::get(url).body(Bytes::new()).map_err(|e| failed(e.to_string()))?;
    let answer = http.send(request).await.map_err(failed)?;
    if !answer.status().is_success() {
        return Err(failed(format!("status {}", answer.status().as_u16())));
    }
    let wait = retry_after(answer.headers(), SystemTime::now());
    let told: Told = serde_json::from_slice(answer.body()).map_err(|e| failed(e.to_string()))?;
    let now = OffsetDateTime::now_utc();
    told.taken(identifier, wait, before, now, fastrand::f64()).map(Some).ok_or_else(|| failed("no window".into()))
}

/// The answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    suggested_window: Window,
    #[serde(default, rename = "explanationURL")]
    explanation_url: String,
}

impl Told {
    /// `random`: from 0 to 1. `None` for a window that ends before it starts (to be ignored, RFC 9773 section 4.2).
    fn taken(
        self,
        identifier: String,
        wait: Option<Duration>,
        before: Option<&RenewalInfo>,
        now: OffsetDateTime,
        random: f64,
    ) -> Option<RenewalInfo> {
        let window = self.suggested_window;
        let length = window.end - window.start;
        if length <= time::Duration::ZERO {
            return None;
        }
        let kept = before.filter(|b| b.identifier == identifier && b.window == window && b.selected >= window.start);
        let selected = kept.map_or_else(|| window.start + length * random, |before| before.selected);
        let wait = wait.unwrap_or(ASK_AGAIN).clamp(ASK_AGAIN_AT_LEAST, ASK_AGAIN_AT_MOST);
        Some(RenewalInfo { window, explanation_url: self.explanation_url, ask_again: now + wait, selected, identifier })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        serde_json::from_str(
            r#"{"suggestedWindow": {"start": "2026-01-02T04:00:00Z", "end": "2026-01-03T04:00:00Z"},
                "explanationURL": "https://ca.test/why"}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_moment_in_the_window_is_chosen_once() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let first = told().taken("a.b".into(), None, None, now, 0.25).unwrap();
        assert_eq!(first.selected, first.window.start + time::Duration::hours(6));
        assert_eq!(first.ask_again, now + ASK_AGAIN);
        let again = told().taken("a.b".into(), Some(Duration::ZERO), Some(&first), now, 0.9).unwrap();
        assert_eq!((again.selected, again.ask_again), (first.selected, now + ASK_AGAIN_AT_LEAST));
        // Another certificate, another moment.
        let other = told().taken("a.c".into(), Some(Duration::MAX), Some(&first), now, 1.0).unwrap();
        assert_eq!((other.selected, other.ask_again), (other.window.end, now + ASK_AGAIN_AT_MOST));
        let mut backwards = told();
        std::mem::swap(&mut backwards.suggested_window.start, &mut backwards.suggested_window.end);
        assert!(backwards.taken(String::new(), None, None, now, 0.5).is_none());
    }

    #[test]
    fn it_is_kept_as_caddy_keeps_it() {
        let info = told().taken("a.b".into(), None, None, OffsetDateTime::UNIX_EPOCH, 0.0).unwrap();
        let json = serde_json::to_value(&info).unwrap();
        let wanted = serde_json::json!({
            "suggestedWindow": {"start": "2026-01-02T04:00:00Z", "end": "2026-01-03T04:00:00Z"},
            "explanationURL": "https://ca.test/why", "_retryAfter": "1970-01-01T06:00:00Z",
            "_selectedTime": "2026-01-02T04:00:00Z", "_uniqueIdentifier": "a.b",
        });
        assert_eq!(json, wanted);
        assert_eq!(serde_json::from_value::<RenewalInfo>(json).unwrap(), info);
    }

    /// The example of RFC 9773 section 4.1 has this serial number and key identifier.
    #[test]
    fn certificates_are_named_by_their_authority_and_number() {
        let (key, authority) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let mut ca = rcgen::CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![
            0x69, 0x88, 0x5B, 0x6B, 0x87, 0x46, 0x40, 0x41, 0xE1, 0xB3, 0x7B, 0x84, 0x7B, 0xA0, 0xAE, 0x2C, 0xDE, 0x01,
            0xC8, 0xD4,
        ]);
        let ca = rcgen::CertifiedIssuer::self_signed(ca, authority).unwrap();
        let mut leaf = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        leaf.serial_number = Some(rcgen::SerialNumber::from(vec![0x87, 0x65, 0x43, 0x21]));
        leaf.use_authority_key_identifier_extension = true;
        let made = leaf.signed_by(&key, &ca).unwrap();
        assert_eq!(identifier(made.der()).as_deref(), Some("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"));
        let alone = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        assert_eq!(identifier(alone.cert.der()), None);
    }
}
