//! `transport http { … }` and `transport fastcgi { … }`.

use serde_json::json;

use super::config::{FastcgiTransport, HttpTransport, KeepAlive, TlsOptions};
use super::words::{duration, each_line, integer, invalid, size, texts, unknown_module};
use crate::base::diagnostic::Diagnostic;
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::trust_pool;
use crate::config::types::Module;
use crate::syntax::tree::Node;

/// A transport as parsed; TLS may still be added by the scheme of the upstreams.
pub enum Transport {
    Http(Box<HttpTransport>),
    Fastcgi(FastcgiTransport),
}

pub fn transport(cx: &mut DirectiveCx<'_, '_>, line: &Node) -> Parsed<Transport> {
    match line.args.as_slice() {
        [name] => match name.text() {
            "http" => http(cx, line).map(|t| Transport::Http(Box::new(t))),
            "fastcgi" => {
                let mut out = FastcgiTransport::default();
                each_line(cx, line.lines(), |cx, node| fastcgi_line(cx, &mut out, node))?;
                Ok(Transport::Fastcgi(out))
            }
            _ => Err(unknown_module(name, "transport", &["http", "fastcgi"])),
        },
        _ => Err(cx.arg_err(line)),
    }
}

const HTTP_OPTIONS: &[&str] = &[
    "read_buffer",
    "write_buffer",
    "read_timeout",
    "write_timeout",
    "max_response_header",
    "proxy_protocol",
    "forward_proxy_url",
    "network_proxy",
    "dial_timeout",
    "dial_fallback_delay",
    "response_header_timeout",
    "expect_continue_timeout",
    "resolvers",
    "tls",
    "tls_client_auth",
    "tls_insecure_skip_verify",
    "tls_curves",
    "tls_timeout",
    "tls_trusted_ca_certs",
    "tls_server_name",
    "tls_renegotiation",
    "tls_except_ports",
    "tls_trust_pool",
    "keepalive",
    "keepalive_interval",
    "keepalive_idle_conns",
    "keepalive_idle_conns_per_host",
    "versions",
    "compression",
    "max_conns_per_host",
    "local_address",
    "total_timeout",
];

fn http(cx: &mut DirectiveCx<'_, '_>, line: &Node) -> Parsed<HttpTransport> {
    let mut out = HttpTransport::default();
    each_line(cx, line.lines(), |cx, node| {
        if node.name().starts_with("tls") {
            tls_line(cx, &mut out, node)
        } else if node.name().starts_with("keepalive") {
            keepalive_line(cx, &mut out, node)
        } else {
            http_line(cx, &mut out, node)
        }
    })?;
    Ok(out)
}

fn http_line(cx: &mut DirectiveCx<'_, '_>, out: &mut HttpTransport, node: &Node) -> Parsed<()> {
    match node.name() {
        "read_buffer" => out.read_buffer_size = size(cx.value(node)?)?,
        "write_buffer" => out.write_buffer_size = size(cx.value(node)?)?,
        "read_timeout" => out.read_timeout = duration(cx.value(node)?)?,
        "write_timeout" => out.write_timeout = duration(cx.value(node)?)?,
        "max_response_header" => out.max_response_header_size = size(cx.value(node)?)?,
        "proxy_protocol" => {
            let value = cx.value(node)?;
            if !matches!(value.text(), "v1" | "v2") {
                return Err(invalid(value, "`v1` or `v2`"));
            }
            out.proxy_protocol = value.text().to_owned();
        }
        "forward_proxy_url" => {
            let url = cx.value(node)?.text();
            cx.warn(
                Diagnostic::warning("renamed-option", "`forward_proxy_url URL` is now written `network_proxy url URL`")
                    .at(node.name.span, "")
                    .replace(node.name.span, "network_proxy url"),
            );
            network_proxy(cx, out, node, Some(url))?;
        }
        "network_proxy" => match node.args.as_slice() {
            [from] if from.text() == "none" => network_proxy(cx, out, node, None)?,
            [from, url] if from.text() == "url" => network_proxy(cx, out, node, Some(url.text()))?,
            [from, ..] if !matches!(from.text(), "none" | "url") => {
                return Err(unknown_module(from, "network proxy source", &["none", "url"]));
            }
            _ => return Err(cx.arg_err(node)),
        },
        "dial_timeout" => out.dial_timeout = duration(cx.value(node)?)?,
        "dial_fallback_delay" => out.dial_fallback_delay = duration(cx.value(node)?)?,
        "response_header_timeout" => out.response_header_timeout = duration(cx.value(node)?)?,
        "expect_continue_timeout" => out.expect_continue_timeout = duration(cx.value(node)?)?,
        "total_timeout" => out.total_timeout = duration(cx.value(node)?)?,
        "resolvers" => out.resolver.get_or_insert_default().addresses = texts(cx.values(node)?),
        "versions" => out.versions = texts(cx.values(node)?),
        "compression" => match node.args.as_slice() {
            [] => {}
            [off] if off.text() == "off" => out.compression = Some(false),
            [_] => {}
            _ => return Err(cx.arg_err(node)),
        },
        "max_conns_per_host" => out.max_conns_per_host = integer(cx.value(node)?)?,
        "local_address" => out.local_address = cx.value(node)?.text().to_owned(),
        _ => return Err(cx.unknown(node, HTTP_OPTIONS)),
    }
    Ok(())
}

