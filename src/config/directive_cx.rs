//! What a directive sees while its line is read: the words, the site's matchers and options, and a place for messages.

use std::collections::BTreeMap;

use serde_json::Value;

use super::registry::{Directive, Registry};
use super::tls_types::Issuer;
use super::types::{self, MatcherSet, Module, Route};
use crate::base::diagnostic::Diagnostic;
use crate::base::span::Span;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

/// A directive's parse failure. The message stands in the diagnostics already or is carried here; either way the rest
/// of the file is still read, so that one run shows all errors.
pub type Parsed<T> = Result<T, Box<Diagnostic>>;

/// What a line of a site contributes (Caddy's ConfigValue classes).
#[derive(Debug, Clone)]
pub enum ConfigValue {
    /// A route in the site's list, sorted by directive order.
    Route(Route),
    /// A route that runs before those of another directive: where one directive acts at two places.
    RouteBefore(&'static str, Route),
    /// Routes that stay together in this order when the list is sorted.
    Routes(Vec<Route>),
    /// Routes for errors (`handle_errors`), in text order.
    ErrorRoute(types::Subroute),
    /// `bind`.
    Bind { addresses: Vec<String>, protocols: Vec<String> },
    /// `log`: a logger of the site.
    AccessLog(AccessLog),
    /// `tls` and what it makes; read by the adapter's TLS part.
    Tls(TlsValue),
}

/// `log [name] { … }` in a site. The adapter numbers nameless logs and fills in `include`.
#[derive(Debug, Clone, Default)]
pub struct AccessLog {
    /// Given name; empty = numbered by the adapter (`log0`) when there is a `log`.
    pub name: String,
    /// Absent when the block says nothing about the log itself (the default log then takes the entries).
    pub log: Option<types::Log>,
    pub hostnames: Vec<String>,
    pub no_hostname: bool,
}

/// Pieces of TLS configuration from a site's `tls` directive.
#[derive(Debug, Clone)]
pub enum TlsValue {
    /// `tls.cert_issuer`.
    Issuer(Issuer),
    /// `tls.cert_manager` (`get_certificate`).
    Manager(Module),
    /// `tls.cert_loader`: files, folders.
    Loader { id: &'static str, value: Value },
    /// `tls.connection_policy`.
    ConnectionPolicy(Value),
    /// `tls.key_type`.
    KeyType(String),
    /// `tls.on_demand`.
    OnDemand,
    /// Other automation settings by their Caddy class name: `tls.force_automate`, `tls.reuse_private_keys`,
    /// `tls.renewal_window_ratio`.
    Other(&'static str, Value),
}

/// State that the directives of one whole file share.
pub struct FileCx<'a> {
    pub registry: &'a Registry,
    /// Global options by name, in their parsed form (JSON of the option's value).
    pub options: BTreeMap<String, Value>,
    pub diagnostics: Vec<Diagnostic>,
    /// Words that are secrets: masked in every message that shows their line, those of compiling too.
    pub secrets: Vec<Span>,
    /// Names of the file's named routes.
    pub named_routes: Vec<String>,
    /// Named routes that lines read so far invoke, with the place; `invoke` adds to it.
    pub invoked: Vec<(String, Span)>,
    /// Counter for the names of exclusive groups (`group0`, …).
    pub groups: usize,
    /// Directive order: names in running order after `order` options.
    pub order: Vec<String>,
    /// Sorts the routes of a block as Caddy's `sortRoutes` does and builds them into a subroute; set by the adapter.
    pub build_subroute: fn(&mut DirectiveCx<'_, '_>, &[Node], sort: bool) -> Parsed<types::Subroute>,
    /// Free per-file state of features, by feature name.
    pub state: BTreeMap<&'static str, Value>,
}

/// Context of one line.
pub struct DirectiveCx<'a, 'f> {
    pub file: &'a mut FileCx<'f>,
    pub directive: &'a Directive,
    pub node: &'a Node,
    /// Arguments without the matcher token.
    pub args: &'a [Token],
    /// The matcher given on the line, resolved to its set; `None` when the line has none (or `*`).
    pub matcher: Option<MatcherSet>,
    /// Whether a matcher token was present at all (`*` counts).
    pub has_matcher_token: bool,
    /// Named matchers visible here, `@` included in the key.
    pub matchers: &'a BTreeMap<String, MatcherSet>,
    /// Directive that holds the block this line is in; empty at site level.
    pub parent: &'a str,
    /// Name (without `@`) of the named matcher whose definition is being read; empty elsewhere. Regexp matchers take
    /// it as their capture name.
    pub matcher_name: &'a str,
    /// The site's addresses as written, for directives that ask (`log`, `tls`).
    pub site_keys: &'a [String],
    /// Paths of the configuration files that this site's lines stand in, sorted (`file_server` hides them).
    pub site_files: &'a [String],
}

impl<'f> FileCx<'f> {
    #[must_use]
    pub fn new(registry: &'f Registry) -> Self {
        Self {
            registry,
            options: BTreeMap::new(),
            diagnostics: Vec::new(),
            secrets: Vec::new(),
            named_routes: Vec::new(),
            invoked: Vec::new(),
            groups: 0,
            order: registry.directives.iter().filter(|d| d.ordered).map(|d| d.name.to_owned()).collect(),
            build_subroute: |_, _, _| Ok(types::Subroute::default()),
            state: BTreeMap::new(),
        }
    }
}

impl DirectiveCx<'_, '_> {
    /// `name` is told in the message; the caret stands under the whole line.
    #[must_use]
    pub fn err(&self, span: Span, code: &'static str, message: impl Into<String>) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(code, message).at(span, ""))
    }

