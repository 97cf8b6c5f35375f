//! `dynamic_upstreams` to the lists that are looked up while requests come.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::config::Resolver;
use crate::config::compile_cx::{CompileError, read};
use crate::config::dns_servers;
use crate::config::nanos::Nanos;
use crate::config::types::{Module, module_id};
use crate::http::placeholder::Template;
use crate::proxy::dynamic::{Dynamic, Families, Found, Lookup, Source, SourceOptions};

/// As in Caddy.
const REFRESH: Duration = Duration::from_mins(1);

/// `found`: what each upstream of the lists is like.
pub fn compile(module: &Module, found: Found) -> Result<Dynamic, CompileError> {
    let mut sources = Vec::new();
    collect(module, &mut sources)?;
    Ok(Dynamic::new(sources, found))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct A {
    name: String,
    port: String,
    versions: Versions,
    refresh: Nanos,
    resolver: Option<Resolver>,
    dial_timeout: Nanos,
    /// Servers are asked at one address each: there is nothing to fall back to.
    #[serde(rename = "dial_fallback_delay")]
    _dial_fallback_delay: Nanos,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Versions {
    ipv4: Option<bool>,
    ipv6: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Srv {
    service: String,
    proto: String,
    name: String,
    refresh: Nanos,
    grace_period: Nanos,
    resolver: Option<Resolver>,
    dial_timeout: Nanos,
    /// As for `a`.
    #[serde(rename = "dial_fallback_delay")]
    _dial_fallback_delay: Nanos,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Multi {
    sources: Vec<Module>,
}

fn collect(module: &Module, out: &mut Vec<Source>) -> Result<(), CompileError> {
    match module_id(module, "source") {
        "a" => out.push(a(read(module, "source")?)?),
        "srv" => out.push(srv(&read(module, "source")?)?),
        "multi" => {
            let multi: Multi = read(module, "source")?;
            for (i, source) in multi.sources.iter().enumerate() {
                collect(source, out).map_err(|e| e.within(i).within("sources"))?;
            }
        }
        other => return Err(CompileError::not_supported(format_args!("`dynamic {other}`"))),
    }
    Ok(())
}

fn a(config: A) -> Result<Source, CompileError> {
    needed(&config.name)?;
    let port = if config.port.is_empty() { "80" } else { &config.port };
    let port = Template::parse(port);
    if port.as_static().is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(CompileError::new("invalid-value", "the port is not a number below 65536").within("port"));
    }
    Ok(Source {
        lookup: Lookup::Addresses { name: Template::parse(&config.name), port, families: families(&config.versions) },
        options: options(config.refresh, Nanos(0), config.resolver.as_ref(), config.dial_timeout)?,
    })
}

fn srv(config: &Srv) -> Result<Source, CompileError> {
    needed(&config.name)?;
    let name = if config.service.is_empty() && config.proto.is_empty() {
        config.name.clone()
    } else {
        format!("_{}._{}.{}", config.service, config.proto, config.name)
    };
    Ok(Source {
        lookup: Lookup::Services { name: Template::parse(&name) },
        options: options(config.refresh, config.grace_period, config.resolver.as_ref(), config.dial_timeout)?,
    })
}

fn needed(name: &str) -> Result<(), CompileError> {
    if name.is_empty() {
        return Err(CompileError::new("missing-option", "a lookup of upstreams needs a `name`").within("name"));
    }
    Ok(())
}

/// One that is asked for leaves the other out, unless that is asked for too.
fn families(versions: &Versions) -> Families {
    let some = versions.ipv4 == Some(true) || versions.ipv6 == Some(true);
    Families { v4: versions.ipv4.unwrap_or(!some), v6: versions.ipv6.unwrap_or(!some) }
}

fn options(
    refresh: Nanos,
    grace: Nanos,
    resolver: Option<&Resolver>,
    timeout: Nanos,
) -> Result<SourceOptions, CompileError> {
    let servers: Vec<SocketAddr> = match resolver {
        Some(resolver) => {
            dns_servers::parse(&resolver.addresses).map_err(|e| e.within("addresses").within("resolver"))?
        }
        None => Vec::new(),
    };
    Ok(SourceOptions {
        refresh: refresh.positive().unwrap_or(REFRESH),
        grace: grace.positive().unwrap_or_default(),
        servers: servers.into(),
        timeout: timeout.positive(),
    })
}
