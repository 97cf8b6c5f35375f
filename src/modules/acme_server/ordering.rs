//! Orders as resources (RFC 8555 sections 7.4 and 7.5): made, shown, their authorisations given up, their challenges begun.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ca::Ca;
use super::identifier::Identifier;
use super::jwk::Key;
use super::order::{LIFETIME, MAX_IDENTIFIERS, Method, Order, Status};
use super::problem::{Kind, Problem};
use super::request::{Asked, Reply};
use super::store::{Account, new_id};
use super::validate::Job;

/// Orders of one CA that have not ended, and of one account.
const MAX_ORDERS: usize = 10_000;
const MAX_ORDERS_OF_ACCOUNT: usize = 300;
/// Seconds that clocks of clients may be off.
const SKEW: i64 = 300;
/// Seconds after which a client looks again at a challenge.
const LOOK_AGAIN: u64 = 1;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewOrder {
    identifiers: Vec<Identifier>,
    not_before: Option<String>,
    not_after: Option<String>,
    replaces: Option<String>,
}

#[derive(Deserialize)]
struct Update {
    status: Option<String>,
}

impl Ca {
    pub fn new_order(&self, asked: &Asked) -> Result<Reply, Problem> {
        let (account, signed) = self.by_account(asked)?;
        let wanted: NewOrder = signed.read()?;
        let identifiers = self.identifiers(wanted.identifiers)?;
        let now = asked.seconds();
        let (not_before, not_after) = self.life(wanted.not_before.as_deref(), wanted.not_after.as_deref(), now)?;
        let mut turn = self.state.turn();
        let counts = self.state.counts(&mut turn, now, |counts| counts.orders >= MAX_ORDERS)?;
        let own = self.state.store.orders(&account.id)?;
        let open = own.iter().filter(|id| Order::ends(id).is_some_and(|end| end > now)).count();
        if counts.orders >= MAX_ORDERS || open >= MAX_ORDERS_OF_ACCOUNT {
            return Err(Problem::limited("there are too many orders: wait until older ones have ended", 3600));
        }
        let id = format!("{:08x}{}", now + LIFETIME, &new_id()?[8..]);
        let mut replaced = match &wanted.replaces {
            Some(certificate) => Some(self.replaceable(certificate, &account, &identifiers, now)?),
            None => None,
        };
        let mut order = Order::new(id, &account.id, identifiers, &self.settings.methods, token)?;
        if let Some(authorization) = order.authorizations.iter().find(|a| a.challenges.is_empty()) {
            let told = format!("no challenge of this CA can prove {}", authorization.identifier.value);
            return Err(Problem::new(Kind::RejectedIdentifier, told));
        }
        (order.not_before, order.not_after, order.replaces) = (not_before, not_after, wanted.replaces);
        self.state.store.keep_order(&order)?;
        counts.orders += 1;
        if let Some(certificate) = &mut replaced {
            certificate.replaced_by = Some(order.id.clone());
            self.state.store.keep_certificate(certificate)?;
        }
        Ok(shown(201, &order, asked))
    }

    pub fn order(&self, asked: &Asked, id: &str) -> Result<Reply, Problem> {
        let (account, signed) = self.by_account(asked)?;
        signed.get_only()?;
        let order = self.load(&account, id)?;
        Ok(shown(200, &order, asked))
    }

    pub fn authorization(self: &Arc<Self>, asked: &Asked, id: &str, n: &str) -> Result<Reply, Problem> {
        let (account, signed) = self.by_account(asked)?;
        let turn = self.state.turn();
        let mut order = self.load(&account, id)?;
        let n: usize = n.parse().map_err(|_| Problem::not_found("authorization"))?;
        if !signed.is_get() {
            let update: Update = signed.read()?;
            if update.status.as_deref() != Some("deactivated") {
                return Err(Problem::malformed("an authorization can only become `deactivated`"));
            }
            order.deactivate(n);
            self.state.store.keep_order(&order)?;
        }
        drop(turn);
        let now = asked.seconds();
        let value = order.authorization_json(n, &asked.base, now).ok_or_else(|| Problem::not_found("authorization"))?;
        let mut reply = Reply::json(200, value);
        // A validation that another process or a crash cut short begins again.
        let methods: Vec<Method> = order.authorizations.get(n).map(processing).unwrap_or_default();
        for method in methods {
            reply = reply.retry_after(LOOK_AGAIN);
            reply.jobs.extend(self.job(&order, n, method, &account)?);
        }
        Ok(reply)
    }

    /// Shows a challenge, or begins it when the client says that it is ready.
    pub fn challenge(self: &Arc<Self>, asked: &Asked, id: &str, n: &str, method: &str) -> Result<Reply, Problem> {
        let (account, signed) = self.by_account(asked)?;
        let unknown = || Problem::not_found("challenge");
        let turn = self.state.turn();
        let mut order = self.load(&account, id)?;
        let n: usize = n.parse().map_err(|_| unknown())?;
        let method = Method::named(method).ok_or_else(unknown)?;
        if !signed.is_get() {
            let _: serde::de::IgnoredAny = signed.read()?;
            if self.state.is_full() {
                return Err(Problem::limited("too many challenges are being validated", 5));
            }
            if order.accept(n, method, asked.seconds()) {
                self.state.store.keep_order(&order)?;
            }
        }
        drop(turn);
        let authorization = order.authorizations.get(n).ok_or_else(unknown)?;
        let challenge = authorization.challenges.iter().find(|c| c.method == method).ok_or_else(unknown)?;
        let mut reply = Reply::json(200, order.challenge_json(n, challenge, &asked.base));
        reply.link(format!("{}/authz/{id}/{n}", asked.base), "up");
        if challenge.status == Status::Processing {
            reply = reply.retry_after(LOOK_AGAIN);
            reply.jobs.extend(self.job(&order, n, method, &account)?);
        }
        Ok(reply)
    }

