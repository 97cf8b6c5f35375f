//! Reads the lines of `reverse_proxy`; `forward_auth` and `php_fastcgi` hand theirs on to it.

use super::address;
use super::config::{Config, HttpTransport, Upstream};
use super::parse_transport::{Transport, transport};
use super::words::{duration_or_number, each_line, size_or_unlimited};
use super::{parse_breaker, parse_dynamic, parse_health, parse_policy, parse_retry, parse_stream, parse_to};
use crate::base::diagnostic::Diagnostic;
use crate::base::span::Span;
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::response_handler::Responses;
use crate::config::types::{self, Module};
use crate::http::headers::{DefaultOnRequest, HeaderOps};
use crate::http::ip_range::PRIVATE_RANGES;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

const OPTIONS: &[&str] = &[
    "to",
    "dynamic",
    "lb_policy",
    "circuit_breaker",
    "flush_interval",
    "request_buffers",
    "response_buffers",
    "stream_buffer_size",
    "stream_timeout",
    "stream_close_delay",
    "trusted_proxies",
    "header_up",
    "header_down",
    "method",
    "rewrite",
    "transport",
    "handle_response",
    "replace_status",
    "verbose_logs",
    "sse_keepalive",
    "sse_errors",
];

/// State of one directive while its lines are read.
struct Reader<'n> {
    config: Config,
    /// The scheme of each upstream of `config`, and where it was said.
    schemes: Vec<(String, Span)>,
    /// An upstream has settings of its own: the form that Caddy does not have.
    own_settings: bool,
    transport: Option<Transport>,
    responses: Responses<'n>,
}

/// Reads upstream words and option lines on top of `base`.
pub fn parse<'n>(
    cx: &mut DirectiveCx<'_, '_>,
    base: Config,
    upstreams: &'n [Token],
    lines: impl Iterator<Item = &'n Node>,
) -> Parsed<Config> {
    let mut reader = Reader {
        config: base,
        schemes: Vec::new(),
        own_settings: false,
        transport: None,
        responses: Responses::default(),
    };
    // A wrong upstream does not hide what is wrong in the lines.
    let first = upstreams.iter().try_for_each(|token| reader.upstream(token));
    let rest = each_line(cx, lines, |cx, node| reader.line(cx, node));
    let schemes = reader.schemes_agree();
    let mut wrong = [first, rest, schemes].into_iter().filter_map(Result::err);
    if let Some(first) = wrong.next() {
        cx.file.diagnostics.extend(wrong.map(|d| *d));
        return Err(first);
    }
    reader.finish(cx)
}

