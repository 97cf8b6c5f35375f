//! The top level of a file: global options, snippets, named routes and sites.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::base::diagnostic::Diagnostic;
use crate::base::span::Span;
use crate::syntax::lexer::Word;
use crate::syntax::token::Token;
use crate::syntax::tree::{File, NamedRoute, SiteBlock};

use super::Loaded;
use super::import::{Expansion, Snippet};
use super::shorthand;
use super::source::Sources;
use super::stream::{LineEnd, Stream};

/// The state of one load.
pub(super) struct Expander<'a> {
    pub sources: Sources<'a>,
    pub stream: Stream,
    pub snippets: HashMap<String, Snippet>,
    pub expansions: Vec<Expansion>,
    pub imported_words: usize,
    /// Imports that found nothing, with the place of their message: the snippet may come later in the file.
    pub missing: Vec<(Arc<str>, usize)>,
    /// Words that were warned about once.
    pub warned: HashSet<Span>,
    pub reported_line: Option<LineEnd>,
    /// The first `{` whose `}` has another indent than its line: the `}` may have been meant for another block.
    pub odd_close: Option<Span>,
    known: &'a dyn Fn(&str) -> bool,
    file: File,
}

pub(super) fn parse(sources: Sources<'_>, words: std::rc::Rc<[Word]>, known: &dyn Fn(&str) -> bool) -> Loaded {
    let mut expander = Expander {
        sources,
        stream: Stream::new(&words),
        snippets: HashMap::new(),
        expansions: vec![Expansion::main()],
        imported_words: 0,
        missing: Vec::new(),
        warned: HashSet::new(),
        reported_line: None,
        odd_close: None,
        known,
        file: File::default(),
    };
    while expander.stream.peek().is_some() {
        expander.block();
    }
    expander.finish()
}