    /// Notes what a validation found.
    pub fn settle(&self, job: &Job, result: Result<(), Problem>, now: OffsetDateTime) -> Result<(), Problem> {
        let _turn = self.state.turn();
        let Some(mut order) = self.state.store.order(&job.account, &job.order)? else { return Ok(()) };
        order.settle(job.n, job.method, result, now.unix_timestamp());
        self.state.store.keep_order(&order)
    }

    /// An order of this account.
    pub fn load(&self, account: &Account, id: &str) -> Result<Order, Problem> {
        self.state.store.order(&account.id, id)?.ok_or_else(|| Problem::not_found("order"))
    }

    /// A validation to run, unless it is running.
    fn job(&self, order: &Order, n: usize, method: Method, account: &Account) -> Result<Option<Job>, Problem> {
        let challenge = order.authorizations.get(n).and_then(|a| a.challenges.iter().find(|c| c.method == method));
        let (Some(challenge), Some(authorization)) = (challenge, order.authorizations.get(n)) else { return Ok(None) };
        let Some(validating) = self.state.begin(&order.id, n, method) else { return Ok(None) };
        let thumbprint = URL_SAFE_NO_PAD.encode(Key::try_from(&account.key)?.thumbprint());
        Ok(Some(Job {
            order: order.id.clone(),
            account: account.id.clone(),
            n,
            method,
            identifier: authorization.identifier.clone(),
            key_authorization: format!("{}.{thumbprint}", challenge.token),
            token: challenge.token.clone(),
            _validating: validating,
        }))
    }

    /// The names, each once, all of a kind and form that may be signed.
    fn identifiers(&self, wanted: Vec<Identifier>) -> Result<Vec<Identifier>, Problem> {
        if wanted.is_empty() {
            return Err(Problem::malformed("the order names nothing"));
        }
        if wanted.len() > MAX_IDENTIFIERS {
            return Err(Problem::malformed(format!("an order may have {MAX_IDENTIFIERS} identifiers")));
        }
        let (mut out, mut at_fault) = (BTreeSet::new(), Vec::new());
        for told in wanted {
            match told.checked() {
                None => at_fault.push((told, Kind::UnsupportedIdentifier, "identifiers are of type dns or ip")),
                Some(Err(why)) => at_fault.push((told, Kind::Malformed, why)),
                Some(Ok(identifier)) => match self.settings.policy.check(&identifier) {
                    Ok(()) => drop(out.insert(identifier)),
                    Err(why) => at_fault.push((identifier, Kind::RejectedIdentifier, why)),
                },
            }
        }
        match at_fault.first() {
            None => Ok(out.into_iter().collect()),
            Some((identifier, kind, why)) => {
                let shown: String = identifier.value.chars().take(80).collect();
                let problem = Problem::new(*kind, format!("{shown:?}: {why}"));
                Err(Problem { at_fault, ..problem })
            }
        }
    }

    /// From when to when a certificate is asked to be good, in Unix seconds.
    fn life(&self, from: Option<&str>, to: Option<&str>, now: i64) -> Result<(Option<i64>, Option<i64>), Problem> {
        let read = |text: &str| {
            let time = OffsetDateTime::parse(text, &Rfc3339).map(OffsetDateTime::unix_timestamp);
            time.map_err(|_| Problem::malformed("notBefore and notAfter are dates of RFC 3339"))
        };
        let (from, to) = (from.map(read).transpose()?, to.map(read).transpose()?);
        let longest = i64::try_from(self.settings.lifetime.as_secs()).unwrap_or(i64::MAX);
        let start = from.unwrap_or(now);
        if start < now - SKEW || start > now.saturating_add(longest) {
            return Err(Problem::malformed("notBefore is in the past, or too far away"));
        }
        if to.is_some_and(|end| end <= start.max(now) || end - start > longest.saturating_add(SKEW)) {
            return Err(Problem::malformed(format!("certificates of this CA are good for at most {longest} seconds")));
        }
        Ok((from, to))
    }
}

fn processing(authorization: &super::order::Authorization) -> Vec<Method> {
    let open = authorization.status == Status::Pending;
    let under_way = |c: &&super::order::Challenge| open && c.status == Status::Processing;
    authorization.challenges.iter().filter(under_way).map(|c| c.method).collect()
}

/// What only the client and the CA know of a challenge (RFC 8555 section 8.1 asks for 128 bits).
fn token() -> Result<String, Problem> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(Problem::internal)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

pub fn shown(status: u16, order: &Order, asked: &Asked) -> Reply {
    let value = order.to_json(&asked.base, asked.seconds());
    Reply::json(status, value).location(format!("{}/order/{}", asked.base, order.id))
}
