//! What the CA keeps in the certificate storage, under `acme_server/CA/`: accounts, orders, certificates. All calls block.
//!
//! ```text
//! accounts/ID.json          keys/THUMBPRINT.json → the account
//! orders/ACCOUNT/ID.json    with authorisations and challenges; the id begins with the time of its end
//! certificates/SERIAL.json  with the chain
//! ```

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::identifier::Identifier;
use super::jwk::{Jwk, Key};
use super::order::Order;
use super::problem::Problem;
use crate::base::hex::hex;
use crate::storage::{FileStorage, key};

pub struct Store {
    storage: FileStorage,
    /// `acme_server/CA`.
    root: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    pub id: String,
    pub key: Jwk,
    pub deactivated: bool,
    #[serde(default)]
    pub contact: Vec<String>,
    /// Id of the external account that it is bound to.
    #[serde(default)]
    pub external: Option<String>,
    /// Unix seconds.
    pub created: i64,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Issued {
    /// Lower-case hexadecimal, as all bytes here.
    pub serial: String,
    pub authority_key: String,
    pub account: String,
    pub identifiers: Vec<Identifier>,
    /// Unix seconds.
    pub not_before: i64,
    pub not_after: i64,
    /// PEM, leaf first.
    pub chain: String,
    #[serde(default)]
    pub revoked: Option<Revoked>,
    /// The order that says to replace it.
    #[serde(default)]
    pub replaced_by: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    pub at: i64,
    pub reason: u8,
}

impl Store {
    #[must_use]
    pub fn new(storage: FileStorage, ca: &str) -> Self {
        Self { storage, root: format!("acme_server/{}", key::safe(ca)) }
    }

    #[must_use]
    pub fn storage(&self) -> &FileStorage {
        &self.storage
    }

    pub fn account(&self, id: &str) -> Result<Option<Account>, Problem> {
        self.read(&["accounts", id])
    }

    pub fn account_of_key(&self, thumbprint: [u8; 32]) -> Result<Option<Account>, Problem> {
        let id: Option<String> = self.read(&["keys", &hex(&thumbprint)])?;
        let account = id.map_or(Ok(None), |id| self.account(&id))?;
        // A change of keys that a crash cut short leaves a key that is not the account's.
        Ok(account.filter(|account| Key::try_from(&account.key).is_ok_and(|key| key.thumbprint() == thumbprint)))
    }

    pub fn keep_account(&self, account: &Account) -> Result<(), Problem> {
        self.write(&["accounts", &account.id], account)
    }

    pub fn keep_key(&self, thumbprint: [u8; 32], account: &str) -> Result<(), Problem> {
        self.write(&["keys", &hex(&thumbprint)], &account)
    }

    pub fn forget_key(&self, thumbprint: [u8; 32]) -> Result<(), Problem> {
        self.delete(&["keys", &hex(&thumbprint)])
    }

    pub fn accounts(&self) -> Result<usize, Problem> {
        Ok(self.list(&["accounts"])?.len())
    }

    pub fn order(&self, account: &str, id: &str) -> Result<Option<Order>, Problem> {
        self.read(&["orders", account, id])
    }

    pub fn keep_order(&self, order: &Order) -> Result<(), Problem> {
        self.write(&["orders", &order.account, &order.id], order)
    }

    /// Ids, the first to end first.
    pub fn orders(&self, account: &str) -> Result<Vec<String>, Problem> {
        self.list(&["orders", account])
    }

    pub fn certificate(&self, serial: &str) -> Result<Option<Issued>, Problem> {
        self.read(&["certificates", serial])
    }

    pub fn keep_certificate(&self, issued: &Issued) -> Result<(), Problem> {
        self.write(&["certificates", &issued.serial], issued)
    }

    /// Removes orders that have ended and certificates that are expired; answers how many orders are left.
    pub fn sweep(&self, now: i64) -> Result<usize, Problem> {
        let mut left = 0;
        for account in self.storage.list(&format!("{}/orders", self.root)).map_err(Problem::internal)? {
            let ids = self.orders(&account)?;
            let ended = ids.iter().filter(|id| Order::ends(id).is_none_or(|end| end <= now)).count();
            for id in ids.iter().filter(|id| Order::ends(id).is_none_or(|end| end <= now)) {
                self.delete(&["orders", &account, id])?;
            }
            left += ids.len() - ended;
        }
        for serial in self.list(&["certificates"])? {
            if self.certificate(&serial)?.is_none_or(|issued| issued.not_after <= now) {
                self.delete(&["certificates", &serial])?;
            }
        }
        Ok(left)
    }

    fn key(&self, path: &[&str]) -> Result<String, Problem> {
        // Parts come from URLs: only what we make ourselves is looked for.
        let ours = |part: &&str| (1..=64).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
        if !path.iter().all(ours) {
            return Err(Problem::not_found("object"));
        }
        Ok(format!("{}/{}.json", self.root, path.join("/")))
    }

    fn read<T: DeserializeOwned>(&self, path: &[&str]) -> Result<Option<T>, Problem> {
        let key = self.key(path)?;
        let Some(value) = self.storage.load(&key).map_err(Problem::internal)? else { return Ok(None) };
        serde_json::from_slice(&value).map(Some).map_err(|e| Problem::internal(format!("{key} is damaged: {e}")))
    }

    fn write<T: Serialize>(&self, path: &[&str], value: &T) -> Result<(), Problem> {
        let value = serde_json::to_vec(value).map_err(Problem::internal)?;
        self.storage.store(&self.key(path)?, &value).map_err(Problem::internal)
    }

    fn delete(&self, path: &[&str]) -> Result<(), Problem> {
        self.storage.delete(&self.key(path)?).map_err(Problem::internal)
    }

    fn list(&self, path: &[&str]) -> Result<Vec<String>, Problem> {
        let names = self.storage.list(&format!("{}/{}", self.root, path.join("/"))).map_err(Problem::internal)?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")).map(str::to_owned).collect())
    }
}

/// A new id that nobody can guess.
///
/// # Errors
/// When the system gives no randomness.
pub fn new_id() -> Result<String, Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(Problem::internal)?;
    Ok(hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_url_leaves_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(FileStorage::new(folder.path()), "../local");
        assert_eq!(store.root, "acme_server/local");
        for id in ["", ".", "..", "a/b", "../x", "%2e", "a.json", "a\0", &"a".repeat(65)] {
            assert_eq!(store.account(id).unwrap_err().status, 404, "{id}");
            assert_eq!(store.order("a", id).unwrap_err().status, 404, "{id}");
        }
        assert_eq!(store.account("abc").unwrap(), None);
    }

    #[test]
    fn what_is_damaged_is_a_fault_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path());
        storage.store("acme_server/local/accounts/a.json", b"{").unwrap();
        assert_eq!(Store::new(storage, "local").account("a").unwrap_err().status, 500);
    }
}
