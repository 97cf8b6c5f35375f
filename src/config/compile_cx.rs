//! What a feature sees while its JSON becomes the runtime: nested routes, templates, and a place for errors.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::background::Background;
use super::go_live::GoLive;
use super::registry::Registry;
use super::tls_types::CertificateAuthority;
use super::types::{self, MatcherSet, Module};
use super::usage_ledger::UsageLedger;
use super::usage_types::Usage;
use crate::http::matcher::MatcherSets;
use crate::http::route::{Handler, Route, RouteList, Subroute};
use crate::llm::price::Prices;
use crate::state::{self, Store};
use crate::storage::FileStorage;

/// Why something cannot run, with the JSON pointer of the place relative to the object being compiled.
#[derive(Debug, Clone)]
pub struct CompileError {
    /// Diagnostic code.
    pub code: &'static str,
    pub message: String,
    /// JSON pointer from the root of the configuration; filled in on the way out.
    pub pointer: String,
    pub help: Option<String>,
}

impl CompileError {
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), pointer: String::new(), help: None }
    }

    /// A thing that Caddy has and we adapt, but do not run yet.
    #[must_use]
    pub fn not_supported(what: impl std::fmt::Display) -> Self {
        Self::new("not-supported-yet", format!("{what} is not supported by this version of llmproxy"))
    }

    /// A regular expression that is not RE2.
    #[must_use]
    pub fn invalid_regexp(error: crate::http::regexp::PatternError) -> Self {
        Self::new("invalid-regexp", format!("regular expression: {error}"))
    }

    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Prefixes the place.
    #[must_use]
    pub fn within(mut self, step: impl std::fmt::Display) -> Self {
        self.pointer = format!("/{step}{}", self.pointer);
        self
    }
}

/// Context of one compilation. Errors of nested routes are gathered, so that one run reports all.
pub struct CompileCx<'a> {
    pub registry: &'a Registry,
    /// All errors found so far, with absolute pointers.
    pub errors: Vec<CompileError>,
    /// What runs but is probably not meant, told as warnings; pointers as in `errors`.
    pub advice: Vec<CompileError>,
    /// Current JSON pointer.
    path: Vec<String>,
    groups: BTreeMap<String, u32>,
    named: BTreeMap<String, Arc<OnceLock<RouteList>>>,
    /// Files read on the way, to be watched for changes.
    pub watched: Vec<PathBuf>,
    /// Work that begins when the configuration goes live.
    pub background: Vec<Arc<dyn Background>>,
    /// What is opened or read before the configuration goes live, in this order.
    pub go_live: Vec<Arc<dyn GoLive>>,
    /// What calls cost, with the lines of the global options.
    pub prices: Arc<Prices>,
    /// The global option `usage`; says nothing when it is not given.
    pub usage: Usage,
    /// Ledgers named so far.
    pub(super) ledgers: Vec<Arc<UsageLedger>>,
    pub http_port: u16,
    pub https_port: u16,
    /// Where certificates, accounts and keys are kept.
    pub storage: FileStorage,
    /// Where limits and budgets are counted.
    pub store: Arc<dyn Store>,
    /// Certificate authorities that the configuration describes; others have the defaults.
    pub authorities: BTreeMap<String, CertificateAuthority>,
}

impl<'a> CompileCx<'a> {
    #[must_use]
    pub fn new(registry: &'a Registry) -> Self {
        Self {
            registry,
            errors: Vec::new(),
            advice: Vec::new(),
            path: Vec::new(),
            groups: BTreeMap::new(),
            named: BTreeMap::new(),
            watched: Vec::new(),
            background: Vec::new(),
            go_live: Vec::new(),
            prices: Prices::embedded(),
            usage: Usage::default(),
            ledgers: Vec::new(),
            http_port: 80,
            https_port: 443,
            storage: FileStorage::new(""),
            store: state::process(),
            authorities: BTreeMap::new(),
        }
    }

