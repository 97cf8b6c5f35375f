//! Certificates that were issued: fetched, revoked (RFC 8555 sections 7.4.2 and 7.6), and when to renew them (RFC 9773).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;

use super::ca::Ca;
use super::identifier::Identifier;
use super::order::{Order, Status, date};
use super::problem::{Kind, Problem};
use super::request::{Asked, Reply};
use super::store::{Account, Issued, Revoked};
use crate::base::hex::hex;

/// Reasons that a client may give (RFC 5280 section 5.3.1): none, a lost key, another affiliation, replaced, out of use,
/// rights withdrawn.
const REASONS: [u8; 6] = [0, 1, 3, 4, 5, 9];
/// Seconds after which a client asks again when to renew: at most six hours, as CAs on the internet say.
const MAX_RETRY: i64 = 6 * 3600;
const MIN_RETRY: i64 = 1;

#[derive(Deserialize)]
struct Revoke {
    certificate: String,
    reason: Option<u8>,
}

impl Ca {
    pub fn certificate(&self, asked: &Asked, serial: &str) -> Result<Reply, Problem> {
        let (account, signed) = self.by_account(asked)?;
        signed.get_only()?;
        let issued = self.state.store.certificate(serial)?.filter(|issued| issued.account == account.id);
        Ok(Reply::pem(issued.ok_or_else(|| Problem::not_found("certificate"))?.chain))
    }

    /// By the account that has it, by one that has proved all its names, or by its own key.
    pub fn revoke(&self, asked: &Asked) -> Result<Reply, Problem> {
        let signed = self.signed(asked)?;
        let wanted: Revoke = signed.read()?;
        let der = URL_SAFE_NO_PAD.decode(&wanted.certificate);
        let der = der.map_err(|_| Problem::malformed("the certificate is not base64url of DER"))?;
        let reason = wanted.reason.unwrap_or(0);
        if !REASONS.contains(&reason) {
            return Err(Problem::new(Kind::BadRevocationReason, format!("reasons that may be given are {REASONS:?}")));
        }
        let foreign = || Problem::malformed("the certificate is not one of this CA that is still good").status(404);
        let (_, shown) = x509_parser::parse_x509_certificate(&der).map_err(|_| foreign())?;
        let _turn = self.state.turn();
        let issued = match self.state.store.certificate(&hex(shown.raw_serial())) {
            Ok(found) => found.filter(|issued| leaf(issued).is_some_and(|leaf| leaf.as_ref() == der)),
            Err(problem) if problem.status == 404 => None,
            Err(problem) => return Err(problem),
        };
        let mut issued = issued.ok_or_else(foreign)?;
        let may = match &signed.account {
            Some(account) => issued.account == account.id || self.has_proved(account, &issued, asked.seconds())?,
            None => signed.key.is(shown.public_key()),
        };
        if !may {
            return Err(Problem::new(Kind::Unauthorized, "the certificate is neither this account's nor of this key"));
        }
        if issued.revoked.is_some() {
            return Err(Problem::new(Kind::AlreadyRevoked, "the certificate is revoked already"));
        }
        issued.revoked = Some(Revoked { at: asked.seconds(), reason });
        self.state.store.keep_certificate(&issued)?;
        tracing::info!(ca = self.settings.ca, serial = issued.serial, reason, "certificate revoked over ACME");
        Ok(Reply::empty(200))
    }

    /// Whether the account has proved each name of a certificate and may still say so.
    fn has_proved(&self, account: &Account, issued: &Issued, now: i64) -> Result<bool, Problem> {
        let mut left: Vec<&Identifier> = issued.identifiers.iter().collect();
        for id in self.state.store.orders(&account.id)? {
            let Some(order) = self.state.store.order(&account.id, &id)?.filter(|order| !order.is_expired(now)) else {
                continue;
            };
            left.retain(|wanted| !proves(&order, wanted));
        }
        Ok(left.is_empty())
    }

    /// When a certificate should be renewed. Asked without a signature: it tells nothing that its holder must hide.
    pub fn renewal_info(&self, id: &str, now: i64) -> Result<Reply, Problem> {
        let issued = self.by_renewal_id(id)?.ok_or_else(|| Problem::not_found("certificate"))?;
        let life = issued.not_after - issued.not_before;
        let (start, end) = match &issued.revoked {
            Some(revoked) => (revoked.at - 3600, revoked.at),
            None => {
                let start = issued.not_before + life * 2 / 3;
                (start, start + (life / 12).max(1))
            }
        };
        let retry = (life / 24).clamp(MIN_RETRY, MAX_RETRY).min((issued.not_after - now).max(MIN_RETRY));
        let value = json!({"suggestedWindow": {"start": date(start), "end": date(end)}});
        Ok(Reply::json(200, value).retry_after(retry.unsigned_abs()))
    }

    /// The certificate that an order says to replace.
    pub fn replaceable(&self, id: &str, account: &Account, names: &[Identifier], now: i64) -> Result<Issued, Problem> {
        let issued = self.by_renewal_id(id)?.filter(|issued| issued.account == account.id);
        let issued = issued.ok_or_else(|| Problem::not_found("certificate"))?;
        if !issued.identifiers.iter().any(|name| names.contains(name)) {
            return Err(Problem::malformed("the order shares no name with the certificate that it replaces"));
        }
        if let Some(order) = &issued.replaced_by
            && let Some(order) = self.state.store.order(&account.id, order)?
            && order.status(now) != Status::Invalid
        {
            return Err(Problem::new(Kind::AlreadyReplaced, "another order replaces the certificate already"));
        }
        Ok(issued)
    }

    /// RFC 9773 section 4.1: key identifier of the signer and serial number, each base64url.
    fn by_renewal_id(&self, id: &str) -> Result<Option<Issued>, Problem> {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map(|bytes| hex(&bytes)).ok();
        let parts = id.split_once('.').and_then(|(key, serial)| Some((decode(key)?, decode(serial)?)));
        let (key, serial) = parts.ok_or_else(|| Problem::malformed("this is not the id of a certificate"))?;
        match self.state.store.certificate(&serial) {
            Ok(found) => Ok(found.filter(|issued| issued.authority_key == key)),
            Err(problem) if problem.status == 404 => Ok(None),
            Err(problem) => Err(problem),
        }
    }
}

fn proves(order: &Order, wanted: &Identifier) -> bool {
    let name = wanted.wildcard().unwrap_or(&wanted.value);
    order.authorizations.iter().any(|authorization| {
        authorization.status == Status::Valid
            && authorization.identifier.r#type == wanted.r#type
            && authorization.identifier.value == name
            && authorization.wildcard == wanted.wildcard().is_some()
    })
}

fn leaf(issued: &Issued) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(issued.chain.as_bytes()).ok()
}
