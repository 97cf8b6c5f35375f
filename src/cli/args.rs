//! The arguments of every command.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::base::env::Env;
use crate::compile::load::{Format, Source};

/// One binary in front of LLM APIs, configured by a Proxyfile.
#[derive(Parser)]
#[command(name = "llmproxy", version, disable_help_subcommand = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the proxy until told to stop; reloads when the file changes
    Run(RunArgs),
    /// Run the proxy in the background; returns once it serves
    Start(RunArgs),
    /// Stop the running proxy, letting open requests finish
    Stop(RemoteArgs),
    /// Load the configuration anew without cutting anything
    Reload(ReloadArgs),
    /// Show what the running proxy is doing
    Status(StatusArgs),
    /// Check a configuration as `run` would, without running it
    Validate(ValidateArgs),
    /// Print a configuration as Caddy's JSON
    Adapt(AdaptArgs),
    /// Format a Proxyfile
    Fmt(FmtArgs),
    /// Explain a diagnostic code
    Explain(ExplainArgs),
    /// Write a Proxyfile that does what another proxy's settings do
    Migrate(MigrateArgs),
    /// Show a record that `record` made, or list those of a folder
    Show(ShowArgs),
    /// Show what was used and what it cost, from the ledger of `usage`
    Usage(UsageArgs),
    /// Have this machine trust the root certificate of the internal CA
    Trust(TrustArgs),
    /// Undo `trust`
    Untrust(UntrustArgs),
    /// Make a token for a client, and the line of a token file that lets it in
    NewToken(NewTokenArgs),
    /// Print the hash of a token, read from standard input, for a token file
    HashToken(HashTokenArgs),
    /// Print a shell completion script
    Completion { shell: clap_complete::Shell },
    /// Answer as an OpenAI-compatible API without any model, for trying things offline
    SampleLlm(SampleArgs),
    /// Say which LLM clients would fail at a gateway, why, and what to write in the Proxyfile
    Doctor(DoctorArgs),
    /// Print the version
    Version,
}

#[derive(clap::Args)]
pub struct ConfigArgs {
    /// Configuration file [default: ./Proxyfile, ./Caddyfile, /etc/llmproxy/Proxyfile]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Format of the file: `proxyfile`, `caddyfile` or `json` [default: by its name]
    #[arg(short, long, value_name = "NAME")]
    pub adapter: Option<String>,
    /// File of KEY=value lines to add to the environment; may be given several times
    #[arg(long, value_name = "FILE")]
    pub envfile: Vec<PathBuf>,
}

#[derive(clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Do not reload when the file changes
    #[arg(long)]
    pub no_watch: bool,
    /// Accepted for Caddy's sake: watching is the default
    #[arg(short, long, hide = true)]
    pub watch: bool,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub workers: usize,
    /// Write the process id to this file
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// Control socket [default: in the runtime directory]
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct RemoteArgs {
    /// Control socket [default: in the runtime directory]
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct ReloadArgs {
    /// Switch to this configuration file
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Reload even when nothing changed
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

#[derive(clap::Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

#[derive(clap::Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print diagnostics as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct AdaptArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Indent the JSON
    #[arg(short, long)]
    pub pretty: bool,
    /// Also check that it can run
    #[arg(long)]
    pub validate: bool,
}

#[derive(clap::Args)]
pub struct FmtArgs {
    /// File to format; `-` for standard input [default: as for `run`]
    pub path: Option<PathBuf>,
    /// Write the result back to the file
    #[arg(short = 'w', long)]
    pub overwrite: bool,
    /// Show what would change; exits 1 if anything would
    #[arg(short, long)]
    pub diff: bool,
}

#[derive(clap::Args)]
pub struct ExplainArgs {
    /// A code such as `unknown-directive`; without it all codes are listed
    pub code: Option<String>,
}

#[derive(clap::Args)]
pub struct MigrateArgs {
    #[command(subcommand)]
    pub from: MigrateFrom,
}

#[derive(Subcommand)]
pub enum MigrateFrom {
    /// From a Caddyfile: what becomes of each line, certificates taken over, the steps to switch
    Caddy(MigrateCaddyArgs),
    /// From the environment variables of gpt-reverse-proxy
    GptReverseProxy(MigrateEnvArgs),
}

#[derive(clap::Args)]
pub struct MigrateCaddyArgs {
    /// Caddyfile, or a configuration in Caddy's JSON [default: /etc/caddy/Caddyfile, ./Caddyfile]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Write the Proxyfile, and what it imports, here: a file or a folder; nothing is overwritten
    #[arg(short, long, value_name = "FILE|FOLDER")]
    pub output: Option<PathBuf>,
    /// Leave out the lines that stay the same
    #[arg(long)]
    pub brief: bool,
    /// Copy Caddy's certificates, accounts and internal CA into the storage of llmproxy, or into FOLDER
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option)] // absent, without a folder, with one
    pub copy_storage: Option<Option<PathBuf>>,
    /// Where Caddy keeps them [default: looked for]
    #[arg(long, value_name = "FOLDER")]
    pub storage: Option<PathBuf>,
    /// File of KEY=value lines to add to the environment; may be given several times
    #[arg(long, value_name = "FILE")]
    pub envfile: Vec<PathBuf>,
}

#[derive(clap::Args)]
pub struct MigrateEnvArgs {
    /// The `.env` file; values that may be secrets stay there
    #[arg(long, value_name = "FILE")]
    pub env_file: PathBuf,
    /// Write the Proxyfile here, where no file may be [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct ShowArgs {
    /// A record, or a folder of records
    #[arg(value_name = "FILE|FOLDER")]
    pub path: PathBuf,
    /// Print every piece of a body with its time, in place of what it says
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct UsageArgs {
    #[command(subcommand)]
    pub command: Option<UsageCommand>,
    /// What sums are made by: user (or key), team, app, model, endpoint, route, upstream, day, hour, tag.NAME
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "model")]
    pub by: Vec<String>,
    #[command(flatten)]
    pub of: UsageOf,
}