    /// Runs `f` with the pointer extended by `step`.
    pub fn at<T>(&mut self, step: impl std::fmt::Display, f: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step.to_string());
        let out = f(self);
        self.path.pop();
        out
    }

    /// Notes an error at the current place.
    pub fn report(&mut self, error: CompileError) {
        let error = self.placed(error);
        self.errors.push(error);
    }

    /// Notes a warning at the current place.
    pub fn advise(&mut self, advice: CompileError) {
        let advice = self.placed(advice);
        self.advice.push(advice);
    }

    fn placed(&self, mut error: CompileError) -> CompileError {
        let here: String = self.path.iter().map(|s| format!("/{}", s.replace('~', "~0").replace('/', "~1"))).collect();
        error.pointer = here + &error.pointer;
        error
    }

    pub fn compile_routes(&mut self, routes: &[types::Route]) -> RouteList {
        // Group names are unique within a configuration only by their text; numbers compare faster per request.
        let routes = routes.iter().enumerate().map(|(i, r)| self.at(i, |cx| cx.compile_route(r))).collect();
        RouteList { routes, index: None }
    }

    fn compile_route(&mut self, route: &types::Route) -> Route {
        let matchers = self.at("match", |cx| cx.compile_matcher_sets(&route.matcher_sets));
        let handlers = self.at("handle", |cx| cx.compile_handlers(&route.handlers));
        let group = (!route.group.is_empty()).then(|| {
            let next = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
            *self.groups.entry(route.group.clone()).or_insert(next)
        });
        Route { matchers, handlers, group, terminal: route.terminal }
    }

    pub fn compile_matcher_sets(&mut self, sets: &[MatcherSet]) -> MatcherSets {
        let sets = sets.iter().enumerate().map(|(i, set)| self.at(i, |cx| cx.compile_matcher_set(set))).collect();
        MatcherSets(sets)
    }

    pub fn compile_matcher_set(&mut self, set: &MatcherSet) -> crate::http::matcher::MatcherSet {
        let mut out = Vec::with_capacity(set.len());
        for (id, value) in set {
            self.at(id, |cx| match cx.registry.matcher(id) {
                Some(module) => match (module.compile)(value, cx) {
                    Ok(matcher) => out.push(matcher),
                    Err(error) => cx.report(error),
                },
                None => cx.report(CompileError::not_supported(format_args!("matcher `{id}`"))),
            });
        }
        out.into_boxed_slice()
    }

    pub fn compile_handlers(&mut self, handlers: &[Module]) -> Box<[Handler]> {
        let mut out = Vec::with_capacity(handlers.len());
        for (i, module) in handlers.iter().enumerate() {
            self.at(i, |cx| match cx.compile_handler(module) {
                Ok(handler) => out.push(handler),
                Err(error) => cx.report(error),
            });
        }
        out.into_boxed_slice()
    }

    fn compile_handler(&mut self, module: &Module) -> Result<Handler, CompileError> {
        match types::module_id(module, "handler") {
            "subroute" => {
                let sub: types::Subroute = read(module, "handler")?;
                let routes = self.at("routes", |cx| cx.compile_routes(&sub.routes));
                let errors =
                    sub.errors.map(|e| self.at("errors", |cx| cx.at("routes", |cx| cx.compile_routes(&e.routes))));
                Ok(Handler::Subroute(Subroute { routes, errors }))
            }
            "" => Err(CompileError::new("missing-module-id", "handler object has no `handler` name")),
            id => match self.registry.handler(id) {
                Some(known) => (known.compile)(module, self),
                None => Err(CompileError::not_supported(format_args!("handler `{id}`"))),
            },
        }
    }

    /// Declares the server's named routes so that `invoke` can refer to them, then compiles them.
    pub fn compile_named_routes(&mut self, routes: &BTreeMap<String, types::Route>) {
        for name in routes.keys() {
            self.named.insert(name.clone(), Arc::default());
        }
        for (name, route) in routes {
            let list = self.at(name, |cx| RouteList { routes: Box::new([cx.compile_route(route)]), index: None });
            if let Some(cell) = self.named.get(name) {
                let _ = cell.set(list);
            }
        }
    }

    #[must_use]
    pub fn named_route(&self, name: &str) -> Option<Arc<OnceLock<RouteList>>> {
        self.named.get(name).cloned()
    }
}

/// Reads a module's typed form; unknown fields are refused by the type. `key` is the id's field.
pub fn read<T: DeserializeOwned>(module: &Module, key: &str) -> Result<T, CompileError> {
    let mut fields = module.clone();
    fields.remove(key);
    read_value(&Value::Object(fields))
}

/// Reads the typed form of a matcher's or other value.
pub fn read_value<T: DeserializeOwned>(value: &Value) -> Result<T, CompileError> {
    T::deserialize(value).map_err(|e| CompileError::new("invalid-json-config", e.to_string()))
}
