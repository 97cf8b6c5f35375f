//! Images: Ollama sends base64 without saying of what, OpenAI's format wants a data URL.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use super::request::BadRequest;

/// An image as the URL of a content part, written without a copy of it in between.
pub(super) struct DataUrl<'a> {
    /// `None`: the text is a data URL already.
    media_type: Option<&'static str>,
    text: &'a str,
}

impl Serialize for DataUrl<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.media_type {
            Some(media_type) => serializer.collect_str(&format_args!("data:{media_type};base64,{}", self.text)),
            None => serializer.serialize_str(self.text),
        }
    }
}

/// The type is told by the first bytes; only these are decoded.
pub(super) fn data_url(text: &str) -> Result<DataUrl<'_>, BadRequest> {
    if text.starts_with("data:image/") {
        return Ok(DataUrl { media_type: None, text });
    }
    if let Some(at) = text.bytes().position(|c| !is_base64(c)) {
        return Err(BadRequest::new(format!("illegal base64 data at input byte {at}")));
    }
    let head = text.get(..24).unwrap_or(text.get(..text.len() / 4 * 4).unwrap_or_default());
    let bytes = STANDARD.decode(head).unwrap_or_default();
    match media_type(&bytes) {
        Some(media_type) => Ok(DataUrl { media_type: Some(media_type), text }),
        None => Err(BadRequest::new("invalid image input: expected PNG, JPEG, GIF or WebP")),
    }
}

fn is_base64(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/' | b'=')
}

fn media_type(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some("image/png")
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        Some("image/jpeg")
    } else if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
        Some("image/gif")
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        Some("image/webp")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<String, String> {
        let url = data_url(text).map_err(|e| e.text)?;
        Ok(serde_json::to_value(url).unwrap().as_str().unwrap().to_owned())
    }

    #[test]
    fn the_type_is_told_by_the_first_bytes() {
        for (bytes, media_type) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], "image/png"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
            (b"GIF89a\x01\0\x01\0", "image/gif"),
            (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
        ] {
            let text = STANDARD.encode(bytes);
            assert_eq!(url(&text).unwrap(), format!("data:{media_type};base64,{text}"));
        }
    }

    #[test]
    fn what_is_no_image_is_refused_in_words() {
        assert_eq!(url("https://example.com/a.png").unwrap_err(), "illegal base64 data at input byte 5");
        for text in ["", "AAAA", "A", "aGVsbG8gd29ybGQhISEh"] {
            assert!(url(text).unwrap_err().starts_with("invalid image input"), "{text}");
        }
    }

    #[test]
    fn a_data_url_stays() {
        assert_eq!(url("data:image/png;base64,AAAA").unwrap(), "data:image/png;base64,AAAA");
    }
}