    /// Wrong number of arguments on the line (Caddy's ArgErr).
    #[must_use]
    pub fn arg_err(&self, node: &Node) -> Box<Diagnostic> {
        let d =
            Diagnostic::error("wrong-argument-count", format!("wrong number of arguments for `{}`", node.name.shown()))
                .at(node.span(), "")
                .help(format!("shape: {}", self.directive.doc.syntax));
        Box::new(d)
    }

    /// An option that is given twice, or beside another that says the same.
    #[must_use]
    pub fn duplicate(&self, node: &Node) -> Box<Diagnostic> {
        self.err(node.span(), "duplicate-option", format!("`{}` is already given", node.name.shown()))
    }

    /// A subdirective that this directive does not have.
    #[must_use]
    pub fn unknown(&self, node: &Node, known: &[&str]) -> Box<Diagnostic> {
        let mut d = Diagnostic::error(
            "unknown-subdirective",
            format!("`{}` has no option `{}`", self.directive.name, node.name.shown()),
        )
        .at(node.name.span, "");
        if let Some(near) = crate::base::diagnostic::nearest(node.name(), known.iter().copied()) {
            d = d.help(format!("did you mean `{near}`?")).replace(node.name.span, near);
        }
        Box::new(d)
    }

    /// Has what is wrong within an object of a handler's JSON told at this place instead of at the whole line.
    pub fn mark(&self, object: &mut Module, span: Span) {
        super::resolve::spans::mark(object, span);
    }

    pub fn warn(&mut self, diagnostic: Diagnostic) {
        self.file.diagnostics.push(diagnostic);
    }

    /// Exactly one argument on a line.
    pub fn one<'n>(&self, node: &'n Node) -> Parsed<&'n Token> {
        match node.args.as_slice() {
            [one] => Ok(one),
            _ => Err(self.arg_err(node)),
        }
    }

    /// The line takes no block.
    pub fn no_block(&self, node: &Node) -> Parsed<()> {
        match &node.block {
            None => Ok(()),
            Some(block) => {
                Err(self.err(block.open, "unexpected-block", format!("`{}` takes no block here", node.name.shown())))
            }
        }
    }

    /// The line has no lines in its block; an empty block is let through, as Caddy does for matchers.
    pub fn no_lines(&self, node: &Node) -> Parsed<()> {
        if node.lines().next().is_none() { Ok(()) } else { self.no_block(node) }
    }

    /// The words of all lines of a matcher kind as one list; `null` when there are none, as Caddy prints it.
    pub fn word_list(&self, lines: &[&Node]) -> Parsed<Value> {
        for line in lines {
            self.no_lines(line)?;
        }
        let words: Vec<Value> = lines.iter().flat_map(|l| &l.args).map(|a| Value::from(a.text())).collect();
        Ok(if words.is_empty() { Value::Null } else { Value::Array(words) })
    }