impl<'n> Reader<'n> {
    fn line(&mut self, cx: &mut DirectiveCx<'_, '_>, node: &'n Node) -> Parsed<()> {
        if let Some(done) = self.responses.line(cx, node) {
            return done;
        }
        let config = &mut self.config;
        match node.name() {
            "to" => {
                let own = parse_to::settings(cx, node)?;
                let before = config.upstreams.len();
                node.args.iter().try_for_each(|token| self.upstream(token))?;
                if let Some(own) = own {
                    self.own_settings = true;
                    self.config.upstreams.iter_mut().skip(before).for_each(|upstream| own.give(upstream));
                }
            }
            "dynamic" => {
                if config.dynamic_upstreams.is_some() {
                    return Err(cx.duplicate(node));
                }
                config.dynamic_upstreams = Some(parse_dynamic::dynamic(cx, node)?);
            }
            "lb_policy" => {
                if config.load_balancing.as_ref().is_some_and(|lb| lb.selection_policy.is_some()) {
                    return Err(cx.duplicate(node));
                }
                let policy = parse_policy::policy(cx, node)?;
                config.load_balancing.get_or_insert_default().selection_policy = Some(policy);
            }
            name if parse_retry::OPTIONS.contains(&name) => {
                parse_retry::line(cx, &mut config.load_balancing, node)?;
            }
            "sse_keepalive" | "sse_errors" => parse_stream::line(cx, config, node)?,
            name if parse_health::OPTIONS.contains(&name) => {
                parse_health::line(cx, &mut config.health_checks, node)?;
            }
            "circuit_breaker" => {
                if config.circuit_breaker.is_some() {
                    return Err(cx.duplicate(node));
                }
                config.circuit_breaker = Some(parse_breaker::circuit_breaker(cx, node)?);
            }
            "flush_interval" => config.flush_interval = duration_or_number(cx.value(node)?)?,
            "request_buffers" => config.request_buffers = size_or_unlimited(cx.value(node)?)?,
            "response_buffers" => config.response_buffers = size_or_unlimited(cx.value(node)?)?,
            "stream_buffer_size" => config.stream_buffer_size = super::words::size(cx.value(node)?)?,
            "stream_timeout" => config.stream_timeout = duration_or_number(cx.value(node)?)?,
            "stream_close_delay" => config.stream_close_delay = duration_or_number(cx.value(node)?)?,
            "trusted_proxies" => {
                cx.no_block(node)?;
                for range in &node.args {
                    if range.text() == "private_ranges" {
                        config.trusted_proxies.extend(PRIVATE_RANGES.map(str::to_owned));
                    } else {
                        config.trusted_proxies.push(range.text().to_owned());
                    }
                }
            }
            "header_up" => {
                cx.no_block(node)?;
                warn_unneeded_header(cx, node);
                let ops = config.headers.get_or_insert_default().request.get_or_insert_default();
                header_op(cx, ops, node)?;
            }
            "header_down" => {
                cx.no_block(node)?;
                let ops = config.headers.get_or_insert_default().response.get_or_insert_default();
                header_op(cx, &mut ops.ops, node)?;
            }
            "method" | "rewrite" => {
                let value = cx.value(node)?.text().to_owned();
                let rewrite = config.rewrite.get_or_insert_default();
                if node.name() == "method" {
                    rewrite.method = value;
                } else {
                    rewrite.uri = value;
                }
            }
            "transport" => {
                if self.transport.is_some() {
                    return Err(cx.duplicate(node));
                }
                self.transport = Some(transport(cx, node)?);
            }
            "verbose_logs" => {
                if config.verbose_logs {
                    return Err(cx.duplicate(node));
                }
                config.verbose_logs = cx.flag(node)?;
            }
            _ => {
                let known: Vec<&str> =
                    OPTIONS.iter().chain(parse_retry::OPTIONS).chain(parse_health::OPTIONS).copied().collect();
                return Err(cx.unknown(node, &known));
            }
        }
        Ok(())
    }

    fn upstream(&mut self, token: &Token) -> Parsed<()> {
        let parsed = address::parse(token.text()).map_err(|why| {
            Box::new(
                Diagnostic::error(
                    "invalid-upstream-address",
                    format!("`{}` is not an upstream address", token.shown()),
                )
                .at(token.span, "")
                .help(why),
            )
        })?;
        for dial in parsed.dials {
            self.schemes.push((parsed.scheme.clone(), token.span));
            self.config.upstreams.push(Upstream { dial, ..Upstream::default() });
        }
        Ok(())
    }

    /// Without settings of their own, upstreams share one scheme, as in Caddy.
    fn schemes_agree(&self) -> Parsed<()> {
        let mut said: Option<&(String, Span)> = None;
        for one in &self.schemes {
            let (scheme, span) = one;
            match said {
                Some((common, at)) if scheme != common && !self.own_settings => {
                    return Err(Box::new(mixed_schemes((scheme, *span), (common, *at))));
                }
                _ => said = Some(one).filter(|_| !scheme.is_empty()).or(said),
            }
        }
        Ok(())
    }

