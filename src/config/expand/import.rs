//! `import <snippet|file|glob> [args…] [{ block }]`: replaces the line by the words it stands for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use crate::base::diagnostic::{Diagnostic, Label, nearest};
use crate::base::span::Span;
use crate::syntax::token::Token;

use super::args::{self, ArgsWarning};
use super::blocks::Expander;
use super::glob;
use super::source::ReadError;
use super::stream::{ExpansionId, Piece};

/// Imports that import may be this deep; a real tree has three levels.
const MAX_IMPORT_DEPTH: usize = 100;

/// Words that imports may bring in together: a few lines of snippets that import each other can ask for billions.
const MAX_IMPORTED_WORDS: usize = 1_000_000;

/// So many further places of one mistake are shown.
const MAX_REPEATS: usize = 3;

/// A snippet as defined.
pub(super) struct Snippet {
    pub name: Span,
    pub words: Rc<[Piece]>,
}

/// One import that was carried out.
pub(super) struct Expansion {
    parent: ExpansionId,
    target: Target,
    /// Where the `import` line stands.
    pub site: Span,
}

#[derive(Clone, PartialEq, Eq)]
enum Target {
    Main,
    Snippet(String),
    File(PathBuf),
}

impl Expansion {
    pub fn main() -> Self {
        use crate::base::span::FileId;
        Self { parent: ExpansionId(0), target: Target::Main, site: Span::new(FileId(0), 0, 0) }
    }
}

/// What the import line says.
struct Request {
    keyword: Piece,
    pattern: Token,
    args: Vec<Token>,
    block: Vec<Piece>,
}

