//! Certificate issuers (`issuer` in `tls`, the option `cert_issuer`) and what they share with other lines: settings of
//! the DNS challenge, preferred chains.

use super::dns_provider;
use super::line::Line;
use crate::base::diagnostic::Diagnostic;
use crate::config::directive_cx::Parsed;
use crate::config::nanos::Nanos;
use crate::config::tls_types::{
    AcmeIssuer, ChainPreference, DnsChallenge, ExternalAccount, InternalIssuer, Issuer, ZeroSslIssuer,
};

const ISSUERS: &[&str] = &["acme", "internal", "zerossl"];
const ACME: &[&str] = &[
    "dir",
    "test_dir",
    "email",
    "profile",
    "timeout",
    "lifetime",
    "disable_http_challenge",
    "disable_tlsalpn_challenge",
    "alt_http_port",
    "alt_tlsalpn_port",
    "eab",
    "trusted_roots",
    "dns",
    "propagation_delay",
    "propagation_timeout",
    "resolvers",
    "dns_ttl",
    "dns_challenge_override_domain",
    "preferred_chains",
];
const ZEROSSL: &[&str] =
    &["validity_days", "alt_http_port", "dns", "propagation_delay", "propagation_timeout", "resolvers", "dns_ttl"];

/// `line` begins with the issuer's name.
pub fn read(line: &Line<'_>, diagnostics: &mut Vec<Diagnostic>) -> Parsed<Issuer> {
    match line.name() {
        "acme" => acme(line, diagnostics).map(Issuer::from),
        "internal" => Ok(Issuer::Internal(internal(line, diagnostics))),
        "zerossl" => zerossl(line, diagnostics).map(Issuer::Zerossl),
        _ => Err(line.unknown_module("certificate issuer", ISSUERS)),
    }
}

