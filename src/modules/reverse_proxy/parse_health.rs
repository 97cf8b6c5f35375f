//! `health_*`, `max_fails`, `fail_duration` and `unhealthy_*` lines.

use super::config::{ActiveHealth, HealthChecks, PassiveHealth};
use super::words::{duration, integer, invalid, status};
use crate::base::diagnostic::Diagnostic;
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::syntax::tree::Node;

pub const OPTIONS: &[&str] = &[
    "health_uri",
    "health_path",
    "health_upstream",
    "health_port",
    "health_headers",
    "health_method",
    "health_request_body",
    "health_interval",
    "health_timeout",
    "health_status",
    "health_body",
    "health_follow_redirects",
    "health_passes",
    "health_fails",
    "max_fails",
    "fail_duration",
    "unhealthy_request_count",
    "unhealthy_status",
    "unhealthy_latency",
];

pub fn line(cx: &mut DirectiveCx<'_, '_>, checks: &mut Option<HealthChecks>, node: &Node) -> Parsed<()> {
    if node.name().starts_with("health_") {
        let mut active = checks.as_ref().and_then(|c| c.active.clone()).unwrap_or_default();
        active_line(cx, &mut active, node)?;
        checks.get_or_insert_default().active = Some(active);
    } else {
        let mut passive = checks.as_ref().and_then(|c| c.passive.clone()).unwrap_or_default();
        passive_line(cx, &mut passive, node)?;
        checks.get_or_insert_default().passive = Some(passive);
    }
    Ok(())
}

fn active_line(cx: &mut DirectiveCx<'_, '_>, active: &mut ActiveHealth, node: &Node) -> Parsed<()> {
    match node.name() {
        "health_uri" => active.uri = cx.value(node)?.text().to_owned(),
        "health_path" => {
            active.path = cx.value(node)?.text().to_owned();
            cx.warn(
                Diagnostic::warning("renamed-option", "`health_path` is now called `health_uri`")
                    .at(node.name.span, "")
                    .replace(node.name.span, "health_uri"),
            );
        }
        "health_upstream" => {
            let value = cx.value(node)?;
            let port = value.text().rsplit_once(':').map_or("", |(_, port)| port);
            if port.parse::<u32>().is_err() {
                return Err(invalid(value, "an address with a port, such as `10.0.0.2:9100`"));
            }
            active.upstream = value.text().to_owned();
        }
        "health_port" => {
            if !active.upstream.is_empty() {
                return Err(cx.err(
                    node.span(),
                    "contradicting-options",
                    "`health_port` means nothing beside `health_upstream`",
                ));
            }
            active.port = integer(cx.value(node)?)?;
        }
        "health_headers" => {
            active.headers.clear();
            for line in node.lines() {
                let values = active.headers.entry(line.name().to_owned()).or_default();
                if line.args.is_empty() {
                    values.push(String::new());
                }
                values.extend(line.args.iter().map(|t| t.text().to_owned()));
            }
        }
        "health_method" => active.method = cx.value(node)?.text().to_owned(),
        "health_request_body" => active.body = cx.value(node)?.text().to_owned(),
        "health_interval" => active.interval = duration(cx.value(node)?)?,
        "health_timeout" => active.timeout = duration(cx.value(node)?)?,
        "health_status" => active.expect_status = i64::from(status(cx.value(node)?)?),
        "health_body" => active.expect_body = cx.value(node)?.text().to_owned(),
        "health_follow_redirects" => active.follow_redirects = cx.flag(node)?,
        "health_passes" => active.passes = integer(cx.value(node)?)?,
        "health_fails" => active.fails = integer(cx.value(node)?)?,
        _ => return Err(cx.unknown(node, OPTIONS)),
    }
    Ok(())
}

fn passive_line(cx: &mut DirectiveCx<'_, '_>, passive: &mut PassiveHealth, node: &Node) -> Parsed<()> {
    match node.name() {
        "max_fails" => passive.max_fails = integer(cx.value(node)?)?,
        "fail_duration" => passive.fail_duration = duration(cx.value(node)?)?,
        "unhealthy_request_count" => passive.unhealthy_request_count = integer(cx.value(node)?)?,
        "unhealthy_latency" => passive.unhealthy_latency = duration(cx.value(node)?)?,
        "unhealthy_status" => {
            for value in cx.values(node)? {
                passive.unhealthy_status.push(status(value)?);
            }
        }
        _ => return Err(cx.unknown(node, OPTIONS)),
    }
    Ok(())
}