impl Expander<'_> {
    /// Reads the import line that comes next and puts its words in its place. `inside`: within a site or block, where
    /// no snippet can be defined.
    pub(super) fn import(&mut self, inside: bool) {
        let before = self.stream.before();
        let request = self.import_line();
        self.stream.rewind_line(before);
        let Some(request) = request else { return };
        let Some(found) = self.find(&request) else { return };
        let mut pieces = Vec::new();
        let blocks = named_blocks(&request.block);
        for (words, target) in found {
            let Some(id) = self.enter(&request, target) else { return };
            self.copy(&request, &blocks, &words, id, inside, &mut pieces);
        }
        self.imported_words += pieces.len();
        if self.imported_words > MAX_IMPORTED_WORDS {
            let at = request.pattern.span;
            self.sources.report(
                Diagnostic::error("import-too-large", "imports bring in too many words").at(at, "given up here"),
            );
            self.sources.cut_short = true;
            self.stream.clear();
            return;
        }
        self.stream.splice(pieces);
    }

    fn import_line(&mut self) -> Option<Request> {
        let keyword = self.stream.next()?;
        let mut args = Vec::new();
        while let Some(piece) = self.stream.peek_same_line() {
            if piece.is("{") || piece.is("}") {
                break;
            }
            args.extend(self.stream.next().map(|p| p.word.token));
        }
        let block = self.import_block()?;
        let mut args = args.into_iter();
        let span = keyword.word.token.span;
        match args.next() {
            Some(pattern) if !pattern.text.is_empty() => {
                Some(Request { keyword, pattern, args: args.collect(), block })
            }
            _ => {
                self.sources.report(
                    Diagnostic::error("wrong-argument-count", "`import` needs the name of a snippet or a file")
                        .at(span, "")
                        .help("import <snippet or file> [arguments…]"),
                );
                None
            }
        }
    }

    /// The words between the braces that follow the import line, if any; `None` when they are broken.
    fn import_block(&mut self) -> Option<Vec<Piece>> {
        let mut words = Vec::new();
        if !self.stream.peek_same_line().is_some_and(|p| p.is("{")) {
            return Some(words);
        }
        let open = self.stream.next()?;
        let mut depth = 1_usize;
        let mut line_start = true;
        let mut nameless = false;
        while let Some(piece) = self.stream.next() {
            if piece.is("{") {
                if line_start && depth == 1 {
                    self.sources.report(
                        Diagnostic::error("anonymous-block", "a block inside an import's block needs a name")
                            .at(piece.word.token.span, "write a name before this brace"),
                    );
                    nameless = true;
                }
                depth += 1;
            } else if piece.is("}") {
                depth -= 1;
                if depth == 0 {
                    // Its words would only lead to further messages where they are put.
                    return Some(if nameless { Vec::new() } else { words });
                }
            }
            line_start = self.stream.at_line_start();
            words.push(piece);
        }
        self.unclosed(open.word.token.span);
        None
    }

    /// The words that the import stands for: of a snippet, or of one or more files.
    fn find(&mut self, request: &Request) -> Option<Vec<(Rc<[Piece]>, Target)>> {
        let name = request.pattern.text();
        if let Some(snippet) = self.snippets.get(name) {
            return Some(vec![(Rc::clone(&snippet.words), Target::Snippet(name.to_owned()))]);
        }
        let directory = self.sources.directory(request.keyword.word.token.span.file);
        let full = directory.join(name);
        let pattern = full.to_string_lossy().into_owned();
        if glob::is_too_wide(&pattern) {
            self.sources.report(
                Diagnostic::error("import-pattern", "an import pattern may hold one `*` and one `?`, and no `[…]`")
                    .at(request.pattern.span, ""),
            );
            return None;
        }
        let paths = if glob::is_pattern(&pattern) { self.glob(&pattern, request) } else { vec![full] };
        let mut found = Vec::new();
        for path in paths {
            match self.sources.read_import(&path, request.pattern.span) {
                Ok(Some(words)) => {
                    let pieces = words.iter().map(|word| Piece { word: word.clone(), expansion: ExpansionId(0) });
                    found.push((pieces.collect(), Target::File(path)));
                }
                Ok(None) => {}
                Err(error) => {
                    self.not_imported(request, error);
                    return None;
                }
            }
        }
        Some(found)
    }

    fn glob(&mut self, pattern: &str, request: &Request) -> Vec<PathBuf> {
        let (paths, directories) = glob::expand(pattern);
        for directory in &directories {
            self.sources.watch(directory);
        }
        if paths.is_empty() {
            self.sources.report(
                Diagnostic::warning("import-no-match", format!("no file matches `{}`", request.pattern.shown()))
                    .at(request.pattern.span, ""),
            );
        }
        paths
    }

    fn not_imported(&mut self, request: &Request, error: ReadError) {
        let shown = request.pattern.shown();
        let span = request.pattern.span;
        let diagnostic = match error {
            ReadError::Other(reason) => {
                Diagnostic::error("import-unreadable", format!("cannot import `{shown}`: {reason}")).at(span, "")
            }
            ReadError::NotFound => {
                let name = &request.pattern.text;
                // One message for a name that many sites import.
                if let Some((_, index)) = self.missing.iter().find(|(missing, _)| missing == name) {
                    if let Some(d) = self.sources.diagnostics.get_mut(*index)
                        && d.labels.len() < MAX_REPEATS
                    {
                        d.labels.push(Label { span, text: "and here".to_owned() });
                    }
                    return;
                }
                self.missing.push((name.clone(), self.sources.diagnostics.len()));
                let d = Diagnostic::error("import-not-found", format!("there is no snippet or file `{shown}`"))
                    .at(span, "");
                match nearest(request.pattern.text(), self.snippets.keys().map(String::as_str)) {
                    Some(near) if !request.pattern.from_env => {
                        let near = near.to_owned();
                        d.help(format!("did you mean the snippet `{near}`?")).replace(span, near)
                    }
                    _ => d,
                }
            }
        };
        self.sources.report(diagnostic);
    }

    /// Registers an expansion, unless it would go round in circles.
    fn enter(&mut self, request: &Request, target: Target) -> Option<ExpansionId> {
        let parent = request.keyword.expansion;
        let mut at = parent;
        for depth in 0.. {
            let expansion = self.expansions.get(at.0 as usize)?;
            if expansion.target == target {
                let d = Diagnostic::error("import-cycle", format!("`{}` imports itself", request.pattern.shown()))
                    .at(request.pattern.span, "imported again here")
                    .also(expansion.site, "while it was being imported here");
                self.sources.report(d);
                return None;
            }
            if expansion.target == Target::Main {
                break;
            }
            if depth >= MAX_IMPORT_DEPTH {
                let d = Diagnostic::error(
                    "import-too-deep",
                    format!("imports are nested more than {MAX_IMPORT_DEPTH} deep"),
                );
                self.sources.report(d.at(request.pattern.span, ""));
                return None;
            }
            at = expansion.parent;
        }
        let id = ExpansionId(u32::try_from(self.expansions.len()).ok()?);
        self.expansions.push(Expansion {
            parent,
            target,
            site: request.keyword.word.token.span.to(request.pattern.span),
        });
        Some(id)
    }

    /// Copies the imported words with arguments and blocks filled in.
    fn copy(
        &mut self,
        request: &Request,
        blocks: &HashMap<&str, Vec<Piece>>,
        words: &[Piece],
        id: ExpansionId,
        inside: bool,
        out: &mut Vec<Piece>,
    ) {
        let arg_texts: Vec<&str> = request.args.iter().map(Token::text).collect();
        let mut definitions = Definitions::new(inside);
        for (index, piece) in words.iter().enumerate() {
            let previous = index.checked_sub(1).and_then(|i| words.get(i));
            let in_definition = definitions.step(piece, previous);
            let text = piece.text();
            // The block of the import keeps its own place, so it never shares a line with the snippet's words.
            if text == "{block}" {
                out.extend_from_slice(&request.block);
                continue;
            }
            if let Some(key) = text.strip_prefix("{blocks.").and_then(|t| t.strip_suffix('}')) {
                out.extend_from_slice(blocks.get(key).map_or(&[], Vec::as_slice));
                continue;
            }
            let mut piece = piece.clone();
            piece.expansion = id;
            if in_definition || !text_may_hold_args(piece.text()) {
                out.push(piece);
                continue;
            }
            let token = piece.word.token.clone();
            let mut warnings = Vec::new();
            let range = args::variadic(&token.text, arg_texts.len(), &mut |w| warnings.push(w));
            if let Some(range) = range {
                for arg in request.args.get(range).unwrap_or_default() {
                    let mut piece = piece.clone();
                    piece.word.token.text = arg.text.clone();
                    piece.word.token.from_env |= arg.from_env;
                    out.push(piece);
                }
            } else {
                if let Some(filled) = args::fill(&token.text, &arg_texts, &mut |w| warnings.push(w)) {
                    let from_env = filled.used.iter().any(|i| request.args.get(*i).is_some_and(|a| a.from_env));
                    piece.word.token.text = filled.text.into();
                    piece.word.token.from_env |= from_env;
                }
                out.push(piece);
            }
            for warning in warnings {
                self.args_warning(request, &token, warning);
            }
        }
    }

    fn args_warning(&mut self, request: &Request, token: &Token, warning: ArgsWarning) {
        let count = request.args.len();
        let d = match warning {
            ArgsWarning::Deprecated(index) => {
                // The same snippet word comes by with every import of it.
                if !self.warned.insert(token.span) {
                    return;
                }
                Diagnostic::warning(
                    "old-args-placeholder",
                    format!("`{{args.{index}}}` is the old spelling of `{{args[{index}]}}`"),
                )
                .at(token.span, "")
                .help(format!("write `{{args[{index}]}}`"))
            }
            ArgsWarning::OutOfRange => Diagnostic::warning(
                "args-out-of-range",
                match count {
                    0 => "the import gives no arguments, so this stays as text".to_owned(),
                    1 => "the import gives one argument only, so this stays as text".to_owned(),
                    n => format!("the import gives {n} arguments only, so this stays as text"),
                },
            )
            .at(token.span, "")
            .also(request.keyword.word.token.span.to(request.pattern.span), "imported here"),
            ArgsWarning::BadIndex => {
                Diagnostic::warning("bad-args-index", "the index of an import argument must be a number")
                    .at(token.span, "")
            }
            ArgsWarning::NotAlone => {
                Diagnostic::warning("bad-args-index", "a range of import arguments must be a word of its own")
                    .at(token.span, "")
            }
        };
        self.sources.report(d);
    }
}

