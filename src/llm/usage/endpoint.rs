//! Which call of which API a path is, as far as counting cares.

/// What is called. The word of each is what records show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's old completions.
    Completions,
    /// OpenAI's Responses.
    Responses,
    Embeddings,
    /// Anthropic's Messages.
    Messages,
    /// Gemini's `generateContent` and `streamGenerateContent`.
    Gemini,
    /// Gemini's `embedContent` and `batchEmbedContents`.
    GeminiEmbed,
    /// Ollama's `/api/chat`.
    OllamaChat,
    /// Ollama's `/api/generate`.
    OllamaGenerate,
    /// Ollama's `/api/embed` and `/api/embeddings`.
    OllamaEmbed,
    /// OpenAI's speech, transcriptions and translations.
    Audio,
    Images,
    Moderations,
    /// Lists, files, token counts and all else: nothing is generated, unless the answer says so.
    #[default]
    Other,
}

impl Endpoint {
    /// Of a path, under any prefix.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        let path = path.trim_end_matches('/');
        let last = path.rsplit('/').next().unwrap_or_default();
        if let Some((_, method)) = last.rsplit_once(':') {
            match method {
                "generateContent" | "streamGenerateContent" => return Self::Gemini,
                "embedContent" | "batchEmbedContents" => return Self::GeminiEmbed,
                _ => {}
            }
        }
        let before = path[..path.len() - last.len()].trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        match (before, last) {
            ("api", "chat") => Self::OllamaChat,
            ("api", "generate") => Self::OllamaGenerate,
            ("api", "embed" | "embeddings") => Self::OllamaEmbed,
            ("chat", "completions") => Self::Chat,
            (_, "completions") => Self::Completions,
            (_, "responses") | ("responses", "compact") => Self::Responses,
            (_, "embeddings") => Self::Embeddings,
            // A thread's messages are only kept there, nothing is generated.
            (_, "messages") if !path.contains("/threads/") => Self::Messages,
            ("audio", _) => Self::Audio,
            ("images", _) => Self::Images,
            (_, "moderations") => Self::Moderations,
            _ => Self::Other,
        }
    }

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Messages => "messages",
            Self::Gemini => "gemini",
            Self::GeminiEmbed => "gemini_embed",
            Self::OllamaChat => "ollama_chat",
            Self::OllamaGenerate => "ollama_generate",
            Self::OllamaEmbed => "ollama_embed",
            Self::Audio => "audio",
            Self::Images => "images",
            Self::Moderations => "moderations",
            Self::Other => "other",
        }
    }

    /// Whether a call of it makes tokens that are paid for, or takes some: what limits, budgets and records are about.
    #[must_use]
    pub const fn is_metered(self) -> bool {
        !matches!(self, Self::Other)
    }

    /// Whether it answers in a stream unless told otherwise; `path` is the one it was made from.
    #[must_use]
    pub fn streams_unasked(self, path: &str) -> bool {
        match self {
            Self::OllamaChat | Self::OllamaGenerate => true,
            Self::Gemini => path.contains(":streamGenerateContent"),
            _ => false,
        }
    }

    /// Whether its answer has output tokens.
    #[must_use]
    pub const fn generates(self) -> bool {
        !matches!(self, Self::Embeddings | Self::GeminiEmbed | Self::OllamaEmbed | Self::Moderations | Self::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_what_is_called() {
        for (path, endpoint) in [
            ("/v1/chat/completions", Endpoint::Chat),
            ("/team/chat/completions/", Endpoint::Chat),
            ("/openai/deployments/d/chat/completions", Endpoint::Chat),
            ("/v1/completions", Endpoint::Completions),
            ("/v1/responses", Endpoint::Responses),
            ("/v1/responses/resp_1", Endpoint::Other),
            ("/v1/embeddings", Endpoint::Embeddings),
            ("/v1/messages", Endpoint::Messages),
            ("/v1/responses/compact", Endpoint::Responses),
            ("/v1/messages/count_tokens", Endpoint::Other),
            ("/v1/threads/t/messages", Endpoint::Other),
            ("/v1beta/models/gemini-2.5-pro:streamGenerateContent", Endpoint::Gemini),
            ("/v1beta/models/e:batchEmbedContents", Endpoint::GeminiEmbed),
            ("/x/api/chat", Endpoint::OllamaChat),
            ("/api/generate", Endpoint::OllamaGenerate),
            ("/api/embeddings", Endpoint::OllamaEmbed),
            ("/v1/audio/transcriptions", Endpoint::Audio),
            ("/v1/images/generations", Endpoint::Images),
            ("/v1/models", Endpoint::Other),
            ("/", Endpoint::Other),
            ("", Endpoint::Other),
        ] {
            assert_eq!(Endpoint::of_path(path), endpoint, "{path}");
        }
    }
}
