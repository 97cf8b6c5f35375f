//! An OCSP responder's answer, read and verified (RFC 6960 sections 4.2 and 3.2).

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use super::der::{INTEGER, OCTETS, Reader, Value};
use super::{CertId, OcspError};

/// What the CA says of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Good,
    Revoked,
    /// The responder does not know the certificate.
    Unknown,
}

/// A verified answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    pub status: Status,
    pub this_update: OffsetDateTime,
    /// `None`: newer information is available all the time.
    pub next_update: Option<OffsetDateTime>,
}

impl Response {
    /// When to ask again: half way through its life.
    #[must_use]
    pub fn refresh(&self) -> OffsetDateTime {
        self.next_update.map_or(self.this_update, |end| self.this_update + (end - self.this_update) / 2)
    }
}

/// Clocks of responders may be fast.
const SKEW: time::Duration = time::Duration::minutes(5);
/// `id-pkix-ocsp-basic`, DER.
const BASIC: [u8; 9] = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
/// More certificates than this are not looked at.
const MAX_CERTIFICATES: usize = 4;
/// More answers than this are not looked at.
const MAX_RESPONSES: usize = 64;

pub(super) fn read(
    der: &[u8],
    id: &CertId,
    issuer: &CertificateDer<'_>,
    now: OffsetDateTime,
) -> Result<Response, OcspError> {
    let wrong = |what: &str| OcspError(format!("the OCSP answer {what}"));
    let basic = basic(der).ok_or_else(|| wrong("is no answer"))??;
    let signed = Signed::read(basic).ok_or_else(|| wrong("is malformed"))?;
    if !is_authorised(&signed, issuer, now) {
        return Err(wrong("is not signed by the certificate's CA"));
    }
    let responses = responses(signed.content).ok_or_else(|| wrong("is malformed"))?;
    let response = find(responses, id).ok_or_else(|| wrong("is not about this certificate"))?;
    if response.this_update > now + SKEW {
        return Err(wrong("is from the future; is the clock of this machine right?"));
    }
    if response.next_update.is_some_and(|end| end <= now) {
        return Err(wrong("has expired"));
    }
    Ok(response)
}

/// Whether somebody could still staple it, whatever certificate it is about and whoever signed it.
pub fn is_of_use(der: &[u8], now: OffsetDateTime) -> bool {
    let latest = || {
        let signed = Signed::read(basic(der)?.ok()?)?;
        let mut all = responses(signed.content)?;
        let ends = std::iter::from_fn(|| next(&mut all)).take(MAX_RESPONSES);
        ends.filter_map(|(_, response)| response.next_update).max()
    };
    latest().is_some_and(|end| end > now)
}

/// The answer inside; an error when the responder refuses to answer.
fn basic(der: &[u8]) -> Option<Result<&[u8], OcspError>> {
    let mut outer = Reader(der).sequence()?;
    match outer.universal(0x0a)?.content {
        [0] => {}
        [code] => return Some(Err(OcspError(format!("the OCSP responder refuses to answer (code {code})")))),
        _ => return None,
    }
    let mut bytes = Reader(outer.context(0)?.content).sequence()?;
    if bytes.universal(0x06)?.content != BASIC {
        return None;
    }
    Some(Ok(bytes.universal(OCTETS)?.content))
}

/// Something signed: a certificate, or an answer.
struct Signed<'a> {
    /// What is signed, with tag and length.
    whole: &'a [u8],
    /// Without them.
    content: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    rest: Reader<'a>,
}

impl<'a> Signed<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let mut outer = Reader(der).sequence()?;
        let Value { content, whole, .. } = outer.universal(0x30)?;
        let algorithm = outer.universal(0x30)?.content;
        let signature = outer.bits()?;
        Some(Self { whole, content, algorithm, signature, rest: outer })
    }

    /// Whether the key of the certificate made the signature, by an algorithm that we would accept of a server.
    fn is_by(&self, certificate: &[u8]) -> bool {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return false };
        let key = || {
            let mut key = Reader(certificate.public_key().raw).sequence()?;
            Some((key.universal(0x30)?.content, key.bits()?))
        };
        let Some((key_algorithm, key)) = key() else { return false };
        let known = aws_lc_rs::default_provider().signature_verification_algorithms.all;
        known.iter().any(|known| {
            *known.public_key_alg_id() == *key_algorithm
                && *known.signature_alg_id() == *self.algorithm
                && known.verify_signature(key, self.whole, self.signature).is_ok()
        })
    }

    /// Certificates that come with an answer, DER.
    fn certificates(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.rest;
        let mut all = rest.context(0).and_then(|value| Reader(value.content).sequence());
        std::iter::from_fn(move || all.as_mut()?.next().map(|value| value.whole)).take(MAX_CERTIFICATES)
    }
}

/// Signed by the issuer itself, or by one whom the issuer made its responder.
fn is_authorised(signed: &Signed<'_>, issuer: &CertificateDer<'_>, now: OffsetDateTime) -> bool {
    signed.is_by(issuer)
        || signed.certificates().any(|delegate| {
            is_responder(delegate, now)
                && Signed::read(delegate).is_some_and(|certificate| certificate.is_by(issuer))
                && signed.is_by(delegate)
        })
}

