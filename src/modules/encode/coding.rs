//! The codings, and one encoder of each.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

/// A coding and how much work it is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Level 1 to 9.
    Gzip(u32),
    /// Level of the reference implementation, 1 to 22; whether frames end in a checksum.
    Zstd(i32, bool),
    /// Quality 0 to 11.
    Brotli(u32),
}

/// log2 of zstd's window, as in Caddy: 128 KiB, which every client must be able to hold and a stream may.
const ZSTD_WINDOW: u32 = 17;
/// log2 of brotli's window: 256 KiB.
const BROTLI_WINDOW: u32 = 18;
/// Bytes that brotli's writer hands on at a time.
const BROTLI_BUFFER: usize = 4096;

/// Compresses piece by piece.
pub enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
}

impl Coding {
    pub fn encoder(self) -> io::Result<Encoder> {
        Ok(match self {
            Self::Gzip(level) => Encoder::Gzip(GzEncoder::new(Vec::new(), Compression::new(level))),
            Self::Zstd(level, checksum) => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level)?;
                encoder.window_log(ZSTD_WINDOW)?;
                encoder.include_checksum(checksum)?;
                Encoder::Zstd(encoder)
            }
            Self::Brotli(quality) => {
                let writer = brotli::CompressorWriter::new(Vec::new(), BROTLI_BUFFER, quality, BROTLI_WINDOW);
                Encoder::Brotli(Box::new(writer))
            }
        })
    }

    /// All of a body at once.
    pub fn whole(self, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut encoder = self.encoder()?;
        encoder.write(body)?;
        encoder.finish()
    }
}

impl Encoder {
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
            Self::Brotli(encoder) => encoder.write_all(bytes),
        }
    }

    /// Everything written so far can be decoded from what [`Encoder::take`] gives.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
        }
    }

    /// What is ready to be sent.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
        })
    }

    /// Ends the body: what is left of it.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::io::Read;

    /// Undoes what may have been cut behind a flush.
    pub fn decoded(coding: &str, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut reader: Box<dyn Read + '_> = match coding {
            "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
            "zstd" => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
            _ => Box::new(brotli::Decompressor::new(bytes, 4096)),
        };
        let mut piece = [0; 512];
        while let Ok(n @ 1..) = reader.read(&mut piece) {
            out.extend_from_slice(&piece[..n]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::testing::decoded;
    use super::*;

    const ALL: [(&str, Coding); 4] = [
        ("gzip", Coding::Gzip(5)),
        ("zstd", Coding::Zstd(3, true)),
        ("zstd", Coding::Zstd(11, false)),
        ("br", Coding::Brotli(4)),
    ];

    #[test]
    fn what_was_flushed_can_be_read_before_more_comes() {
        for (name, coding) in ALL {
            let mut encoder = coding.encoder().unwrap();
            let (mut sent, mut said) = (Vec::new(), Vec::new());
            for number in 0..20 {
                let event = format!("data: {{\"n\":{number}}}\n\n");
                encoder.write(event.as_bytes()).unwrap();
                encoder.flush().unwrap();
                sent.extend(encoder.take());
                said.extend_from_slice(event.as_bytes());
                assert_eq!(decoded(name, &sent), said, "{coding:?}");
            }
            sent.extend(encoder.finish().unwrap());
            assert_eq!(decoded(name, &sent), said, "{coding:?}");
        }
    }

    #[test]
    fn a_whole_body_comes_back() {
        let body = b"many words ".repeat(5_000);
        for (name, coding) in ALL {
            let small = coding.whole(&body).unwrap();
            assert!(small.len() < body.len() / 20, "{coding:?}: {}", small.len());
            assert_eq!(decoded(name, &small), body, "{coding:?}");
            assert!(decoded(name, &coding.whole(b"").unwrap()).is_empty(), "{coding:?}");
        }
    }
}
