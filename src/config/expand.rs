//! From a file on disk to one tree: imports, snippets and arguments expanded, shorthand placeholders written out,
//! every mistake of the file reported at once.
//!
//! ```text
//! source   reads files, within bounds, each once
//! stream   words in order, with a splice for imports and the same-line rule
//! import   snippets, files, globs, {args[…]}, {block}
//! blocks   global options, snippets, named routes, sites
//! nodes    lines and nested blocks
//! shorthand  {host} -> {http.request.host}
//! ```
//!
//! Nothing here knows a directive; the caller says which names are directives, for one hint.

mod args;
mod blocks;
mod glob;
mod import;
mod nodes;
pub mod shorthand;
mod source;
mod stream;

use std::path::{Path, PathBuf};

use crate::base::diagnostic::Diagnostic;
use crate::base::env::Env;
use crate::base::span::SourceMap;
use crate::syntax::tree;

/// A file with everything it imports.
#[derive(Debug)]
pub struct Loaded {
    /// What could be understood; whole when `diagnostics` holds no error.
    pub file: tree::File,
    pub sources: SourceMap,
    /// Every file read or looked for, and the directories of import globs.
    pub watched: Vec<PathBuf>,
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Reads `path`. `known` tells a directive's name, to recognise a directive where a site address should be.
#[must_use]
pub fn load(path: &Path, env: &Env, known: &dyn Fn(&str) -> bool) -> Loaded {
    let mut sources = source::Sources::new(env);
    let words = sources.read_main(path);
    blocks::parse(sources, words, known)
}

/// Reads a text that is already in memory. `name` is shown to people; imports are relative to its directory.
#[must_use]
pub fn load_text(name: &str, text: &str, env: &Env, known: &dyn Fn(&str) -> bool) -> Loaded {
    let mut sources = source::Sources::new(env);
    let words = sources.add_main(name, None, text.as_bytes());
    blocks::parse(sources, words, known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::tree::Node;
    use proptest::prelude::*;

    fn loaded(text: &str) -> Loaded {
        let mut env = Env::empty();
        env.set("TOKEN", "s3cret");
        env.set("TWO", "b.com c.com");
        env.set("LINE", "respond a\nheader B c");
        load_text("Proxyfile", text, &env, &|name| name == "respond")
    }

    fn codes(text: &str) -> Vec<&'static str> {
        loaded(text).diagnostics.iter().map(|d| d.code).collect()
    }

    /// The tree in one line: `name arg "quoted arg" { … }`, `;` between lines.
    fn shown(nodes: &[Node]) -> String {
        let word =
            |t: &crate::syntax::token::Token| if t.quoted() { format!("'{}'", t.text) } else { t.text.to_string() };
        let line = |node: &Node| {
            let mut words = vec![word(&node.name)];
            words.extend(node.args.iter().map(word));
            if let Some(block) = &node.block {
                words.push(format!("{{{}}}", shown(&block.nodes)));
            }
            words.join(" ")
        };
        nodes.iter().map(line).collect::<Vec<_>>().join("; ")
    }

    /// The whole file in one line; fails when there is any error.
    fn tree(text: &str) -> String {
        let out = loaded(text);
        assert!(!out.has_errors(), "{:?}", out.diagnostics);
        let mut parts = Vec::new();
        parts.extend(out.file.globals.as_ref().map(|g| format!("globals({})", shown(g))));
        parts.extend(out.file.named_routes.iter().map(|r| format!("&{}({})", r.name.text, shown(&r.nodes))));
        for site in &out.file.sites {
            let keys = site.keys.iter().map(|k| k.text.to_string()).collect::<Vec<_>>().join("|");
            parts.push(format!("{keys}{}({})", if site.braces { "" } else { "!" }, shown(&site.nodes)));
        }
        parts.join(" ")
    }

    #[test]
    fn the_top_level() {
        assert_eq!(tree(""), "");
        assert_eq!(tree("{\n\tdebug\n}\n\na.com, b.com\tc.com {\n\tx\n}\n"), "globals(debug) a.com|b.com|c.com(x)");
        assert_eq!(tree(":80\nroot /x\nfoo {\n\tbar\n}\n"), ":80!(root /x; foo {bar})");
        assert_eq!(tree("a.com,\nb.com {\n}\n"), "a.com|b.com()");
        assert_eq!(tree(":80"), ":80!()");
        assert_eq!(tree(":80\n{\n\tx\n}\n"), ":80(x)");
        assert_eq!(tree(":80 { x y\n} :81 {\n\tz\n}\n"), ":80(x y) :81(z)");
        assert_eq!(tree("&(r) {\n\tx {host}\n}\n:80 {\n\tinvoke r\n}\n"), "&r(x {http.request.host}) :80(invoke r)");
        assert_eq!(tree("a, {$TWO} {\n{$LINE}\n}\n"), "a|b.com|c.com(respond a; header B c)");
    }

    #[test]
    fn lines_and_blocks() {
        assert_eq!(
            tree(":80 {\n\ta \"{\" '}' {}x \"}\"\n\tb {\n\t\tc {\n\t\t}\n\t\td\n\t}\n}\n"),
            ":80(a '{' '}' {}x '}'; b {c {}; d})"
        );
        assert_eq!(tree(":80 {\n\ta \\\n\t\tb\n\tc \"x\ny\" d\n}\n"), ":80(a b; c 'x\ny' d)");
    }

    #[test]
    fn snippets_arguments_and_blocks() {
        let s = "(s) {\n\theader {args[0]} x{args[1]} {args[:]}\n\t{block}\n\thandle {\n\t\t{blocks.a}\n\t}\n}\n";
        assert_eq!(
            tree(&format!("{s}:80 {{\n\timport s A \"b c\" {{\n\t\ta one {{\n\t\t\ttwo\n\t\t}}\n\t}}\n\tend\n}}\n")),
            ":80(header A xb c A b c; a one {two}; handle {one; two}; end)"
        );
        assert_eq!(
            tree("(s) {\n\tx\n\t{block}\n\thandle {\n\t\t{blocks.y}\n\t}\n}\n:80 {\n\timport s\n}\n"),
            ":80(x; handle {})"
        );
        assert_eq!(
            tree("(a) {\n\timport b {args[0]}\n}\n(b) {\n\tx {args[0]}\n}\n:80 {\n\timport a 1\n\timport a 2\n}\n"),
            ":80(x 1; x 2)"
        );
        assert_eq!(tree("(s) {\n\tdebug\n}\n{\n\timport s\n}\n"), "globals(debug)");
    }

    #[test]
    fn files_and_globs() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::create_dir(dir.path().join("sites")).unwrap();
        write("Proxyfile", "import snippets\nimport sites/*.conf\nimport none*\n");
        write("snippets", "(s) {\n\thi {args[0]}\n}\n");
        write("sites/b.conf", "b.com {\n\timport s 1\n\timport part\n}\n");
        write("sites/a.conf", "a.com {\n\timport s 2\n}\n");
        write("sites/part", "x\ny");
        let out = load(&dir.path().join("Proxyfile"), &Env::empty(), &|_| false);
        let sites: Vec<_> = out.file.sites.iter().map(|s| format!("{}({})", s.keys[0].text, shown(&s.nodes))).collect();
        assert_eq!(sites, ["a.com(hi 2)", "b.com(hi 1; x; y)"]);
        assert_eq!(out.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), ["import-no-match"]);
        let watched: Vec<_> =
            out.watched.iter().map(|p| p.strip_prefix(dir.path()).unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(watched, ["Proxyfile", "snippets", "sites", "sites/a.conf", "sites/b.conf", "sites/part", ""]);
    }

