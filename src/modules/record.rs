//! `record`: writes down whole requests for diagnosis: both sides of the proxy, with the time of every piece.
//!
//! ```text
//! record /v1/* /var/lib/llmproxy/records {
//!     sample 0.1
//!     user alice bob
//!     max_size 10MB
//!     total_size 1GB
//!     redact_header X-My-Secret
//! }
//! ```
//!
//! Each request becomes a file of JSON lines in the folder, named by time and request id; `llmproxy show FILE` prints it
//! readably, with the text of a stream joined, and `llmproxy show FOLDER` lists what is there. A record holds the request
//! as it came and as it went up to each upstream that was tried, the answers as they came down and as the client got
//! them, every chunk with its time, how each body ended, and errors. While a request runs its file ends in `.part`.
//!
//! | line | meaning | without it |
//! | --- | --- | --- |
//! | `sample 0.1` | the share of requests, by chance | all |
//! | `user NAME…` | only requests of these callers (`{http.auth.user.id}`) | everybody's |
//! | `max_size SIZE` | heads and bodies of one record; what is beyond is left out, and the record says so | 10MB |
//! | `total_size SIZE` | the folder; its oldest records are removed | 1GB |
//! | `redact_header NAME…` | further header fields that are credentials | – |
//!
//! **What is not in a record**: credentials. Authorization, cookies, `x-api-key` and the like, every field whose name says
//! key, token, secret or password, `?key=` and its kin in the query, keys among the protocols of a WebSocket, what a handler such
//! as `auth_token` took off the request, and whatever `header_up` or `request_header` put into the one that goes up. **What is**: bodies, as they are. They are what
//! people asked and were told, so the folder is readable by its owner alone (0700, files 0600); think before recording
//! more than you need.
//!
//! Recording changes no byte, holds no stream and waits for no disk: what the disk does not keep up with is missing from
//! the record, which then counts its gaps; when it is full, requests go unrecorded and the log says so. Recorded are also
//! requests that `auth_token` and others behind it refuse; a request that an earlier handler answered (`redir`,
//! `respond` in a `route`) may have passed before. Of an upgraded connection (WebSocket) the heads are recorded, not the
//! frames. If several lines fit a request, the first counts.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use http::HeaderName;
use serde::{Deserialize, Serialize};

use crate::base::units::parse_size;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::http::exchange::Exchange;
use crate::http::handler::{Flow, Step};
use crate::http::route::Handler;
use crate::http::transcript::{Rules, Transcript};
use crate::syntax::tree::Node;
use crate::telemetry::transcript::Folder;

