//! Values of placeholders that come from the exchange.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Uri, Version};

use super::key::{AddressPart, ErrorPart, Group, Key, UpstreamPart, UriPart};
use super::{Scope, certificate, fixed};
use crate::base::body::Body;
use crate::http::exchange::{Exchange, Peer, split_host_port};
use crate::http::path;
use crate::http::status::status_text;

impl Key {
    /// The value of what does not depend on a request; `None` for all else.
    pub(super) fn value_alone(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Fixed(text) => Some(Cow::Borrowed(text)),
            Self::Time(format) => Some(Cow::Owned(fixed::time(*format))),
            Self::File(path) => Some(Cow::Owned(fixed::file(path))),
            _ => None,
        }
    }

    /// The value for this request; `None` when the name is unknown, `Some("")` when it is known and empty.
    #[must_use]
    pub fn value<'a>(&'a self, scope: Scope<'a>) -> Option<Cow<'a, str>> {
        let ex = scope.exchange;
        Some(match self {
            Self::Fixed(text) => Cow::Borrowed(text),
            Self::Time(format) => Cow::Owned(fixed::time(*format)),
            Self::File(path) => Cow::Owned(fixed::file(path)),
            Self::Method => Cow::Borrowed(ex.method.as_str()),
            Self::OriginalMethod => Cow::Borrowed(ex.original.method.as_str()),
            Self::Scheme => Cow::Borrowed(ex.scheme()),
            Self::Proto => Cow::Borrowed(proto(ex.version)),
            Self::ProtoName => Cow::Borrowed(proto_name(ex.version)),
            Self::Host => Cow::Borrowed(ex.host()),
            Self::Port => Cow::Borrowed(split_host_port(ex.host_port()).1),
            Self::HostPort => Cow::Borrowed(ex.host_port()),
            Self::Label(n) => lowercase(ex.host().rsplit('.').nth(*n).unwrap_or("")),
            Self::Local(part) => ex.conn.local.map_or(Cow::Borrowed(""), |a| address(a, *part)),
            Self::Remote(part) => match ex.conn.peer {
                Peer::Ip(a) => address(a, *part),
                Peer::Unix => Cow::Borrowed(""),
            },
            Self::RemotePrefix(v4, v6) => Cow::Owned(remote_prefix(ex.peer_ip(), *v4, *v6)),
            Self::Uri(part) => uri(&ex.uri, *part),
            Self::OriginalUri(part) => uri(&ex.original.uri, *part),
            Self::Query(name) => query(ex.uri.query().unwrap_or(""), name),
            Self::Header(name) => name.as_ref().map_or(Cow::Borrowed(""), |n| header(&ex.headers, n)),
            Self::Cookie(name) => Cow::Borrowed(cookie(&ex.headers, name)),
            // A body that is still on its way is not read for a placeholder: known and empty.
            Self::Body => match &ex.body {
                Body::Full(bytes) => String::from_utf8_lossy(bytes),
                _ => Cow::Borrowed(""),
            },
            Self::BodyBase64 => match &ex.body {
                Body::Full(bytes) => {
                    Cow::Owned(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes))
                }
                _ => Cow::Borrowed(""),
            },
            Self::Uuid => Cow::Borrowed(ex.request_id()),
            Self::Duration => Cow::Owned(go_duration(ex.started.elapsed())),
            Self::DurationMs => Cow::Owned(milliseconds(ex.started.elapsed())),
            Self::Tls(field) => tls(ex, field),
            Self::ClientIp => match ex.var("client_ip") {
                Some(set) => Cow::Borrowed(set),
                None => ex.client_ip().map_or(Cow::Borrowed(""), |ip| Cow::Owned(ip.to_string())),
            },
            Self::TrustedProxy => match ex.var("trusted_proxy") {
                Some(set) => Cow::Borrowed(set),
                None => boolean(ex.peer_is_trusted()),
            },
            Self::Var(name) => Cow::Borrowed(ex.var(name).unwrap_or("")),
            Self::Capture { name, group } => Cow::Borrowed(capture(ex, name.as_deref(), group)?),
            Self::Error(part) => error(ex, *part)?,
            Self::UserId => Cow::Borrowed(&ex.user.as_ref()?.id),
            Self::UserMetadata(name) => Cow::Borrowed(ex.user.as_ref()?.get(name)?),
            Self::Auth(name) => Cow::Borrowed(ex.user.as_ref().map_or("", |user| user.get(name).unwrap_or(""))),
            Self::Upstream(part) => upstream(ex, *part)?,
            Self::UpstreamHeader(name) => {
                let received = ex.upstream.as_ref()?.headers.as_deref();
                known_header(received.or(held_headers(ex)).or(scope.response_headers)?, name)?
            }
            Self::HeldStatus => Cow::Owned(ex.held_response.as_ref()?.status().as_u16().to_string()),
            Self::HeldStatusText => Cow::Borrowed(status_text(ex.held_response.as_ref()?.status().as_u16())),
            Self::HeldHeader(name) => known_header(held_headers(ex)?, name)?,
            Self::ResponseHeader(name) => {
                let headers = scope.response_headers.unwrap_or(&ex.early_headers);
                name.as_ref().map_or(Cow::Borrowed(""), |n| header(headers, n))
            }
            Self::ShuttingDown => Cow::Borrowed("false"),
            Self::TimeUntilShutdown => Cow::Borrowed(""),
            Self::Model => ex.known_model().unwrap_or(Cow::Borrowed("")),
            Self::Other(name) => match ex.extra.iter().rev().find(|(n, _)| **n == **name) {
                Some((_, value)) => Cow::Borrowed(value),
                None => Cow::Owned(ex.lookup(name)?),
            },
        })
    }
}

