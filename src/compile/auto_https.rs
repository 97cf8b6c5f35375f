//! Automatic HTTPS: which names get a certificate, which servers speak TLS, and the redirects from plain HTTP.
//!
//! The rules are Caddy's (its `autohttps.go`, phase one): a server that serves host names on another port than the HTTP
//! port speaks TLS; its names are looked after unless a certificate for them was given; plain HTTP is redirected with
//! 308, behind the routes for named hosts and before what catches everything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::address::ListenAddr;
use crate::config::types::{AutoHttps, HttpApp, MatcherSet, Route, Server};
use crate::tls::CertStore;
use crate::tls::acme::Kind;
use crate::tls::subject;

/// Server that answers redirects on addresses that no server of the configuration has.
pub const REDIRECT_SERVER: &str = "remaining_auto_https_redirects";

/// What automatic HTTPS adds to a configuration.
#[derive(Debug, Default)]
pub struct Additions {
    /// Names to look after, lower case, each with the server that serves it.
    pub names: BTreeMap<String, String>,
    /// Servers that speak TLS, whether or not they say so.
    pub tls: BTreeSet<String>,
    /// Routes for servers of the configuration.
    pub redirects: BTreeMap<String, Redirects>,
    /// A server for the redirects of the other addresses.
    pub server: Option<Server>,
    /// ACME challenges that some listener can answer.
    pub challenges: Vec<Kind>,
}

/// Redirects of one server.
#[derive(Debug, Default, PartialEq)]
pub struct Redirects {
    /// Where the routes for known names go in the server's list.
    pub at: usize,
    pub named: Vec<Route>,
    /// Behind everything.
    pub last: Vec<Route>,
}

/// Works out the additions. `http_port` and `https_port`: what the configuration means by them.
pub fn additions(http: &HttpApp, store: &CertStore, http_port: u16, https_port: u16) -> Additions {
    let mut out = Additions::default();
    // Address to be redirected from → routes, in the order of addresses.
    let mut redirects: BTreeMap<ListenAddr, Vec<Route>> = BTreeMap::new();
    for (name, server) in &http.servers {
        let auto = server.automatic_https.clone().unwrap_or_default();
        let listening = addresses(server);
        let only_http = listening.iter().all(|a| matches!(a, ListenAddr::Tcp { port, .. } if *port == http_port));
        let has_policies = !server.tls_connection_policies.is_empty();
        if auto.disable || only_http {
            if has_policies {
                out.tls.insert(name.clone());
            }
            continue;
        }
        let hosts = hosts(server, &auto.skip);
        if hosts.is_empty() && !has_policies {
            continue;
        }
        out.tls.insert(name.clone());
        if !auto.disable_certificates {
            let wanted = hosts.iter().filter(|host| wants_certificate(host, &auto, store));
            out.names.extend(wanted.map(|host| (host.clone(), name.clone())));
        }
        if auto.disable_redirects {
            continue;
        }
        for address in &listening {
            let ListenAddr::Tcp { ip, port } = address else { continue };
            let route = redirect(*port, https_port, &hosts);
            redirects.entry(ListenAddr::Tcp { ip: *ip, port: http_port }).or_default().push(route);
        }
    }
    place(redirects, http, https_port, &mut out);
    out.challenges = challenges(http, &out, http_port, https_port);
    out
}

/// CAs connect to port 80, and for the TLS challenge to port 443.
fn challenges(http: &HttpApp, out: &Additions, http_port: u16, https_port: u16) -> Vec<Kind> {
    let on = |server: &Server, wanted: u16| {
        addresses(server).iter().any(|a| matches!(a, ListenAddr::Tcp { port, .. } if *port == wanted))
    };
    let plain = http.servers.values().chain(&out.server).any(|server| on(server, http_port));
    let tls = http.servers.iter().any(|(name, server)| out.tls.contains(name) && on(server, https_port));
    [(plain, Kind::Http), (tls, Kind::TlsAlpn)].into_iter().filter_map(|(can, kind)| can.then_some(kind)).collect()
}

/// Puts the redirects into the servers that listen on their addresses, the rest into a server of their own.
fn place(redirects: BTreeMap<ListenAddr, Vec<Route>>, http: &HttpApp, https_port: u16, out: &mut Additions) {
    let mut rest = Server::default();
    for (address, routes) in redirects {
        let known = http.servers.iter().find(|(_, server)| addresses(server).contains(&address));
        match known {
            Some((name, server)) => {
                let added = out.redirects.entry(name.clone()).or_default();
                added.at = behind_hosts(&server.routes);
                // Without names to look after, the site's own catch-all comes first.
                if !out.names.is_empty() {
                    added.named.extend(routes);
                }
                if added.last.is_empty() {
                    added.last.push(redirect(https_port, https_port, &BTreeSet::new()));
                }
            }
            None => {
                rest.listen.push(address.to_string());
                rest.routes.extend(routes);
            }
        }
    }
    if !rest.listen.is_empty() {
        rest.routes.push(redirect(https_port, https_port, &BTreeSet::new()));
        rest.automatic_https = Some(AutoHttps { disable: true, ..AutoHttps::default() });
        out.server = Some(rest);
    }
}

/// The index behind the last route that asks for a host; 0 when none does.
fn behind_hosts(routes: &[Route]) -> usize {
    routes.iter().rposition(|r| r.matcher_sets.iter().any(|set| set.contains_key("host"))).map_or(0, |last| last + 1)
}