    /// Settles the transport by the schemes and reads the response routes.
    fn finish(mut self, cx: &mut DirectiveCx<'_, '_>) -> Parsed<Config> {
        if self.own_settings {
            parse_to::check(cx, &self.config)?;
            self.config.load_balancing.get_or_insert_default().retry_exclude_failed.get_or_insert(true);
        }
        let any = |scheme: &str| self.schemes.iter().any(|(said, _)| said == scheme);
        let (https, h2c, http) = (any("https"), any("h2c"), any("http"));
        let mixed = self.schemes.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a != b)) && self.own_settings;
        if (https || h2c) && self.transport.is_none() && self.config.transport.is_none() {
            self.transport = Some(Transport::Http(Box::default()));
        }
        let here = self.schemes.last().map_or(cx.node.name.span, |(_, span)| *span);
        let contradiction = |what: &str| Err(cx.err(here, "contradicting-options", what));
        match self.transport {
            Some(Transport::Http(mut transport)) => {
                if http && !https && transport.tls.is_some() {
                    return contradiction("the upstream is `http://` but its transport has TLS options");
                }
                if mixed {
                    // An upstream without a scheme is what it would be alone.
                    let unsaid = if transport.tls.is_some() { "https" } else { "http" };
                    for (upstream, (scheme, _)) in self.config.upstreams.iter_mut().zip(&self.schemes) {
                        upstream.scheme = if scheme.is_empty() { unsaid.to_owned() } else { scheme.clone() };
                    }
                }
                if https {
                    transport.tls.get_or_insert_default();
                } else if h2c && !mixed {
                    transport.versions = vec!["h2c".into(), "2".into()];
                }
                // The default transport is left out, as Caddy leaves it out.
                if *transport != HttpTransport::default() {
                    self.config.transport = Some(protocol("http", &*transport));
                }
            }
            Some(Transport::Fastcgi(fastcgi)) => {
                if https {
                    return contradiction("the fastcgi transport has no TLS");
                }
                self.config.transport = Some(protocol("fastcgi", &fastcgi));
            }
            None => {}
        }
        self.responses.finish(cx, &mut self.config.handle_response)?;
        Ok(self.config)
    }
}

fn mixed_schemes((scheme, span): (&str, Span), (common, at): (&str, Span)) -> Diagnostic {
    let said = if scheme.is_empty() { "no scheme".to_owned() } else { format!("`{scheme}://`") };
    Diagnostic::error("mixed-upstream-schemes", "all upstreams of one reverse_proxy share one scheme")
        .at(span, said)
        .help("give all of them the same scheme, use two reverse_proxy lines, or give upstreams settings of their own: `to URL { … }`")
        .also(at, format!("`{common}://` here"))
}

/// `{"protocol": NAME, …}`.
pub fn protocol(name: &str, typed: &impl serde::Serialize) -> Module {
    types::module("protocol", name, typed)
}

pub(super) fn header_op(cx: &mut DirectiveCx<'_, '_>, ops: &mut HeaderOps, node: &Node) -> Parsed<()> {
    let (field, value, replacement) = match node.args.as_slice() {
        [field] => (field, None, None),
        [field, value] => (field, Some(value), None),
        [field, value, replacement] => (field, Some(value), Some(replacement)),
        _ => return Err(cx.arg_err(node)),
    };
    ops.add_line(field.text(), value.map_or("", Token::text), replacement.map(Token::text)).map_err(
        |DefaultOnRequest| {
            Box::new(Diagnostic::error(DefaultOnRequest::CODE, DefaultOnRequest::MESSAGE).at(field.span, ""))
        },
    )
}

/// Lines that only repeat what the proxy does by itself.
pub(super) fn warn_unneeded_header(cx: &mut DirectiveCx<'_, '_>, node: &Node) {
    let [field, value] = node.args.as_slice() else { return };
    let repeats = match field.text().to_ascii_lowercase().as_str() {
        "host" => matches!(value.text(), "{hostport}" | "{http.request.hostport}"),
        "x-forwarded-for" => {
            matches!(
                value.text(),
                "{remote}" | "{http.request.remote}" | "{remote_host}" | "{http.request.remote.host}"
            )
        }
        "x-forwarded-proto" => matches!(value.text(), "{scheme}" | "{http.request.scheme}"),
        "x-forwarded-host" => {
            matches!(value.text(), "{host}" | "{http.request.host}" | "{hostport}" | "{http.request.hostport}")
        }
        _ => false,
    };
    if repeats {
        cx.warn(
            Diagnostic::warning("unneeded-header-up", "the reverse proxy sends this header by itself")
                .at(node.span(), "")
                .help("remove the line"),
        );
    }
}
