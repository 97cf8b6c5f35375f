//! What the adapter knows of a site once its lines are read, and how sites pair up with listeners.

use super::address::Address;
use super::listen::join_host_port;
use super::subroute::Placed;
use crate::base::span::Span;
use crate::config::directive_cx::{AccessLog, TlsValue};
use crate::config::types::Subroute;

/// One address word of a site.
#[derive(Debug, Clone)]
pub struct SiteKey {
    /// As written.
    pub text: String,
    pub span: Span,
    pub address: Address,
}

/// A site block of the file with what its lines contribute (Caddy's `serverBlock` with its pile).
#[derive(Debug, Default)]
pub struct SiteInfo {
    pub keys: Vec<SiteKey>,
    /// Ordered directives' routes, in text order until they are sorted.
    pub routes: Vec<Placed>,
    pub error_routes: Vec<Subroute>,
    pub binds: Vec<Bind>,
    /// With the place of the line, as the next.
    pub access_logs: Vec<(AccessLog, Span)>,
    /// In text order.
    pub tls: Vec<(TlsValue, Span)>,
    /// Named routes that lines of this site invoke, with the place.
    pub invoked: Vec<(String, Span)>,
}

/// `bind` or `default_bind`: listener addresses with protocols (empty = the server's).
#[derive(Debug, Clone, Default)]
pub struct Bind {
    pub addresses: Vec<String>,
    pub protocols: Vec<String>,
}

/// Those keys of a site that share a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerBlock {
    /// Index of the site in the file.
    pub site: usize,
    /// Indices of the site's keys, in text order.
    pub keys: Vec<usize>,
}

/// Listeners and the sites served on them: one server.
#[derive(Debug, Clone)]
pub struct Pairing {
    /// Listener address and its protocols (`""` = the server's), sorted.
    pub listeners: Vec<(String, Vec<String>)>,
    /// Most specific first once the servers are built.
    pub blocks: Vec<ServerBlock>,
}

impl Pairing {
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.listeners.iter().map(|(address, _)| address.clone()).collect()
    }
}

impl ServerBlock {
    pub fn addresses<'s>(&'s self, sites: &'s [SiteInfo]) -> impl Iterator<Item = &'s Address> {
        self.site_keys(sites).map(|key| &key.address)
    }

    pub fn site_keys<'s>(&'s self, sites: &'s [SiteInfo]) -> impl Iterator<Item = &'s SiteKey> {
        let keys = sites.get(self.site).map_or(&[][..], |site| &site.keys);
        self.keys.iter().filter_map(|index| keys.get(*index))
    }

    /// Distinct hosts in text order; none at all when one key has no host, as the block then matches every host.
    #[must_use]
    pub fn hosts(&self, sites: &[SiteInfo]) -> Vec<String> {
        if self.has_catch_all_key(sites) {
            return Vec::new();
        }
        distinct(self.addresses(sites).map(|a| a.host.clone()))
    }

    /// Distinct hosts for access logs: keys without a host are passed over, ports other than 80 and 443 are kept.
    #[must_use]
    pub fn log_hosts(&self, sites: &[SiteInfo]) -> Vec<String> {
        let with_host = self.addresses(sites).filter(|a| !a.host.is_empty());
        distinct(with_host.map(|a| match a.port.as_str() {
            "" | "80" | "443" => a.host.clone(),
            port => join_host_port(&a.host, port),
        }))
    }

    /// Distinct hosts of keys that are neither `http://` nor on the HTTP port.
    #[must_use]
    pub fn hosts_not_http(&self, sites: &[SiteInfo], http_port: &str) -> Vec<String> {
        let secure = self.addresses(sites).filter(|a| !a.host.is_empty() && a.scheme != "http" && a.port != http_port);
        distinct(secure.map(|a| a.host.clone()))
    }

    #[must_use]
    pub fn has_catch_all_key(&self, sites: &[SiteInfo]) -> bool {
        self.addresses(sites).any(|a| a.host.is_empty())
    }

    /// Every key says `http://`.
    #[must_use]
    pub fn is_all_http(&self, sites: &[SiteInfo]) -> bool {
        self.addresses(sites).all(|a| a.scheme == "http")
    }
}

fn distinct(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    items.filter(|item| seen.insert(item.clone())).collect()
}
