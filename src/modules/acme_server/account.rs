//! Accounts (RFC 8555 section 7.3): made, found, changed, given up, moved to another key.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::ca::{Ca, Signed};
use super::jwk::{Jwk, Key};
use super::jws::{Jws, Signer};
use super::problem::{Kind, Problem};
use super::request::{Asked, Reply};
use super::store::{Account, new_id};

/// Accounts of one CA.
const MAX_ACCOUNTS: usize = 10_000;
const MAX_CONTACTS: usize = 10;
const MAX_CONTACT: usize = 254;
/// Orders on one page of an account's list.
const PAGE: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct NewAccount {
    contact: Vec<String>,
    only_return_existing: bool,
    external_account_binding: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Update {
    contact: Option<Vec<String>>,
    status: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyChange {
    account: String,
    old_key: Jwk,
}

impl Ca {
    pub fn new_account(self: &Arc<Self>, asked: &Asked) -> Result<Reply, Problem> {
        let signed = self.by_key(asked)?;
        let wanted: NewAccount = signed.read()?;
        let thumbprint = signed.key.thumbprint();
        let mut turn = self.state.turn();
        if let Some(account) = self.state.store.account_of_key(thumbprint)? {
            if account.deactivated {
                return Err(Problem::new(Kind::Unauthorized, "the account is deactivated"));
            }
            return Ok(shown(200, &account, asked));
        }
        if wanted.only_return_existing {
            return Err(Problem::new(Kind::AccountDoesNotExist, "there is no account with this key"));
        }
        let external = self.external(&signed, wanted.external_account_binding.as_deref(), asked)?;
        let counts = self.state.counts(&mut turn, asked.seconds(), |_| false)?;
        if counts.accounts >= MAX_ACCOUNTS {
            return Err(Problem::limited("this CA has as many accounts as it may have", 3600));
        }
        let key = signed.jwk.ok_or_else(|| Problem::internal("a request by key without its key"))?;
        let contact = contacts(wanted.contact)?;
        let account = Account { id: new_id()?, key, deactivated: false, contact, external, created: asked.seconds() };
        // The account first: a key without one would find nothing.
        self.state.store.keep_account(&account)?;
        self.state.store.keep_key(thumbprint, &account.id)?;
        counts.accounts += 1;
        tracing::info!(ca = self.settings.ca, account = account.id, external = account.external, "ACME account made");
        Ok(shown(201, &account, asked))
    }

    fn external(&self, signed: &Signed, binding: Option<&RawValue>, asked: &Asked) -> Result<Option<String>, Problem> {
        let keys = &self.settings.external;
        match binding {
            Some(binding) if !keys.is_empty() => {
                keys.check(binding.get().as_bytes(), &asked.url, &signed.key).map(Some)
            }
            // Nobody here could check it.
            Some(_) => Ok(None),
            None if keys.is_empty() => Ok(None),
            None => {
                Err(Problem::new(Kind::ExternalAccountRequired, "this CA gives accounts to external accounts it knows"))
            }
        }
    }

    pub fn account(&self, asked: &Asked, id: &str) -> Result<Reply, Problem> {
        let (_, signed) = self.by_own_account(asked, id)?;
        let _turn = self.state.turn();
        // What another request changed meanwhile counts.
        let mut account = self.state.store.account(id)?.ok_or_else(|| Problem::not_found("account"))?;
        if signed.is_get() {
            return Ok(shown(200, &account, asked));
        }
        let update: Update = signed.read()?;
        match update.status.as_deref() {
            None | Some("valid") => {}
            Some("deactivated") => account.deactivated = true,
            Some(_) => return Err(Problem::malformed("an account can only become `deactivated`")),
        }
        if let Some(contact) = update.contact {
            account.contact = contacts(contact)?;
        }
        self.state.store.keep_account(&account)?;
        if account.deactivated {
            tracing::info!(ca = self.settings.ca, account = account.id, "ACME account deactivated");
        }
        Ok(shown(200, &account, asked))
    }

    /// The orders that have not ended, by pages.
    pub fn orders(&self, asked: &Asked, id: &str) -> Result<Reply, Problem> {
        let (account, signed) = self.by_own_account(asked, id)?;
        signed.get_only()?;
        let after = asked.query.as_deref().and_then(|query| query.strip_prefix("after=")).unwrap_or_default();
        let mut ids = self.state.store.orders(&account.id)?;
        ids.retain(|id| id.as_str() > after);
        let more = ids.len() > PAGE;
        ids.truncate(PAGE);
        let urls: Vec<String> = ids.iter().map(|id| format!("{}/order/{id}", asked.base)).collect();
        let mut reply = Reply::json(200, json!({"orders": urls}));
        if let Some(last) = ids.last().filter(|_| more) {
            reply.link(format!("{}/account/{id}/orders?after={last}", asked.base), "next");
        }
        Ok(reply)
    }

    /// RFC 8555 section 7.3.5.
    pub fn key_change(&self, asked: &Asked) -> Result<Reply, Problem> {
        let (account, signed) = self.by_account(asked)?;
        let inner = Jws::read(&signed.payload)?;
        let Signer::Key(jwk) = inner.signer else {
            return Err(Problem::malformed("the inner signature names the new key with `jwk`"));
        };
        if inner.nonce.is_some() || inner.url != asked.url {
            return Err(Problem::malformed("the inner signature has the URL of the outer one, and no nonce"));
        }
        let key = Key::try_from(&jwk)?;
        key.verify(&inner.algorithm, &inner.message, &inner.signature)?;
        let change: KeyChange = serde_json::from_slice(&inner.payload)
            .map_err(|_| Problem::malformed("the inner payload lacks `account` or `oldKey`"))?;
        if change.account != url(asked, &account) || Key::try_from(&change.old_key)? != signed.key {
            return Err(Problem::malformed("the inner payload is not of this account and its key"));
        }
        let _turn = self.state.turn();
        let store = &self.state.store;
        if let Some(other) = store.account_of_key(key.thumbprint())? {
            let problem = Problem::malformed("an account has this key already").status(409);
            return Err(Problem { location: Some(url(asked, &other)), ..problem });
        }
        let mut account = store.account(&account.id)?.ok_or_else(|| Problem::not_found("account"))?;
        if account.deactivated || Key::try_from(&account.key)? != signed.key {
            return Err(Problem::new(Kind::Unauthorized, "the account was changed meanwhile"));
        }
        account.key = jwk;
        store.keep_key(key.thumbprint(), &account.id)?;
        store.keep_account(&account)?;
        store.forget_key(signed.key.thumbprint())?;
        tracing::info!(ca = self.settings.ca, account = account.id, "ACME account has a new key");
        Ok(shown(200, &account, asked))
    }
}

fn url(asked: &Asked, account: &Account) -> String {
    format!("{}/account/{}", asked.base, account.id)
}

fn shown(status: u16, account: &Account, asked: &Asked) -> Reply {
    let url = url(asked, account);
    let mut value = json!({
        "status": if account.deactivated { "deactivated" } else { "valid" },
        "orders": format!("{url}/orders"),
    });
    if !account.contact.is_empty() {
        value["contact"] = Value::from(account.contact.clone());
    }
    Reply::json(status, value).location(url)
}

/// E-mail addresses alone (RFC 8555 section 7.3).
fn contacts(told: Vec<String>) -> Result<Vec<String>, Problem> {
    if told.len() > MAX_CONTACTS {
        return Err(Problem::new(Kind::InvalidContact, "there are too many contacts"));
    }
    for contact in &told {
        let Some(address) = contact.strip_prefix("mailto:") else {
            return Err(Problem::new(Kind::UnsupportedContact, "contacts begin with `mailto:`"));
        };
        let plain = address.len() <= MAX_CONTACT
            && address.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
            && !address.contains(|c: char| c.is_control() || c.is_whitespace() || ",?<>".contains(c));
        if !plain {
            return Err(Problem::new(Kind::InvalidContact, "a contact is not one e-mail address"));
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_single_addresses() {
        let kind = |contact: &str| contacts(vec![contact.to_owned()]).err().map(|p| p.kind);
        assert_eq!(kind("mailto:a@b.test"), None);
        assert_eq!(kind("tel:+1"), Some(Kind::UnsupportedContact));
        for bad in ["mailto:", "mailto:a", "mailto:@b", "mailto:a@b,c@d", "mailto:a@b?subject=x", "mailto:a @b"] {
            assert_eq!(kind(bad), Some(Kind::InvalidContact), "{bad}");
        }
        assert!(contacts(vec!["mailto:a@b.test".into(); 11]).is_err());
        assert!(contacts(vec![format!("mailto:{}@b.test", "a".repeat(300))]).is_err());
    }
}