fn text_may_hold_args(text: &str) -> bool {
    memchr::memchr2(b'{', b'}', text.as_bytes()).is_some()
}

/// The sub-blocks of an import's block: what stands after each name on its line, then what stands in its braces.
fn named_blocks(block: &[Piece]) -> HashMap<&str, Vec<Piece>> {
    let mut blocks = HashMap::new();
    let mut rest = block.iter().peekable();
    while let Some(key) = rest.next() {
        let mut words = Vec::new();
        let mut end = key.end();
        while let Some(piece) = rest.next_if(|p| !p.starts_line_after(end) && !p.is("{")) {
            end = piece.end();
            words.push(piece.clone());
        }
        if rest.next_if(|p| !p.starts_line_after(end) && p.is("{")).is_some() {
            let mut depth = 1_usize;
            for piece in rest.by_ref() {
                if piece.is("{") {
                    depth += 1;
                } else if piece.is("}") {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                words.push(piece.clone());
            }
        }
        blocks.insert(key.text(), words);
    }
    blocks
}

/// Recognises snippet definitions inside an imported file: their words wait for the import of that snippet.
struct Definitions {
    depth: isize,
    /// Place of the word on its line.
    column: usize,
    /// The line begins with `(name)`.
    named: bool,
    inside: bool,
}

impl Definitions {
    fn new(inside: bool) -> Self {
        Self { depth: isize::from(inside), column: 0, named: false, inside: false }
    }

    /// Takes the next word; tells whether it belongs to a definition.
    fn step(&mut self, piece: &Piece, previous: Option<&Piece>) -> bool {
        if !self.inside && self.depth == 0 {
            let new_line = previous.is_none_or(|p| piece.starts_line_after(p.end()));
            self.column = if new_line { 0 } else { self.column + 1 };
            let text = piece.text();
            if self.column == 0 && text.len() >= 3 && text.starts_with('(') && text.ends_with(')') {
                self.named = true;
            }
        }
        if piece.is("{") {
            self.depth += 1;
            if self.column == 1 && self.named && self.depth == 1 {
                self.inside = true;
                self.named = false;
            }
        } else if piece.is("}") {
            self.depth -= 1;
            if self.depth == 0 {
                self.inside = false;
            }
        }
        self.inside
    }
}
