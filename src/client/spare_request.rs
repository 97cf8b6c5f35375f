//! Requests that were sent, for requests to come: neither they nor their header maps are allocated anew each time.

use http::{Method, Request, Uri};

use crate::base::body::Body;
use crate::base::spare::Spare;

const MOST: usize = 16;
/// One with room for more fields is not kept.
const LARGEST: usize = 64;

thread_local! {
    static SPARE: Spare<Box<Request<Body>>> = const { Spare::new(MOST) };
}

/// A request without headers, with room for so many. One that is sent is given back.
#[must_use]
pub fn spare_request(method: Method, uri: Uri, room: usize, body: Body) -> Box<Request<Body>> {
    let mut request = SPARE.with(Spare::take).unwrap_or_default();
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.body_mut() = body;
    request.headers_mut().reserve(room);
    request
}

pub(super) fn keep(mut request: Box<Request<Body>>) {
    if request.headers().capacity() > LARGEST {
        return;
    }
    // What it holds of the client's connection goes now.
    request.headers_mut().clear();
    request.extensions_mut().clear();
    *request.uri_mut() = Uri::default();
    *request.body_mut() = Body::Empty;
    SPARE.with(|spare| spare.keep(request));
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn nothing_of_a_request_is_left() {
        let mut request = spare_request(Method::POST, Uri::from_static("/secret"), 4, Body::from("secret"));
        request.headers_mut().append("authorization", HeaderValue::from_static("s"));
        request.headers_mut().append("authorization", HeaderValue::from_static("t"));
        request.extensions_mut().insert(1_u8);
        keep(request);
        let request = spare_request(Method::GET, Uri::from_static("/"), 8, Body::Empty);
        assert!(request.headers().is_empty() && !request.headers().contains_key("authorization"));
        assert!(request.headers().capacity() >= 8 && request.extensions().is_empty());
        assert!(request.uri() == "/" && request.body().is_empty());
        keep(spare_request(Method::GET, Uri::default(), 1_000, Body::Empty));
        assert!(spare_request(Method::GET, Uri::default(), 1, Body::Empty).headers().capacity() < 1_000);
    }
}