    /// Caddy reads past these words without a message; they mean nothing, so the admin is told.
    pub fn warn_ignored(&mut self, span: Span) {
        let d = Diagnostic::warning("ignored-words", format!("`{}` takes no notice of this", self.directive.name));
        self.warn(d.at(span, "has no effect").help(format!("shape: {}", self.directive.doc.syntax)));
    }

    /// The same for a block that Caddy does not read.
    pub fn warn_ignored_block(&mut self) {
        if let Some(block) = &self.node.block {
            self.warn_ignored(block.open.to(block.close));
        }
    }

    /// A route of this line's matcher and one handler.
    #[must_use]
    pub fn route(&self, handler: Module) -> Vec<ConfigValue> {
        vec![ConfigValue::Route(self.route_of(vec![handler]))]
    }

    /// A route of a matcher that the directive told apart itself and one handler.
    #[must_use]
    pub fn route_with(&self, matcher: Option<MatcherSet>, handler: Module) -> Vec<ConfigValue> {
        let matcher_sets = matcher.into_iter().collect();
        vec![ConfigValue::Route(Route { matcher_sets, handlers: vec![handler], ..Route::default() })]
    }

    /// The same as a bare route.
    #[must_use]
    pub fn route_of(&self, handlers: Vec<Module>) -> Route {
        Route { matcher_sets: self.matcher.iter().cloned().collect(), handlers, ..Route::default() }
    }

    /// A fresh group name for mutually exclusive routes.
    pub fn next_group(&mut self) -> String {
        let name = format!("group{}", self.file.groups);
        self.file.groups += 1;
        name
    }

    /// The lines of a block as a subroute: matchers defined in it are visible in it; sorted by directive order unless
    /// `sort` is false (`route`).
    pub fn subroute(&mut self, nodes: &[Node], sort: bool) -> Parsed<types::Subroute> {
        (self.file.build_subroute)(self, nodes, sort)
    }

    /// A matcher token (`*`, `/path`, `@name`) resolved: `None` when the word is not one.
    pub fn matcher_token(&self, token: &Token) -> Option<Parsed<Option<MatcherSet>>> {
        // Quotes do not matter: Caddy takes `"/x"` for a matcher too.
        match token.text() {
            "*" => Some(Ok(None)),
            t if t.starts_with('/') => {
                let mut set = MatcherSet::new();
                set.insert("path".into(), Value::Array(vec![Value::String(t.to_owned())]));
                Some(Ok(Some(set)))
            }
            t if t.starts_with('@') => Some(match self.matchers.get(t) {
                Some(set) => Ok(Some(set.clone())),
                None => {
                    let mut d =
                        Diagnostic::error("undefined-matcher", format!("matcher `{}` is not defined", token.shown()))
                            .at(token.span, "used here");
                    if let Some(near) = crate::base::diagnostic::nearest(t, self.matchers.keys().map(String::as_str)) {
                        d = d.help(format!("did you mean `{near}`?")).replace(token.span, near);
                    }
                    Err(Box::new(d))
                }
            }),
            _ => None,
        }
    }

    /// A matcher set from the lines of a matcher block: lines of one kind are read together, as Caddy merges them.
    /// All wrong lines are reported; the first failure is returned.
    pub fn matcher_set(&mut self, nodes: &[Node]) -> Parsed<MatcherSet> {
        let mut kinds: Vec<(&str, Vec<&Node>)> = Vec::new();
        for node in nodes {
            match kinds.iter_mut().find(|(name, _)| *name == node.name()) {
                Some((_, lines)) => lines.push(node),
                None => kinds.push((node.name(), vec![node])),
            }
        }
        let mut set = MatcherSet::new();
        for (name, lines) in kinds {
            let Some(module) = self.file.registry.matcher(name) else {
                let token = &lines[0].name;
                let mut d = Diagnostic::error("unknown-matcher", format!("there is no matcher `{}`", token.shown()))
                    .at(token.span, "");
                let known = self.file.registry.matchers.iter().map(|m| m.id);
                if let Some(near) = crate::base::diagnostic::nearest(name, known) {
                    d = d.help(format!("did you mean `{near}`?")).replace(token.span, near);
                }
                return Err(Box::new(d));
            };
            set.insert(name.to_owned(), (module.parse)(&lines, self)?);
        }
        Ok(set)
    }
}