/// All values of a field, joined by commas; empty when absent.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Cow<'a, str> {
    let mut values = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()));
    let Some(first) = values.next() else { return Cow::Borrowed("") };
    let Some(second) = values.next() else { return first };
    let mut joined = format!("{first},{second}");
    for value in values {
        joined.push(',');
        joined.push_str(&value);
    }
    Cow::Owned(joined)
}

fn known_header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    headers.contains_key(name).then(|| header(headers, name))
}

fn held_headers(ex: &Exchange) -> Option<&HeaderMap> {
    ex.held_response.as_ref().map(http::Response::headers)
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let lines = headers.get_all(http::header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let value = pairs.find(|(n, _)| n.trim().eq_ignore_ascii_case(name)).map_or("", |(_, v)| v);
    value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value)
}

fn query<'a>(raw: &'a str, name: &str) -> Cow<'a, str> {
    let mut found: Option<Cow<'a, str>> = None;
    for (key, value) in path::query_pairs(raw) {
        if key == name {
            found = Some(match found {
                None => value,
                Some(before) => Cow::Owned(format!("{before},{value}")),
            });
        }
    }
    found.unwrap_or(Cow::Borrowed(""))
}

fn uri(uri: &Uri, part: UriPart) -> Cow<'_, str> {
    let query = uri.query().unwrap_or("");
    match part {
        UriPart::Whole => request_uri(uri),
        UriPart::Escaped => Cow::Owned(path::query_escape(&request_uri(uri))),
        UriPart::Path => path::decode_path(uri.path()),
        UriPart::PathEscaped => Cow::Owned(path::query_escape(&path::decode_path(uri.path()))),
        UriPart::PathFile => of_path(uri, |p| path::split(p).1),
        UriPart::PathFileExt => of_path(uri, path::extension),
        UriPart::PathFileBase => of_path(uri, |p| path::base(p).strip_suffix(path::extension(p)).unwrap_or(p)),
        UriPart::PathDir => of_path(uri, |p| path::split(p).0),
        UriPart::PathSegment(n) => of_path(uri, |p| p.strip_prefix('/').unwrap_or(p).split('/').nth(n).unwrap_or("")),
        UriPart::Query => Cow::Borrowed(query),
        UriPart::QueryEscaped => Cow::Owned(path::query_escape(query)),
        UriPart::PrefixedQuery => match query {
            "" => Cow::Borrowed(""),
            // The text of the URI holds the question mark in front of the query.
            _ => uri.path_and_query().map_or(Cow::Borrowed(""), |pq| Cow::Borrowed(&pq.as_str()[pq.path().len()..])),
        },
    }
}

/// Path and query as they go on the wire.
fn request_uri(uri: &Uri) -> Cow<'_, str> {
    let Some(whole) = uri.path_and_query() else { return Cow::Borrowed("/") };
    match path::escaped_path(whole.path()) {
        Cow::Borrowed(_) => Cow::Borrowed(whole.as_str()),
        Cow::Owned(escaped) => match whole.query() {
            Some(query) => Cow::Owned(format!("{escaped}?{query}")),
            None => Cow::Owned(escaped),
        },
    }
}

fn of_path(uri: &Uri, part: impl Fn(&str) -> &str) -> Cow<'_, str> {
    match path::decode_path(uri.path()) {
        Cow::Borrowed(p) => Cow::Borrowed(part(p)),
        Cow::Owned(p) => Cow::Owned(part(&p).to_owned()),
    }
}

fn proto(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

fn proto_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        other => proto(other),
    }
}

fn address(a: SocketAddr, part: AddressPart) -> Cow<'static, str> {
    let a = SocketAddr::new(a.ip().to_canonical(), a.port());
    Cow::Owned(match part {
        AddressPart::Whole => a.to_string(),
        AddressPart::Host => a.ip().to_string(),
        AddressPart::Port => a.port().to_string(),
    })
}

fn remote_prefix(ip: Option<IpAddr>, v4: Option<u8>, v6: Option<u8>) -> String {
    let net = ip.and_then(|ip| ipnet::IpNet::new(ip, if ip.is_ipv4() { v4? } else { v6? }).ok());
    net.map(|n| n.trunc().to_string()).unwrap_or_default()
}

