//! What a request gives the model to read, in every provider's words: for counting it when the upstream does not.
//!
//! Messages, system prompts, tools and schemas are counted as they are written; a tool's description costs a little less than
//! that with most models. What each message and each image costs beside its text are constants of the providers' documentation.

#![allow(clippy::enum_glob_use, clippy::unnested_or_patterns)] // places are listed as the formats have them

use super::Endpoint;
use super::sample::Sample;
use super::scan::{Name, Reader, Role, Scan};

/// The prompt of one request.
#[derive(Debug, Default, Clone)]
pub struct Prompt {
    text: Sample,
    messages: u64,
    images: u64,
    /// Tokens that the client counted itself: lists of numbers in the place of text.
    counted: u64,
    endpoint: Endpoint,
}

impl Prompt {
    /// Of a JSON body. Bodies of any size: what is kept is bounded, and one pass is made.
    #[must_use]
    pub fn read(body: &[u8], endpoint: Endpoint) -> Self {
        let mut reading = Reading::default();
        let mut scan = Scan::default();
        scan.feed(body, &mut reading);
        scan.reset(&mut reading);
        let Reading { text, messages, images, counted } = reading;
        Self { text, messages, images, counted, endpoint }
    }

    /// About how many tokens: costs nothing more.
    #[must_use]
    pub fn quick(&self) -> u64 {
        self.text.quick().saturating_add(self.beside())
    }

    /// How many tokens, as near as can be told.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.text.tokens().saturating_add(self.beside())
    }

    fn beside(&self) -> u64 {
        let image = match self.endpoint {
            // 1092 × 1092 pixels, the largest that is not made smaller.
            Endpoint::Messages => 1590,
            Endpoint::Gemini => 258,
            // 1024 × 1024 pixels in high detail with GPT-4o.
            _ => 765,
        };
        // OpenAI's cookbook: three around each message, three before the answer.
        let (message, answer) = match self.endpoint {
            Endpoint::Chat | Endpoint::Messages | Endpoint::OllamaChat => (3, 3),
            Endpoint::Responses => (3, 2),
            _ => (0, 0),
        };
        let around = if self.messages > 0 { self.messages.saturating_mul(message).saturating_add(answer) } else { 0 };
        self.counted.saturating_add(around).saturating_add(self.images.saturating_mul(image))
    }
}

#[derive(Default)]
struct Reading {
    text: Sample,
    messages: u64,
    images: u64,
    counted: u64,
}

impl Reader for Reading {
    fn role(&mut self, path: &[Name]) -> Role {
        use Name::*;
        match path {
            // Lists of token ids are told as numbers.
            [] => Role::Nothing,
            [Prompt | Input] => Role::TextOrValue,
            [Messages, Speaker | Images] | [Images] => Role::Value,
            [Messages | Input, Type] | [Messages | Input, Content, Type] | [Messages, Content, Content, Type] => {
                Role::Value
            }
            [Messages] | [Messages, ToolCalls] | [Messages, ToolCalls, Function] | [Messages, FunctionCall] => {
                Role::Nothing
            }
            [System | Instructions | Suffix | Template]
            | [System | SystemInstruction | SystemInstructionSnake, Text]
            | [SystemInstruction | SystemInstructionSnake, Parts, Text]
            | [Messages, Content | Thinking | ReasoningContent | Reasoning | Named]
            | [Messages, Content, Text | Thinking | Named | Content]
            | [Messages, Content, Content, Text]
            | [Messages, ToolCalls, Function, Named]
            | [Messages, FunctionCall, Named | Arguments]
            | [Input, Content | Output | Arguments | Input | Named]
            | [Input, Content | Summary | Output, Text]
            | [Contents | Content, Parts, Text]
            | [Requests, Content, Parts, Text] => Role::Text,
            [Messages, Content, Input]
            | [Messages, ToolCalls, Function, Arguments]
            | [Tools | Functions | ResponseFormat | Format]
            | [Contents, Parts, FunctionCallGemini | FunctionResponse] => Role::Written,
            [Input, Summary] => Role::Nothing,
            [SystemInstruction | SystemInstructionSnake]
            | [SystemInstruction | SystemInstructionSnake, Parts]
            | [Contents | Content]
            | [Contents | Content, Parts]
            | [Requests]
            | [Requests, Content]
            | [Requests, Content, Parts]
            | [Contents, Parts, InlineData] => Role::Nothing,
            [Contents, Parts, InlineData, MimeType] => Role::Value,
            _ => Role::Never,
        }
    }

