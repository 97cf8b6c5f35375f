//! What RFC 9113 asks of requests and the library leaves to us. A malformed request is answered with 400
//! (section 8.1.1) and goes no further.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::connection::MAX_HEADERS;

/// Checks a request's head, and brings it into the form that HTTP/1 upstreams and matchers know.
pub fn receive(head: &mut http::request::Parts) -> Result<(), StatusCode> {
    if head.headers.len() > MAX_HEADERS {
        // hyper counts them over HTTP/1 only.
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    if head.headers.values().any(is_padded) || hosts_differ(head) {
        return Err(StatusCode::BAD_REQUEST);
    }
    join_cookies(&mut head.headers)
}

/// Bytes of a request's head, as HTTP/2 counts them (RFC 9113 section 6.5.2): what they take in memory, about.
pub fn head_size(head: &http::request::Parts) -> usize {
    const OF_A_FIELD: usize = 32;
    let target = head.uri.authority().map_or(0, |a| a.as_str().len())
        + head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    head.headers.iter().fold(target, |sum, (name, value)| sum + name.as_str().len() + value.len() + OF_A_FIELD)
}

/// White space around a value is not part of it, and must not come (section 8.2.1): over HTTP/1 it would vanish, so two
/// readers see two values.
fn is_padded(value: &HeaderValue) -> bool {
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    blank(value.as_bytes().first()) || blank(value.as_bytes().last())
}

/// `Host` names what `:authority` names (section 8.3.1).
fn hosts_differ(head: &http::request::Parts) -> bool {
    let (Some(authority), Some(host)) = (head.uri.authority(), head.headers.get(header::HOST)) else { return false };
    !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
}

/// Clients may split a cookie for the sake of compression; everybody else knows one field (section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Result<(), StatusCode> {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.nth(1).is_none() {
        return Ok(());
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let whole = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).map_err(|_| StatusCode::BAD_REQUEST)?;
    headers.insert(header::COOKIE, whole);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn received(request: http::request::Builder) -> Result<HeaderMap, StatusCode> {
        let mut head = request.body(()).unwrap().into_parts().0;
        receive(&mut head).map(|()| head.headers)
    }

    #[test]
    fn the_size_of_a_head_counts_fields_and_target() {
        let request = Request::get("https://a.test/xyz?1").header("a", "bcd").header("a", "");
        assert_eq!(head_size(&request.body(()).unwrap().into_parts().0), 6 + 6 + 4 + 32 + 1 + 32);
    }

    #[test]
    fn the_host_field_says_what_the_authority_says() {
        let host = |host: &str| received(Request::get("http://a.test:1/x").header("host", host)).err();
        assert_eq!((host("A.test:1"), host("other")), (None, Some(StatusCode::BAD_REQUEST)));
    }

    #[test]
    fn values_have_no_white_space_around_them() {
        for (value, fine) in [("a b", true), ("", true), (" a", false), ("a\t", false), (" ", false)] {
            assert_eq!(received(Request::get("/").header("x", value)).is_ok(), fine, "{value:?}");
        }
    }

    #[test]
    fn the_crumbs_of_a_cookie_are_joined() {
        let headers =
            received(Request::get("/").header("cookie", "a=1").header("x", "").header("cookie", "b=2")).unwrap();
        let all: Vec<_> = headers.get_all("cookie").iter().collect();
        assert_eq!(all, ["a=1; b=2"]);
    }

    #[test]
    fn as_many_fields_as_over_http1() {
        let mut request = Request::get("/");
        for i in 0..=MAX_HEADERS {
            request = request.header(format!("x-{i}"), "1");
        }
        assert_eq!(received(request).err(), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
}
