//! Lines and nested blocks. Built with an explicit stack, so depth costs no call stack; broken braces are reported
//! with both ends and reading goes on.

use crate::base::diagnostic::Diagnostic;
use crate::base::span::Span;
use crate::syntax::token::Token;
use crate::syntax::tree::{Block, Node};

use super::blocks::Expander;
use super::stream::{LineEnd, Piece};

/// Real files nest about eight deep.
const MAX_DEPTH: usize = 64;

/// A block that is still open.
struct Open {
    brace: Span,
    /// The line that opened it, once closed its node.
    name: Token,
    args: Vec<Token>,
    nodes: Vec<Node>,
}

impl Expander<'_> {
    /// The lines of a site, named route or global block, up to and including its `}`. `brace`: its opening brace,
    /// `None` for the site of a file without braces, which runs to the end.
    pub(super) fn nodes(&mut self, brace: Option<Span>) -> Vec<Node> {
        let mut top = Vec::new();
        let mut open: Vec<Open> = Vec::new();
        loop {
            let Some(piece) = self.stream.peek() else {
                self.end_of_input(brace, &open);
                break;
            };
            let depth = open.len();
            let current = open.last_mut().map_or(&mut top, |o| &mut o.nodes);
            if piece.is("}") {
                match open.pop() {
                    Some(block) => {
                        let node = self.close(block);
                        open.last_mut().map_or(&mut top, |o| &mut o.nodes).push(node);
                    }
                    None if brace.is_some() => {
                        self.check_close_starts_line();
                        self.stream.next();
                        return top;
                    }
                    None => {
                        self.stray_close();
                        break;
                    }
                }
            } else if piece.text() == "import" {
                self.import(true);
            } else if piece.is("{") {
                let previous = current.pop_if(|node| node.block.is_none());
                if let Some(block) = self.brace_on_new_line(previous, depth) {
                    open.push(block);
                }
            } else if let Some(name) = self.stream.next() {
                let (node, brace) = self.line(name.word.token);
                match brace {
                    Some(brace) if depth >= MAX_DEPTH => {
                        self.too_deep(brace);
                        current.push(node);
                    }
                    Some(brace) => open.push(Open { brace, name: node.name, args: node.args, nodes: Vec::new() }),
                    None => current.push(node),
                }
            }
        }
        // What was left open is kept, so that later stages can report their own errors in it.
        while let Some(block) = open.pop() {
            let close = block.brace;
            let node = finish(block, close);
            open.last_mut().map_or(&mut top, |o| &mut o.nodes).push(node);
        }
        top
    }

    /// The rest of a line, and its opening brace when it opens a block.
    fn line(&mut self, name: Token) -> (Node, Option<Span>) {
        let mut args = Vec::new();
        while let Some(piece) = self.stream.peek_same_line() {
            if piece.is("}") {
                break;
            }
            let Some(piece) = self.stream.next() else { break };
            let span = piece.word.token.span;
            if piece.is("{") {
                self.check_open_ends_line(&piece);
                return (Node { name, args, block: None }, Some(span));
            }
            if piece.is("{}") && self.stream.at_line_start() {
                self.sources.report(
                    Diagnostic::error("empty-braces", "`{}` at the end of a line is not an empty block")
                        .at(span, "")
                        .help("leave the braces out, or write `{` here and `}` on a line of its own"),
                );
                break;
            }
            args.push(piece.word.token);
        }
        (Node { name, args, block: None }, None)
    }

    fn close(&mut self, block: Open) -> Node {
        self.check_close_starts_line();
        let closing = self.stream.next();
        let close = closing.as_ref().map_or(block.brace, |p| p.word.token.span);
        if self.odd_close.is_none() && self.sources.indent(block.brace) != self.sources.indent(close) {
            self.odd_close = Some(block.brace);
        }
        if let (Some(closing), Some(after)) = (closing, self.stream.peek_same_line()) {
            let (span, is_close) = (after.word.token.span, after.is("}"));
            if !is_close && self.first_on_line(closing.end()) {
                self.sources.report(
                    Diagnostic::error("brace-not-alone", "`}` must stand on a line of its own")
                        .at(span, "this must go to the next line")
                        .also(close, "after this `}`"),
                );
            }
        }
        finish(block, close)
    }

    /// A `}` that follows other words on its line.
    pub(super) fn check_close_starts_line(&mut self) {
        let Some((span, end)) = self.stream.peek_same_line().map(|p| (p.word.token.span, p.end())) else { return };
        if self.first_on_line(end) {
            self.sources.report(
                Diagnostic::error("brace-not-alone", "`}` must stand on a line of its own")
                    .at(span, "move it to the next line"),
            );
        }
    }

    fn check_open_ends_line(&mut self, brace: &Piece) {
        let Some(after) = self.stream.peek_same_line() else { return };
        let span = after.word.token.span;
        if self.first_on_line(brace.end()) {
            self.sources.report(
                Diagnostic::error("text-after-brace", "nothing may follow `{` on its line")
                    .at(span, "this must go to the next line")
                    .also(brace.word.token.span, "the block is opened here"),
            );
        }
    }

    /// One message about braces is enough for one line.
    fn first_on_line(&mut self, line: LineEnd) -> bool {
        let fresh = self.reported_line != Some(line);
        self.reported_line = Some(line);
        fresh
    }

    fn brace_on_new_line(&mut self, previous: Option<Node>, depth: usize) -> Option<Open> {
        let piece = self.stream.next()?;
        let brace = piece.word.token.span;
        let mut d =
            Diagnostic::error("brace-on-new-line", "`{` must stand at the end of the line it belongs to").at(brace, "");
        if let Some(node) = &previous {
            d = d.also(node.span(), "place it at the end of this line");
        }
        self.sources.report(d);
        if depth >= MAX_DEPTH {
            self.too_deep(brace);
            return None;
        }
        let (name, args) = previous.map_or_else(|| (piece.word.token, Vec::new()), |node| (node.name, node.args));
        Some(Open { brace, name, args, nodes: Vec::new() })
    }

    fn too_deep(&mut self, brace: Span) {
        self.sources.report(
            Diagnostic::error("nesting-too-deep", format!("blocks are nested more than {MAX_DEPTH} deep"))
                .at(brace, "this block is too deep"),
        );
        self.skip_block();
    }

    /// Passes over a block whose opening brace was read.
    pub(super) fn skip_block(&mut self) {
        let mut depth = 1_usize;
        while depth > 0 {
            let Some(piece) = self.stream.next() else { return };
            if piece.is("{") {
                depth += 1;
            } else if piece.is("}") {
                depth -= 1;
            }
        }
    }

    pub(super) fn stray_close(&mut self) {
        if let Some(piece) = self.stream.next() {
            self.sources.report(
                Diagnostic::error("unexpected-close-brace", "this `}` closes nothing")
                    .at(piece.word.token.span, "no block is open here")
                    .help("remove it, or look for a `{` that is missing above"),
            );
        }
    }

    /// The input ended. Shows every block that is still open, the innermost first.
    fn end_of_input(&mut self, brace: Option<Span>, open: &[Open]) {
        let mut braces = open.iter().rev().map(|o| o.brace).chain(brace);
        let Some(innermost) = braces.next() else { return };
        let mut d = Diagnostic::error("unclosed-block", "a block is never closed")
            .at(innermost, "opened here")
            .also(self.sources.end_of(innermost.file), "the file ends here without its `}`");
        match self.odd_close {
            Some(open) if open.file == innermost.file => {
                d = d.also(open, "perhaps it is this block that lacks its `}`");
            }
            _ => {
                for outer in braces.take(3) {
                    d = d.also(outer, "this block is still open, too");
                }
            }
        }
        // A quote without end has swallowed the braces: that message says it all.
        if !self.sources.cut_short {
            self.sources.report(d);
        }
    }
}

fn finish(block: Open, close: Span) -> Node {
    let inner = Block { open: block.brace, close, nodes: block.nodes };
    Node { name: block.name, args: block.args, block: Some(inner) }
}
