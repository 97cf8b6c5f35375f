//! Access logs: which logger takes the entries of which hosts, and the `logging` section of the config.

use serde_json::{Value, json};

use super::listen::split_host_port;
use super::site::{Pairing, ServerBlock, SiteInfo};
use crate::config::directive_cx::{AccessLog, FileCx};
use crate::config::types::{Log, Logging, ServerLogs};

const DEFAULT: &str = "default";

/// Gives a site's `log` line its logger name and the name that its entries carry. `next` counts the nameless ones of
/// the file.
pub fn name(access: &mut AccessLog, next: &mut usize) {
    if access.name.is_empty() && access.log.is_some() {
        access.name = format!("log{next}");
        *next += 1;
    }
    if !access.name.is_empty()
        && let Some(log) = &mut access.log
    {
        log.include = vec![format!("http.log.access.{}", access.name)];
    }
}

/// Adds a block's loggers to those of its server. The server logs, so a block without a logger is left out by name.
pub fn associate(block: &ServerBlock, sites: &[SiteInfo], server: &mut ServerLogs) {
    let Some(site) = sites.get(block.site) else { return };
    let log_hosts = block.log_hosts(sites);
    for (access, _) in site.access_logs.iter().filter(|(access, _)| !access.no_hostname) {
        if !access.hostnames.is_empty() {
            access.hostnames.iter().for_each(|host| add_logger(server, host, &access.name));
        } else if block.has_catch_all_key(sites) {
            server.default_logger_name.clone_from(&access.name);
        } else {
            for host in &log_hosts {
                let host = split_host_port(host).map_or(host.as_str(), |(host, _)| host);
                add_logger(server, host, &access.name);
            }
        }
    }
    if site.access_logs.is_empty() {
        if block.hosts(sites).is_empty() {
            server.skip_unmapped_hosts = true;
        }
        server.skip_hosts.extend(log_hosts);
    }
}

/// The `logging` section: logs of the global options, then those of the sites; `None` when nothing is said.
pub fn section(pairings: &[Pairing], sites: &[SiteInfo], cx: &FileCx<'_>) -> Option<Logging> {
    let debug = cx.options.contains_key("debug");
    let mut named: Vec<(String, Option<Log>)> = Vec::new();
    for entry in cx.options.get("log").and_then(Value::as_array).into_iter().flatten() {
        let name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
        let log = entry.get("log").and_then(|log| serde_json::from_value(log.clone()).ok());
        named.push((name.to_owned(), log));
    }
    if debug && !named.iter().any(|(name, _)| name == DEFAULT) {
        named.push((DEFAULT.to_owned(), Some(Log::default())));
    }
    let blocks = pairings.iter().flat_map(|pairing| &pairing.blocks);
    for (access, _) in blocks.filter_map(|block| sites.get(block.site)).flat_map(|site| &site.access_logs) {
        named.push((access.name.clone(), access.log.clone()));
    }
    named.retain(|(name, _)| !name.is_empty());
    if debug {
        for log in named.iter_mut().filter_map(|(_, log)| log.as_mut()).filter(|log| log.level.is_empty()) {
            "DEBUG".clone_into(&mut log.level);
        }
    }

    let mut logging = Logging::default();
    if let Some((_, Some(log))) = named.iter().find(|(name, log)| name == DEFAULT && log.is_some()) {
        logging.logs.insert(DEFAULT.to_owned(), log.clone());
    }
    for (name, log) in named {
        let Some(log) = log.filter(|_| name != DEFAULT) else { continue };
        // What a log takes by name, the default log leaves out.
        if !log.include.is_empty() {
            let default = logging.logs.entry(DEFAULT.to_owned()).or_default();
            default.exclude.extend(log.include.iter().cloned());
            default.exclude.sort();
            default.exclude.dedup();
        }
        logging.logs.insert(name, log);
    }
    (!logging.logs.is_empty()).then_some(logging)
}

fn add_logger(server: &mut ServerLogs, host: &str, logger: &str) {
    let names = server.logger_names.entry(host.to_owned()).or_insert_with(|| json!([]));
    if let Value::Array(names) = names {
        names.push(Value::String(logger.to_owned()));
    }
}
