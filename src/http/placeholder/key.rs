//! The names of placeholders, read once so that rendering is a match and not a comparison of texts.

use std::path::PathBuf;

use http::HeaderName;

use super::fixed;

/// A placeholder's name, understood.
#[derive(Debug, Clone)]
pub enum Key {
    /// Known when compiled: `env.*`, `system.*`.
    Fixed(Box<str>),
    Time(TimeFormat),
    /// `file.PATH`: contents of a file, read when used, without the final line end.
    File(PathBuf),
    Method,
    OriginalMethod,
    Scheme,
    Proto,
    ProtoName,
    Host,
    Port,
    HostPort,
    /// Labels of the host counted from the right.
    Label(usize),
    Local(AddressPart),
    Remote(AddressPart),
    /// The peer's network with so many bits (IPv4, IPv6); `None` when the text is not a number.
    RemotePrefix(Option<u8>, Option<u8>),
    Uri(UriPart),
    OriginalUri(UriPart),
    Query(Box<str>),
    /// `None` for a text that no header can have, and for those that Caddy does not keep among the headers (`Host`).
    Header(Option<HeaderName>),
    Cookie(Box<str>),
    Body,
    BodyBase64,
    Uuid,
    Duration,
    DurationMs,
    Tls(Box<str>),
    ClientIp,
    TrustedProxy,
    Var(Box<str>),
    Capture {
        name: Option<Box<str>>,
        group: Group,
    },
    Error(ErrorPart),
    UserId,
    UserMetadata(Box<str>),
    /// `auth.NAME`: the same for configurations written for llmproxy: empty, not unknown, when there is no such thing.
    Auth(Box<str>),
    Upstream(UpstreamPart),
    UpstreamHeader(HeaderName),
    /// The response that `intercept` routes look at.
    HeldStatus,
    HeldStatusText,
    HeldHeader(HeaderName),
    ResponseHeader(Option<HeaderName>),
    /// Whether this program is shutting down; requests are not told yet, so `false`.
    ShuttingDown,
    TimeUntilShutdown,
    /// `llm.model`: the model asked for, once somebody has looked.
    Model,
    /// Set by a feature, or unknown.
    Other(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeFormat {
    Go,
    Unix,
    UnixMs,
    Http,
    CommonLog,
    Year,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressPart {
    Whole,
    Host,
    Port,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UriPart {
    Whole,
    Escaped,
    Path,
    PathEscaped,
    PathFile,
    PathFileBase,
    PathFileExt,
    PathDir,
    PathSegment(usize),
    Query,
    QueryEscaped,
    PrefixedQuery,
}

#[derive(Debug, Clone)]
pub enum Group {
    Number(usize),
    Name(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorPart {
    Whole,
    StatusCode,
    StatusText,
    Message,
    Trace,
    Id,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamPart {
    Address,
    HostPort,
    Host,
    Port,
    Requests,
    MaxRequests,
    Fails,
    Latency,
    LatencyMs,
    Duration,
    DurationMs,
    Retries,
    StatusCode,
    StatusText,
    TransportError,
}

impl Key {
    /// Reads a name without its braces.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        parse_known(name).unwrap_or_else(|| Self::Other(name.into()))
    }

    /// True when every request has a value for it, be it empty.
    #[must_use]
    pub fn always_known(&self) -> bool {
        !matches!(
            self,
            Self::Capture { .. }
                | Self::Error(_)
                | Self::UserId
                | Self::UserMetadata(_)
                | Self::Upstream(_)
                | Self::UpstreamHeader(_)
                | Self::HeldStatus
                | Self::HeldStatusText
                | Self::HeldHeader(_)
                | Self::Other(_)
        )
    }
}

fn parse_known(name: &str) -> Option<Key> {
    if let Some(rest) = name.strip_prefix("http.") {
        return parse_http(rest);
    }
    if name == "llm.model" {
        return Some(Key::Model);
    }
    if let Some(rest) = name.strip_prefix("auth.") {
        // A claim of a JWT goes by its own name, as in `http.auth.user.CLAIM`.
        return Some(Key::Auth(rest.strip_prefix("claim.").unwrap_or(rest).into()));
    }
    if let Some(rest) = name.strip_prefix("env.") {
        return Some(Key::Fixed(fixed::env(rest).into()));
    }
    if let Some(rest) = name.strip_prefix("file.") {
        return Some(Key::File(PathBuf::from(rest)));
    }
    if let Some(rest) = name.strip_prefix("system.") {
        return fixed::system(rest).map(|v| Key::Fixed(v.into()));
    }
    Some(Key::Time(match name.strip_prefix("time.now")? {
        "" => TimeFormat::Go,
        ".unix" => TimeFormat::Unix,
        ".unix_ms" => TimeFormat::UnixMs,
        ".http" => TimeFormat::Http,
        ".common_log" => TimeFormat::CommonLog,
        ".year" => TimeFormat::Year,
        _ => return None,
    }))
}

fn parse_http(name: &str) -> Option<Key> {
    let (family, rest) = name.split_once('.').unwrap_or((name, ""));
    Some(match family {
        "request" => return parse_request(rest),
        "vars" => match rest {
            "client_ip" => Key::ClientIp,
            "trusted_proxy" => Key::TrustedProxy,
            name => Key::Var(name.into()),
        },
        "regexp" => {
            let (name, group) = match rest.rsplit_once('.') {
                Some((name, group)) => (Some(name.into()), group),
                None => (None, rest),
            };
            let group = group.parse().map_or_else(|_| Group::Name(group.into()), Group::Number);
            Key::Capture { name, group }
        }
        "error" => Key::Error(match rest {
            "" if name == "error" => ErrorPart::Whole,
            "status_code" => ErrorPart::StatusCode,
            "status_text" => ErrorPart::StatusText,
            "message" => ErrorPart::Message,
            "trace" => ErrorPart::Trace,
            "id" => ErrorPart::Id,
            _ => return None,
        }),
        "auth" => match rest.strip_prefix("user.")? {
            "id" => Key::UserId,
            other => Key::UserMetadata(other.into()),
        },
        "reverse_proxy" => return parse_upstream(rest),
        "intercept" => match rest {
            "status_code" => Key::HeldStatus,
            "status_text" => Key::HeldStatusText,
            other => Key::HeldHeader(other.strip_prefix("header.")?.parse().ok()?),
        },
        "response" => Key::ResponseHeader(rest.strip_prefix("header.")?.parse().ok()),
        "shutting_down" => Key::ShuttingDown,
        "time_until_shutdown" => Key::TimeUntilShutdown,
        _ => return None,
    })
}

fn parse_request(name: &str) -> Option<Key> {
    if let Some(rest) = name.strip_prefix("header.") {
        let header: Option<HeaderName> = rest.parse().ok();
        let header = header.filter(|h| *h != http::header::HOST && *h != http::header::TRANSFER_ENCODING);
        return Some(Key::Header(header));
    }
    if let Some(rest) = name.strip_prefix("cookie.") {
        return Some(Key::Cookie(rest.into()));
    }
    if let Some(rest) = name.strip_prefix("uri.query.") {
        return Some(Key::Query(rest.into()));
    }
    if let Some(rest) = name.strip_prefix("tls.") {
        return Some(Key::Tls(rest.to_ascii_lowercase().into()));
    }
    if let Some(rest) = name.strip_prefix("host.labels.") {
        return rest.parse().ok().map(Key::Label);
    }
    if let Some(rest) = name.strip_prefix("remote.host/") {
        let (v4, v6) = rest.split_once(',').unwrap_or((rest, rest));
        return Some(Key::RemotePrefix(v4.parse().ok(), v6.parse().ok()));
    }
    if name == "uri_escaped" {
        return Some(Key::Uri(UriPart::Escaped));
    }
    if let Some(rest) = name.strip_prefix("uri") {
        return uri_part(rest).map(Key::Uri);
    }
    if let Some(rest) = name.strip_prefix("orig_uri") {
        return uri_part(rest).map(Key::OriginalUri);
    }
    Some(match name {
        "method" => Key::Method,
        "orig_method" => Key::OriginalMethod,
        "scheme" => Key::Scheme,
        "proto" => Key::Proto,
        "proto_name" => Key::ProtoName,
        "host" => Key::Host,
        "port" => Key::Port,
        "hostport" => Key::HostPort,
        "local" => Key::Local(AddressPart::Whole),
        "local.host" => Key::Local(AddressPart::Host),
        "local.port" => Key::Local(AddressPart::Port),
        "remote" => Key::Remote(AddressPart::Whole),
        "remote.host" => Key::Remote(AddressPart::Host),
        "remote.port" => Key::Remote(AddressPart::Port),
        "body" => Key::Body,
        "body_base64" => Key::BodyBase64,
        "uuid" => Key::Uuid,
        "duration" => Key::Duration,
        "duration_ms" => Key::DurationMs,
        _ => return None,
    })
}

fn uri_part(name: &str) -> Option<UriPart> {
    Some(match name {
        "" => UriPart::Whole,
        ".path" => UriPart::Path,
        ".path_escaped" => UriPart::PathEscaped,
        ".path.file" => UriPart::PathFile,
        ".path.file.base" => UriPart::PathFileBase,
        ".path.file.ext" => UriPart::PathFileExt,
        ".path.dir" => UriPart::PathDir,
        ".query" => UriPart::Query,
        ".query_escaped" => UriPart::QueryEscaped,
        ".prefixed_query" => UriPart::PrefixedQuery,
        other => UriPart::PathSegment(other.strip_prefix(".path.")?.parse().ok()?),
    })
}

fn parse_upstream(name: &str) -> Option<Key> {
    if let Some(header) = name.strip_prefix("header.") {
        return header.parse().ok().map(Key::UpstreamHeader);
    }
    Some(Key::Upstream(match name {
        "upstream.address" => UpstreamPart::Address,
        "upstream.hostport" => UpstreamPart::HostPort,
        "upstream.host" => UpstreamPart::Host,
        "upstream.port" => UpstreamPart::Port,
        "upstream.requests" => UpstreamPart::Requests,
        "upstream.max_requests" => UpstreamPart::MaxRequests,
        "upstream.fails" => UpstreamPart::Fails,
        "upstream.latency" => UpstreamPart::Latency,
        "upstream.latency_ms" => UpstreamPart::LatencyMs,
        "upstream.duration" | "duration" => UpstreamPart::Duration,
        "upstream.duration_ms" | "duration_ms" => UpstreamPart::DurationMs,
        "retries" => UpstreamPart::Retries,
        "status_code" => UpstreamPart::StatusCode,
        "status_text" => UpstreamPart::StatusText,
        "is_transport_error" => UpstreamPart::TransportError,
        _ => return None,
    }))
}