    #[test]
    fn every_mistake_has_its_message() {
        for (text, expected) in [
            (":80 {\n\tx\n", "unclosed-block"),
            (":80 {\n\tx {\n\t\ty\n}\n", "unclosed-block"),
            (":80 {\n}\n}\n", "unexpected-close-brace"),
            (":80 {\n\tx }\n", "brace-not-alone"),
            (":80 {\n\tx {\n\t\ty }\n}\n", "brace-not-alone"),
            (":80 {\n\tx {\n\t\ty\n\t} z\n}\n", "brace-not-alone"),
            (":80 {\n\tx { y\n\t}\n}\n", "text-after-brace"),
            (":80 {\n\tx { y }\n}\n", "text-after-brace"),
            (":80 {\n\tx {}\n}\n", "empty-braces"),
            (":80 {\n\tx\n\t{\n\t}\n}\n", "brace-on-new-line"),
            ("a.com{\n\tx\n}\n", "brace-glued-to-address"),
            ("a.com,b.com {\n}\n", "comma-in-address"),
            ("a.com, {\n}\n", "expected-address"),
            ("a.com,\n", "expected-address"),
            ("@m path /x\n:80 {\n}\n", "matcher-outside-site"),
            ("respond hi\n", "directive-outside-site"),
            (":80 {\n}\n{\n\tdebug\n}\n", "global-options-not-first"),
            ("(s)\nx\n", "expected-open-brace"),
            ("(s) {\n}\n(s) {\n}\n", "duplicate-snippet"),
            (":80 {\n\timport\n}\n", "wrong-argument-count"),
            (":80 {\n\timport \"\"\n}\n", "wrong-argument-count"),
            (":80 {\n\timport no/such/file\n}\n", "import-not-found"),
            (":80 {\n\timport /\n}\n", "import-unreadable"),
            (":80 {\n\timport a*b*\n}\n", "import-pattern"),
            ("(s) {\n\timport s\n}\n:80 {\n\timport s\n}\n", "import-cycle"),
            ("(s) {\n}\n:80 {\n\timport s {\n\t\t{\n\t\t}\n\t}\n}\n", "anonymous-block"),
            ("(s) {\n\tx {args.0}\n}\n:80 {\n\timport s 1\n}\n", "old-args-placeholder"),
            ("(s) {\n\tx {args[1]}\n}\n:80 {\n\timport s 1\n}\n", "args-out-of-range"),
            ("(s) {\n\tx {args[y]}\n}\n:80 {\n\timport s 1\n}\n", "bad-args-index"),
            (":80 {\n\tx \"y\n}\n", "unterminated-quote"),
        ] {
            assert_eq!(codes(text), [expected], "{text}");
        }
    }

