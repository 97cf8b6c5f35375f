//! The settings of gpt-reverse-proxy (the version with environment variables, of July 2025) as a Proxyfile.
//!
//! Values that may be secrets stay in the env file: the Proxyfile names the variables. They are named as placeholders
//! (`{env.X}`), not put into the text (`{$X}`), so that blanks and quotes in them mean nothing.

use std::collections::HashMap;
use std::fmt::Write;

use http::Uri;

use super::Migrated;

/// What gpt-reverse-proxy mounts its Ollama routes under when nothing else is said.
const DEFAULT_SECRET: &str = "ollama";
const PORT: u16 = 12_000;

pub struct Settings {
    /// Scheme and authority.
    upstream: String,
    https: bool,
    /// In front of every path; empty, or with a leading slash and none at the end.
    base_path: String,
    /// Where every route lives; as `base_path`.
    prefix: String,
    authorization: Option<Var>,
    proxy: Option<Var>,
    token: Option<Var>,
    secret: Option<Var>,
    level: String,
}

/// A variable that is set, with the name it has in the file.
struct Var {
    name: String,
    value: String,
}

impl Settings {
    /// The message says what is wrong, without any value.
    pub fn read(vars: &HashMap<String, String>) -> Result<Self, String> {
        let var = |name: &str| {
            // The lower-case name counts first; an empty value is none.
            [name.to_ascii_lowercase(), name.to_ascii_uppercase()].into_iter().find_map(|name| {
                let value = vars.get(&name).filter(|value| !value.is_empty())?.clone();
                Some(Var { name, value })
            })
        };
        let url = var("UPSTREAM_URL").ok_or("UPSTREAM_URL is not set, and nothing works without it")?;
        let (upstream, https, base_path) = upstream(&url.value)?;
        let prefix = match var("LOCAL_PATH_PREFIX") {
            Some(prefix) => path("LOCAL_PATH_PREFIX", &prefix.value)?,
            None => String::new(),
        };
        let secret = var("LOCAL_OLLAMA_SECRET");
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        if let Some(secret) = &secret
            && !secret.value.trim_matches('/').bytes().all(plain)
        {
            return Err(format!(
                "{} must be one part of a path: letters, digits and `-._~`, such as `openssl rand -hex 16` makes",
                secret.name
            ));
        }
        Ok(Self {
            upstream,
            https,
            base_path,
            prefix,
            authorization: var("UPSTREAM_AUTHORIZATION"),
            proxy: var("HTTPS_PROXY"),
            token: var("LOCAL_AUTH_TOKEN"),
            secret,
            level: var("LOG_LEVEL").map_or_else(|| "info".to_owned(), |v| v.value.to_ascii_lowercase()),
        })
    }

    /// Variables that the Proxyfile names, with the values that it must find there.
    pub fn secrets(&self) -> Vec<(&str, &str)> {
        let all = [&self.authorization, &self.proxy, &self.token, &self.secret];
        all.into_iter().flatten().map(|v| (v.name.as_str(), v.value.as_str())).collect()
    }

    pub fn proxyfile(&self, name: &str, env_file: &str) -> Migrated {
        let mut text = format!(
            "# Made by `llmproxy migrate gpt-reverse-proxy` from {}.\n# To run it:\n#   llmproxy run --config {} --envfile {}\n\n:{PORT} {{\n",
            comment(env_file),
            comment(name),
            comment(env_file),
        );
        let notes = self.notes();
        match self.level.as_str() {
            "debug" | "trace" => {
                text += "\t# LOG_LEVEL=debug: a transcript of each request, now without credentials; `llmproxy show log` lists them.\n";
                text += "\tlog\n\trecord log\n\n";
            }
            "info" => text += "\tlog\n\n",
            _ => {}
        }
        if self.prefix.is_empty() {
            self.routes(&mut text, 1);
        } else {
            let _ = writeln!(text, "\thandle_path {}/* {{", self.prefix);
            self.routes(&mut text, 2);
            text += "\t}\n\n\t# Outside of LOCAL_PATH_PREFIX there is nothing.\n\trespond \"404 Not Found\" 404\n";
        }
        text += "}\n";
        Migrated { text, notes }
    }

