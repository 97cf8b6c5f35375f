//! Header fields that are lists of words (RFC 9110 section 5.6.1): `Connection`, `TE`.

use http::{HeaderMap, HeaderName};

/// Whether this line of a field has the word, in any case.
#[must_use]
pub fn has(line: &[u8], word: &str) -> bool {
    line.split(|b| *b == b',').any(|w| w.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether any line of the field has it.
#[must_use]
pub fn says(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers.get_all(name).iter().any(|line| has(line.as_bytes(), word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, header};

    #[test]
    fn words_stand_on_any_line_in_any_case() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, HeaderValue::from_static("x-drop,\tKeep-Alive "));
        headers.append(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        let says = |word| says(&headers, &header::CONNECTION, word);
        assert!(says("keep-alive") && says("upgrade") && says("x-drop"));
        assert!(!says("close") && !says("keep") && !says("x-drop,"));
    }
}