/// Settings of the DNS challenge that have a line of their own; false when the line is none of them. `dns` turns the
/// challenge on.
pub fn dns_setting<'d>(line: &Line<'_>, dns: impl FnOnce() -> &'d mut DnsChallenge) -> Parsed<bool> {
    match line.name() {
        "propagation_delay" => {
            let delay = line.duration()?;
            dns().propagation_delay = Nanos(delay);
        }
        "propagation_timeout" => {
            let never = line.one()?.text() == "-1";
            let timeout = if never { -1 } else { line.duration()? };
            dns().propagation_timeout = Nanos(timeout);
        }
        "resolvers" => {
            let resolvers = line.some()?;
            dns().resolvers = resolvers;
        }
        "dns_ttl" => {
            let ttl = line.duration()?;
            dns().ttl = Nanos(ttl);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// `preferred_chains smallest` or a block that names common names.
pub fn preferred_chains(line: &Line<'_>) -> Parsed<ChainPreference> {
    let mut out = ChainPreference::default();
    match line.none_or_one()? {
        None => {}
        Some(word) if word.text() == "smallest" => out.smallest = Some(true),
        Some(word) => {
            let message = format!("`{}` is not a preference", word.shown());
            return Err(Box::new(Diagnostic::error("invalid-value", message).at(word.span, "").help("`smallest`")));
        }
    }
    for option in line.lines() {
        if out.smallest.is_some() {
            return Err(option.error("contradicting-options", "`smallest` stands alone"));
        }
        match option.name() {
            "root_common_name" => out.root_common_name = option.some()?,
            "any_common_name" => out.any_common_name = option.some()?,
            _ => return Err(option.unknown("preferred_chains", &["root_common_name", "any_common_name"])),
        }
        if !out.root_common_name.is_empty() && !out.any_common_name.is_empty() {
            let message = "`root_common_name` and `any_common_name` cannot stand together";
            return Err(option.error("contradicting-options", message));
        }
    }
    if out == ChainPreference::default() {
        return Err(line.wrong_count());
    }
    Ok(out)
}

fn acme(line: &Line<'_>, diagnostics: &mut Vec<Diagnostic>) -> Parsed<AcmeIssuer> {
    let ca = line.none_or_one()?.map(|token| token.text().to_owned()).unwrap_or_default();
    let mut out = AcmeIssuer { ca, ..AcmeIssuer::default() };
    line.each(diagnostics, |option, _| acme_option(&option, &mut out));
    Ok(out)
}

fn acme_option(option: &Line<'_>, out: &mut AcmeIssuer) -> Parsed<()> {
    match option.name() {
        "dir" if !out.ca.is_empty() => return Err(option.duplicate()),
        "dir" => out.ca = option.text()?,
        "test_dir" => out.test_ca = option.text()?,
        "email" => out.email = option.text()?,
        "profile" => out.profile = option.text()?,
        "timeout" => out.acme_timeout = Nanos(option.duration()?),
        "lifetime" => {
            let lifetime = option.duration()?;
            if lifetime < 0 {
                return Err(option.error("invalid-duration", "a lifetime cannot be negative"));
            }
            out.certificate_lifetime = Nanos(lifetime);
        }
        "disable_http_challenge" => {
            option.none()?;
            out.challenges().http.get_or_insert_default().disabled = true;
        }
        "disable_tlsalpn_challenge" => {
            option.none()?;
            out.challenges().tls_alpn.get_or_insert_default().disabled = true;
        }
        "alt_http_port" => {
            let port = option.integer()?;
            out.challenges().http.get_or_insert_default().alternate_port = port;
        }
        "alt_tlsalpn_port" => {
            let port = option.integer()?;
            out.challenges().tls_alpn.get_or_insert_default().alternate_port = port;
        }
        "eab" => {
            let (key_id, mac_key) = option.two()?;
            let account = ExternalAccount { key_id: key_id.text().to_owned(), mac_key: mac_key.text().to_owned() };
            out.external_account = Some(account);
        }
        "trusted_roots" => out.trusted_roots_pem_files = option.words(),
        "dns" if option.args.is_empty() => {
            out.dns();
        }
        "dns" => {
            let provider = dns_provider::read(&option.module()?)?;
            out.dns().provider = Some(provider);
        }
        "dns_challenge_override_domain" => {
            let domain = option.text()?;
            out.dns().override_domain = domain;
        }
        "preferred_chains" => out.preferred_chains = Some(preferred_chains(option)?),
        _ => {
            if !dns_setting(option, || out.dns())? {
                return Err(option.unknown("issuer acme", ACME));
            }
        }
    }
    Ok(())
}

fn internal(line: &Line<'_>, diagnostics: &mut Vec<Diagnostic>) -> InternalIssuer {
    let mut out = InternalIssuer::default();
    if !line.args.is_empty() {
        // Words on the line hide the block from Caddy.
        line.warn_ignored(0, true, diagnostics);
        return out;
    }
    line.each(diagnostics, |option, _| {
        match option.name() {
            "ca" => out.ca = option.text()?,
            "lifetime" => out.lifetime = Nanos(option.duration()?),
            "sign_with_root" => {
                option.none()?;
                out.sign_with_root = true;
            }
            _ => return Err(option.unknown("issuer internal", &["ca", "lifetime", "sign_with_root"])),
        }
        Ok(())
    });
    out
}

fn zerossl(line: &Line<'_>, diagnostics: &mut Vec<Diagnostic>) -> Parsed<ZeroSslIssuer> {
    let mut out = ZeroSslIssuer { api_key: line.text()?, ..ZeroSslIssuer::default() };
    line.each(diagnostics, |option, _| {
        match option.name() {
            "validity_days" => out.validity_days = option.integer()?,
            "alt_http_port" => out.alternate_http_port = option.integer()?,
            "dns" => {
                let provider = dns_provider::read(&option.module()?)?;
                out.cname_validation.get_or_insert_default().provider = Some(provider);
            }
            _ => {
                if !dns_setting(&option, || out.cname_validation.get_or_insert_default())? {
                    return Err(option.unknown("issuer zerossl", ZEROSSL));
                }
            }
        }
        Ok(())
    });
    Ok(out)
}
