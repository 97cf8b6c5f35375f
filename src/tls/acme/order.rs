//! One order: made or resumed, its challenges answered, finalised, and the certificate taken.
//!
//! Its URL and key are kept until the certificate is here: a process that dies in between resumes it, instead of
//! costing another order.

use std::time::Duration;

use http::header;
use instant_acme::{
    AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier as AcmeIdentifier, NewOrder, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::account::Opened;
use super::challenge::{Board, Challenge, Identifier, Kind, Open};
use super::directory::Directory;
use super::http::Http;
use super::signed::Signer;
use super::{AcmeError, Surroundings, chains, directory, dns};
use crate::config::tls_types::AcmeIssuer;
use crate::storage::key::safe;
use crate::tls::authority::Issued;
use crate::tls::subject::parse_ip;

/// How long a CA may take to look at a challenge, and to sign.
const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_mins(2));

/// How often an order is resumed: one that a CA never finishes must not be waited for for ever.
const RESUMES: u32 = 2;
/// "TLS feature" (RFC 7633): the certificate is good with a stapled OCSP response alone.
const TLS_FEATURE: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 24];
/// A sequence of the one number 5, `status_request`.
const STATUS_REQUEST: [u8; 5] = [0x30, 0x03, 0x02, 0x01, 0x05];

/// Answers to challenges, for as long as the CA may ask.
#[derive(Default)]
struct Held {
    open: Vec<Open>,
    records: Vec<dns::Standing>,
}

impl Held {
    /// Dropped instead, records are cleared in the background.
    async fn let_go(self) {
        for record in self.records {
            record.clear().await;
        }
    }
}

/// An order as it is kept. Holds a private key: no `Debug`.
#[derive(Serialize, Deserialize)]
struct Kept {
    order: String,
    /// PEM.
    private_key: String,
    #[serde(default)]
    resumed: u32,
}

pub struct Order<'a> {
    pub account: &'a Opened,
    pub issuer: &'a AcmeIssuer,
    pub issuer_key: &'a str,
    pub name: &'a str,
    pub around: &'a Surroundings<'a>,
    pub http: &'a Http,
}

