//! Header maps whose message is gone, for messages to come: their room is not allocated anew each time.

use http::HeaderMap;

use super::spare::Spare;

/// Maps kept by a thread.
const MOST: usize = 32;
/// One with room for more fields is not kept.
const LARGEST: usize = 64;

thread_local! {
    static SPARE: Spare<HeaderMap> = const { Spare::new(MOST) };
}

/// An empty map with room for so many fields.
#[must_use]
pub fn take(room: usize) -> HeaderMap {
    match SPARE.with(Spare::take) {
        Some(mut headers) => {
            headers.reserve(room);
            headers
        }
        None => HeaderMap::with_capacity(room),
    }
}

/// Keeps the map's room; what it holds goes now.
pub fn keep(mut headers: HeaderMap) {
    if (1..=LARGEST).contains(&headers.capacity()) {
        headers.clear();
        SPARE.with(|spare| spare.keep(headers));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_message_is_left() {
        let mut headers = take(4);
        headers.append("authorization", http::HeaderValue::from_static("s"));
        headers.append("authorization", http::HeaderValue::from_static("t"));
        keep(headers);
        let headers = take(8);
        assert!(headers.is_empty() && !headers.contains_key("authorization") && headers.capacity() >= 8);
        keep(HeaderMap::with_capacity(1_000));
        assert!(take(1).capacity() < 1_000);
    }
}
