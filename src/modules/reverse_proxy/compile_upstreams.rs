//! The list of upstreams, each with what it has of its own.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::compile::{compile_ops, says_host};
use super::compile_transport::Transport;
use super::config::{Config, Upstream as UpstreamConfig};
use super::parse_to::knows_weights;
use crate::base::hex::hex;
use crate::client::Scheme;
use crate::config::compile_cx::CompileError;
use crate::llm::model_glob::ModelGlobs;
use crate::proxy::policy::Policy;
use crate::proxy::state::Turn;
use crate::proxy::upstream::Settings;
use crate::proxy::{TransportTemplate, Upstream};

/// `max_requests`: for upstreams that say nothing; 0 = no limit. `names_host`: nothing in the handler settles `Host`.
pub fn compile(
    config: &Config,
    transport: &Transport,
    max_requests: i64,
    names_host: bool,
) -> Result<Box<[Upstream]>, CompileError> {
    let one = |upstream: &UpstreamConfig| {
        let template = of_scheme(&upstream.scheme, &transport.template)?;
        let own_limit = if upstream.max_requests > 0 { upstream.max_requests } else { max_requests };
        let mut settings = Settings {
            max_requests: usize::try_from(own_limit).ok().filter(|n| *n > 0),
            weight: u32::try_from(upstream.weight).unwrap_or(0),
            names_host: names_host && template.scheme == Scheme::Https,
            models: ModelGlobs::new(&upstream.models),
            tells_no_usage: upstream.include_usage == Some(false),
            ..Settings::default()
        };
        if let Some(headers) = &upstream.headers {
            let compiled = compile_ops(&headers.request, "request")?;
            settings.names_host &= !says_host(Some(&headers.request));
            settings.header_up = (!compiled.is_empty()).then_some(compiled);
            settings.account = account(headers);
        }
        Upstream::new(&upstream.dial, &template, settings)
            .map_err(|why| CompileError::new("invalid-upstream-address", why).within("dial"))
    };
    let policy = config.load_balancing.as_ref().and_then(|lb| lb.selection_policy.as_ref());
    let weighted = config.upstreams.iter().position(|upstream| upstream.weight != 0);
    if let (Some(false), Some(i)) = (policy.map(knows_weights), weighted) {
        let message = "this selection policy has no use for the `weight` of an upstream";
        return Err(CompileError::new("contradicting-options", message).within("weight").within(i).within("upstreams"));
    }
    let upstreams = config.upstreams.iter().enumerate();
    upstreams.map(|(i, upstream)| one(upstream).map_err(|e| e.within(i).within("upstreams"))).collect()
}

/// Turns by the weights of the upstreams, if they have any.
pub fn by_weights(upstreams: &[UpstreamConfig], identity: &str) -> Option<Policy> {
    let weight = |upstream: &UpstreamConfig| u32::try_from(upstream.weight).ok().filter(|n| *n > 0).unwrap_or(1);
    upstreams.iter().any(|upstream| upstream.weight != 0).then(|| Policy::WeightedRoundRobin {
        weights: upstreams.iter().map(weight).collect(),
        turn: Turn::adopt(identity),
    })
}

fn of_scheme(scheme: &str, template: &Arc<TransportTemplate>) -> Result<Arc<TransportTemplate>, CompileError> {
    let scheme = match scheme {
        "" => return Ok(Arc::clone(template)),
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        "h2c" => Scheme::H2c,
        _ => {
            let message = "an upstream has the scheme http, https or h2c";
            return Err(CompileError::new("invalid-value", message).within("scheme"));
        }
    };
    let TransportTemplate { options, except_ports, server_name, .. } = &**template;
    let (options, except_ports, server_name) = (options.clone(), except_ports.clone(), server_name.clone());
    Ok(Arc::new(TransportTemplate { options, scheme, except_ports, server_name }))
}

/// Tells apart two accounts at one address, without telling their keys.
fn account(headers: &super::config::UpstreamHeaders) -> String {
    let digest = Sha256::digest(serde_json::to_vec(headers).unwrap_or_default());
    hex(&digest[..8])
}
