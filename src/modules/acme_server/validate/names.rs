//! Addresses of names, and the challenge over DNS (RFC 8555 section 8.4).

use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::Job;
use crate::client::dns::Dns;
use crate::modules::acme_server::identifier::Identifier;
use crate::modules::acme_server::problem::{Kind, Problem};

/// Addresses of one name that are tried, at most.
const MAX_ADDRESSES: usize = 4;

/// Who is asked about names.
#[derive(Debug, Default)]
pub struct Names {
    /// Empty = the system's servers.
    pub resolvers: Vec<SocketAddr>,
}

impl Names {
    /// Where the machine of a name is: at the resolvers, and what they do not know as the system has it (also from
    /// `/etc/hosts`).
    pub async fn addresses(&self, identifier: &Identifier, port: u16) -> Result<Vec<SocketAddr>, Problem> {
        let name = &identifier.value;
        let failed = |why: &dyn std::fmt::Display| Problem::new(Kind::Dns, format!("{name}: {why}"));
        let mut found: Vec<IpAddr> = identifier.address().into_iter().collect();
        if found.is_empty() && !self.resolvers.is_empty() {
            let dns = Dns::at(&self.resolvers).map_err(|e| failed(&e))?;
            found = dns.addresses(name).await.unwrap_or_default();
        }
        if found.is_empty() {
            let asked = tokio::net::lookup_host((name.as_str(), port)).await.map_err(|e| failed(&e))?;
            found = asked.map(|address| address.ip()).collect();
        }
        if found.is_empty() {
            return Err(failed(&"it has no address"));
        }
        Ok(found.into_iter().take(MAX_ADDRESSES).map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// The challenge over DNS: a record with the digest of the key authorisation.
    pub async fn ask(&self, job: &Job) -> Result<(), Problem> {
        let record = format!("_acme-challenge.{}", job.identifier.value);
        let failed = |why: &dyn std::fmt::Display| Problem::new(Kind::Dns, format!("{record}: {why}"));
        let dns = if self.resolvers.is_empty() { Dns::system() } else { Dns::at(&self.resolvers) };
        let texts = dns.map_err(|e| failed(&e))?.texts(&record).await.map_err(|e| failed(&e))?;
        let wanted = URL_SAFE_NO_PAD.encode(Sha256::digest(job.key_authorization.as_bytes()));
        match texts.len() {
            _ if texts.iter().any(|text| text == wanted.as_bytes()) => Ok(()),
            0 => Err(failed(&"there is no TXT record")),
            n => {
                Err(Problem::new(Kind::Unauthorized, format!("{record}: none of {n} TXT records is the one asked for")))
            }
        }
    }
}