impl Expander<'_> {
    fn finish(mut self) -> Loaded {
        for (name, index) in &self.missing {
            if let (Some(snippet), Some(d)) = (self.snippets.get(&**name), self.sources.diagnostics.get_mut(*index)) {
                let label =
                    crate::base::diagnostic::Label { span: snippet.name, text: "defined here, too late".to_owned() };
                d.labels.push(label);
                d.help = Some("move the snippet above the place where it is imported".to_owned());
                d.replacement = None;
            }
        }
        for site in &mut self.file.sites {
            shorthand::expand_nodes(&mut site.nodes);
        }
        for route in &mut self.file.named_routes {
            shorthand::expand_nodes(&mut route.nodes);
        }
        let Sources { map, watched, diagnostics, .. } = self.sources;
        Loaded { file: self.file, sources: map, watched, diagnostics }
    }

    /// One block of the top level.
    fn block(&mut self) {
        let Some(keys) = self.keys() else { return };
        let brace = self.stream.peek().filter(|p| p.is("{")).map(|p| p.word.token.span);
        let brace =
            if keys.glued_brace.is_some() { keys.glued_brace } else { brace.inspect(|_| drop(self.stream.next())) };
        let keys = keys.words;
        match (keys.as_slice(), brace) {
            ([], Some(brace)) => self.globals(brace),
            ([], None) => {}
            ([key], _) if enclosed(key, "&(").is_some() => self.named_route(key, brace),
            ([key], _) if enclosed(key, "(").is_some() => self.snippet(key, brace),
            _ => self.site(keys, brace),
        }
    }

    fn globals(&mut self, brace: Span) {
        let nodes = self.nodes(Some(brace));
        let first = self.file.globals.is_none() && self.file.sites.is_empty() && self.file.named_routes.is_empty();
        if first {
            self.file.globals = Some(nodes);
        } else {
            self.sources.report(
                Diagnostic::error(
                    "global-options-not-first",
                    "a block without an address holds global options and must come first",
                )
                .at(brace, "")
                .help("move it to the top of the file, or write the site's address before the brace"),
            );
        }
    }

    fn named_route(&mut self, key: &Token, brace: Option<Span>) {
        let name = enclosed(key, "&(").unwrap_or_default();
        let Some(brace) = brace else { return self.expected_brace(key, "a named route") };
        let mut token = key.clone();
        token.text = name.into();
        let nodes = self.nodes(Some(brace));
        self.file.named_routes.push(NamedRoute { name: token, nodes });
    }

    fn snippet(&mut self, key: &Token, brace: Option<Span>) {
        let name = enclosed(key, "(").unwrap_or_default();
        let Some(brace) = brace else { return self.expected_brace(key, "a snippet") };
        let mut words = Vec::new();
        let mut depth = 1_usize;
        loop {
            let Some(piece) = self.stream.next() else {
                self.unclosed(brace);
                break;
            };
            if piece.is("{") {
                depth += 1;
            } else if piece.is("}") {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            words.push(piece);
        }
        match self.snippets.get(name) {
            Some(first) => {
                let d = Diagnostic::error(
                    "duplicate-snippet",
                    format!("the snippet `{}` is defined twice", masked(key, name)),
                )
                .at(key.span, "defined again here")
                .also(first.name, "first defined here");
                self.sources.report(d);
            }
            None => {
                self.snippets.insert(name.to_owned(), Snippet { name: key.span, words: words.into() });
            }
        }
    }

    fn site(&mut self, keys: Vec<Token>, brace: Option<Span>) {
        let misplaced = keys.iter().find(|key| (self.known)(&key.text)).cloned();
        let nodes = if brace.is_some() || self.stream.peek().is_some() { self.nodes(brace) } else { Vec::new() };
        if let Some(key) = misplaced {
            self.sources.report(
                Diagnostic::error(
                    "directive-outside-site",
                    format!("`{}` is a directive, not the address of a site", key.shown()),
                )
                .at(key.span, "an address is expected here")
                .help("write the address first, such as `:80` or `example.com`, and the directives after it"),
            );
            return;
        }
        self.file.sites.push(SiteBlock { keys, nodes, braces: brace.is_some() });
    }

    fn expected_brace(&mut self, key: &Token, what: &str) {
        self.sources.report(
            Diagnostic::error("expected-open-brace", format!("{what} needs a block"))
                .at(key.span, "`{` is expected after this"),
        );
    }

    /// The words before a block: none for global options, a name in parentheses, or addresses. `None` when there is
    /// nothing (more) to read.
    fn keys(&mut self) -> Option<Keys> {
        let mut keys = Keys::default();
        // The place of the comma that promises another address.
        let mut comma: Option<Span> = None;
        loop {
            let Some(piece) = self.stream.peek() else {
                if let Some(comma) = comma {
                    self.sources.report(
                        Diagnostic::error("expected-address", "another address is expected after the comma")
                            .at(comma, "the file ends after this comma"),
                    );
                }
                return (!keys.words.is_empty()).then_some(keys);
            };
            let span = piece.word.token.span;
            if piece.text() == "import" && self.stream.at_line_start() {
                self.import(false);
                continue;
            }
            if piece.is("{") {
                if let Some(comma) = comma {
                    self.sources.report(
                        Diagnostic::error("expected-address", "another address is expected after the comma")
                            .at(span, "found this brace")
                            .also(comma, "remove this comma if it was the last address"),
                    );
                }
                return Some(keys);
            }
            if piece.is("}") {
                if !keys.words.is_empty() {
                    return Some(keys);
                }
                self.stray_close();
                return None;
            }
            if piece.text().starts_with('@') {
                self.matcher_outside_site();
                return None;
            }
            let token = self.stream.next()?.word.token;
            if token.quote == crate::syntax::token::Quote::None && token.text.len() > 1 && token.text.ends_with('{') {
                keys.glued_brace = Some(self.glued_brace(&token));
                keys.words.push(shortened(&token));
                return Some(keys);
            }
            comma = self.key(token, &mut keys.words);
            if comma.is_none() && self.stream.peek().is_some() && self.stream.at_line_start() {
                return Some(keys);
            }
        }
    }

    /// Takes one address; gives the place of its trailing comma.
    fn key(&mut self, token: Token, keys: &mut Vec<Token>) -> Option<Span> {
        let comma = token.text.ends_with(',').then(|| Span { start: token.span.end.saturating_sub(1), ..token.span });
        let token = if comma.is_some() { shortened(&token) } else { token };
        if token.text.contains(',') {
            let spaced = token.text.split(',').filter(|t| !t.is_empty()).collect::<Vec<_>>().join(", ");
            let mut d = Diagnostic::error("comma-in-address", "an address cannot hold a comma").at(token.span, "");
            d = if token.from_env {
                d.help("put a space after each comma")
            } else {
                d.help("put a space after the comma").replace(token.span, spaced)
            };
            self.sources.report(d);
        }
        if !token.text.is_empty() {
            keys.push(token);
        }
        comma
    }

    fn glued_brace(&mut self, token: &Token) -> Span {
        let brace = Span { start: token.span.end.saturating_sub(1), ..token.span };
        let mut d =
            Diagnostic::error("brace-glued-to-address", "a space is missing between the address and `{`").at(brace, "");
        if !token.from_env {
            d = d.help("put a space before the brace").replace(brace, " {");
        }
        self.sources.report(d);
        brace
    }

    fn matcher_outside_site(&mut self) {
        let Some(piece) = self.stream.next() else { return };
        self.sources.report(
            Diagnostic::error("matcher-outside-site", "a matcher is defined inside a site, not at the top of the file")
                .at(piece.word.token.span, "")
                .help("move it into the block of the site that uses it"),
        );
        while self.stream.peek_same_line().is_some() {
            if self.stream.next().is_some_and(|p| p.is("{")) {
                self.skip_block();
                return;
            }
        }
    }

    /// A block that the file's end cuts off.
    pub(super) fn unclosed(&mut self, brace: Span) {
        let end = self.sources.end_of(brace.file);
        if !self.sources.cut_short {
            self.sources.report(
                Diagnostic::error("unclosed-block", "a block is never closed")
                    .at(brace, "opened here")
                    .also(end, "the file ends here without its `}`"),
            );
        }
        // The block has taken everything up to the end: that the blocks around it are open, too, is no news.
        self.sources.cut_short = true;
    }
}

#[derive(Default)]
struct Keys {
    words: Vec<Token>,
    /// The brace at the end of `example.com{`.
    glued_brace: Option<Span>,
}

/// The name in `(name)` or `&(name)`.
fn enclosed<'t>(key: &'t Token, open: &str) -> Option<&'t str> {
    key.text.strip_prefix(open)?.strip_suffix(')')
}

fn masked<'t>(key: &'t Token, name: &'t str) -> &'t str {
    if key.from_env { key.shown() } else { name }
}

/// Without its last character, which is one byte long.
fn shortened(token: &Token) -> Token {
    let mut token = token.clone();
    token.text = token.text.get(..token.text.len().saturating_sub(1)).unwrap_or_default().into();
    if !token.from_env && token.quote == crate::syntax::token::Quote::None {
        token.span.end = token.span.end.saturating_sub(1).max(token.span.start);
    }
    token
}
