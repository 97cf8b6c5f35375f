//! Which sites are served on which listeners: every key of a site implies listener addresses; listeners with the same
//! sites become one server.

use std::collections::{BTreeMap, BTreeSet};

use super::listen::{NetworkAddress, join_network, split_network};
use super::ports::Ports;
use super::site::{Bind, Pairing, ServerBlock, SiteInfo, SiteKey};
use crate::base::diagnostic::Diagnostic;

/// Listener address → protocol (`""` = the server's) → blocks in text order.
type Mapping = BTreeMap<String, BTreeMap<String, Vec<ServerBlock>>>;

/// Pairs sites and listeners; a key that cannot be served is reported and left out.
pub fn pair(
    sites: &[SiteInfo],
    default_bind: &[Bind],
    ports: &Ports,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Pairing> {
    let mut mapping = Mapping::new();
    for (site_index, site) in sites.iter().enumerate() {
        let mut of_site: BTreeMap<String, BTreeMap<String, Vec<usize>>> = BTreeMap::new();
        for (key_index, key) in site.keys.iter().enumerate() {
            let binds = if site.binds.is_empty() { default_bind } else { &site.binds };
            match listeners(key, binds, ports) {
                Ok(listeners) => {
                    for (address, protocols) in listeners {
                        let by_protocol = of_site.entry(address).or_default();
                        for protocol in protocols {
                            by_protocol.entry(protocol).or_default().push(key_index);
                        }
                    }
                }
                Err(diagnostic) => diagnostics.push(*diagnostic),
            }
        }
        for (address, by_protocol) in of_site {
            let blocks = mapping.entry(address).or_default();
            for (protocol, keys) in by_protocol {
                blocks.entry(protocol).or_default().push(ServerBlock { site: site_index, keys });
            }
        }
    }
    consolidate(mapping)
}

/// Turns "listener → sites" into "listeners → sites", joining listeners that have exactly the same sites.
fn consolidate(mapping: Mapping) -> Vec<Pairing> {
    // Keyed by the blocks themselves, so that 1,000 listeners are not compared pairwise.
    let mut same: BTreeMap<Vec<(usize, Vec<usize>)>, Vec<(&str, &str)>> = BTreeMap::new();
    let identity = |blocks: &[ServerBlock]| blocks.iter().map(|b| (b.site, b.keys.clone())).collect::<Vec<_>>();
    for (address, by_protocol) in &mapping {
        for (protocol, blocks) in by_protocol {
            same.entry(identity(blocks)).or_default().push((address, protocol));
        }
    }

    let mut pairings = Vec::new();
    let mut done: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (address, by_protocol) in &mapping {
        let is_open = |protocol: &&String| !done.contains(&(address.as_str(), protocol.as_str()));
        let open: Vec<&String> = by_protocol.keys().filter(is_open).collect();
        for protocol in open {
            let blocks = &by_protocol[protocol];
            let mut listeners: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            // Caddy makes an empty server of a protocol that was just joined to another of the same address; its
            // number counts in the names of the servers after it.
            let joined = done.contains(&(address.as_str(), protocol.as_str()));
            if !joined {
                for (address, protocol) in same.get(&identity(blocks)).into_iter().flatten() {
                    listeners.entry(address).or_default().push((*protocol).to_owned());
                    done.insert((address, protocol));
                }
            }
            pairings.push(Pairing {
                listeners: listeners.into_iter().map(|(address, protocols)| (address.to_owned(), protocols)).collect(),
                blocks: if joined { Vec::new() } else { blocks.clone() },
            });
        }
    }
    pairings
}

/// The listener addresses of a key with the protocols to serve on each.
fn listeners(
    key: &SiteKey,
    binds: &[Bind],
    ports: &Ports,
) -> Result<BTreeMap<String, BTreeSet<String>>, Box<Diagnostic>> {
    let address = &key.address;
    let wrong = |code: &'static str, message: String, help: &str| {
        let d = Diagnostic::error(code, message).at(key.span, "");
        Box::new(if help.is_empty() { d } else { d.help(help) })
    };
    match address.scheme.as_str() {
        "" | "http" | "https" => {}
        "ws" => {
            return Err(wrong("bad-site-address", "the scheme ws:// exists in browsers only".into(), "use http://"));
        }
        "wss" => {
            return Err(wrong("bad-site-address", "the scheme wss:// exists in browsers only".into(), "use https://"));
        }
        other => {
            let message = format!("a site cannot have the scheme {other}://");
            return Err(wrong("bad-site-address", message, "use http:// or https://"));
        }
    }

    let port = match (address.port.as_str(), address.scheme.as_str()) {
        ("", "http") => ports.http.as_str(),
        ("", _) => ports.https.as_str(),
        (given, _) => given,
    };
    if (address.scheme == "http" && port == ports.https) || (address.scheme == "https" && port == ports.http) {
        let message = format!("scheme and port of {} contradict each other", address.url());
        return Err(wrong("bad-site-address", message, "leave out one of them"));
    }

    let everywhere = [Bind { addresses: vec![String::new()], protocols: Vec::new() }];
    let binds = if binds.is_empty() { &everywhere } else { binds };
    let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for bind in binds {
        for host in &bind.addresses {
            let parsed = split_network(host)
                .and_then(|(network, host, _)| NetworkAddress::parse(&join_network(&network, host, port)))
                .map_err(|e| wrong("bad-listener-address", format!("cannot listen there: {e}"), ""))?;
            let mut protocols: BTreeSet<String> = bind.protocols.iter().cloned().collect();
            if protocols.is_empty() {
                protocols.insert(String::new());
            }
            // Of two `bind` lines for one address the last counts.
            out.insert(parsed.text(), protocols);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::span::{FileId, Span};
    use crate::config::resolve::address::Address;

    fn site(keys: &[&str], binds: &[&str]) -> SiteInfo {
        let span = Span::new(FileId(0), 0, 0);
        let key = |text: &&str| SiteKey { text: (*text).into(), span, address: Address::parse(text).unwrap() };
        let bind = |host: &&str| Bind { addresses: vec![(*host).into()], protocols: Vec::new() };
        SiteInfo {
            keys: keys.iter().map(key).collect(),
            binds: binds.iter().map(bind).collect(),
            ..SiteInfo::default()
        }
    }

    fn servers(sites: &[SiteInfo]) -> Vec<(Vec<String>, Vec<usize>)> {
        let mut diagnostics = Vec::new();
        let pairings = pair(sites, &[], &Ports::default(), &mut diagnostics);
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        let listen = |p: &Pairing| p.listeners.iter().map(|l| l.0.clone()).collect();
        pairings.iter().map(|p| (listen(p), p.blocks.iter().map(|b| b.site).collect())).collect()
    }

    #[test]
    fn sites_share_a_listener_and_listeners_share_sites() {
        let sites = [
            site(&["a.com"], &[]),
            site(&["b.com", "http://c.com"], &[]),
            site(&[":9000"], &["127.0.0.1", "127.0.0.2"]),
        ];
        assert_eq!(
            servers(&sites),
            [
                (vec!["127.0.0.1:9000".into(), "127.0.0.2:9000".into()], vec![2]),
                (vec![":443".into()], vec![0, 1]),
                (vec![":80".into()], vec![1]),
            ]
        );
    }

    #[test]
    fn contradictions_are_reported_and_the_rest_is_kept() {
        let mut diagnostics = Vec::new();
        let sites = [site(&["http://a:443", "https://a:80", "ftp://a", "b"], &[])];
        let pairings = pair(&sites, &[], &Ports::default(), &mut diagnostics);
        assert_eq!(diagnostics.len(), 3);
        assert_eq!(pairings.len(), 1);
        assert_eq!(pairings[0].blocks[0].keys, [3]);
    }
}