    fn routes(&self, out: &mut String, depth: usize) {
        let mut line = |deeper: usize, text: &str| {
            if !text.is_empty() {
                out.extend(std::iter::repeat_n('\t', depth + deeper));
            }
            out.push_str(text);
            out.push('\n');
        };
        let caller = if self.token.is_some() { "client" } else { "ollama" };
        line(
            0,
            "# The Ollama API for clients that cannot send a key, under a secret path. It opens what models are used",
        );
        line(0, "# for, and no longer every path of the upstream.");
        line(0, "ollama_compat {");
        match &self.secret {
            Some(secret) => line(1, &format!("secret {caller} {{env.{}}}", secret.name)),
            None => {
                line(
                    1,
                    "# WARNING: everybody can guess this default of gpt-reverse-proxy, and use your key through it.",
                );
                line(1, "# Take a secret of your own: `openssl rand -hex 16`.");
                line(1, &format!("secret {caller} {DEFAULT_SECRET}"));
            }
        }
        line(0, "}");
        line(0, "");
        match &self.token {
            Some(token) => {
                line(0, "auth_token {");
                line(1, &format!("token {caller} {{env.{}}}", token.name));
                line(0, "}");
            }
            None => {
                line(0, "# WARNING: without LOCAL_AUTH_TOKEN everybody who reaches this port is let in, as before.");
            }
        }
        line(0, "");
        line(0, "cursor_compat");
        line(0, "");
        line(0, "# gpt-reverse-proxy sent these up with your key and without asking for a token.");
        line(0, "@options method OPTIONS");
        line(0, "respond @options 204");
        line(0, "");
        line(0, &format!("reverse_proxy {} {{", self.upstream));
        if !self.base_path.is_empty() {
            line(1, &format!("rewrite {}{{uri}}", self.base_path));
        }
        if !self.https {
            line(1, "header_up Host {upstream_hostport}");
        }
        if let Some(authorization) = &self.authorization {
            line(1, &format!("header_up Authorization {{env.{}}}", authorization.name));
        }
        line(1, "# Who asks is not the upstream's business.");
        line(1, "header_up -X-Forwarded-*");
        line(1, "header_up -Via");
        if let Some(proxy) = &self.proxy {
            line(1, "transport http {");
            line(2, &format!("network_proxy url {{env.{}}}", proxy.name));
            line(1, "}");
        }
        line(0, "}");
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |text: &str| notes.push(text.to_owned());
        if self.secret.is_none() {
            note(
                "LOCAL_OLLAMA_SECRET is not set: `ollama` is the secret path, which everybody can guess and use your key through",
            );
        }
        if self.token.is_none() {
            note("LOCAL_AUTH_TOKEN is not set: everybody who reaches the port is let in");
        }
        if self.token.is_some() && self.authorization.is_none() {
            note(
                "UPSTREAM_AUTHORIZATION is not set: the client's token no longer goes up, so the upstream gets no key; set one with `header_up Authorization`",
            );
        }
        note(
            "the secret path opens chat, completions, embeddings, models and the Ollama API; no longer every upstream path",
        );
        note("OPTIONS is answered here and no longer forwarded with your key; `cors` gives web pages permission");
        note(
            "errors of the proxy itself are JSON in the caller's dialect; an upstream that cannot be reached is 502, not 500",
        );
        note("X-Forwarded-* and Via are not sent up");
        if matches!(self.level.as_str(), "debug" | "trace") {
            note(
                "transcripts are JSON lines without credentials, in the folder `log`, at most 1 GB; read them with `llmproxy show`",
            );
        }
        notes
    }
}

/// Origin, whether it is https, and base path.
fn upstream(url: &str) -> Result<(String, bool, String), String> {
    let wrong = |why: &str| Err(format!("UPSTREAM_URL {why}"));
    let Ok(uri) = url.trim().parse::<Uri>() else { return wrong("is not a URL") };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return wrong("needs `http://` or `https://` and a host");
    };
    if !matches!(scheme, "http" | "https") {
        return wrong("is neither http nor https");
    }
    if authority.as_str().contains('@') {
        return wrong("holds a user name or password: use UPSTREAM_AUTHORIZATION");
    }
    if uri.query().is_some() {
        return wrong("has a query, which gpt-reverse-proxy would have dropped");
    }
    Ok((format!("{scheme}://{authority}"), scheme == "https", path("UPSTREAM_URL", uri.path())?))
}

/// A path without slashes at its end: empty, or `/a/b`. Nothing that a Proxyfile or a matcher would read as more.
fn path(of: &str, text: &str) -> Result<String, String> {
    let path = text.trim().trim_end_matches('/');
    if path.is_empty() {
        return Ok(String::new());
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'+');
    if !path.bytes().all(plain) || path.contains("//") {
        return Err(format!(
            "{of} holds characters that cannot be carried over; write the Proxyfile with a plainer path"
        ));
    }
    Ok(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

/// A text within a comment: it cannot end it.
fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(&pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn names_and_empty_values_count_as_in_the_original() {
        let settings = read(&[
            ("upstream_url", "https://a.test/base/"),
            ("UPSTREAM_URL", "https://b.test"),
            ("local_auth_token", ""),
            ("LOCAL_AUTH_TOKEN", "x"),
            ("LOCAL_OLLAMA_SECRET", ""),
            ("LOCAL_PATH_PREFIX", "gpt//"),
        ])
        .unwrap();
        assert_eq!((settings.upstream.as_str(), settings.base_path.as_str()), ("https://a.test", "/base"));
        assert_eq!((settings.prefix.as_str(), settings.secret.is_none()), ("/gpt", true));
        assert_eq!(settings.token.unwrap().name, "LOCAL_AUTH_TOKEN");
    }

    #[test]
    fn what_cannot_be_carried_over_is_refused_without_a_value() {
        for (name, value) in [
            ("UPSTREAM_URL", ""),
            ("UPSTREAM_URL", "api.s3cret.test"),
            ("UPSTREAM_URL", "ftp://s3cret"),
            ("UPSTREAM_URL", "https://u:s3cret@a.test"),
            ("UPSTREAM_URL", "https://a.test/?key=s3cret"),
            ("UPSTREAM_URL", "https://a.test/{s3cret}"),
            ("LOCAL_PATH_PREFIX", "/a s3cret"),
            ("LOCAL_PATH_PREFIX", "/s3cret*"),
            ("LOCAL_OLLAMA_SECRET", "s3cret/b"),
            ("LOCAL_OLLAMA_SECRET", "s3cret b"),
        ] {
            let mut pairs = vec![("UPSTREAM_URL", "https://a.test")];
            pairs.push((name, value));
            let why = read(&pairs).err().unwrap_or_else(|| panic!("{name}={value}"));
            assert!(why.contains(name) && !why.contains("s3cret"), "{why}");
        }
    }
}
