//! The little of DER that OCSP needs beyond certificates.

use x509_parser::asn1_rs::{Any, Class, FromDer, GeneralizedTime};

use time::OffsetDateTime;

pub const INTEGER: u8 = 0x02;
pub const OCTETS: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// A value with its tag and length. What is written here is short: lengths end at 65 535.
pub fn item(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match (u8::try_from(content.len()), u16::try_from(content.len())) {
        (Ok(short @ ..0x80), _) => out.push(short),
        (Ok(byte), _) => out.extend([0x81, byte]),
        (_, length) => {
            out.push(0x82);
            out.extend(length.unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(content);
    out
}

pub fn sequence(items: &[&[u8]]) -> Vec<u8> {
    item(SEQUENCE, &items.concat())
}

/// Values one after the other.
#[derive(Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

pub struct Value<'a> {
    class: Class,
    tag: u32,
    pub content: &'a [u8],
    /// With tag and length.
    pub whole: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn next(&mut self) -> Option<Value<'a>> {
        let (rest, any) = Any::from_der(self.0).ok()?;
        let whole = self.0.get(..self.0.len() - rest.len())?;
        self.0 = rest;
        Some(Value { class: any.class(), tag: any.tag().0, content: any.data, whole })
    }

    /// The next value when it has this universal tag.
    pub fn universal(&mut self, tag: u8) -> Option<Value<'a>> {
        let value = self.next()?;
        (value.class == Class::Universal && value.tag == u32::from(tag & 0x1f)).then_some(value)
    }

    pub fn sequence(&mut self) -> Option<Self> {
        self.universal(SEQUENCE).map(|value| Self(value.content))
    }

    /// The next value when it has this tag of its context; else nothing is read.
    pub fn context(&mut self, tag: u32) -> Option<Value<'a>> {
        let mut ahead = *self;
        let value = ahead.next().filter(|value| value.class == Class::ContextSpecific && value.tag == tag)?;
        *self = ahead;
        Some(value)
    }

    /// The bytes of a bit string that has whole ones.
    pub fn bits(&mut self) -> Option<&'a [u8]> {
        match self.universal(0x03)?.content {
            [0, bytes @ ..] => Some(bytes),
            _ => None,
        }
    }

    pub fn time(&mut self) -> Option<OffsetDateTime> {
        let value = self.universal(0x18)?;
        let (_, time) = GeneralizedTime::from_der(value.whole).ok()?;
        time.utc_datetime().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 127, 128, 255, 256, 4000] {
            let content = vec![7; length];
            let written = sequence(&[&item(OCTETS, &content), &item(INTEGER, &[1])]);
            let mut reader = Reader(&written);
            let mut inside = reader.sequence().unwrap();
            assert_eq!(inside.universal(OCTETS).unwrap().content, content, "{length}");
            assert!(inside.context(0).is_none());
            assert_eq!(inside.universal(INTEGER).unwrap().whole, [2, 1, 1]);
            assert!(inside.next().is_none() && reader.next().is_none());
        }
    }
}