pub const DIRECTIVE: Directive = Directive {
    name: "record",
    renamed_to: None,
    ordered: true,
    // A single argument is the folder even when it looks like a path matcher, so the token is told apart here.
    matcher: false,
    parse,
    doc: &Doc {
        summary: "Writes down whole requests for diagnosis, with the time of every piece.",
        syntax: "record [matcher] <folder> { sample <share>  user <name…>  max_size <size>  total_size <size>  redact_header <field…> }",
        examples: &[
            "record /var/lib/llmproxy/records",
            "record /v1/* records {\n\tsample 0.1\n\tuser alice bob\n\tmax_size 1MB\n\ttotal_size 100MB\n\tredact_header X-My-Secret\n}",
        ],
        rejected: &[
            ("record", "wrong-argument-count"),
            ("record one two", "wrong-argument-count"),
            ("record records {\n\tsample 10%\n}", "invalid-share"),
            ("record records {\n\tsample 1.5\n}", "invalid-share"),
            ("record records {\n\tmax_size lots\n}", "invalid-size"),
            ("record records {\n\tuser\n}", "wrong-argument-count"),
            ("record records {\n\tredact_header \"a b\"\n}", "invalid-header-field"),
            ("record records {\n\tsample 0.1\n\tsample 0.2\n}", "duplicate-option"),
            ("record records {\n\tusers alice\n}", "unknown-subdirective"),
            ("record /dev/null", "folder-required"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "record", compile };

const MAX_SIZE: u64 = 10_000_000;
const TOTAL_SIZE: u64 = 1_000_000_000;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Record {
    folder: String,
    /// Share of requests, above 0 and at most 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<String>,
    /// Bytes of one record.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_size: Option<u64>,
    /// Bytes of the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_size: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    redact_headers: Vec<String>,
}

const OPTIONS: [&str; 5] = ["sample", "user", "max_size", "total_size", "redact_header"];

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let (matcher, folder) = match cx.args {
        [folder] => (None, folder),
        [first, folder] => match cx.matcher_token(first) {
            Some(matcher) => (matcher?, folder),
            None => return Err(cx.arg_err(cx.node)),
        },
        _ => return Err(cx.arg_err(cx.node)),
    };
    let mut out = Record { folder: folder.text().to_owned(), ..Record::default() };
    for line in cx.node.lines() {
        cx.no_block(line)?;
        match line.name() {
            "sample" => {
                let word = cx.one(line)?;
                let share = word.text().parse().ok().filter(is_share).ok_or_else(|| {
                    let d =
                        cx.err(word.span, "invalid-share", format!("`{}` is not a share of requests", word.shown()));
                    d.help("a number above 0 and at most 1: `0.1` is every tenth request")
                })?;
                set(cx, line, &mut out.sample, share)?;
            }
            "user" => out.users.extend(words(cx, line)?),
            "max_size" => {
                let bytes = size(cx, line)?;
                set(cx, line, &mut out.max_size, bytes)?;
            }
            "total_size" => {
                let bytes = size(cx, line)?;
                set(cx, line, &mut out.total_size, bytes)?;
            }
            "redact_header" => {
                for (word, name) in line.args.iter().zip(words(cx, line)?) {
                    if name.parse::<HeaderName>().is_err() {
                        let message = format!("`{}` is not the name of a header field", word.shown());
                        return Err(cx.err(word.span, "invalid-header-field", message));
                    }
                    out.redact_headers.push(name);
                }
            }
            _ => return Err(cx.unknown(line, &OPTIONS)),
        }
    }
    Ok(cx.route_with(matcher, types::handler(HANDLER.id, &out)))
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the shape that `filter` asks for
fn is_share(share: &f64) -> bool {
    *share > 0.0 && *share <= 1.0
}

fn set<T>(cx: &DirectiveCx<'_, '_>, line: &Node, slot: &mut Option<T>, value: T) -> Parsed<()> {
    if slot.replace(value).is_some() { Err(cx.duplicate(line)) } else { Ok(()) }
}

fn words(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<Vec<String>> {
    if line.args.is_empty() {
        return Err(cx.arg_err(line));
    }
    Ok(line.args.iter().map(|a| a.text().to_owned()).collect())
}

fn size(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<u64> {
    let word = cx.one(line)?;
    parse_size(word.text()).filter(|n| *n > 0).ok_or_else(|| {
        let d = cx.err(word.span, "invalid-size", format!("`{}` is not a size", word.shown()));
        Box::new(d.help("for example `10MB` or `512KiB`"))
    })
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: Record = read(module, "handler")?;
    let folder = PathBuf::from(&config.folder);
    if config.folder.is_empty() || folder.metadata().is_ok_and(|m| !m.is_dir()) {
        let message = format!("`{}` is not a folder", folder.display());
        return Err(CompileError::new("folder-required", message).within("folder"));
    }
    let share = config.sample.unwrap_or(1.0);
    if !is_share(&share) {
        return Err(CompileError::new("invalid-share", "the share of requests to record is not above 0 and at most 1")
            .within("sample"));
    }
    let secret_headers = config.redact_headers.iter().map(|name| name.parse::<HeaderName>());
    let secret_headers = secret_headers.collect::<Result<_, _>>().map_err(|_| {
        CompileError::new("invalid-header-field", "not the name of a header field").within("redact_headers")
    })?;
    Ok(Handler::Step(Box::new(Recorder {
        folder,
        share,
        max_size: config.max_size.unwrap_or(MAX_SIZE),
        total_size: config.total_size.unwrap_or(TOTAL_SIZE),
        users: config.users.into(),
        secret_headers,
        rules: OnceLock::new(),
    })))
}

struct Recorder {
    folder: PathBuf,
    share: f64,
    max_size: u64,
    total_size: u64,
    users: Box<[String]>,
    secret_headers: Box<[HeaderName]>,
    /// Made with the first request, so that checking a configuration starts no writer. `None` when that failed.
    rules: OnceLock<Option<Arc<Rules>>>,
}

impl Recorder {
    fn rules(&self) -> Option<&Arc<Rules>> {
        let made = self.rules.get_or_init(|| match Folder::open(&self.folder, self.total_size) {
            Ok(folder) => Some(Arc::new(Rules {
                folder,
                max_size: self.max_size,
                users: self.users.clone(),
                secret_headers: self.secret_headers.clone(),
            })),
            Err(error) => {
                tracing::error!(folder = %self.folder.display(), %error, "cannot record; requests go on unrecorded");
                None
            }
        });
        made.as_ref()
    }
}

impl Step for Recorder {
    fn run(&self, ex: &mut Exchange) -> Flow {
        if ex.transcript.is_none()
            && (self.share >= 1.0 || fastrand::f64() < self.share)
            && let Some(rules) = self.rules()
        {
            ex.transcript = Some(Transcript::begin(ex, rules));
        }
        Flow::Next
    }
}
