//! Which of Ollama's routes a path is, and what a secret path opens.

use http::{HeaderValue, Method};
use percent_encoding::percent_decode_str;

/// A route of the Ollama API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/`: the text by which clients see that a server is there.
    Root,
    Version,
    Tags,
    Ps,
    Show,
    Chat,
    Generate,
    Embed,
    /// The older form of `Embed`.
    Embeddings,
    Pull,
    /// Changes what models the server has, or whose account it uses: nothing that a proxy has.
    Managing,
}

impl Endpoint {
    /// `None` for a path that is not of the Ollama API.
    pub fn of(path: &str) -> Option<Self> {
        if path == "/" {
            return Some(Self::Root);
        }
        Some(match path.strip_prefix("/api/")? {
            "version" => Self::Version,
            "tags" => Self::Tags,
            "ps" => Self::Ps,
            "show" => Self::Show,
            "chat" => Self::Chat,
            "generate" => Self::Generate,
            "embed" => Self::Embed,
            "embeddings" => Self::Embeddings,
            "pull" => Self::Pull,
            "push" | "create" | "copy" | "delete" | "me" | "signout" | "status" => Self::Managing,
            other if other.starts_with("blobs/") => Self::Managing,
            _ => return None,
        })
    }

    pub fn takes(self, method: &Method) -> bool {
        match self {
            Self::Root | Self::Version | Self::Tags | Self::Ps => matches!(*method, Method::GET | Method::HEAD),
            Self::Managing => true,
            _ => *method == Method::POST,
        }
    }

    /// `Allow` of the answer to another method.
    pub fn allow(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Root | Self::Version | Self::Tags | Self::Ps => "GET, HEAD",
            _ => "POST",
        })
    }
}

