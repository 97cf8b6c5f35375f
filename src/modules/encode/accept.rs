//! Which coding a client is answered in: what it accepts, and of equals what the configuration prefers.

use http::{HeaderMap, header};

/// The client's codings by falling preference, named in lower case: by weight, then by their place in `prefer`
/// (RFC 9110 section 12.5.3). As in Caddy, `*` stands for nothing, and a WebSocket handshake accepts none.
pub fn accepted<'p>(headers: &HeaderMap, prefer: &'p [Box<str>]) -> Vec<(usize, &'p str)> {
    if headers.contains_key(header::SEC_WEBSOCKET_KEY) {
        return Vec::new();
    }
    let line = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut found: Vec<(f32, usize)> = Vec::new();
    for word in line.split(',') {
        let mut parts = word.split(';').map(str::trim);
        let name = parts.next().unwrap_or("");
        let weight = weight(parts.next());
        let place = prefer.iter().position(|known| known.eq_ignore_ascii_case(name));
        if let Some(place) = place.filter(|_| weight >= LEAST) {
            found.push((weight, place));
        }
    }
    // Stable: of what is said twice, the first.
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    found.into_iter().filter_map(|(_, place)| Some((place, prefer.get(place)?.as_ref()))).collect()
}

/// Weights have three digits; below this one is zero.
const LEAST: f32 = 0.00001;

/// 1 when nothing, or nothing valid, is said.
fn weight(parameter: Option<&str>) -> f32 {
    let stated = parameter.and_then(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
    stated.and_then(|q| q.parse().ok()).filter(|q| (0.0..=1.0).contains(q)).unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn first(line: &str) -> Option<&'static str> {
        static PREFER: std::sync::LazyLock<[Box<str>; 2]> = std::sync::LazyLock::new(|| ["zstd".into(), "gzip".into()]);
        let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap())]);
        accepted(&headers, &*PREFER).first().map(|(_, name)| *name)
    }

    #[test]
    fn weight_counts_before_the_order_of_the_configuration() {
        assert_eq!(first("gzip, zstd"), Some("zstd"));
        assert_eq!(first("gzip;q=1, zstd;q=0.5"), Some("gzip"));
        assert_eq!(first("identity, GZIP;q=0.5"), Some("gzip"));
        assert_eq!(first("gzip ; q=0.1 , zstd;Q=0.2"), Some("zstd"));
        for none in ["", "br", "*", "gzip;q=0", "gzip;q=0.000001", "identity"] {
            assert_eq!(first(none), None, "{none}");
        }
        // What is no weight is none, as in Caddy.
        for odd in ["gzip;q=2", "gzip;q=x", "gzip;x=0", "gzip;q=nan"] {
            assert_eq!(first(odd), Some("gzip"), "{odd}");
        }
    }

    #[test]
    fn a_websocket_handshake_is_left_alone() {
        let mut headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]);
        assert_eq!(accepted(&headers, &["gzip".into()]).len(), 1);
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("x"));
        assert!(accepted(&headers, &["gzip".into()]).is_empty());
    }
}
