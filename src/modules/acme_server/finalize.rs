//! The end of an order: the signing request is held to it, and signed (RFC 8555 section 7.4).

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use time::OffsetDateTime;

use super::ca::Ca;
use super::csr::Csr;
use super::identifier::Identifier;
use super::order::{Order, Status};
use super::ordering;
use super::problem::{Kind, Problem};
use super::request::{Asked, Reply};
use super::store::Issued;
use crate::base::hex::hex;
use crate::tls::authorities::Authorities;
use crate::tls::authority::{Signed, Wanted};

/// Clocks of clients may be slow.
const BACKDATE: time::Duration = time::Duration::minutes(1);

#[derive(Deserialize)]
struct Finalize {
    csr: String,
}

impl Ca {
    pub fn finalize(&self, asked: &Asked, id: &str) -> Result<Reply, Problem> {
        let (account, signed) = self.by_account(asked)?;
        let body: Finalize = signed.read()?;
        let refused = |why: &'static str| Problem::new(Kind::BadCsr, why);
        let der = URL_SAFE_NO_PAD.decode(&body.csr).map_err(|_| refused("the signing request is not base64url"))?;
        let _turn = self.state.turn();
        let mut order = self.load(&account, id)?;
        if order.status(asked.seconds()) != Status::Ready {
            return Err(Problem::new(
                Kind::OrderNotReady,
                "the order is not ready: not all its names are proved, or it has ended",
            ));
        }
        // What the configuration says may have changed since.
        for identifier in &order.identifiers {
            self.settings.policy.check(identifier).map_err(|why| Problem::new(Kind::RejectedIdentifier, why))?;
        }
        let csr = Csr::read(&der).map_err(refused)?;
        if csr.identifiers != order.identifiers.iter().cloned().collect::<BTreeSet<Identifier>>() {
            return Err(refused("the signing request has other names than the order"));
        }
        if csr.has_key(&signed.key) {
            return Err(refused("the key of the account may not be that of the certificate"));
        }
        let leaf = self.sign(&order, &csr, asked.now)?;
        let issued = Issued {
            serial: hex(&leaf.serial),
            authority_key: hex(&leaf.authority_key),
            account: account.id.clone(),
            identifiers: order.identifiers.clone(),
            not_before: leaf.not_before.unix_timestamp(),
            not_after: leaf.not_after.unix_timestamp(),
            chain: leaf.chain,
            revoked: None,
            replaced_by: None,
        };
        self.state.store.keep_certificate(&issued)?;
        order.status = Status::Valid;
        order.certificate = Some(issued.serial.clone());
        self.state.store.keep_order(&order)?;
        let names: Vec<&str> = issued.identifiers.iter().map(|i| i.value.as_str()).collect();
        tracing::info!(
            ca = self.settings.ca,
            account = account.id,
            serial = issued.serial,
            ?names,
            "certificate issued over ACME"
        );
        Ok(ordering::shown(200, &order, asked))
    }

    fn sign(&self, order: &Order, csr: &Csr, now: OffsetDateTime) -> Result<Signed, Problem> {
        let time = |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).map_err(Problem::internal);
        let lifetime = time::Duration::try_from(self.settings.lifetime).map_err(Problem::internal)?;
        let settings = &self.settings;
        let authority = Authorities::shared()
            .open(self.state.store.storage(), &settings.ca, &settings.authority, now)
            .map_err(Problem::internal)?;
        let names: Vec<String> = order.identifiers.iter().map(|i| i.value.clone()).collect();
        let not_before = order.not_before.map_or(Ok(now - BACKDATE), time)?;
        let not_after = order.not_after.map_or_else(|| Ok(not_before.max(now) + lifetime), time)?;
        let sign_with_root = settings.sign_with_root;
        let wanted = Wanted { names: &names, public_key: &csr.public_key, not_before, not_after, sign_with_root };
        authority.sign(&wanted).map_err(Problem::internal)
    }
}