impl Order<'_> {
    /// Goes the whole way with one kind of challenge.
    pub async fn run(&self, kind: Kind) -> Result<Issued, AcmeError> {
        let (mut order, key) = self.open().await?;
        let result = self.complete(&mut order, kind, &key).await;
        // Done, or of no use any more.
        let _ = self.around.storage.delete(&self.kept_as());
        Ok(Issued { chain: result?, key: key.serialize_pem() })
    }

    fn kept_as(&self) -> String {
        format!("acme/{}/orders/{}.json", self.issuer_key, safe(self.name))
    }

    async fn open(&self) -> Result<(instant_acme::Order, KeyPair), AcmeError> {
        if let Some(resumed) = self.resume().await {
            return Ok(resumed);
        }
        let order = match self.place(self.around.replaces.as_deref()).await {
            // The CA may have lost count of what replaces what: that must not cost the certificate.
            Err(error) if self.around.replaces.is_some() && self.http.retry_after().is_none() => {
                tracing::debug!(name = self.name, %error, "no order in place of the certificate in use: a plain one is made");
                self.place(None).await?
            }
            placed => placed?,
        };
        let key = match &self.around.key {
            Some(pem) => KeyPair::from_pem(pem),
            None => self.around.key_type.generate(),
        };
        let key = key.map_err(|e| AcmeError::new("making a key", e))?;
        self.keep(&Kept { order: order.url().to_owned(), private_key: key.serialize_pem(), resumed: 0 });
        Ok((order, key))
    }

    async fn place(&self, replaces: Option<&str>) -> Result<instant_acme::Order, AcmeError> {
        let failed = |e| AcmeError::new("making an order", e);
        let account = &self.account.account;
        if let Some(lifetime) = self.issuer.certificate_lifetime.positive() {
            let url = self.place_until(OffsetDateTime::now_utc() + lifetime, replaces).await?;
            return account.order(url).await.map_err(failed);
        }
        let identifiers = [match parse_ip(self.name) {
            Some(ip) => AcmeIdentifier::Ip(ip),
            None => AcmeIdentifier::Dns(self.name.to_owned()),
        }];
        let mut new = NewOrder::new(&identifiers);
        if !self.issuer.profile.is_empty() {
            new = new.profile(&self.issuer.profile);
        }
        if let Some((authority, serial)) = replaces.and_then(|id| id.split_once('.')) {
            new = new
                .replaces(CertificateIdentifier { authority_key_identifier: authority.into(), serial: serial.into() });
        }
        account.new_order(&new).await.map_err(failed)
    }

    /// An order for a certificate with an end of its own, which the protocol's library cannot make; its URL.
    async fn place_until(&self, not_after: OffsetDateTime, replaces: Option<&str>) -> Result<String, AcmeError> {
        let failed = |e: String| AcmeError::new("making an order", e);
        let is_ip = parse_ip(self.name).is_some();
        let not_after = not_after.replace_nanosecond(0).unwrap_or(not_after).format(&Rfc3339);
        let mut payload = json!({
            "identifiers": [{"type": if is_ip { "ip" } else { "dns" }, "value": self.name}],
            "notAfter": not_after.map_err(|e| failed(e.to_string()))?,
        });
        let told = [("profile", Some(self.issuer.profile.as_str()).filter(|p| !p.is_empty())), ("replaces", replaces)];
        for (field, value) in told {
            if let Some(value) = value {
                payload[field] = value.into();
            }
        }
        let offered = Directory::fetch(directory(self.issuer), self.http).await?;
        let signer = self.signer(&offered)?;
        let answer = signer.post(&offered.new_order, Some(&payload)).await.map_err(|e| failed(e.to_string()))?;
        let url = answer.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
        url.map(str::to_owned).ok_or_else(|| failed("the CA does not say where it is".into()))
    }

    fn signer(&self, offered: &Directory) -> Result<Signer, AcmeError> {
        Signer::new(&self.account.key, self.account.account.id(), offered.new_nonce.clone(), self.http)
    }

    fn keep(&self, kept: &Kept) {
        let stored = serde_json::to_vec(kept)
            .map_err(std::io::Error::from)
            .and_then(|v| self.around.storage.store(&self.kept_as(), &v));
        if let Err(error) = stored {
            tracing::debug!(%error, "the order is not kept: after a crash another will be made");
        }
    }

    /// The order that a process before us left, if the CA still knows it as open.
    async fn resume(&self) -> Option<(instant_acme::Order, KeyPair)> {
        let value = self.around.storage.load(&self.kept_as()).ok()??;
        let mut kept: Kept = serde_json::from_slice(&value).ok()?;
        if kept.resumed >= RESUMES {
            return None;
        }
        kept.resumed += 1;
        self.keep(&kept);
        let key = KeyPair::from_pem(&kept.private_key).ok()?;
        let mut order = self.account.account.order(kept.order).await.ok()?;
        if order.state().status == OrderStatus::Invalid {
            return None;
        }
        tracing::info!(name = self.name, "an order left open is resumed");
        Some((order, key))
    }

    async fn complete(&self, order: &mut instant_acme::Order, kind: Kind, key: &KeyPair) -> Result<String, AcmeError> {
        if order.state().status == OrderStatus::Pending {
            let held = self.answer(order, kind).await?;
            let status = order.poll_ready(&PATIENCE).await;
            held.let_go().await;
            if !matches!(status, Ok(OrderStatus::Ready)) {
                let why = self.why_invalid(order).await;
                let said = status.err().map_or_else(|| "the CA refused".to_owned(), |e| e.to_string());
                return Err(AcmeError::new(kind.name(), why.unwrap_or(said)));
            }
        }
        if order.state().status == OrderStatus::Ready {
            let csr = self.csr(key)?;
            order.finalize_csr(&csr).await.map_err(|e| AcmeError::new("finalising the order", e))?;
        }
        let chain =
            order.poll_certificate(&PATIENCE).await.map_err(|e| AcmeError::new("waiting for the certificate", e))?;
        Ok(self.choose(chain).await)
    }

    /// The chain that the configuration prefers, if the CA offers several; a chain that is not to be had is no reason to
    /// go without a certificate.
    async fn choose(&self, first: String) -> String {
        let alternates = self.http.alternates();
        let Some(preference) = self.issuer.preferred_chains.as_ref().filter(|_| !alternates.is_empty()) else {
            return first;
        };
        let mut all = vec![first.clone()];
        match Directory::fetch(directory(self.issuer), self.http).await.and_then(|offered| self.signer(&offered)) {
            Ok(signer) => {
                for url in &alternates {
                    match signer.post(url, None).await.map(|answer| String::from_utf8(answer.into_body().to_vec())) {
                        Ok(Ok(chain)) => all.push(chain),
                        Ok(Err(_)) => tracing::warn!(name = self.name, "a chain that the CA offers is not text"),
                        Err(error) => {
                            tracing::warn!(name = self.name, %error, "a chain that the CA offers is not to be had");
                        }
                    }
                }
            }
            Err(error) => tracing::warn!(name = self.name, %error, "other chains of the CA are not to be had"),
        }
        chains::preferred(all, preference).unwrap_or(first)
    }

    /// Puts up the answers of all open authorisations and tells the CA to look.
    async fn answer(&self, order: &mut instant_acme::Order, kind: Kind) -> Result<Held, AcmeError> {
        let mut held = Held::default();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|e| AcmeError::new("reading an authorisation", e))?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let wanted = match kind {
                Kind::Http => ChallengeType::Http01,
                Kind::TlsAlpn => ChallengeType::TlsAlpn01,
                Kind::Dns => ChallengeType::Dns01,
            };
            let Some(mut challenge) = authorization.challenge(wanted) else {
                return Err(AcmeError::new(kind.name(), "the CA does not offer this challenge"));
            };
            if let (Kind::Dns, Some(settings)) = (kind, dns::of(self.issuer)) {
                let value = challenge.key_authorization().dns_value();
                held.records.push(dns::present(settings, self.name, value).await?);
                challenge.set_ready().await.map_err(|e| AcmeError::new("starting the challenge", e))?;
                continue;
            }
            let is_ip = parse_ip(self.name).is_some();
            let answer = Challenge {
                r#type: kind.name().to_owned(),
                token: challenge.token.clone(),
                key_authorization: challenge.key_authorization().as_str().to_owned(),
                identifier: Identifier {
                    r#type: if is_ip { "ip" } else { "dns" }.to_owned(),
                    value: self.name.to_owned(),
                },
            };
            held.open.push(Board::shared().put(answer, self.around.storage, self.issuer_key));
            challenge.set_ready().await.map_err(|e| AcmeError::new("starting the challenge", e))?;
        }
        Ok(held)
    }

    /// What the CA says of the authorisation that failed.
    async fn why_invalid(&self, order: &mut instant_acme::Order) -> Option<String> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.ok()?;
            let state = authorization.refresh().await.ok()?;
            if let Some(problem) = state.challenges.iter().find_map(|c| c.error.as_ref()) {
                return Some(problem.to_string());
            }
        }
        None
    }

    fn csr(&self, key: &KeyPair) -> Result<Vec<u8>, AcmeError> {
        let failed = |e: rcgen::Error| AcmeError::new("the signing request", e);
        let mut params = CertificateParams::new(vec![self.name.to_owned()]).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        if self.around.must_staple {
            let feature = CustomExtension::from_oid_content(TLS_FEATURE, STATUS_REQUEST.to_vec());
            params.custom_extensions = vec![feature];
        }
        Ok(params.serialize_request(key).map_err(failed)?.der().to_vec())
    }
}