fn network_proxy(cx: &DirectiveCx<'_, '_>, out: &mut HttpTransport, node: &Node, url: Option<&str>) -> Parsed<()> {
    if out.network_proxy.is_some() {
        return Err(cx.duplicate(node));
    }
    let value = match url {
        Some(url) => json!({ "from": "url", "url": url }),
        None => json!({ "from": "none" }),
    };
    out.network_proxy = value.as_object().cloned();
    Ok(())
}

fn keepalive_line(cx: &mut DirectiveCx<'_, '_>, out: &mut HttpTransport, node: &Node) -> Parsed<()> {
    let mut keep: KeepAlive = out.keep_alive.clone().unwrap_or_default();
    match node.name() {
        "keepalive" => {
            let value = cx.value(node)?;
            if value.text() == "off" {
                keep.enabled = Some(false);
            } else {
                keep.idle_timeout = duration(value)?;
            }
        }
        "keepalive_interval" => keep.probe_interval = duration(cx.value(node)?)?,
        "keepalive_idle_conns" => keep.max_idle_conns = integer(cx.value(node)?)?,
        "keepalive_idle_conns_per_host" => keep.max_idle_conns_per_host = integer(cx.value(node)?)?,
        _ => return Err(cx.unknown(node, HTTP_OPTIONS)),
    }
    out.keep_alive = Some(keep);
    Ok(())
}

fn tls_line(cx: &mut DirectiveCx<'_, '_>, out: &mut HttpTransport, node: &Node) -> Parsed<()> {
    let mut tls: TlsOptions = out.tls.clone().unwrap_or_default();
    match node.name() {
        "tls" => {
            cx.flag(node)?;
        }
        "tls_client_auth" => match cx.values(node)? {
            [name] => tls.client_certificate_automate = name.text().to_owned(),
            [certificate, key] => {
                tls.client_certificate_file = certificate.text().to_owned();
                tls.client_certificate_key_file = key.text().to_owned();
            }
            _ => return Err(cx.arg_err(node)),
        },
        "tls_insecure_skip_verify" => tls.insecure_skip_verify = cx.flag(node)?,
        "tls_curves" => tls.curves = texts(cx.values(node)?),
        "tls_timeout" => tls.handshake_timeout = duration(cx.value(node)?)?,
        "tls_server_name" => tls.server_name = cx.value(node)?.text().to_owned(),
        "tls_renegotiation" => {
            let value = cx.value(node)?;
            if !matches!(value.text(), "never" | "once" | "freely") {
                return Err(invalid(value, "`never`, `once` or `freely`"));
            }
            tls.renegotiation = value.text().to_owned();
        }
        "tls_except_ports" => tls.except_ports = texts(cx.values(node)?),
        "tls_trusted_ca_certs" => {
            if tls.ca.is_some() {
                return Err(two_kinds_of_trust(cx, node));
            }
            cx.warn(
                Diagnostic::warning(
                    "renamed-option",
                    "`tls_trusted_ca_certs FILE` is now written `tls_trust_pool file FILE`",
                )
                .at(node.name.span, "")
                .replace(node.name.span, "tls_trust_pool file"),
            );
            tls.root_ca_pem_files = texts(cx.values(node)?);
        }
        "tls_trust_pool" => {
            if !tls.root_ca_pem_files.is_empty() {
                return Err(two_kinds_of_trust(cx, node));
            }
            if tls.ca.is_some() {
                return Err(cx.duplicate(node));
            }
            let pool: Module = trust_pool::parse(cx, node)?;
            tls.ca = Some(pool);
        }
        _ => return Err(cx.unknown(node, HTTP_OPTIONS)),
    }
    out.tls = Some(tls);
    Ok(())
}

fn two_kinds_of_trust(cx: &DirectiveCx<'_, '_>, node: &Node) -> Box<Diagnostic> {
    cx.err(node.span(), "contradicting-options", "`tls_trust_pool` and `tls_trusted_ca_certs` cannot stand together")
}

pub const FASTCGI_OPTIONS: &[&str] = &[
    "root",
    "split",
    "env",
    "resolve_root_symlink",
    "dial_timeout",
    "read_timeout",
    "write_timeout",
    "capture_stderr",
];

pub fn fastcgi_line(cx: &mut DirectiveCx<'_, '_>, out: &mut FastcgiTransport, node: &Node) -> Parsed<()> {
    match node.name() {
        "root" => out.root = cx.value(node)?.text().to_owned(),
        "split" => out.split_path = texts(cx.values(node)?),
        "env" => match cx.values(node)? {
            [key, value] => {
                out.env.insert(key.text().to_owned(), value.text().to_owned());
            }
            _ => return Err(cx.arg_err(node)),
        },
        "resolve_root_symlink" => out.resolve_root_symlink = cx.flag(node)?,
        "dial_timeout" => out.dial_timeout = duration(cx.value(node)?)?,
        "read_timeout" => out.read_timeout = duration(cx.value(node)?)?,
        "write_timeout" => out.write_timeout = duration(cx.value(node)?)?,
        "capture_stderr" => out.capture_stderr = cx.flag(node)?,
        _ => return Err(cx.unknown(node, FASTCGI_OPTIONS)),
    }
    Ok(())
}
