//! `doctor`: replays what LLM clients ask of a gateway and check in its answers, and says which client would fail, why,
//! and what to write in the Proxyfile.
//!
//! Three ways, from outside to inside:
//!
//! - `llmproxy doctor URL` asks a running gateway. What costs tokens (chat) is tried only with `--model`.
//! - `llmproxy doctor URL --upstream-listen ADDRESS` is also the upstream: the gateway, of whatever make, is pointed at
//!   `http://ADDRESS`, and the doctor sees what goes up and answers what clients are sensitive to.
//! - `llmproxy doctor`, or with `--config FILE`, rehearses a Proxyfile: runs it on a free port of this machine with the
//!   doctor in the place of every upstream. Nothing of the network is asked and no key is needed.
//!
//! The client's token comes from `LLMPROXY_TOKEN`, or from standard input with `--token-stdin`: arguments can be read by
//! every user of a machine.

mod cursor;
mod gateway;

mod logs;
mod ollama;
mod rehearsal;
mod report;
mod site;
mod upstream;
mod upstream_side;

use std::process::ExitCode;
use std::time::Duration;

use super::args::DoctorArgs;
use super::fail;
use crate::base::env::Env;
use report::Report;
use site::Site;
use upstream::Upstream;

/// The whole examination may take so long.
const PATIENCE: Duration = Duration::from_mins(5);

/// The model that the doctor's own upstream has.
const MODEL: &str = "doctor-model";

const SHORTEST_TOKEN: usize = 8;

/// What the checks share.
struct Examination {
    site: Site,
    token: Option<String>,
    /// Prefix of the Ollama API, without a slash at its end.
    ollama: String,
    /// For checks that cost tokens; `None` leaves them out.
    model: Option<String>,
    /// Neither a version nor a list of models is where the Ollama API should be.
    no_ollama: bool,
    /// The model to chat with as the Ollama API lists it, which may add a tag.
    listed: Option<String>,
    /// The doctor is the upstream too.
    upstream: Option<Upstream>,
    report: Report,
    /// The gateway is a Proxyfile tried out.
    rehearsed: bool,
}

pub fn doctor(args: &DoctorArgs) -> ExitCode {
    match examined(args) {
        Ok(report) => {
            let selected = report.of_clients(&args.client);
            if args.json {
                selected.print_json();
            } else {
                selected.print();
            }
            if selected.failed() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(message) => fail(message),
    }
}

fn examined(args: &DoctorArgs) -> Result<Report, String> {
    if let Some(unknown) = args.client.iter().find(|name| !report::CLIENTS.contains(&name.as_str())) {
        return Err(format!("no client `{unknown}` is known here: {}", report::CLIENTS.join(", ")));
    }
    let token = token(args)?;
    let (upstream, rehearsal, url) = match (&args.url, &args.upstream_listen) {
        (Some(url), Some(address)) => (Some(Upstream::start(address)?), None, url.clone()),
        (Some(url), None) => (None, None, url.clone()),
        (None, None) => {
            let upstream = Upstream::start("127.0.0.1:0")?;
            let rehearsal = rehearsal::start(args, &upstream)?;
            let url = rehearsal.url.clone();
            (Some(upstream), Some(rehearsal), url)
        }
        (None, Some(_)) => return Err("--upstream-listen needs the URL of the gateway".to_owned()),
    };
    let mut site = Site::parse(&url)?;
    if let Some(host) = rehearsal.as_ref().and_then(|r| r.host.as_deref()) {
        site.set_host(host);
    }
    let model = args.model.clone().or_else(|| upstream.as_ref().map(|_| MODEL.to_owned()));
    if let (Some(upstream), Some(model)) = (&upstream, &model) {
        upstream.serve_model(model);
    }
    let ollama = args.ollama_path.as_deref().unwrap_or_default().trim_matches('/');
    let ollama = if ollama.is_empty() { String::new() } else { format!("/{ollama}") };
    let mut examination = Examination {
        site,
        token,
        ollama,
        model,
        no_ollama: false,
        listed: None,
        upstream,
        report: Report::new(&url),
        rehearsed: rehearsal.is_some(),
    };
    let runtime = tokio::runtime::LocalRuntime::new().map_err(|e| e.to_string())?;
    let examined = runtime.block_on(async { tokio::time::timeout(PATIENCE, examine(&mut examination)).await });
    if examined.is_err() {
        return Err(format!("gave up after {} s", PATIENCE.as_secs()));
    }
    let Examination { token, mut report, .. } = examination;
    let mut places = args.log.clone();
    let mut rehearsal = rehearsal;
    if let Some(rehearsal) = &mut rehearsal {
        report.rehearsed(&rehearsal.config);
        rehearsal.lint(&mut report);
        places.push(rehearsal.stop());
    }
    logs::search(&places, token.as_deref(), &mut report);
    Ok(report)
}

async fn examine(x: &mut Examination) {
    if !gateway::reachable(x).await {
        return;
    }
    gateway::door(x).await;
    if !gateway::models(x).await {
        return;
    }
    gateway::options(x).await;
    gateway::chat(x).await;
    ollama::discovery(x).await;
    ollama::chat(x).await;
    cursor::check(x).await;
    // Last: it closes the upstream.
    upstream_side::check(x).await;
}

fn token(args: &DoctorArgs) -> Result<Option<String>, String> {
    let given = if args.token_stdin {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(|e| format!("standard input: {e}"))?;
        Some(line)
    } else {
        Env::from_process().get("LLMPROXY_TOKEN").map(ToOwned::to_owned)
    };
    match given.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()) {
        // It is looked for in headers and logs, where few characters would be found by chance.
        Some(token) if token.len() < SHORTEST_TOKEN => Err(format!("a token has at least {SHORTEST_TOKEN} characters")),
        token => Ok(token),
    }
}
