//! Keeps OCSP answers stapled to certificates: asked for when a certificate comes, again half way through an answer's
//! life, kept in the storage where Caddy keeps them. No failure stops a certificate from being served.

use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;

use super::source::Source;
use crate::storage::FileStorage;
use crate::storage::key::safe;
use crate::tls::automation::Stapling;
use crate::tls::certificate::Certificate;
use crate::tls::ocsp::{Query, Response, Status};

/// Longest that a responder may take.
const LIMIT: Duration = Duration::from_secs(15);

/// What came of looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No responder, or none that may be asked.
    Nothing,
    Good,
    Revoked,
    /// No answer that can be used; what is stapled already stays until its end.
    Unanswered,
}

/// Looks after the certificate of a name for ever: a revoked one is replaced.
pub async fn of_name(name: &str, source: &Source) {
    let Some(stapling) = &source.automation.stapling else { return };
    loop {
        if let Some(certificate) = source.store.certificate(name) {
            let standing = refresh(&certificate, stapling, &source.plan.storage).await;
            if standing == Standing::Revoked {
                source.replace_revoked(name, &certificate);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(source.plan.ocsp_interval) => {}
            () = source.served_another.notified() => {}
        }
    }
}

/// Looks after a certificate of the admin's for ever.
pub async fn of_loaded(certificate: Certificate, storage: FileStorage, interval: Duration) {
    loop {
        if refresh(&certificate, &Stapling::default(), &storage).await == Standing::Revoked {
            tracing::error!(names = certificate.names.join(", "), "the CA has revoked this certificate: give another");
        }
        tokio::time::sleep(interval).await;
    }
}

/// Staples what is kept, if it is good for now: to be done before a certificate is served.
pub fn staple_kept(certificate: &Certificate, storage: &FileStorage) {
    let now = OffsetDateTime::now_utc();
    if let Some((query, (answer, read))) = Query::of(&certificate.key.cert)
        .and_then(|query| kept(&query, certificate, storage, now).map(|kept| (query, kept)))
    {
        tracing::debug!(responder = query.responder, "a kept OCSP answer is stapled");
        staple(certificate, &answer, &read);
    }
}

/// Staples a fresh answer, from the storage or the responder.
pub async fn refresh(certificate: &Certificate, stapling: &Stapling, storage: &FileStorage) -> Standing {
    let now = OffsetDateTime::now_utc();
    let Some(query) = Query::of(&certificate.key.cert) else { return Standing::Nothing };
    let responder = stapling.overrides.get(&query.responder).unwrap_or(&query.responder);
    if responder.is_empty() || certificate.validity.is_expired(now) {
        return Standing::Nothing;
    }
    if let Some((answer, read)) = kept(&query, certificate, storage, now).filter(|(_, read)| read.refresh() > now) {
        staple(certificate, &answer, &read);
        return Standing::Good;
    }
    let asked = tokio::time::timeout(LIMIT, query.ask(responder, now)).await;
    let why = match asked {
        Ok(Ok((answer, read))) => match read.status {
            Status::Good if read.next_update.is_some_and(|end| end > certificate.validity.not_after) => {
                "the OCSP answer outlives the certificate".to_owned()
            }
            Status::Good => {
                staple(certificate, &answer, &read);
                if let Err(error) = storage.store(&key(certificate), &answer) {
                    tracing::debug!(%error, "the OCSP answer is not kept: it will be asked for after a restart");
                }
                return Standing::Good;
            }
            Status::Revoked => {
                certificate.unstaple();
                return Standing::Revoked;
            }
            Status::Unknown => "the OCSP responder does not know the certificate".to_owned(),
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the OCSP responder did not answer in time".to_owned(),
    };
    tracing::warn!(names = certificate.names.join(", "), responder, why, "no OCSP answer to staple");
    if certificate.stapled_until().is_some_and(|end| end <= now) {
        certificate.unstaple();
    }
    Standing::Unanswered
}

fn staple(certificate: &Certificate, answer: &[u8], read: &Response) {
    certificate.staple(answer, read.next_update.unwrap_or(certificate.validity.not_after));
}

/// The answer in the storage, if it says "good" and is of now.
fn kept(
    query: &Query,
    certificate: &Certificate,
    storage: &FileStorage,
    now: OffsetDateTime,
) -> Option<(Bytes, Response)> {
    let answer = storage.load(&key(certificate)).ok()??;
    let read = query.read(&answer, now).ok().filter(|read| read.status == Status::Good)?;
    Some((answer.into(), read))
}

/// `ocsp/NAME-HASH`, the FNV-1a hash of the chain in PEM, as Caddy has it.
fn key(certificate: &Certificate) -> String {
    let name = certificate.names.first().map(|name| safe(name) + "-").unwrap_or_default();
    let mut hash: u32 = 0x811c_9dc5;
    for der in &certificate.key.cert {
        let pem = pem(der);
        for byte in pem.bytes() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }
    format!("ocsp/{name}{hash:x}")
}

/// A certificate in PEM, as Go's encoder writes it: lines of 64.
fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_is_written_as_go_writes_it() {
        let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        let wanted = made.cert.pem().replace("\r\n", "\n");
        assert_eq!(pem(made.cert.der()), wanted);
    }

    #[test]
    fn a_certificate_that_names_no_responder_has_nothing_stapled() {
        let (folder, made) =
            (tempfile::tempdir().unwrap(), rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap());
        let (chain, key) = (made.cert.pem().repeat(2), made.signing_key.serialize_pem());
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes(), vec![]).unwrap();
        let storage = FileStorage::new(folder.path());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let standing = runtime.block_on(refresh(&certificate, &Stapling::default(), &storage));
        assert_eq!(standing, Standing::Nothing);
        assert!(certificate.served().ocsp.is_none());
    }
}
