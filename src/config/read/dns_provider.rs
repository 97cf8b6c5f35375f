//! Providers of the DNS challenge: `dns` in `tls` and in issuers, the options `dns` and `acme_dns`.

use super::line::Line;
use crate::base::diagnostic::{Diagnostic, nearest};
use crate::config::directive_cx::Parsed;
use crate::config::dns_provider::{CloudflareProvider, DnsProvider, ExecProvider, NAMES};
use crate::config::nanos::Nanos;
use crate::config::types::Module;

const EXEC: &[&str] = &["timeout"];
const CLOUDFLARE: &[&str] = &["api_token", "zone_token", "endpoint"];

/// `line` begins with the provider's name.
pub fn read(line: &Line<'_>) -> Parsed<Module> {
    let provider = match line.name() {
        "exec" => DnsProvider::Exec(exec(line)?),
        // Words and lines hold tokens, so a message shows none of them.
        "cloudflare" => DnsProvider::Cloudflare(cloudflare(line).map_err(|d| without_secrets(line, *d))?),
        _ => return Err(unknown(line)),
    };
    Ok(provider.to_module())
}

fn unknown(line: &Line<'_>) -> Box<Diagnostic> {
    if nearest(line.name(), NAMES.iter().copied()).is_some() {
        return line.unknown_module("DNS provider", NAMES);
    }
    let message = format!("there is no DNS provider `{}`", line.name.shown());
    Box::new(Diagnostic::error("unknown-module", message).at(line.name.span, "").help(
        "it is `cloudflare`, or `exec PROGRAM`: a program of yours that sets and clears the record with any provider",
    ))
}

/// `exec PROGRAM [ARGS…] { timeout DURATION }`.
fn exec(line: &Line<'_>) -> Parsed<ExecProvider> {
    let Some((command, args)) = line.args.split_first() else { return Err(line.wrong_count()) };
    let args = args.iter().map(|token| token.text().to_owned()).collect();
    let mut out = ExecProvider { command: command.text().to_owned(), args, ..ExecProvider::default() };
    for option in line.lines() {
        match option.name() {
            "timeout" => {
                out.timeout = Nanos(option.duration()?);
                if out.timeout.0 <= 0 {
                    return Err(option.error("invalid-duration", "the program needs some time to run"));
                }
            }
            _ => return Err(option.unknown("dns exec", EXEC)),
        }
    }
    Ok(out)
}

/// `cloudflare [TOKEN] { api_token TOKEN; zone_token TOKEN; endpoint URL }`.
fn cloudflare(line: &Line<'_>) -> Parsed<CloudflareProvider> {
    let api_token = line.none_or_one()?.map(|token| token.text().to_owned()).unwrap_or_default();
    let mut out = CloudflareProvider { api_token, ..CloudflareProvider::default() };
    for option in line.lines() {
        let place = match option.name() {
            "api_token" => &mut out.api_token,
            "zone_token" => &mut out.zone_token,
            "endpoint" => &mut out.endpoint,
            _ => return Err(option.unknown("dns cloudflare", CLOUDFLARE)),
        };
        if !place.is_empty() {
            return Err(option.duplicate());
        }
        *place = option.text()?;
    }
    if out.api_token.is_empty() {
        let message = "`dns cloudflare` needs an API token that may edit the zone's records";
        let d = Diagnostic::error("dns-provider-not-usable", message).at(line.name.span, "");
        return Err(Box::new(
            d.help("write `dns cloudflare {env.CF_API_TOKEN}`; is the variable set where llmproxy runs?"),
        ));
    }
    Ok(out)
}

fn without_secrets(line: &Line<'_>, diagnostic: Diagnostic) -> Box<Diagnostic> {
    let of_lines = line.lines().flat_map(|option| option.args.iter().map(|token| token.span));
    let spans: Vec<_> = line.args.iter().map(|token| token.span).chain(of_lines).collect();
    Box::new(spans.into_iter().fold(diagnostic, Diagnostic::secret))
}