    fn number(&mut self, _: &[Name], _: u64) {
        self.counted = self.counted.saturating_add(1);
    }

    fn word(&mut self, path: &[Name], word: &[u8]) {
        use Name::*;
        match path {
            [.., Speaker] => self.messages += 1,
            [.., Images] => self.images += 1,
            [.., MimeType] => self.images += u64::from(word.starts_with(b"image/")),
            [.., Type] => match word {
                b"image_url" | b"image" | b"input_image" => self.images += 1,
                // Of the Responses API.
                b"message" if path.len() == 2 => self.messages += 1,
                _ => {}
            },
            _ => {}
        }
    }

    fn text(&mut self, piece: &[u8]) {
        self.text.add(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer;
    use super::*;

    fn tokens(endpoint: Endpoint, body: &str) -> u64 {
        tokenizer::load();
        Prompt::read(body.as_bytes(), endpoint).tokens()
    }

    #[test]
    fn every_format_gives_the_same_text() {
        let text = "Hello, how are you today?"; // 7
        for (endpoint, body, expected) in [
            (Endpoint::Chat, r#"{"messages":[{"role":"user","content":"T"}]}"#, 7 + 6),
            (
                Endpoint::Chat,
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"T"},{"type":"image_url","image_url":{"url":"data:xxxxxxx"}}]}]}"#,
                7 + 6 + 765,
            ),
            (Endpoint::Completions, r#"{"prompt":"T"}"#, 7),
            (Endpoint::Completions, r#"{"prompt":["T","T"]}"#, 13),
            (Endpoint::Embeddings, r#"{"input":[[1,2,3],[4,5]]}"#, 5),
            (Endpoint::Embeddings, r#"{"input":"T","encoding_format":"base64"}"#, 7),
            (
                Endpoint::Responses,
                r#"{"instructions":"T","input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"T"}]}]}"#,
                13 + 5,
            ),
            (Endpoint::Responses, r#"{"input":"T"}"#, 7),
            (
                Endpoint::Messages,
                r#"{"system":[{"type":"text","text":"T"}],"messages":[{"role":"user","content":"T"}]}"#,
                13 + 6,
            ),
            (
                Endpoint::Messages,
                r#"{"messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"text","text":"T"}]},{"type":"image","source":{"type":"base64","data":"xxxx"}}]}]}"#,
                7 + 6 + 1590,
            ),
            (Endpoint::OllamaGenerate, r#"{"prompt":"T","system":"T"}"#, 13),
            (
                Endpoint::OllamaChat,
                r#"{"messages":[{"role":"user","content":"T","images":["aaaa","bbbb"]}]}"#,
                7 + 6 + 2 * 765,
            ),
            (
                Endpoint::Gemini,
                r#"{"systemInstruction":{"parts":[{"text":"T"}]},"contents":[{"role":"user","parts":[{"text":"T"},{"inlineData":{"mimeType":"image/png","data":"xx"}}]}]}"#,
                13 + 258,
            ),
            (Endpoint::GeminiEmbed, r#"{"content":{"parts":[{"text":"T"}]}}"#, 7),
        ] {
            let body = body.replace("\"T\"", &format!("\"{text}\""));
            let counted = tokens(endpoint, &body);
            assert!(counted.abs_diff(expected) <= 1, "{counted}, not {expected}: {body}");
        }
    }

    #[test]
    fn tools_count_as_they_are_written() {
        let tool = r#"{"type":"function","function":{"name":"f","description":"It does a thing.","parameters":{"type":"object"}}}"#;
        let body = format!(r#"{{"messages":[],"tools":[{tool}],"tool_choice":"auto"}}"#);
        tokenizer::load();
        assert_eq!(tokens(Endpoint::Chat, &body), tokenizer::exact(&format!("[{tool}]")).unwrap());
    }
}
