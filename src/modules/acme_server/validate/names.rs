//! Addresses of names, and the challenge over DNS (RFC 8555 section 8.4).

use std::net::{IpAddr, SocketAddr};

use super::Job;
use crate::modules::acme_server::identifier::Identifier;
use crate::modules::acme_server::problem::{Kind, Problem};

/// Addresses of one name that are tried, at most.
const MAX_ADDRESSES: usize = 4;

/// Who is asked about names: the system.
#[derive(Default)]
pub struct Names;

impl Names {
    /// Where the machine of a name is.
    pub async fn addresses(&self, identifier: &Identifier, port: u16) -> Result<Vec<SocketAddr>, Problem> {
        let found: Vec<IpAddr> = match identifier.address() {
            Some(address) => vec![address],
            None => {
                let found = tokio::net::lookup_host((identifier.value.as_str(), port)).await;
                let found = found.map_err(|e| Problem::new(Kind::Dns, format!("{}: {e}", identifier.value)))?;
                found.map(|address| address.ip()).collect()
            }
        };
        if found.is_empty() {
            return Err(Problem::new(Kind::Dns, format!("{} has no address", identifier.value)));
        }
        Ok(found.into_iter().take(MAX_ADDRESSES).map(|ip| SocketAddr::new(ip, port)).collect())
    }

    pub async fn ask(&self, _job: &Job) -> Result<(), Problem> {
        Err(Problem::new(Kind::Dns, "this CA does not ask challenges over DNS"))
    }
}
