//! The ledgers of a configuration: named when it is compiled, opened when it goes live, told of every call that ends.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::compile_cx::{CompileCx, CompileError};
use super::go_live::GoLive;
use super::usage_types::Usage;
use crate::http::metering::{Call, Sink};
use crate::storage::default_folder;
use crate::storage::ledger::{Charge, Ledger, Row, Settings};

/// Name of the default ledger in the default folder.
const DEFAULT_NAME: &str = "usage.db";

/// A ledger that a configuration names. A sink: [`Meter::ledger`](crate::http::metering::Meter::ledger).
pub struct UsageLedger {
    path: PathBuf,
    settings: Settings,
    open: OnceLock<Arc<Ledger>>,
}

impl UsageLedger {
    /// The ledger itself; opened now, when it is not open yet. Blocks then.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn open(&self) -> Result<&Arc<Ledger>, String> {
        if let Some(ledger) = self.open.get() {
            return Ok(ledger);
        }
        let ledger = Ledger::open(&self.path, self.settings)?;
        Ok(self.open.get_or_init(|| ledger))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl GoLive for UsageLedger {
    fn go_live(&self) -> Result<(), String> {
        self.open().map(drop)
    }
}

impl Sink for UsageLedger {
    fn record(&self, call: &Call) {
        if call.cost.is_none() && call.tokens.total() > 0 {
            tell_unpriced(call);
        }
        if let Some(ledger) = self.open.get() {
            ledger.record(row(call));
        }
    }
}

/// The file of the default ledger.
#[must_use]
pub fn default_path() -> PathBuf {
    default_folder().join(DEFAULT_NAME)
}

impl CompileCx<'_> {
    /// The ledger that `usage` names, the same for all who name its file; without a name, the one of the whole
    /// configuration. It is opened when the configuration goes live.
    ///
    /// # Errors
    /// When its file is kept in another way elsewhere.
    pub fn ledger(&mut self, usage: &Usage) -> Result<Arc<UsageLedger>, CompileError> {
        if usage.ledger.is_empty() {
            if !usage.flush.is_zero() || !usage.retention.is_zero() {
                let message = "how the ledger of the whole file is kept is said by the global option `usage`";
                return Err(CompileError::new("contradicting-options", message));
            }
            return self.default_ledger();
        }
        let settings = usage.settings()?;
        let path = PathBuf::from(&usage.ledger);
        self.ledger_of(std::path::absolute(&path).unwrap_or(path), settings)
    }

    /// The ledger of the whole configuration: that of the global option `usage`, else the default file.
    ///
    /// # Errors
    /// When its file is kept in another way elsewhere.
    pub fn default_ledger(&mut self) -> Result<Arc<UsageLedger>, CompileError> {
        let settings = self.usage.settings().map_err(|_| {
            CompileError::new("invalid-duration", "the times of the global option `usage` make no sense")
        })?;
        let path = if self.usage.ledger.is_empty() { default_path() } else { PathBuf::from(&self.usage.ledger) };
        self.ledger_of(std::path::absolute(&path).unwrap_or(path), settings)
    }

    fn ledger_of(&mut self, path: PathBuf, settings: Settings) -> Result<Arc<UsageLedger>, CompileError> {
        if let Some(known) = self.ledgers.iter().find(|known| known.path == path) {
            if known.settings == settings {
                return Ok(Arc::clone(known));
            }
            let message = format!("the ledger {} is to be kept in two ways", path.display());
            let error = CompileError::new("contradicting-options", message);
            return Err(error.help("say `flush` and `retention` where the file is named, the same wherever it is"));
        }
        let ledger = Arc::new(UsageLedger { path, settings, open: OnceLock::new() });
        self.ledgers.push(Arc::clone(&ledger));
        let go_live: Arc<dyn GoLive> = Arc::clone(&ledger) as _;
        self.go_live.push(go_live);
        Ok(ledger)
    }
}

/// Once a model, however many reloads: a price that is missing is no news twice.
fn tell_unpriced(call: &Call) {
    /// Names come from strangers.
    const MOST: usize = 1_000;
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let model = call.model.as_deref().or(call.served.as_deref()).unwrap_or("");
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.len() < MOST && !told.contains(model) {
        told.insert(model.to_owned());
        drop(told);
        tracing::warn!(
            model,
            "no price is known of this model: its calls are counted and cost nothing; `price MODEL in … out …` sets one"
        );
    }
}

fn row(call: &Call) -> Row {
    let mut team = None;
    let mut app = None;
    let mut tags = Vec::new();
    for (name, value) in &call.labels {
        match name.as_str() {
            "team" => team = Some(value.clone()),
            "app" => app = Some(value.clone()),
            _ => tags.push((name.clone(), value.clone())),
        }
    }
    let charges = call.charges.iter().map(|charge| Charge {
        budget: Arc::clone(&charge.budget),
        key: charge.key.clone(),
        per: charge.per,
        period: charge.period,
        cost: charge.cost,
        tokens: charge.tokens,
    });
    Row {
        unix_ms: call.unix_ms,
        request_id: call.request_id.clone(),
        user: call.user.clone(),
        team,
        app,
        tags,
        model: call.model.as_deref().map(str::to_owned),
        served: call.served.clone(),
        endpoint: call.endpoint.word(),
        route: call.route.clone(),
        upstream: Arc::clone(&call.upstream),
        status: call.status,
        stream: call.stream,
        tokens: call.tokens,
        certainty: call.certainty,
        service_tier: call.service_tier.clone(),
        cost: call.cost,
        first_byte: call.first_byte,
        duration: call.duration,
        retries: call.retries,
        charges: charges.collect(),
    }
}