fn tls<'a>(ex: &'a Exchange, field: &str) -> Cow<'a, str> {
    let Some(facts) = &ex.conn.tls else { return Cow::Borrowed("") };
    match field {
        "version" => Cow::Borrowed(facts.version),
        "cipher_suite" => Cow::Borrowed(facts.cipher),
        "resumed" => boolean(facts.resumed),
        "proto" => Cow::Borrowed(facts.alpn.as_deref().unwrap_or("")),
        "proto_mutual" => Cow::Borrowed("true"),
        "server_name" => Cow::Borrowed(facts.server_name.as_deref().unwrap_or("")),
        _ => match (field.strip_prefix("client."), facts.client_certs.first()) {
            (Some(field), Some(der)) => Cow::Owned(certificate::field(der, field).unwrap_or_default()),
            _ => Cow::Borrowed(""),
        },
    }
}

fn capture<'a>(ex: &'a Exchange, name: Option<&str>, group: &Group) -> Option<&'a str> {
    ex.captures.iter().rev().filter(|c| name.is_none_or(|n| n == &*c.name)).find_map(|c| match group {
        Group::Number(n) => c.groups.get(*n).map(String::as_str),
        Group::Name(n) => c.named.iter().find(|(g, _)| **g == **n).map(|(_, v)| v.as_str()),
    })
}

fn error(ex: &Exchange, part: ErrorPart) -> Option<Cow<'_, str>> {
    let error = ex.error.as_ref()?;
    Some(match part {
        ErrorPart::Whole if error.message.is_empty() => Cow::Owned(format!("HTTP {}", error.status)),
        ErrorPart::Whole => Cow::Owned(format!("HTTP {}: {}", error.status, error.message)),
        ErrorPart::StatusCode => Cow::Owned(error.status.to_string()),
        ErrorPart::StatusText => Cow::Borrowed(error.status_text()),
        ErrorPart::Message => Cow::Borrowed(&error.message),
        ErrorPart::Trace => Cow::Borrowed(error.origin),
        // Nine characters as in Caddy, of the request's id so that both lead to the same log lines.
        ErrorPart::Id => Cow::Owned(ex.request_id().chars().filter(|c| *c != '-').take(9).collect()),
    })
}

fn upstream(ex: &Exchange, part: UpstreamPart) -> Option<Cow<'_, str>> {
    let facts = ex.upstream.as_ref()?;
    let status = facts.status.or_else(|| ex.held_response.as_ref().map(|r| r.status().as_u16()));
    Some(match part {
        UpstreamPart::Address => Cow::Borrowed(&facts.address),
        UpstreamPart::HostPort => Cow::Borrowed(&facts.hostport),
        UpstreamPart::Host => Cow::Borrowed(&facts.host),
        UpstreamPart::Port => Cow::Borrowed(&facts.port),
        UpstreamPart::Requests => Cow::Owned(facts.requests.to_string()),
        UpstreamPart::MaxRequests => Cow::Owned(facts.max_requests.to_string()),
        UpstreamPart::Fails => Cow::Owned(facts.fails.to_string()),
        UpstreamPart::Latency => Cow::Owned(go_duration(facts.latency?)),
        UpstreamPart::LatencyMs => Cow::Owned(milliseconds(facts.latency?)),
        UpstreamPart::Duration => Cow::Owned(go_duration(facts.duration?)),
        UpstreamPart::DurationMs => Cow::Owned(milliseconds(facts.duration?)),
        UpstreamPart::Retries => Cow::Owned(facts.retries.to_string()),
        UpstreamPart::StatusCode => Cow::Owned(status?.to_string()),
        // Go's `Response.Status`: the status in front.
        UpstreamPart::StatusText => Cow::Owned(format!("{} {}", status?, status_text(status?)).trim_end().to_owned()),
        UpstreamPart::TransportError => boolean(facts.transport_error),
    })
}

fn lowercase(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

fn boolean(b: bool) -> Cow<'static, str> {
    Cow::Borrowed(if b { "true" } else { "false" })
}

/// Milliseconds with their fraction.
fn milliseconds(d: Duration) -> String {
    (d.as_secs_f64() * 1e3).to_string()
}

/// As Go prints a duration: `1.5s`, `118.186µs`, `1h2m3.5s`.
fn go_duration(d: Duration) -> String {
    let nanos = d.as_nanos();
    let fraction = |value: u128, unit: u128| {
        let text = format!("{}.{:0width$}", value / unit, value % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(nanos, 1_000) + "µs",
        1_000_000..1_000_000_000 => fraction(nanos, 1_000_000) + "ms",
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000) + "s";
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, m) => format!("{m}m{seconds}"),
                (h, m) => format!("{h}h{m}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_does() {
        for (nanos, want) in [
            (0, "0s"),
            (15, "15ns"),
            (118_186, "118.186µs"),
            (1_500_000, "1.5ms"),
            (2_000_000_000, "2s"),
            (3_723_500_000_000, "1h2m3.5s"),
            (60_000_000_000, "1m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), want);
        }
    }
}
