//! A text of any length in a bounded place, for counting its tokens: all of a short one, evenly chosen pieces of a long
//! one.

use std::cell::Cell;

use super::tokenizer::{self, Quick};

/// Bytes of a piece.
const PIECE: usize = 512;

/// Bytes that are kept; half as many at least of a text that is longer.
pub const KEPT: usize = 16 << 10;

/// What is kept of a text that came piece by piece.
#[derive(Debug, Default, Clone)]
pub struct Sample {
    kept: Vec<u8>,
    /// Of so many pieces one is kept: a power of two.
    stride: u32,
    /// Bytes of the piece that is passing.
    passed: usize,
    /// The piece's number.
    piece: u32,
    total: u64,
    /// The quick count of what `counted` tells. A short text is counted when somebody asks, which mostly nobody does.
    quick: Cell<Quick>,
    /// Bytes of a text that is kept whole.
    counted: Cell<usize>,
}

impl Sample {
    pub fn add(&mut self, mut text: &[u8]) {
        if self.is_whole() {
            if self.kept.len() + text.len() <= KEPT {
                self.total += text.len() as u64;
                self.kept.extend_from_slice(text);
                return;
            }
            // From here on pieces are left out, so that each is counted as it passes.
            self.count();
            self.passed = self.kept.len() % PIECE;
            self.piece = u32::try_from(self.kept.len() / PIECE).unwrap_or(0);
        }
        self.total = self.total.saturating_add(text.len() as u64);
        self.quick.get_mut().add(text);
        while !text.is_empty() {
            let n = text.len().min(PIECE - self.passed);
            let (now, later) = text.split_at(n);
            if self.piece.is_multiple_of(self.stride.max(1)) {
                self.keep(now);
            }
            self.passed += n;
            if self.passed == PIECE {
                self.passed = 0;
                self.piece = self.piece.wrapping_add(1);
            }
            text = later;
        }
    }

    fn is_whole(&self) -> bool {
        self.kept.len() as u64 == self.total
    }

    /// Brings the quick count of a text that is kept whole up to date.
    fn count(&self) {
        let mut quick = self.quick.get();
        quick.add(self.kept.get(self.counted.get()..).unwrap_or_default());
        self.quick.set(quick);
        self.counted.set(self.kept.len());
    }

    fn keep(&mut self, text: &[u8]) {
        if self.kept.len() + text.len() > KEPT {
            self.thin_out();
            if !self.piece.is_multiple_of(self.stride.max(1)) {
                return;
            }
        }
        self.kept.extend_from_slice(text);
    }

    /// Drops every other piece.
    fn thin_out(&mut self) {
        let mut to = 0;
        for from in (0..self.kept.len()).step_by(2 * PIECE) {
            let end = (from + PIECE).min(self.kept.len());
            self.kept.copy_within(from..end, to);
            to += end - from;
        }
        self.kept.truncate(to);
        self.stride = self.stride.max(1) * 2;
    }

    /// Bytes of the whole text.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.total
    }

    /// Tokens of the whole text, about: costs next to nothing.
    #[must_use]
    pub fn quick(&self) -> u64 {
        if self.is_whole() {
            self.count();
        }
        self.quick.get().tokens()
    }

    /// Tokens of the whole text, as near as can be told: by the vocabulary where it is loaded.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        if self.total == 0 {
            return 0;
        }
        // A character cut in two counts as one that is unknown.
        let Some(counted) = tokenizer::exact(&String::from_utf8_lossy(&self.kept)) else { return self.quick() };
        let kept = self.kept.len() as u64;
        if kept == self.total {
            return counted;
        }
        // How dense a text is differs from piece to piece; how far the quick count is off differs much less.
        let quick = tokenizer::quick(&self.kept).max(1);
        let scaled = u128::from(counted) * u128::from(self.quick()) / u128::from(quick);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = include_str!("scan.rs");

    fn sample(text: &str, chunk: usize) -> Sample {
        let mut sample = Sample::default();
        text.as_bytes().chunks(chunk).for_each(|piece| sample.add(piece));
        sample
    }

    #[test]
    fn a_short_text_is_counted_whole_however_it_came() {
        tokenizer::load();
        let text = &CODE[..KEPT];
        for chunk in [1, 7, 511, 512, 513, KEPT] {
            assert_eq!(sample(text, chunk).tokens(), tokenizer::exact(text).unwrap(), "{chunk}");
        }
        assert_eq!(sample("", 1).tokens(), 0);
    }

    #[test]
    fn a_long_text_is_counted_within_three_in_a_hundred() {
        tokenizer::load();
        for times in [1, 2, 5, 40] {
            let text = CODE.repeat(times);
            let exact = tokenizer::exact(&text).unwrap();
            for chunk in [1, 100, 4096] {
                let sample = sample(&text, chunk);
                assert!(sample.kept.len() <= KEPT && sample.kept.len() >= KEPT / 2 - PIECE);
                assert!(exact.abs_diff(sample.tokens()) * 100 <= exact * 3, "{times}: {exact} {}", sample.tokens());
            }
        }
    }
}
