//! The PKI app: certificate authorities of the global options and of `acme_server` lines.

use serde_json::{Value, json};

use super::options::set;
use super::site::SiteInfo;
use crate::config::directive_cx::{FileCx, Parsed, TlsValue};
use crate::config::nanos::Nanos;
use crate::config::read::Line;
use crate::config::tls_types::{CertificateAuthority, InternalIssuer, Issuer, KeyPair, Pki};

const DEFAULT: &str = "local";
const OPTIONS: &[&str] = &[
    "name",
    "root_cn",
    "intermediate_cn",
    "intermediate_lifetime",
    "maintenance_interval",
    "renewal_window_ratio",
    "root",
    "intermediate",
];

/// The option `pki { ca [id] { … } }`. A second one takes the place of the first, as in Caddy.
#[allow(clippy::unnecessary_wraps)] // the signature of all readers
pub(super) fn read(line: &Line<'_>, cx: &mut FileCx<'_>) -> Parsed<()> {
    let mut out = Pki::default();
    line.warn_ignored(0, false, &mut cx.diagnostics);
    line.each(&mut cx.diagnostics, |option, diagnostics| {
        if option.name() != "ca" {
            return Err(option.unknown("pki", &["ca"]));
        }
        let id = option.none_or_one()?.map_or(DEFAULT, |token| token.text());
        let mut ca = CertificateAuthority::default();
        option.each(diagnostics, |setting, diagnostics| {
            match setting.name() {
                "name" => ca.name = setting.text()?,
                "root_cn" => ca.root_common_name = setting.text()?,
                "intermediate_cn" => ca.intermediate_common_name = setting.text()?,
                "intermediate_lifetime" => ca.intermediate_lifetime = Nanos(setting.duration()?),
                "maintenance_interval" => ca.maintenance_interval = Nanos(setting.duration()?),
                "renewal_window_ratio" => ca.renewal_window_ratio = setting.ratio()?,
                "root" => key_pair(&setting, ca.root.get_or_insert_default(), diagnostics)?,
                "intermediate" => key_pair(&setting, ca.intermediate.get_or_insert_default(), diagnostics)?,
                _ => return Err(setting.unknown("ca", OPTIONS)),
            }
            Ok(())
        });
        out.certificate_authorities.insert(id.to_owned(), ca);
        Ok(())
    });
    set(cx, line, json!(out));
    Ok(())
}

/// `None` when there is nothing to say.
pub fn build(sites: &[SiteInfo], cx: &mut FileCx<'_>) -> Option<Value> {
    let mut pki: Pki =
        cx.options.get("pki").and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default();
    let named = cx.state.get("pki.ca").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for id in named {
        pki.certificate_authorities.entry(id.to_owned()).or_default();
    }
    if cx.options.contains_key("skip_install_trust") {
        // The option lives in the authorities, so each that is used must stand there.
        let modes = cx.options.get("auto_https").and_then(Value::as_array).into_iter().flatten();
        let off = modes.into_iter().any(|mode| mode == "off");
        if pki.certificate_authorities.is_empty() && !off {
            pki.certificate_authorities.insert(DEFAULT.to_owned(), CertificateAuthority::default());
        }
        for (value, _) in sites.iter().flat_map(|site| &site.tls) {
            if let TlsValue::Issuer(Issuer::Internal(InternalIssuer { ca, .. })) = value {
                let id = if ca.is_empty() { DEFAULT } else { ca };
                pki.certificate_authorities.entry(id.to_owned()).or_default();
            }
        }
        pki.certificate_authorities.values_mut().for_each(|ca| ca.install_trust = Some(false));
    }
    (!pki.certificate_authorities.is_empty()).then(|| json!(pki))
}

fn key_pair(
    line: &Line<'_>,
    out: &mut KeyPair,
    diagnostics: &mut Vec<crate::base::diagnostic::Diagnostic>,
) -> Parsed<()> {
    line.none()?;
    line.each(diagnostics, |option, _| {
        match option.name() {
            "cert" => out.certificate = option.text()?,
            "key" => out.private_key = option.text()?,
            "format" => out.format = option.text()?,
            _ => return Err(option.unknown(line.name(), &["cert", "key", "format"])),
        }
        Ok(())
    });
    Ok(())
}
