//! What a Caddyfile asks for, line by line, and whether llmproxy does it.
//!
//! Every line is judged by what `validate` says of it. Lines that are refused are then taken out of the tree, which is
//! compiled again: a plugin's directive stops the adapter, and would hide what is behind it.

use std::collections::HashSet;
use std::path::PathBuf;

use super::advice;
use crate::base::diagnostic::Diagnostic;
use crate::base::span::{FileId, SourceMap, Span};
use crate::compile::load::{self, Source};
use crate::config::expand;
use crate::config::types::Config;
use crate::modules::REGISTRY;
use crate::syntax::token::Token;
use crate::syntax::tree::{File, Node};

/// Taking lines out may show further ones; a file that needs more rounds than this is not about to run.
const ROUNDS: usize = 4;

/// A name longer than this is no name.
const LONGEST_NAME: usize = 60;

pub struct Survey {
    /// In the order of the file, each once however often it is imported.
    pub lines: Vec<Line>,
    /// What was said without a place in the file.
    pub elsewhere: Vec<String>,
    /// Whether `validate` takes the file as it is.
    pub runs: bool,
    /// The folder that the file names for certificates.
    pub storage: Option<PathBuf>,
    pub sources: SourceMap,
}

/// A directive, an option, a matcher, or the addresses of a site.
pub struct Line {
    /// From its name to the end of its block.
    pub span: Span,
    /// Its name after those of the blocks that it stands in. Never arguments, which may be secrets.
    pub names: Vec<String>,
    pub verdict: Verdict,
    pub told: Vec<String>,
    /// Part of it comes from the environment.
    pub from_env: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Same,
    /// Runs; something about it is to be known.
    Note,
    /// Caddy, or a plugin of it, does this and llmproxy does not.
    Unsupported,
    /// It would not run in Caddy either, or not with the files of this machine.
    Broken,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Note => "note",
            Self::Unsupported => "unsupported",
            Self::Broken => "error",
        }
    }

    fn of(error: &Diagnostic) -> Self {
        let lacking =
            error.code.starts_with("unknown-") || matches!(error.code, "not-supported-yet" | "no-certificate");
        if lacking { Self::Unsupported } else { Self::Broken }
    }
}

impl Survey {
    pub fn count(&self, verdict: Verdict) -> usize {
        self.lines.iter().filter(|line| line.verdict == verdict).count()
    }
}

/// Judges a file in the Proxyfile language.
pub fn survey(source: &Source) -> Survey {
    let read = load::load_tree(source, &REGISTRY);
    let mut lines = Lines::of(&read.file);
    let mut survey =
        Survey { lines: Vec::new(), elsewhere: Vec::new(), runs: false, storage: None, sources: read.sources.clone() };
    let mut file = read.file;
    let mut said = read.diagnostics;
    for round in 0..ROUNDS {
        let tree = expand::Loaded {
            file: file.clone(),
            sources: read.sources.clone(),
            watched: Vec::new(),
            diagnostics: std::mem::take(&mut said),
        };
        let adapted = load::adapt_tree(tree, &REGISTRY);
        if survey.storage.is_none() {
            survey.storage = adapted.config.as_ref().and_then(storage);
        }
        let adapts = adapted.config.is_some();
        let (runtime, loaded) = load::compile(adapted, &REGISTRY);
        if round == 0 {
            survey.runs = runtime.is_some();
        }
        // What the adapter says of a tree with holes is about the holes.
        if round == 0 || adapts {
            for diagnostic in loaded.diagnostics.iter().filter(|d| round == 0 || d.is_error()) {
                lines.tell(diagnostic, &mut survey.elsewhere);
            }
        }
        if runtime.is_some() || !take_out(&mut file, &loaded.diagnostics) {
            break;
        }
    }
    survey.lines = lines.finish();
    survey
}

/// The folder of `storage file_system`.
pub fn storage(config: &Config) -> Option<PathBuf> {
    config.storage.as_ref()?.get("root")?.as_str().map(PathBuf::from)
}

/// A line while its verdict is found.
struct Lines {
    lines: Vec<Line>,
    seen: HashSet<(FileId, u32)>,
}