    #[test]
    fn reading_goes_on_after_a_mistake() {
        let out = loaded("a.com,b.com {\n\tx { y\n\t}\n\timport nope\n\tz\n}\n@m x\nc.com {\n\tw\n}\n");
        let codes: Vec<_> = out.diagnostics.iter().map(|d| d.code).collect();
        assert_eq!(codes, ["comma-in-address", "text-after-brace", "import-not-found", "matcher-outside-site"]);
        assert_eq!(shown(&out.file.sites[0].nodes), "x {y}; z");
        assert_eq!(shown(&out.file.sites[1].nodes), "w");
    }

    #[test]
    fn secrets_are_marked_and_never_named() {
        let out = loaded("(s) {\n\tauth {args[0]} x{args[0]}\n}\n:80 {\n\timport s {$TOKEN}\n\timport {$TOKEN}\n}\n");
        let args = &out.file.sites[0].nodes[0].args;
        assert_eq!(
            args.iter().map(|a| (&*a.text, a.from_env)).collect::<Vec<_>>(),
            [("s3cret", true), ("xs3cret", true)]
        );
        assert!(!format!("{:?}", out.diagnostics).contains("s3cret"));
    }

    #[test]
    fn hostile_sizes_are_refused() {
        let deep = format!(":80 {{\n{}{}}}\n", "a {\n".repeat(10_000), "}\n".repeat(10_000));
        assert_eq!(codes(&deep), ["nesting-too-deep"]);
        assert_eq!(codes(&"a {\n".repeat(10_000)), ["nesting-too-deep", "unclosed-block"]);
        let mut bomb = String::from("(s0) {\n\tx\n}\n");
        for i in 1..30 {
            bomb += &format!("(s{i}) {{\n{}}}\n", format!("\timport s{}\n", i - 1).repeat(10));
        }
        assert_eq!(codes(&format!("{bomb}:80 {{\n\timport s29\n}}\n")), ["import-too-large"]);
        assert_eq!(codes(&"x".repeat(9 << 20)), ["file-too-large"]);
        assert_eq!(codes("a\0b"), ["not-text"]);
        // Escaped braces make every search for a closing brace run to the end.
        let escapes = "{\\}".repeat(100_000);
        assert!(codes(&format!("(s) {{\n\tx {escapes}\n}}\n:80 {{\n\timport s\n}}\n")).is_empty());
        assert_eq!(codes(&"import a\n".repeat(1000)), ["import-not-found"]);
        assert_eq!(codes(&"@m\n".repeat(1000)).len(), 100);
    }

    proptest! {
        #[test]
        fn any_soup_of_words_is_read(words in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "{}", "\n", "\n", "a", ":80", "import", "s", "(s)", "&(r)", "@m", "\"", "`", "<<E", "E", "#", "\\",
            ",", "a,", "{args[0]}", "{block}", "{blocks.a}", "{$TOKEN}", "{$LINE}", "x{",
        ]), 0..60)) {
            let out = loaded(&words.join(" "));
            let messages = format!("{:?}", out.diagnostics);
            prop_assert!(!messages.contains("s3cret"));
            for d in &out.diagnostics {
                for label in d.primary.iter().chain(&d.labels) {
                    let file = out.sources.get(label.span.file);
                    prop_assert!(file.is_some_and(|f| f.text.get(label.span.start as usize..label.span.end as usize).is_some()));
                }
            }
        }
    }
}