#[derive(Subcommand)]
pub enum UsageCommand {
    /// Print every call, as CSV or as lines of JSON
    Export(UsageOf),
}

#[derive(clap::Args)]
pub struct UsageOf {
    /// Calls that came then or later: `2026-11-01`, `2026-11-01T18:00:00Z`, `7d` or `12h` ago
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Calls that came before
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The ledger [default: that of --config, else of the running proxy, else the default file]
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Configuration file whose ledger it is
    #[arg(short, long, value_name = "FILE", conflicts_with = "ledger")]
    pub config: Option<PathBuf>,
    /// File of KEY=value lines to add to the environment; may be given several times
    #[arg(long, value_name = "FILE", requires = "config")]
    pub envfile: Vec<PathBuf>,
    /// Control socket of the running proxy [default: in the runtime directory]
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct TrustArgs {
    /// Which internal CA, by its name in the option `pki`
    #[arg(long, value_name = "ID", default_value = crate::tls::automation::LOCAL)]
    pub ca: String,
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Another root of the file system
    #[arg(long, value_name = "FOLDER", default_value = "/", hide = true)]
    pub root: PathBuf,
}

#[derive(clap::Args)]
pub struct UntrustArgs {
    #[command(flatten)]
    pub of: TrustArgs,
    /// The root certificate itself, PEM
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ca", "config"])]
    pub cert: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct NewTokenArgs {
    /// Who the token is for: letters, digits and `._@+-`
    #[arg(default_value = "client")]
    pub name: String,
    /// Models that it may be used for, such as `gpt-4o*,o3`
    #[arg(long, value_name = "GLOB,…")]
    pub models: Option<String>,
    /// Paths that it may be used for, such as `/v1/*`
    #[arg(long, value_name = "PATH,…")]
    pub paths: Option<String>,
    /// Addresses that it may come from, such as `10.0.0.0/8`
    #[arg(long, value_name = "RANGE,…")]
    pub ips: Option<String>,
    /// When it expires: `2027-01-01` or `2027-01-01T18:30:00Z`
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    #[arg(long)]
    pub team: Option<String>,
    #[arg(long)]
    pub app: Option<String>,
    /// A label; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub tag: Vec<String>,
}

#[derive(clap::Args)]
pub struct HashTokenArgs {
    /// `sha256` for tokens made at random, `argon2` for those that people chose (`llmp_NAME_SECRET`)
    #[arg(long, value_name = "NAME", default_value = "sha256")]
    pub algorithm: String,
}

#[derive(clap::Args)]
pub struct SampleArgs {
    /// Address to listen on
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:11500")]
    pub listen: String,
    /// Time between the events of a stream
    #[arg(long, value_name = "DURATION", default_value = "30ms")]
    pub delay: String,
    /// Answer 401 to a request without a key
    #[arg(long)]
    pub require_key: bool,
}

#[derive(clap::Args)]
pub struct DoctorArgs {
    /// Base URL of a running gateway; without it, the configuration file is rehearsed on this machine
    pub url: Option<String>,
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Which site of the file to rehearse [default: the first with a `reverse_proxy`]
    #[arg(long, value_name = "[HOST][/PATH]", conflicts_with = "url")]
    pub site: Option<String>,
    /// Path of the Ollama API, such as the one of a `secret` of `ollama_compat`
    #[arg(long, value_name = "PATH")]
    pub ollama_path: Option<String>,
    /// Model to chat with; costs a few tokens
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Check for these clients only; may be given several times: sdk, copilot, cursor, zed, open-webui, continue
    #[arg(long, value_name = "NAME")]
    pub client: Vec<String>,
    /// Be the upstream too, at this address; the gateway must send its requests there
    #[arg(long, value_name = "HOST:PORT")]
    pub upstream_listen: Option<String>,
    /// Log file or folder of the gateway, searched for the token; may be given several times
    #[arg(long, value_name = "PATH")]
    pub log: Vec<PathBuf>,
    /// Read the client's token from standard input instead of LLMPROXY_TOKEN
    #[arg(long)]
    pub token_stdin: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Looked for in this order when no file is named.
const DEFAULT_FILES: [&str; 3] = ["Proxyfile", "Caddyfile", "/etc/llmproxy/Proxyfile"];

impl ConfigArgs {
    /// The file to read; the message says what to do when there is none.
    pub fn source(&self) -> Result<Source, String> {
        let path = match &self.config {
            Some(path) => path.clone(),
            None => default_file()?,
        };
        let format = match self.adapter.as_deref() {
            None => Format::of(&path),
            Some("proxyfile" | "caddyfile") => Format::Proxyfile,
            Some("json" | "") => Format::Json,
            Some(other) => return Err(format!("unknown adapter `{other}`: it is `proxyfile`, `caddyfile` or `json`")),
        };
        Ok(Source { path, format, text: None, env_files: self.envfile.clone() })
    }
}

pub fn default_file() -> Result<PathBuf, String> {
    DEFAULT_FILES
        .iter()
        .find(|p| Path::new(p).is_file())
        .map(PathBuf::from)
        .ok_or_else(|| format!("no configuration: none of {} exists; name one with --config", DEFAULT_FILES.join(", ")))
}

pub fn control_path(given: Option<&PathBuf>) -> PathBuf {
    given.cloned().unwrap_or_else(|| crate::server::control::default_path(&Env::from_process()))
}