impl Lines {
    fn of(file: &File) -> Self {
        let mut lines = Self { lines: Vec::new(), seen: HashSet::new() };
        lines.add_all(file.globals.as_deref().unwrap_or_default(), &[]);
        for route in &file.named_routes {
            lines.add_all(&route.nodes, &[]);
        }
        for site in &file.sites {
            let (Some(first), Some(last)) = (site.keys.first(), site.keys.last()) else { continue };
            let shown: Vec<&str> = site.keys.iter().map(Token::shown).collect();
            let names = vec![name(&format!("site {}", shown.join(", ")))];
            let from_env = site.keys.iter().any(|key| key.from_env);
            lines.add(first.span.to(last.span), names, None, from_env);
            lines.add_all(&site.nodes, &[]);
        }
        lines
    }

    fn add_all(&mut self, nodes: &[Node], within: &[String]) {
        for node in nodes {
            let mut names = within.to_vec();
            names.push(name(node.name.shown()));
            let note = advice::note(&path(&names), node);
            let from_env = node.name.from_env || node.args.iter().any(|word| word.from_env);
            let descends = advice::holds_lines(node.name()) || node.name().starts_with('@');
            let within = names.clone();
            self.add(whole(node), names, note, from_env);
            if descends {
                self.add_all(node.block.as_ref().map_or(&[], |block| &block.nodes), &within);
            }
        }
    }

    fn add(&mut self, span: Span, names: Vec<String>, note: Option<&str>, from_env: bool) {
        if self.seen.insert((span.file, span.start)) {
            let verdict = if note.is_some() { Verdict::Note } else { Verdict::Same };
            let told = note.map(str::to_owned).into_iter().collect();
            self.lines.push(Line { span, names, verdict, told, from_env });
        }
    }

    /// Puts a message where it belongs: to the innermost line that it is about.
    fn tell(&mut self, diagnostic: &Diagnostic, elsewhere: &mut Vec<String>) {
        let mut texts = vec![diagnostic.message.clone()];
        let at = diagnostic.primary.as_ref().map(|label| label.span);
        let inside = |line: &&mut Line| {
            at.is_some_and(|at| line.span.file == at.file && (line.span.start..=line.span.end).contains(&at.start))
        };
        // A line's place may be where the next one begins, if nothing is between them: the later start wins.
        let found = self.lines.iter_mut().filter(inside).max_by_key(|line| (line.span.start, u32::MAX - line.span.end));
        let way = if diagnostic.is_error() { advice::way(diagnostic) } else { None };
        texts.extend(way.map(str::to_owned).or_else(|| diagnostic.help.clone()));
        let verdict = if diagnostic.is_error() { Verdict::of(diagnostic) } else { Verdict::Note };
        let Some(line) = found else {
            match at {
                // What never became a line, such as an import that leads nowhere.
                Some(span) => {
                    let names = vec![diagnostic.code.to_owned()];
                    self.lines.push(Line { span, names, verdict, told: texts, from_env: false });
                }
                None => elsewhere.extend(Some(texts.join(": ")).filter(|text| !elsewhere.contains(text))),
            }
            return;
        };
        if verdict > Verdict::Note && line.verdict <= Verdict::Note {
            line.told.clear();
        }
        line.verdict = line.verdict.max(verdict);
        for text in texts {
            if !line.told.contains(&text) {
                line.told.push(text);
            }
        }
    }

    /// Of what stands inside a refused line nothing can be said, unless it is routes, which were read all the same.
    fn finish(self) -> Vec<Line> {
        let opaque =
            |line: &&Line| line.verdict > Verdict::Note && !line.names.last().is_some_and(|n| advice::holds_routes(n));
        let refused: Vec<Span> = self.lines.iter().filter(opaque).map(|line| line.span).collect();
        let inside = |line: &Line| {
            let holds = |outer: &Span| {
                outer.file == line.span.file && outer.start < line.span.start && line.span.end <= outer.end
            };
            refused.iter().any(holds)
        };
        let mut lines = self.lines;
        lines.retain(|line| line.verdict > Verdict::Note || !inside(line));
        lines.sort_by_key(|line| (line.span.file, line.span.start));
        lines
    }
}

/// From the name to the end of the block.
fn whole(node: &Node) -> Span {
    let span = node.span();
    node.block.as_ref().map_or(span, |block| span.to(block.close))
}

