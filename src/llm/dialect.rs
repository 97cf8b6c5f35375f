//! The families of API that clients speak, and how a path tells which.

/// Whose error shape, model list and stream a caller expects.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's, and that of the many compatible servers.
    OpenAi,
    /// Anthropic's Messages API.
    Anthropic,
    /// Ollama's own `/api` routes; its `/v1` routes speak OpenAI's.
    Ollama,
}

/// First segments behind `/v1/` of OpenAI's API.
const OPENAI: [&str; 18] = [
    "assistants",
    "audio",
    "batches",
    "chat",
    "completions",
    "containers",
    "conversations",
    "embeddings",
    "files",
    "fine_tuning",
    "images",
    "models",
    "moderations",
    "realtime",
    "responses",
    "threads",
    "uploads",
    "vector_stores",
];

/// Segments behind `/api/` of Ollama's API.
const OLLAMA: [&str; 16] = [
    "blobs",
    "chat",
    "copy",
    "create",
    "delete",
    "embed",
    "embeddings",
    "generate",
    "me",
    "ps",
    "pull",
    "push",
    "show",
    "signout",
    "tags",
    "version",
];

impl Dialect {
    /// The dialect of a known API path, under any prefix; `None` for other paths.
    ///
    /// ```
    /// use llmproxy::llm::dialect::Dialect;
    /// assert_eq!(Dialect::of_path("/team/v1/chat/completions"), Some(Dialect::OpenAi));
    /// assert_eq!(Dialect::of_path("/v1/messages/count_tokens"), Some(Dialect::Anthropic));
    /// assert_eq!(Dialect::of_path("/index.html"), None);
    /// ```
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        let mut segments = path.split('/').filter(|s| !s.is_empty()).peekable();
        while let Some(segment) = segments.next() {
            let Some(next) = segments.peek() else { break };
            match segment {
                "v1" if matches!(*next, "messages" | "complete") => return Some(Self::Anthropic),
                "v1" if OPENAI.contains(next) => return Some(Self::OpenAi),
                // Base addresses without a version: `/chat/completions` (Cursor), Azure's deployments.
                "chat" if *next == "completions" => return Some(Self::OpenAi),
                "openai" if *next == "deployments" => return Some(Self::OpenAi),
                "api" if OLLAMA.contains(next) => return Some(Self::Ollama),
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_the_dialect_under_any_prefix() {
        for (path, dialect) in [
            ("/v1/chat/completions", Some(Dialect::OpenAi)),
            ("/chat/completions", Some(Dialect::OpenAi)),
            ("/a/b/v1/models/meta/llama:8b", Some(Dialect::OpenAi)),
            ("/openai/deployments/d/embeddings", Some(Dialect::OpenAi)),
            ("/v1/messages", Some(Dialect::Anthropic)),
            ("/x/v1/messages/batches", Some(Dialect::Anthropic)),
            ("/s3cret/api/tags", Some(Dialect::Ollama)),
            ("/api/users", None),
            ("/v1", None),
            ("/v1/", None),
            ("/", None),
            ("", None),
            ("/docs/v1/intro", None),
        ] {
            assert_eq!(Dialect::of_path(path), dialect, "{path}");
        }
    }
}
