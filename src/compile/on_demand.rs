//! Which names get a certificate on demand: the policies with `on_demand` or `get_certificate`, and who is asked for
//! permission.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError};
use crate::config::tls_types::{Automation as Policies, AutomationPolicy, Issuer};
use crate::config::types::{Module, module_id};
use crate::http::placeholder::Template;
use crate::tls::acme;
use crate::tls::automation::Automation;
use crate::tls::on_demand::{Demand, DemandPolicy, External, Permission};

/// `made`: how the certificates of a policy, by its number, are to be had. `None` when nothing is on demand.
pub fn demand(
    read: &Policies,
    mut made: impl FnMut(usize) -> Arc<Automation>,
    cx: &mut CompileCx<'_>,
) -> Option<Demand> {
    if !read.policies.iter().any(is_on_demand) {
        return None;
    }
    let module = read.on_demand.as_ref().and_then(|on_demand| on_demand.permission.as_ref());
    // Found wrong once, told once; made once more for each policy.
    let permission = || module.map(permission);
    if let Some(Err(error)) = permission() {
        cx.at("on_demand", |cx| cx.at("permission", |cx| cx.report(error)));
    }
    let mut policies = Vec::with_capacity(read.policies.len());
    for (i, policy) in read.policies.iter().enumerate() {
        let subjects = policy.subjects.iter().map(|subject| subject.to_ascii_lowercase()).collect();
        let compiled = is_on_demand(policy).then(|| {
            let permission = permission().and_then(Result::ok);
            let compiled =
                cx.at("policies", |cx| cx.at(i, |cx| compile(policy, made(i), permission, module.is_some(), cx)));
            Arc::new(compiled)
        });
        policies.push((subjects, compiled));
    }
    Some(Demand { policies, written: BTreeSet::new() })
}

/// Whether the certificates of this policy's names wait for the first client.
pub fn is_on_demand(policy: &AutomationPolicy) -> bool {
    policy.on_demand || !policy.get_certificate.is_empty()
}

fn compile(
    policy: &AutomationPolicy,
    automation: Arc<Automation>,
    permission: Option<Permission>,
    is_asked: bool,
    cx: &mut CompileCx<'_>,
) -> DemandPolicy {
    let anybodys = policy.subjects.is_empty() || policy.subjects.iter().any(|subject| subject.starts_with('*'));
    let only_internal = matches!(automation.issuers[..], [Issuer::Internal(_)]);
    // Caddy's rule: what the names themselves do not bound, and what goes to a public CA, needs somebody who says yes.
    let unprotected = anybodys && !only_internal && !is_asked;
    if unprotected && policy.get_certificate.is_empty() {
        let message = "certificates on demand for any name need somebody who is asked for permission";
        let help = "name a URL in the global options, `on_demand_tls { ask http://localhost:5555/check }`: it is asked with `?domain=NAME` and answers 200 for yes; or name the hosts of the site";
        cx.report(CompileError::new("on-demand-without-permission", message).help(help));
    }
    let sources = policy.get_certificate.iter().enumerate();
    let sources = sources.filter_map(|(j, module)| match external(module) {
        Ok(source) => Some(source),
        Err(error) => {
            cx.at("get_certificate", |cx| cx.at(j, |cx| cx.report(error)));
            None
        }
    });
    let sources = sources.collect();
    let is_public = |issuer: &Issuer| {
        issuer.acme().is_some_and(|acme| [acme::LETS_ENCRYPT, acme::ZEROSSL].contains(&acme::directory(acme)))
    };
    DemandPolicy {
        public_only: policy.get_certificate.is_empty() && automation.issuers.iter().all(is_public),
        automation,
        sources,
        issues: !unprotected,
        keeps: is_asked || !anybodys,
        permission,
    }
}

fn permission(module: &Module) -> Result<Permission, CompileError> {
    match module_id(module, "module") {
        "http" => Permission::new(&url(module, "endpoint")?).map_err(|error| wrong_url(&error).within("endpoint")),
        other => Err(CompileError::not_supported(format_args!("permission module `{other}`"))),
    }
}

fn external(module: &Module) -> Result<External, CompileError> {
    match module_id(module, "via") {
        "http" => External::new(&url(module, "url")?).map_err(|error| wrong_url(&error).within("url")),
        "tailscale" => Err(CompileError::not_supported("`get_certificate tailscale`")
            .help("`tailscale cert NAME` writes files, which `tls CERT KEY` takes")),
        other => Err(CompileError::not_supported(format_args!("source of certificates `{other}`"))),
    }
}

/// The URL in a module that holds nothing else; placeholders of the environment are replaced.
fn url(module: &Module, field: &str) -> Result<String, CompileError> {
    if let Some(unknown) = module.keys().find(|key| !["module", "via", field].contains(&key.as_str())) {
        return Err(CompileError::not_supported(format_args!("`{unknown}`")).within(unknown));
    }
    let text = module.get(field).and_then(Value::as_str).unwrap_or_default();
    match Template::parse(text).as_static() {
        Some(url) => Ok(url.to_owned()),
        None => Err(CompileError::not_supported("a placeholder of a request here").within(field)),
    }
}

fn wrong_url(error: &str) -> CompileError {
    CompileError::new("invalid-value", error).help("write it as http://localhost:5555/path")
}
