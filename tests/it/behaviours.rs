//! Caddy's behaviours, observed on both: each file of `tests/behaviours` is a configuration and requests. The real Caddy
//! and llmproxy run the same configuration; status, headers, body and what the upstream saw must be equal, and must
//! be what the file expects (so that two equal failures do not pass).
//!
//! A file: comments (`#`), then the body of a site, or a whole Proxyfile when it names `$PORT`. `$U` and `$V` are echo
//! upstreams, `$DEAD` refuses connections. After each line of ten dashes one request: head, empty line, body,
//! then expectations. `Host: api.test` and `Content-Length` are added unless the request has its own.
//!
//! - `=> 200` the status; `=> closed` the connection ends with no byte
//! - `=> has TEXT` and `=> lacks TEXT`: some line of the outcome begins with, or for `has` holds, that text
//!
//! The outcome has the lines `status`, `header NAME: VALUE`, `trailer …`, `body: …`, and for an echo
//! `upstream name …`, `upstream METHOD TARGET`, `upstream header …`, `upstream body (FRAMING): …`.

use crate::harness::client::{self, NoResponse, Response};
use crate::harness::process::{Proxy, Which, caddy_or_skip, free_port};
use crate::harness::upstream::Upstream;
use crate::harness::{in_parallel, repository};
use std::path::{Path, PathBuf};

/// What is made equal before outcomes are compared, and why. Nothing else is.
///
/// Besides: header names compare in lower case (RFC 9110 section 5.1), header order counts only among values of one
/// name (Go sorts names), and reason phrases are not compared (they mean nothing, RFC 9112 section 4).
const NORMALISED: &[Normalised] = &[
    // The time.
    ("header date: ", |_| None),
    // Each names itself.
    ("header server: ", |value| Some(value.replace("llmproxy", "PROXY").replace("Caddy", "PROXY"))),
    ("header via: ", |value| Some(value.replace("llmproxy", "PROXY").replace("Caddy", "PROXY"))),
    // A list of names, in Go in the random order of a map.
    ("header trailer: ", |value| {
        let mut names: Vec<&str> = value.split(", ").collect();
        names.sort_unstable();
        Some(names.join(", "))
    }),
    ("upstream header via: ", |value| Some(value.replace("llmproxy", "PROXY").replace("Caddy", "PROXY"))),
];

