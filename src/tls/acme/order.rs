//! One order: made or resumed, its challenges answered, finalised, and the certificate taken.
//!
//! Its URL and key are kept until the certificate is here: a process that dies in between resumes it, instead of
//! costing another order.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier as AcmeIdentifier, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};

use super::challenge::{Board, Challenge, Identifier, Kind, Open};
use super::{AcmeError, Surroundings};
use crate::config::tls_types::AcmeIssuer;
use crate::storage::key::safe;
use crate::tls::authority::Issued;
use crate::tls::subject::parse_ip;

/// How long a CA may take to look at a challenge, and to sign.
const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_mins(2));

/// An order as it is kept. Holds a private key: no `Debug`.
#[derive(Serialize, Deserialize)]
struct Kept {
    order: String,
    /// PEM.
    private_key: String,
}

pub struct Order<'a> {
    pub account: &'a Account,
    pub issuer: &'a AcmeIssuer,
    pub issuer_key: &'a str,
    pub name: &'a str,
    pub around: &'a Surroundings<'a>,
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
        let identifiers = [match parse_ip(self.name) {
            Some(ip) => AcmeIdentifier::Ip(ip),
            None => AcmeIdentifier::Dns(self.name.to_owned()),
        }];
        let mut new = NewOrder::new(&identifiers);
        if !self.issuer.profile.is_empty() {
            new = new.profile(&self.issuer.profile);
        }
        let order = self.account.new_order(&new).await.map_err(|e| AcmeError::new("making an order", e))?;
        let key = self.around.key_type.generate().map_err(|e| AcmeError::new("making a key", e))?;
        let kept = Kept { order: order.url().to_owned(), private_key: key.serialize_pem() };
        let stored = serde_json::to_vec(&kept)
            .map_err(std::io::Error::from)
            .and_then(|v| self.around.storage.store(&self.kept_as(), &v));
        if let Err(error) = stored {
            tracing::debug!(%error, "the order is not kept: after a crash another will be made");
        }
        Ok((order, key))
    }

    /// The order that a process before us left, if the CA still knows it as open.
    async fn resume(&self) -> Option<(instant_acme::Order, KeyPair)> {
        let value = self.around.storage.load(&self.kept_as()).ok()??;
        let kept: Kept = serde_json::from_slice(&value).ok()?;
        let key = KeyPair::from_pem(&kept.private_key).ok()?;
        let mut order = self.account.order(kept.order).await.ok()?;
        if order.state().status == OrderStatus::Invalid {
            return None;
        }
        tracing::info!(name = self.name, "an order left open is resumed");
        Some((order, key))
    }

    async fn complete(&self, order: &mut instant_acme::Order, kind: Kind, key: &KeyPair) -> Result<String, AcmeError> {
        if order.state().status == OrderStatus::Pending {
            let _open = self.answer(order, kind).await?;
            let status = order.poll_ready(&PATIENCE).await;
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
        order.poll_certificate(&PATIENCE).await.map_err(|e| AcmeError::new("waiting for the certificate", e))
    }

    /// Puts up the answers of all open authorisations and tells the CA to look.
    async fn answer(&self, order: &mut instant_acme::Order, kind: Kind) -> Result<Vec<Open>, AcmeError> {
        let mut open = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|e| AcmeError::new("reading an authorisation", e))?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let wanted = match kind {
                Kind::Http => ChallengeType::Http01,
                Kind::TlsAlpn => ChallengeType::TlsAlpn01,
            };
            let Some(mut challenge) = authorization.challenge(wanted) else {
                return Err(AcmeError::new(kind.name(), "the CA does not offer this challenge"));
            };
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
            open.push(Board::shared().put(answer, self.around.storage, self.issuer_key));
            challenge.set_ready().await.map_err(|e| AcmeError::new("starting the challenge", e))?;
        }
        Ok(open)
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
        Ok(params.serialize_request(key).map_err(failed)?.der().to_vec())
    }
}
