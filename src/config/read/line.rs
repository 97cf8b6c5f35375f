//! A line as an option or a module reads it: a name, words, perhaps a block. The checks that every reader needs make the
//! same diagnostics everywhere.

use crate::base::diagnostic::{Diagnostic, nearest};
use crate::base::span::Span;
use crate::base::units;
use crate::config::directive_cx::Parsed;
use crate::syntax::token::Token;
use crate::syntax::tree::{Block, Node};

#[derive(Clone, Copy)]
pub struct Line<'n> {
    pub name: &'n Token,
    pub args: &'n [Token],
    pub block: Option<&'n Block>,
}

impl<'n> Line<'n> {
    #[must_use]
    pub fn of(node: &'n Node) -> Self {
        Self { name: &node.name, args: &node.args, block: node.block.as_ref() }
    }

    #[must_use]
    pub fn name(&self) -> &'n str {
        self.name.text()
    }

    /// The lines of the block; none when there is no block.
    pub fn lines(&self) -> impl Iterator<Item = Line<'n>> + use<'n> {
        self.block.into_iter().flat_map(|block| block.nodes.iter()).map(Line::of)
    }

    /// The place of the line without its block.
    #[must_use]
    pub fn span(&self) -> Span {
        self.args.iter().fold(self.name.span, |span, token| span.to(token.span))
    }

    /// The first word names a module, to which the rest of the line belongs.
    pub fn module(&self) -> Parsed<Line<'n>> {
        match self.args.split_first() {
            Some((name, args)) => Ok(Line { name, args, block: self.block }),
            None => Err(self.wrong_number("it takes one or more")),
        }
    }

    pub fn one(&self) -> Parsed<&'n Token> {
        match self.args {
            [one] => Ok(one),
            _ => Err(self.wrong_number("it takes one")),
        }
    }

    pub fn two(&self) -> Parsed<(&'n Token, &'n Token)> {
        match self.args {
            [a, b] => Ok((a, b)),
            _ => Err(self.wrong_number("it takes two")),
        }
    }

    pub fn none_or_one(&self) -> Parsed<Option<&'n Token>> {
        match self.args {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            _ => Err(self.wrong_number("it takes one at most")),
        }
    }

    pub fn none(&self) -> Parsed<()> {
        if self.args.is_empty() { Ok(()) } else { Err(self.wrong_number("it takes none")) }
    }

    /// One word or more.
    pub fn some(&self) -> Parsed<Vec<String>> {
        if self.args.is_empty() { Err(self.wrong_number("it takes one or more")) } else { Ok(self.words()) }
    }

    #[must_use]
    pub fn words(&self) -> Vec<String> {
        self.args.iter().map(|token| token.text().to_owned()).collect()
    }

    /// The text of the only word.
    pub fn text(&self) -> Parsed<String> {
        self.one().map(|token| token.text().to_owned())
    }

    /// Nanoseconds of the only word.
    pub fn duration(&self) -> Parsed<i64> {
        duration(self.one()?)
    }

    pub fn integer(&self) -> Parsed<i64> {
        integer(self.one()?)
    }

    /// Bytes of the only word.
    pub fn size(&self) -> Parsed<i64> {
        let token = self.one()?;
        let bytes = units::parse_size(token.text()).and_then(|n| i64::try_from(n).ok());
        bytes.ok_or_else(|| {
            let message = format!("`{}` is not a size", token.shown());
            Box::new(
                Diagnostic::error("invalid-size", message).at(token.span, "").help("write it as `10MiB` or `512KB`"),
            )
        })
    }

    /// A share between 0 and 1, both excluded.
    pub fn ratio(&self) -> Parsed<f64> {
        let token = self.one()?;
        let share = token.text().parse::<f64>().ok().filter(|share| *share > 0.0 && *share < 1.0);
        share.ok_or_else(|| {
            let message = format!("`{}` is not a number between 0 and 1", token.shown());
            Box::new(Diagnostic::error("invalid-number", message).at(token.span, ""))
        })
    }

    pub fn no_block(&self) -> Parsed<()> {
        match self.block {
            None => Ok(()),
            Some(block) => {
                let message = format!("`{}` takes no block here", self.name.shown());
                Err(Box::new(Diagnostic::error("unexpected-block", message).at(block.open, "")))
            }
        }
    }

    /// Reads each line of the block; what fails is reported, and the others are read all the same.
    pub fn each(
        &self,
        diagnostics: &mut Vec<Diagnostic>,
        mut read: impl FnMut(Line<'n>, &mut Vec<Diagnostic>) -> Parsed<()>,
    ) {
        for line in self.lines() {
            if let Err(diagnostic) = read(line, diagnostics) {
                diagnostics.push(*diagnostic);
            }
        }
    }

    #[must_use]
    pub fn wrong_count(&self) -> Box<Diagnostic> {
        let message = format!("wrong number of arguments for `{}`", self.name.shown());
        Box::new(Diagnostic::error("wrong-argument-count", message).at(self.span(), ""))
    }

    fn wrong_number(&self, takes: &str) -> Box<Diagnostic> {
        Box::new(self.wrong_count().help(takes))
    }

    /// An error about the whole line.
    #[must_use]
    pub fn error(&self, code: &'static str, message: impl Into<String>) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(code, message).at(self.span(), ""))
    }

    #[must_use]
    pub fn duplicate(&self) -> Box<Diagnostic> {
        self.error("duplicate-option", format!("`{}` is already given", self.name.shown()))
    }

    /// `owner` has no option of this line's name.
    #[must_use]
    pub fn unknown(&self, owner: &str, known: &[&str]) -> Box<Diagnostic> {
        let message = format!("`{owner}` has no option `{}`", self.name.shown());
        Box::new(suggest(Diagnostic::error("unknown-subdirective", message), self.name, known))
    }

    /// There is no module of this line's name; `kind` says what kind was looked for.
    #[must_use]
    pub fn unknown_module(&self, kind: &str, known: &[&str]) -> Box<Diagnostic> {
        let message = format!("there is no {kind} `{}`", self.name.shown());
        Box::new(suggest(Diagnostic::error("unknown-module", message), self.name, known))
    }

    /// Words after the first `used`, and the block when `block` says so, are read past without a message by Caddy.
    pub fn warn_ignored(&self, used: usize, block: bool, diagnostics: &mut Vec<Diagnostic>) {
        let words = self.args.get(used..).and_then(|rest| Some(rest.first()?.span.to(rest.last()?.span)));
        let block = self.block.filter(|_| block).map(|block| block.open.to(block.close));
        let span = match (words, block) {
            (Some(words), Some(block)) => words.to(block),
            (Some(span), None) | (None, Some(span)) => span,
            (None, None) => return,
        };
        let message = format!("`{}` takes no notice of this", self.name.shown());
        diagnostics.push(Diagnostic::warning("ignored-words", message).at(span, "has no effect"));
    }
}

/// Nanoseconds.
pub fn duration(token: &Token) -> Parsed<i64> {
    units::parse_duration(token.text()).ok_or_else(|| {
        let message = format!("`{}` is not a duration", token.shown());
        let d = Diagnostic::error("invalid-duration", message).at(token.span, "");
        Box::new(d.help("a number and its unit, as in `300ms`, `10s`, `1h30m` or `7d`"))
    })
}

pub fn integer(token: &Token) -> Parsed<i64> {
    token.text().parse().map_err(|_| {
        let message = format!("`{}` is not a whole number", token.shown());
        Box::new(Diagnostic::error("invalid-number", message).at(token.span, ""))
    })
}

/// Points at a word that is none of the known ones, with the nearest of them, or all of them when they are few.
#[must_use]
pub fn suggest(diagnostic: Diagnostic, token: &Token, known: &[&str]) -> Diagnostic {
    let diagnostic = diagnostic.at(token.span, "");
    match nearest(token.text(), known.iter().copied()) {
        Some(near) => diagnostic.help(format!("did you mean `{near}`?")).replace(token.span, near),
        None if (1..=8).contains(&known.len()) => diagnostic.help(format!("it is one of: {}", known.join(", "))),
        None => diagnostic,
    }
}