fn path(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// A name as it may be printed.
fn name(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    let mut shown: String = text.chars().take(LONGEST_NAME).map(plain).collect();
    if text.chars().count() > LONGEST_NAME {
        shown.push('…');
    }
    shown
}

/// Takes the lines that errors are about out of a tree; false when there is nothing to take.
fn take_out(file: &mut File, said: &[Diagnostic]) -> bool {
    let places: Vec<Span> =
        said.iter().filter(|d| d.is_error()).filter_map(|d| d.primary.as_ref()).map(|label| label.span).collect();
    let is_at = |span: Span| places.iter().any(|p| p.file == span.file && (span.start..=span.end).contains(&p.start));
    let mut taken = false;
    let sites = file.sites.len();
    file.sites.retain(|site| !site.keys.iter().any(|key| is_at(key.span)));
    taken |= file.sites.len() < sites;
    let blocks = file.globals.iter_mut().chain(file.named_routes.iter_mut().map(|route| &mut route.nodes));
    for nodes in blocks.chain(file.sites.iter_mut().map(|site| &mut site.nodes)) {
        taken |= take_out_of(nodes, &is_at);
    }
    taken
}

fn take_out_of(nodes: &mut Vec<Node>, is_at: &dyn Fn(Span) -> bool) -> bool {
    let before = nodes.len();
    nodes.retain(|node| !is_at(node.span()));
    let mut taken = nodes.len() < before;
    for block in nodes.iter_mut().filter_map(|node| node.block.as_mut()) {
        taken |= take_out_of(&mut block.nodes, is_at);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::load::Format;
    use proptest::prelude::*;

    fn surveyed(text: &str) -> Survey {
        survey(&Source {
            path: PathBuf::from("Caddyfile"),
            format: Format::Proxyfile,
            text: Some(text.to_owned()),
            env_files: Vec::new(),
        })
    }

    fn lines(text: &str) -> Vec<(String, Verdict)> {
        surveyed(text).lines.iter().map(|line| (line.names.join("/"), line.verdict)).collect()
    }

    #[test]
    fn a_plugin_does_not_hide_what_is_behind_it() {
        let said = lines(
            "{\n\torder souin before rewrite\n\tadmin :2019\n}\nhttp://a.test {\n\tsouin {\n\t\tx\n\t}\n\ttemplates\n\treverse_proxy localhost:1 {\n\t\theader_up A b\n\t}\n}\n",
        );
        let verdict = |name: &str| said.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
        assert_eq!(verdict("souin"), Some(Verdict::Unsupported), "{said:?}");
        assert_eq!(verdict("admin"), Some(Verdict::Unsupported), "{said:?}");
        assert_eq!(verdict("templates"), Some(Verdict::Unsupported), "{said:?}");
        assert_eq!(verdict("reverse_proxy/header_up"), Some(Verdict::Same), "{said:?}");
        assert_eq!(verdict("souin/x"), None);
    }

    #[test]
    fn no_argument_is_told() {
        let survey = surveyed(
            "http://a.test {\n\tbasic_auth {\n\t\tplanted-user planted-hash\n\t}\n\tmap {host} {x} {\n\t\tplanted y\n\t}\n\theader planted planted\n\tnonsense planted {\n\t\tplanted planted\n\t}\n\treverse_proxy localhost:1 {\n\t\theader_up Authorization \"Bearer planted\"\n\t}\n}\n",
        );
        let all: Vec<String> = survey.lines.iter().flat_map(|l| l.names.iter().chain(&l.told).cloned()).collect();
        assert!(!all.iter().chain(&survey.elsewhere).any(|text| text.contains("planted")), "{all:?}");
    }

    #[test]
    fn a_broken_file_is_told_as_broken() {
        let survey = surveyed("http://a.test {\n\trespond \"x\n");
        assert!(
            !survey.runs && survey.lines.iter().any(|l| l.verdict == Verdict::Broken) || !survey.elsewhere.is_empty()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_is_judged_as_validate_judges_it(words in proptest::collection::vec(
            prop_oneof![
                Just("{\n"), Just("}\n"), Just("\n"), Just("\""), Just("reverse_proxy "), Just("a.test "), Just("@m "),
                Just("handle "), Just("tls "), Just("{$X}"), Just("import "), Just("(s) "), Just("é "), Just("path /x\n"),
                Just("encode\n"), Just("souin\n"), Just("# c \\\n"), Just("<<E\n"), Just("E\n"), Just("respond x\n"),
            ],
            0..40,
        )) {
            let text = words.concat();
            let survey = surveyed(&text);
            let refusals = survey.lines.iter().any(|line| line.verdict > Verdict::Note);
            // A refusal is told with its line, or without.
            prop_assert!(survey.runs || refusals || !survey.elsewhere.is_empty(), "{text:?}");
            prop_assert!(!(survey.runs && refusals), "{text:?}");
        }
    }
}
