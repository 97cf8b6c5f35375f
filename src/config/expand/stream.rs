//! The words still to be read, with a cheap splice for imports, and the rule that says what stands on one line.

use crate::base::span::FileId;
use crate::syntax::lexer::Word;

/// Which import brought a word in; 0 for words of the main file itself.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct ExpansionId(pub u32);

#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub word: Word,
    pub expansion: ExpansionId,
}

impl Piece {
    pub fn is(&self, text: &str) -> bool {
        self.word.is(text)
    }

    pub fn text(&self) -> &str {
        &self.word.token.text
    }

    pub fn end(&self) -> LineEnd {
        LineEnd { file: self.word.token.span.file, expansion: self.expansion, line: self.word.last_line() }
    }

    /// Does this word stand on a later line than the one that ended there? Words that came by different imports never
    /// share a line.
    pub fn starts_line_after(&self, end: LineEnd) -> bool {
        self.word.token.span.file != end.file || self.expansion != end.expansion || end.line < self.word.line
    }
}

/// Where a word ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct LineEnd {
    file: FileId,
    expansion: ExpansionId,
    line: u32,
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    /// In reverse: the next word is the last element, so that imported words are pushed on top.
    rest: Vec<Piece>,
    /// The end of the word read last; imports, which vanish, do not count.
    before: Option<LineEnd>,
}

impl Stream {
    pub fn new(words: &[Word]) -> Self {
        let mut stream = Self::default();
        stream.splice(words.iter().map(|word| Piece { word: word.clone(), expansion: ExpansionId(0) }).collect());
        stream
    }

    pub fn peek(&self) -> Option<&Piece> {
        self.rest.last()
    }

    pub fn next(&mut self) -> Option<Piece> {
        let piece = self.rest.pop()?;
        self.before = Some(piece.end());
        Some(piece)
    }

    /// The next word, if it stands on the same line as the one read last.
    pub fn peek_same_line(&self) -> Option<&Piece> {
        self.peek().filter(|_| !self.at_line_start())
    }

    /// Is the next word the first of its line (or is there none)?
    pub fn at_line_start(&self) -> bool {
        match (self.peek(), self.before) {
            (Some(piece), Some(before)) => piece.starts_line_after(before),
            _ => true,
        }
    }

    pub fn before(&self) -> Option<LineEnd> {
        self.before
    }

    /// Forgets that the words since `before` were read: they were an import.
    pub fn rewind_line(&mut self, before: Option<LineEnd>) {
        self.before = before;
    }

    /// Puts words in front of what is still to be read.
    pub fn splice(&mut self, pieces: Vec<Piece>) {
        self.rest.extend(pieces.into_iter().rev());
    }

    /// Gives up on everything that is left.
    pub fn clear(&mut self) {
        self.rest.clear();
    }
}
