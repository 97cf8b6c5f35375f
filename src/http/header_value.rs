//! A rendered text as a header value: nothing that could end the line reaches the wire.

use http::HeaderValue;

/// Line ends become spaces and outer blanks go, as Go's server does; other control bytes become spaces as well.
#[must_use]
pub fn header_value(text: &str) -> HeaderValue {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
        return value;
    }
    let clean: Vec<u8> = text.bytes().map(|b| if b == b'\t' || (b >= 0x20 && b != 0x7f) { b } else { b' ' }).collect();
    HeaderValue::from_bytes(&clean).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_start_a_new_line() {
        assert_eq!(header_value("a\r\nX-Evil: 1\0"), "a  X-Evil: 1 ");
        assert_eq!(header_value(" a\n"), "a");
        assert_eq!(header_value("é").as_bytes(), "é".as_bytes());
    }
}