/// Whether a path behind a mount belongs to it: Ollama's routes, and the OpenAI and Anthropic ones that Ollama serves on
/// the same base.
pub fn is_served(path: &str) -> bool {
    Endpoint::of(path).is_some() || path.strip_prefix("/v1").is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a secret path opens this: discovery and inference, nothing that stores, deletes or administers.
pub fn is_inference(method: &Method, path: &str) -> bool {
    // The answer to a preflight tells nothing.
    let is = |wanted: Method| *method == wanted || *method == Method::OPTIONS;
    if let Some(endpoint) = Endpoint::of(path) {
        // A wrong method is told so further on, without asking anybody.
        return !matches!(endpoint, Endpoint::Pull | Endpoint::Managing);
    }
    let Some(route) = path.strip_prefix("/v1/") else { return false };
    match route {
        "chat/completions" | "completions" | "embeddings" | "responses" | "messages" | "audio/transcriptions" => {
            is(Method::POST)
        }
        "models" => is(Method::GET) || *method == Method::HEAD,
        _ => {
            let read = is(Method::GET) || *method == Method::HEAD;
            read && route.strip_prefix("models/").is_some_and(is_plain_id)
        }
    }
}

/// A model's id as the rest of a path: it may hold slashes, plain or escaped, but nothing by which a server behind us could
/// be led to another route.
fn is_plain_id(rest: &str) -> bool {
    let decoded = percent_decode_str(rest).collect::<Vec<u8>>();
    let safe = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'%' | b'\\' | b'?' | b'#' | b';');
    !decoded.is_empty()
        && decoded.iter().all(safe)
        && decoded.split(|b| *b == b'/').all(|segment| !matches!(segment, b"" | b"." | b".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_api_and_no_others() {
        assert_eq!(Endpoint::of("/"), Some(Endpoint::Root));
        assert_eq!(Endpoint::of("/api/chat"), Some(Endpoint::Chat));
        assert_eq!(Endpoint::of("/api/blobs/sha256:0"), Some(Endpoint::Managing));
        for path in ["", "/api", "/api/", "/api/chat/", "/api/users", "/x/api/chat", "/v1/models", "/API/chat"] {
            assert_eq!(Endpoint::of(path), None, "{path}");
        }
    }

    #[test]
    fn a_secret_opens_discovery_and_inference() {
        for (method, path) in [
            (Method::GET, "/"),
            (Method::HEAD, "/"),
            (Method::GET, "/api/version"),
            (Method::GET, "/api/tags"),
            (Method::POST, "/api/show"),
            (Method::POST, "/api/chat"),
            (Method::POST, "/v1/chat/completions"),
            (Method::OPTIONS, "/v1/chat/completions"),
            (Method::POST, "/v1/responses"),
            (Method::GET, "/v1/models"),
            (Method::GET, "/v1/models/gpt-4o"),
            (Method::GET, "/v1/models/org/name:tag"),
            (Method::GET, "/v1/models/org%2Fname"),
        ] {
            assert!(is_inference(&method, path), "{method} {path}");
        }
    }

    #[test]
    fn a_secret_opens_nothing_else() {
        for (method, path) in [
            (Method::POST, "/api/pull"),
            (Method::DELETE, "/api/delete"),
            (Method::GET, "/v1/files"),
            (Method::POST, "/v1/files"),
            (Method::GET, "/v1/chat/completions"),
            (Method::GET, "/v1/chat/completions/id"),
            (Method::GET, "/v1/responses/resp_1"),
            (Method::DELETE, "/v1/responses"),
            (Method::DELETE, "/v1/models/ft:mine"),
            (Method::POST, "/v1/models"),
            (Method::GET, "/v1/models/"),
            (Method::GET, "/v1/models/../files"),
            (Method::GET, "/v1/models/..%2ffiles"),
            (Method::GET, "/v1/models/%2e%2e/files"),
            (Method::GET, "/v1/models/%252e%252e/files"),
            (Method::GET, "/v1/models/..\\files"),
            (Method::GET, "/v1/models/a//b"),
            (Method::GET, "/v1/models/a/./b"),
            (Method::GET, "/v1/models/a%00"),
            (Method::GET, "/v1/fine_tuning/jobs"),
            (Method::POST, "/v1/chat/completions/"),
            (Method::POST, "/openai/deployments/x/chat/completions"),
            (Method::GET, "/metrics"),
            (Method::GET, ""),
        ] {
            assert!(!is_inference(&method, path), "{method} {path}");
        }
    }

    /// What a server might make of a path: escapes undone, backslashes and empty or dotted segments resolved.
    fn resolved(path: &str) -> String {
        let plain = percent_decode_str(path).decode_utf8_lossy().replace('\\', "/");
        let mut segments: Vec<&str> = Vec::new();
        for segment in plain.split('/') {
            match segment {
                "" | "." => {}
                ".." => drop(segments.pop()),
                other => segments.push(other),
            }
        }
        segments.iter().map(|segment| format!("/{segment}")).collect()
    }

    #[test]
    fn however_a_server_reads_a_path_a_secret_opens_no_other_route() {
        const PIECES: [&str; 20] = [
            "/",
            "/",
            "v1",
            "models",
            "files",
            "..",
            ".",
            "%2e",
            "%2E%2e",
            "%2f",
            "%252f",
            "\\",
            "%5c",
            "a",
            ";",
            "%00",
            "%2e%2e%2f",
            "api",
            "chat",
            "%c0%ae",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        let mut opened = 0;
        for _ in 0..200_000 {
            let tail: String = (0..random.usize(1..7)).map(|_| PIECES[random.usize(..PIECES.len())]).collect();
            let path = if random.bool() { format!("/v1/models/{tail}") } else { format!("/{tail}") };
            for method in [Method::GET, Method::POST] {
                if !is_inference(&method, &path) {
                    continue;
                }
                opened += 1;
                for read in [resolved(&path), resolved(&resolved(&path))] {
                    let known = Endpoint::of(&read).is_some() || read.is_empty() || is_inference(&method, &read);
                    assert!(known, "{method} {path} may be read as {read}");
                    assert!(!read.starts_with("/v1/files"), "{path}");
                }
            }
        }
        assert!(opened > 1000, "{opened}");
    }
}