fn is_responder(certificate: &[u8], now: OffsetDateTime) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let validity = certificate.validity();
    let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    (from..until).contains(&now.unix_timestamp())
        && certificate.extended_key_usage().is_ok_and(|usage| usage.is_some_and(|usage| usage.value.ocsp_signing))
}

/// `ResponseData`: those about single certificates.
fn responses(data: &[u8]) -> Option<Reader<'_>> {
    let mut data = Reader(data);
    // A version; then the responder, by name (1) or key (2).
    let _ = data.context(0);
    data.context(1).or_else(|| data.context(2))?;
    data.time()?;
    data.sequence()
}

fn find(mut responses: Reader<'_>, wanted: &CertId) -> Option<Response> {
    let wanted = [&*wanted.name_hash, &*wanted.key_hash, &*wanted.serial];
    let mut all = std::iter::from_fn(|| next(&mut responses)).take(MAX_RESPONSES);
    all.find(|(id, _)| *id == wanted).map(|(_, response)| response)
}

/// The next answer about a single certificate, with its name hash, key hash and serial number.
fn next<'a>(responses: &mut Reader<'a>) -> Option<([&'a [u8]; 3], Response)> {
    let mut single = responses.sequence()?;
    let mut id = single.sequence()?;
    let _algorithm = id.sequence()?;
    let id = [id.universal(OCTETS)?.content, id.universal(OCTETS)?.content, id.universal(INTEGER)?.content];
    let status = if single.context(0).is_some() {
        Status::Good
    } else if single.context(1).is_some() {
        Status::Revoked
    } else {
        single.context(2)?;
        Status::Unknown
    };
    let this_update = single.time()?;
    let next_update = match single.context(0) {
        Some(value) => Some(Reader(value.content).time()?),
        None => None,
    };
    Some((id, Response { status, this_update, next_update }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::ocsp::Query;
    use rustls::pki_types::pem::PemObject;

    /// Made by `openssl ocsp` for the certificates beside it.
    fn fixture(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/ocsp/");
        std::fs::read(format!("{folder}{name}")).unwrap()
    }

    fn query() -> Query {
        let pem = [fixture("leaf.crt"), fixture("root.crt")].concat();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).map(Result::unwrap).collect();
        Query::of(&chain).unwrap()
    }

    /// A moment at which the answers of the fixtures are good.
    fn then(answer: &[u8]) -> OffsetDateTime {
        let signed = Signed::read(basic(answer).unwrap().unwrap()).unwrap();
        let mut data = Reader(signed.content);
        data.context(1).or_else(|| data.context(2)).unwrap();
        data.time().unwrap()
    }

    #[test]
    fn answers_of_the_issuer_and_its_delegate_are_read() {
        let query = query();
        assert_eq!(query.responder, "http://127.0.0.1:9080/ocsp");
        for (name, status) in [
            ("good", Status::Good),
            ("revoked", Status::Revoked),
            ("unknown", Status::Unknown),
            ("delegate", Status::Good),
        ] {
            let answer = fixture(&format!("{name}.der"));
            let now = then(&answer);
            let read = query.read(&answer, now).unwrap();
            assert_eq!(read.status, status, "{name}");
            assert_eq!(read.refresh(), read.this_update + time::Duration::hours(12), "{name}");
            let late = query.read(&answer, now + time::Duration::hours(25)).unwrap_err();
            assert!(late.to_string().contains("has expired"), "{late}");
            let early = query.read(&answer, now - time::Duration::hours(1)).unwrap_err();
            // The delegate itself is of the same moment.
            let wanted = if name == "delegate" { "not signed by" } else { "from the future" };
            assert!(early.to_string().contains(wanted), "{early}");
        }
    }

    #[test]
    fn an_answer_is_of_use_until_its_end() {
        let answer = fixture("good.der");
        let now = then(&answer);
        assert!(is_of_use(&answer, now + time::Duration::hours(23)));
        assert!(!is_of_use(&answer, now + time::Duration::hours(25)));
        assert!(!is_of_use(&answer[..answer.len() / 2], now) && !is_of_use(b"", now));
    }

    #[test]
    fn answers_of_strangers_are_refused() {
        let query = query();
        for (name, wanted) in [("stranger", "not signed by"), ("other", "not about"), ("undelegated", "not signed by")]
        {
            let answer = fixture(&format!("{name}.der"));
            let why = query.read(&answer, then(&answer)).unwrap_err().to_string();
            assert!(why.contains(wanted), "{name}: {why}");
        }
        let refusal = query.read(&[0x30, 0x03, 0x0a, 0x01, 0x06], OffsetDateTime::UNIX_EPOCH).unwrap_err();
        assert!(refusal.to_string().contains("code 6"), "{refusal}");
    }

    /// Every byte changed, and every end cut off: no panic, and never an answer.
    #[test]
    fn damaged_answers_are_refused() {
        let (query, answer) = (query(), fixture("good.der"));
        let now = then(&answer);
        for at in 0..answer.len() {
            assert!(query.read(&answer[..at], now).is_err(), "cut at {at}");
            let mut changed = answer.clone();
            changed[at] ^= 0x41;
            assert!(query.read(&changed, now).is_err(), "changed at {at}");
        }
    }
}
