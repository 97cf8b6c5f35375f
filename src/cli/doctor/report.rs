//! What was found: one entry for each check, with the clients it stands for.

use std::io::Write;

use serde_json::json;

/// Names of clients, as `--client` takes them. What is wrong with the gateway itself is told whatever the client.
pub const CLIENTS: [&str; 6] = [SDK, COPILOT, CURSOR, ZED, OPEN_WEBUI, CONTINUE];

pub const GATEWAY: &str = "gateway";
pub const SDK: &str = "sdk";
pub const COPILOT: &str = "copilot";
pub const CURSOR: &str = "cursor";
pub const ZED: &str = "zed";
pub const OPEN_WEBUI: &str = "open-webui";
pub const CONTINUE: &str = "continue";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    /// Works, with less than could be.
    Warning,
    Fault,
    Skipped,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fault => "FAULT",
            Self::Skipped => "skipped",
        }
    }
}

#[derive(Clone)]
struct Check {
    clients: &'static [&'static str],
    /// A short word that stays the same: `version`, `options`.
    name: &'static str,
    outcome: Outcome,
    why: String,
    fix: &'static str,
}

pub struct Report {
    what: String,
    checks: Vec<Check>,
}

impl Report {
    pub fn new(url: &str) -> Self {
        Self { what: url.to_owned(), checks: Vec::new() }
    }

    /// It was not a running gateway but this file.
    pub fn rehearsed(&mut self, file: &str) {
        self.what = format!("{file} (rehearsed)");
    }

    pub fn ok(&mut self, clients: &'static [&'static str], name: &'static str) {
        self.add(clients, name, Outcome::Ok, String::new(), "");
    }

    pub fn fault(&mut self, clients: &'static [&'static str], name: &'static str, why: String, fix: &'static str) {
        self.add(clients, name, Outcome::Fault, why, fix);
    }

    pub fn warn(&mut self, clients: &'static [&'static str], name: &'static str, why: String, fix: &'static str) {
        self.add(clients, name, Outcome::Warning, why, fix);
    }

    pub fn skip(&mut self, clients: &'static [&'static str], name: &'static str, why: &str) {
        self.add(clients, name, Outcome::Skipped, why.to_owned(), "");
    }

    /// A fault when `why` holds one, else fine.
    pub fn judge(
        &mut self,
        clients: &'static [&'static str],
        name: &'static str,
        why: Option<String>,
        fix: &'static str,
    ) {
        match why {
            Some(why) => self.fault(clients, name, why, fix),
            None => self.ok(clients, name),
        }
    }

    fn add(
        &mut self,
        clients: &'static [&'static str],
        name: &'static str,
        outcome: Outcome,
        why: String,
        fix: &'static str,
    ) {
        self.checks.push(Check { clients, name, outcome, why, fix });
    }

    pub fn failed(&self) -> usize {
        self.checks.iter().filter(|c| c.outcome == Outcome::Fault).count()
    }

    /// What concerns these clients, and the gateway; everything when none is named.
    pub fn of_clients(&self, names: &[String]) -> Self {
        let wanted = |check: &&Check| {
            names.is_empty() || check.clients.iter().any(|c| *c == GATEWAY || names.iter().any(|name| name == c))
        };
        Self { what: self.what.clone(), checks: self.checks.iter().filter(wanted).cloned().collect() }
    }

    pub fn print(&self) {
        let mut out = std::io::stdout().lock();
        // A closed pipe (`| head`) is not a failure worth a message.
        let _ = self.write(&mut out);
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(out, "{}\n", printable(&self.what))?;
        for check in &self.checks {
            let clients = check.clients.join(", ");
            writeln!(out, "{:8} {:16} {clients}", check.outcome.word(), check.name)?;
            if !check.why.is_empty() {
                writeln!(out, "         {}", printable(&check.why))?;
            }
            if !check.fix.is_empty() {
                writeln!(out, "         fix: {}", check.fix)?;
            }
        }
        let count = |outcome| self.checks.iter().filter(|c| c.outcome == outcome).count();
        let (faults, warnings, skipped) = (self.failed(), count(Outcome::Warning), count(Outcome::Skipped));
        let fine = count(Outcome::Ok);
        writeln!(out, "\nfaults: {faults}, warnings: {warnings}, skipped: {skipped}, fine: {fine}")?;
        let mut failing: Vec<&str> = Vec::new();
        for check in self.checks.iter().filter(|c| c.outcome == Outcome::Fault) {
            failing.extend(check.clients.iter().filter(|c| **c != GATEWAY));
        }
        failing.sort_unstable();
        failing.dedup();
        if !failing.is_empty() {
            writeln!(out, "would fail: {}", failing.join(", "))?;
        }
        Ok(())
    }

    pub fn print_json(&self) {
        let checks = self.checks.iter().map(|c| {
            json!({"check": c.name, "outcome": c.outcome.word().to_lowercase(), "clients": c.clients, "why": c.why, "fix": c.fix})
        });
        let checks: Vec<_> = checks.collect();
        let report = json!({"examined": self.what, "faults": self.failed(), "checks": checks});
        let _ = writeln!(std::io::stdout(), "{report:#}");
    }
}

/// Parts of answers are shown: without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