/// Lines that begin so, and what their value becomes; `None` drops the line.
type Normalised = (&'static str, fn(&str) -> Option<String>);

/// Where llmproxy answers otherwise, on purpose: file, number of the request (from 1), a line that is only Caddy's
/// or only ours, and why. Each is in `docs/reference/differences.md`.
const DIFFERENCES: &[(&str, usize, &str, &str)] = &[
    (
        "05-hop-by-hop-response-headers",
        2,
        "header via",
        "each recipient appends (RFC 9110 section 7.6.3); Caddy prepends",
    ),
    ("50-copy-response", 3, "header content-length", "that of a body which is not copied cuts Caddy's answer"),
    ("50-copy-response", 3, "cut short", "as above"),
    ("95-intercept", 3, "header transfer-encoding", "Caddy holds what is intercepted and knows its length"),
    ("95-intercept", 3, "header content-length", "as above"),
    ("95-intercept", 5, "header transfer-encoding", "as above"),
    ("95-intercept", 5, "header content-length", "as above"),
    ("68-trailers-and-continue", 2, "trailer ", "no `TE: trailers`, no trailers (RFC 9110 section 6.5.1)"),
    (
        "68-trailers-and-continue",
        3,
        "upstream header expect",
        "we answer 100 ourselves, so the upstream is not asked for it",
    ),
];

#[test]
fn llmproxy_behaves_as_caddy() {
    let (u, v) = (Upstream::start("U"), Upstream::start("V"));
    let with_caddy = caddy_or_skip();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(repository().join("tests/behaviours")).unwrap().map(|entry| entry.unwrap().path()).collect();
    if let Ok(only) = std::env::var("BEHAVIOUR") {
        files.retain(|file| file.to_string_lossy().contains(&only));
    }
    files.sort();
    let problems: Vec<String> = in_parallel(&files, |file| {
        let case = Case::read(file, &u, &v);
        let ours = match case.outcomes(Which::Llmproxy) {
            Ok(outcomes) => outcomes,
            Err(why) => return vec![format!("{}: llmproxy {why}", case.name)],
        };
        let caddys = with_caddy.then(|| case.outcomes(Which::Caddy).unwrap());
        case.problems(&ours, caddys.as_deref())
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(problems.is_empty(), "{} problems:\n\n{}", problems.len(), problems.join("\n\n"));
}

struct Case {
    name: String,
    config: String,
    requests: Vec<Request>,
}

struct Request {
    bytes: Vec<u8>,
    expectations: Vec<String>,
}

type Outcome = Vec<String>;

impl Case {
    fn read(file: &Path, u: &Upstream, v: &Upstream) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = text.replace("$DEAD", "127.0.0.1:1").replace("$U", &u.address()).replace("$V", &v.address());
        let mut sections = text.split("----------\n");
        let config = sections.next().unwrap_or_default().to_owned();
        let requests: Vec<Request> = sections.map(Request::parse).collect();
        assert!(!requests.is_empty(), "{name} has no requests");
        Self { name, config, requests }
    }

    fn proxyfile(&self, port: u16) -> String {
        if self.config.contains("$PORT") {
            return self.config.replace("$PORT", &port.to_string());
        }
        let site = &self.config;
        format!(
            "{{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n}}\n\n:{port} {{\nbind 127.0.0.1\n{site}\n}}\n"
        )
    }

    /// What each request met, in canonical lines.
    fn outcomes(&self, which: Which) -> Result<Vec<Outcome>, String> {
        let port = free_port();
        let _proxy = Proxy::try_start(which, "Proxyfile", &self.proxyfile(port), port, |_| {})?;
        let own_port = format!(":{port}");
        let outcomes = self
            .requests
            .iter()
            .map(|request| {
                let response = client::request(port, &request.bytes);
                outcome(&response).into_iter().map(|line| line.replace(&own_port, ":PORT")).collect()
            })
            .collect();
        Ok(outcomes)
    }

    fn problems(&self, ours: &[Outcome], caddys: Option<&[Outcome]>) -> Vec<String> {
        let mut problems = Vec::new();
        for (n, request) in self.requests.iter().enumerate() {
            let title = format!("{} request {} ({})", self.name, n + 1, request.first_line());
            for (who, outcomes) in [("llmproxy", Some(ours)), ("Caddy", caddys)] {
                let Some(outcome) = outcomes.map(|outcomes| &outcomes[n]) else { continue };
                let unmet: Vec<&str> = request.unmet(outcome).collect();
                if !unmet.is_empty() {
                    problems.push(format!(
                        "{title}: {who} does not meet `{}`:\n  {}",
                        unmet.join("`, `"),
                        outcome.join("\n  ")
                    ));
                }
            }
            if let Some(caddys) = caddys {
                let lines = self.differences(n + 1, &ours[n], &caddys[n]);
                if !lines.is_empty() {
                    problems.push(format!("{title}: not as Caddy:\n  {}", lines.join("\n  ")));
                }
            }
        }
        problems
    }

    fn differences(&self, request: usize, ours: &Outcome, caddys: &Outcome) -> Vec<String> {
        let excused = |line: &str| {
            DIFFERENCES.iter().any(|(file, n, text, _)| *file == self.name && *n == request && line.starts_with(text))
        };
        let only = |mine: &Outcome, theirs: &Outcome, who: &str| -> Vec<String> {
            let mut theirs = theirs.clone();
            let mut left = Vec::new();
            for line in mine {
                match theirs.iter().position(|other| other == line) {
                    Some(index) => drop(theirs.remove(index)),
                    None if excused(line) => {}
                    None => left.push(format!("{who}: {line}")),
                }
            }
            left
        };
        let mut lines = only(ours, caddys, "llmproxy");
        lines.extend(only(caddys, ours, "   Caddy"));
        let listed = DIFFERENCES.iter().any(|(file, n, ..)| *file == self.name && *n == request);
        if listed && ours == caddys {
            lines.push("listed as a difference, but equal".to_owned());
        } else if !listed && lines.is_empty() && ours != caddys {
            lines.push(format!("another order:\n  {}\n   Caddy:\n  {}", ours.join("\n  "), caddys.join("\n  ")));
        }
        lines
    }
}

impl Request {
    fn parse(section: &str) -> Self {
        let is_expectation = |line: &&str| line.starts_with("=> ");
        let expectations = section.lines().filter(is_expectation).map(|line| line[3..].to_owned()).collect();
        let lines: Vec<&str> = section.lines().filter(|line| !is_expectation(line)).collect();
        let blank = lines.iter().position(|line| line.is_empty()).unwrap_or(lines.len());
        let mut head = lines[..blank].join("\r\n") + "\r\n";
        let mut body = lines.get(blank + 1..).unwrap_or_default().join("\n");
        let has = |name: &str| lines[..blank].iter().any(|line| line.to_ascii_lowercase().starts_with(name));
        if !has("host:") && !head.starts_with("GET / HTTP/1.0") {
            let end = head.find("\r\n").unwrap() + 2;
            head.insert_str(end, "Host: api.test\r\n");
        }
        if has("transfer-encoding:") {
            body = body.replace("\\r\\n", "\r\n");
        } else if !body.is_empty() && !has("content-length:") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        Self { bytes: format!("{head}\r\n{body}").into_bytes(), expectations }
    }

    fn first_line(&self) -> String {
        String::from_utf8_lossy(&self.bytes).lines().next().unwrap_or_default().to_owned()
    }

    fn unmet<'a>(&'a self, outcome: &'a Outcome) -> impl Iterator<Item = &'a str> {
        self.expectations.iter().map(String::as_str).filter(|expectation| {
            let met = match expectation.split_once(' ') {
                Some(("has", text)) => outcome.iter().any(|line| line.contains(text)),
                Some(("lacks", text)) => !outcome.iter().any(|line| line.contains(text)),
                Some(_) => panic!("unknown expectation `{expectation}`"),
                None if *expectation == "closed" => outcome[0] == "closed",
                None => outcome[0] == format!("status {expectation}"),
            };
            !met
        })
    }
}

fn outcome(response: &Result<Response, NoResponse>) -> Outcome {
    let response = match response {
        Ok(response) => response,
        Err(NoResponse::Closed) => return vec!["closed".to_owned()],
        Err(NoResponse::Silent) => return vec!["silent".to_owned()],
    };
    let mut lines = vec![format!("status {}", response.status())];
    let seen =
        serde_json::from_slice(&response.body).ok().filter(|seen: &serde_json::Value| seen["upstream"].is_string());
    let mut headers: Vec<String> = Vec::new();
    for (name, value) in &response.head.headers {
        // The echo holds the proxy's name, so its length is each proxy's own.
        if seen.is_none() || !name.eq_ignore_ascii_case("content-length") {
            headers.push(format!("header {}: {value}", name.to_ascii_lowercase()));
        }
    }
    // HTTP/1.0 and HEAD answers to an echo have such a length too, and no body to tell it by.
    if response.body.is_empty() && response.header("x-powered-by").is_some() {
        headers.retain(|line| !line.starts_with("header content-length"));
    }
    lines.extend(sorted_by_name(headers));
    let trailers = response.trailers.iter();
    let trailers = trailers.map(|(name, value)| format!("trailer {}: {value}", name.to_ascii_lowercase()));
    lines.extend(sorted_by_name(trailers.collect()));
    match seen {
        Some(seen) => {
            lines.push(format!("upstream name {}", text(&seen["upstream"])));
            lines.push(format!(
                "upstream {} {} {}",
                text(&seen["method"]),
                text(&seen["target"]),
                text(&seen["version"])
            ));
            let fields = |key: &str, title: &str| -> Vec<String> {
                let fields = seen[key].as_array().unwrap();
                let fields = fields
                    .iter()
                    .map(|field| format!("{title} {}: {}", text(&field[0]).to_ascii_lowercase(), text(&field[1])));
                sorted_by_name(fields.collect())
            };
            lines.extend(fields("headers", "upstream header"));
            lines.push(format!("upstream body ({}): {}", text(&seen["framing"]), text(&seen["body"])));
            lines.extend(fields("trailers", "upstream trailer"));
        }
        None => lines.push(format!("body: {}", response.text())),
    }
    if !response.complete {
        lines.push("cut short".to_owned());
    }
    lines.into_iter().filter_map(normalised).collect()
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Values of one name keep their order.
fn sorted_by_name(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_by(|a, b| a.split(": ").next().cmp(&b.split(": ").next()));
    lines
}

fn normalised(line: String) -> Option<String> {
    for (prefix, change) in NORMALISED {
        if let Some(value) = line.strip_prefix(prefix) {
            return change(value).map(|value| format!("{prefix}{value}"));
        }
    }
    Some(line)
}