/// A redirect of plain HTTP for these hosts, of all when there are none.
fn redirect(port: u16, https_port: u16, hosts: &BTreeSet<String>) -> Route {
    let mut set = MatcherSet::new();
    set.insert("protocol".into(), Value::from("http"));
    if !hosts.is_empty() {
        set.insert("host".into(), hosts.iter().map(|h| Value::from(h.as_str())).collect());
    }
    // Clients reach the HTTPS port, whatever its number here, as 443.
    let port = if port == https_port || port == 443 { String::new() } else { format!(":{port}") };
    let location = format!("https://{{http.request.host}}{port}{{http.request.uri}}");
    let handler = json!({
        "handler": "static_response", "status_code": 308, "headers": {"Location": [location]}, "close": true,
    });
    let Value::Object(handler) = handler else { return Route::default() };
    Route { matcher_sets: vec![set], handlers: vec![handler], terminal: true, ..Route::default() }
}

fn wants_certificate(host: &str, auto: &AutoHttps, store: &CertStore) -> bool {
    subject::qualifies(host)
        && !auto.skip_certificates.iter().any(|s| s.eq_ignore_ascii_case(host))
        && (auto.ignore_loaded_certificates || !store.covers(host))
}

/// Host names of the server's top-level routes, lower case.
fn hosts(server: &Server, skip: &[String]) -> BTreeSet<String> {
    let mut hosts = BTreeSet::new();
    for set in server.routes.iter().flat_map(|r| &r.matcher_sets) {
        for host in set.get("host").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !host.contains('{') && !skip.iter().any(|s| s.eq_ignore_ascii_case(host)) {
                hosts.insert(crate::http::host::to_ascii(host).to_ascii_lowercase());
            }
        }
    }
    hosts
}

/// What a server listens on; what cannot be read is told where it is compiled.
fn addresses(server: &Server) -> Vec<ListenAddr> {
    server.listen.iter().filter_map(|text| ListenAddr::parse(text).ok()).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn add(servers: Value) -> Additions {
        let http: HttpApp = serde_json::from_value(json!({"servers": servers})).unwrap();
        additions(&http, &CertStore::new(Vec::new(), Arc::default()), 80, 443)
    }

    fn site(hosts: &[&str]) -> Value {
        json!({"match": [{"host": hosts}], "handle": [{"handler": "static_response"}], "terminal": true})
    }

    fn location(route: &Route) -> &str {
        route.handlers[0]["headers"]["Location"][0].as_str().unwrap()
    }

    #[test]
    fn a_named_site_gets_a_certificate_and_a_redirect_of_its_own_server() {
        let added =
            add(json!({"srv0": {"listen": [":443"], "routes": [site(&["B.test", "a.test"]), site(&["a.test"])]}}));
        assert_eq!(added.names.keys().collect::<Vec<_>>(), ["a.test", "b.test"]);
        assert!(added.tls.contains("srv0") && added.redirects.is_empty());
        let server = added.server.unwrap();
        assert_eq!(server.listen, [":80"]);
        assert_eq!(server.routes.len(), 2);
        assert_eq!(server.routes[0].matcher_sets[0]["host"], json!(["a.test", "b.test"]));
        assert_eq!(location(&server.routes[0]), "https://{http.request.host}{http.request.uri}");
        assert!(!server.routes[1].matcher_sets[0].contains_key("host"));
    }

    #[test]
    fn other_ports_are_told_in_the_redirect() {
        let added = add(json!({"srv0": {"listen": ["127.0.0.1:8443"], "routes": [site(&["a.test"])]}}));
        let server = added.server.unwrap();
        assert_eq!(server.listen, ["127.0.0.1:80"]);
        assert_eq!(location(&server.routes[0]), "https://{http.request.host}:8443{http.request.uri}");
    }

    #[test]
    fn redirects_stand_behind_named_hosts_and_before_what_catches_all() {
        let all = json!({"handle": [{"handler": "static_response"}]});
        let added = add(json!({
            "srv0": {"listen": [":443"], "routes": [site(&["a.test"])]},
            "srv1": {"listen": [":80"], "routes": [site(&["plain.test"]), all]},
        }));
        assert!(added.server.is_none());
        let redirects = &added.redirects["srv1"];
        assert_eq!((redirects.at, redirects.named.len(), redirects.last.len()), (1, 1, 1));
        assert!(!added.tls.contains("srv1"));
    }

    #[test]
    fn what_is_turned_off_stays_off() {
        for auto in [json!({"disable": true}), json!({"skip": ["a.test"]})] {
            let added =
                add(json!({"srv0": {"listen": [":443"], "routes": [site(&["a.test"])], "automatic_https": auto}}));
            assert!(added.names.is_empty() && added.tls.is_empty() && added.server.is_none(), "{auto}");
        }
        let certificates = json!({"disable_certificates": true});
        let added =
            add(json!({"srv0": {"listen": [":443"], "routes": [site(&["a.test"])], "automatic_https": certificates}}));
        assert!(added.names.is_empty() && added.tls.contains("srv0") && added.server.is_some());
        let redirects = json!({"disable_redirects": true, "skip_certificates": ["b.test"]});
        let added = add(json!({"srv0": {
            "listen": [":443"], "routes": [site(&["a.test", "b.test"])], "automatic_https": redirects,
        }}));
        assert_eq!(added.names.keys().collect::<Vec<_>>(), ["a.test"]);
        assert!(added.server.is_none());
    }

    #[test]
    fn plain_servers_are_left_alone() {
        for server in [
            json!({"listen": [":80"], "routes": [site(&["a.test"])]}),
            json!({"listen": [":8080"], "routes": [{"handle": []}]}),
            json!({"listen": ["unix//run/x.sock"], "routes": []}),
        ] {
            let added = add(json!({"srv0": server}));
            assert!(added.names.is_empty() && added.tls.is_empty() && added.server.is_none(), "{server}");
        }
    }
}
