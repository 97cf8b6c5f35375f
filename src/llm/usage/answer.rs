//! What an answer says of its tokens, and the text they are counted of when it says nothing: of every format, whole or
//! in a stream, as it passes.
//!
//! | format | where the counts are |
//! | --- | --- |
//! | OpenAI chat, completions, embeddings | `usage`, of a stream in the last chunk |
//! | OpenAI Responses | `usage`, of a stream in `response.usage` of the last event |
//! | Anthropic | `usage`; of a stream `message.usage` of the first event, then `usage` of `message_delta`, the last counts |
//! | Gemini | `usageMetadata`, of a stream in every chunk, the last counts |
//! | Ollama | `prompt_eval_count`, `eval_count`, of a stream in the last line |

#![allow(clippy::enum_glob_use, clippy::unnested_or_patterns)] // places are listed as the formats have them

use super::Tokens;
use super::sample::Sample;
use super::scan::{Name, Reader, Role, Scan};

/// What an answer said.
#[derive(Debug, Default)]
pub struct Answer {
    reading: Reading,
    scan: Scan,
    frame: Frame,
}

/// How the texts of an answer follow one another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Framing {
    /// One text.
    #[default]
    Whole,
    /// Server-sent events.
    Events,
    /// One text a line.
    Lines,
}

impl Framing {
    /// By the type of the answer; `None` for one that is not read: sound, images, plain text.
    #[must_use]
    pub fn of(content_type: &[u8]) -> Option<Self> {
        let kind = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let is = |name: &str| kind.eq_ignore_ascii_case(name.as_bytes());
        if is("text/event-stream") {
            Some(Self::Events)
        } else if is("application/x-ndjson") || is("application/jsonl") {
            Some(Self::Lines)
        } else {
            let suffix = kind.len().checked_sub(5).and_then(|at| kind.get(at..));
            (is("application/json") || suffix.is_some_and(|s| s.eq_ignore_ascii_case(b"+json"))).then_some(Self::Whole)
        }
    }
}

impl Answer {
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self { frame: Frame { framing, ..Frame::default() }, ..Self::default() }
    }

    /// The next piece of the answer, cut anywhere.
    pub fn feed(&mut self, piece: &[u8]) {
        self.frame.feed(piece, &mut self.scan, &mut self.reading);
    }

    /// Nothing more comes.
    pub fn end(&mut self) {
        self.scan.reset(&mut self.reading);
    }

    /// The counts as far as they were told: input and output `None` where they were not.
    #[must_use]
    pub fn told(&self) -> Told {
        self.reading.counts.told()
    }

    /// It said that the generation is over: what was told then is final, whatever happens to the connection.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.reading.finished
    }

    /// The text that the output tokens stand for.
    #[must_use]
    pub fn text(&self) -> &Sample {
        &self.reading.text
    }

    #[must_use]
    pub fn model(&self) -> Option<&str> {
        some(&self.reading.model)
    }

    /// `id` of the answer, as a stream's chunks repeat it.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        some(&self.reading.id)
    }

    /// `created` of the answer, unix seconds; 0 when it tells none.
    #[must_use]
    pub fn created(&self) -> u64 {
        self.reading.created
    }

    /// The highest number of a choice seen.
    #[must_use]
    pub fn last_choice(&self) -> u64 {
        self.reading.last_choice
    }

    /// The number of the latest event of OpenAI's Responses.
    #[must_use]
    pub fn sequence_number(&self) -> u64 {
        self.reading.sequence_number
    }

    /// The number of Anthropic's block of content that has begun and not ended.
    #[must_use]
    pub fn open_block(&self) -> Option<u64> {
        self.reading.open_block
    }

    #[must_use]
    pub fn service_tier(&self) -> Option<&str> {
        some(&self.reading.service_tier)
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Counts as an answer tells them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    pub input: Option<u64>,
    /// `None` also where only the count at the beginning of a stream was told.
    pub output: Option<u64>,
    /// Output told so far by a stream that is not at its end.
    pub output_so_far: u64,
    /// All parts, and zero for what was not told.
    pub tokens: Tokens,
}

/// Takes the texts out of their frames.
#[derive(Debug, Default)]
struct Frame {
    framing: Framing,
    /// Bytes of the current line that have passed, as far as it matters.
    line: Line,
    /// The byte before was CR.
    after_cr: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    #[default]
    Start,
    /// The first bytes of `data:`.
    Field(u8),
    Data,
    Other,
}

const DATA: &[u8] = b"data:";

impl Frame {
    fn feed(&mut self, mut piece: &[u8], scan: &mut Scan, reading: &mut Reading) {
        if self.framing == Framing::Whole {
            return scan.feed(piece, reading);
        }
        while let Some(first) = piece.first() {
            if matches!(first, b'\n' | b'\r') {
                let second_half = *first == b'\n' && self.after_cr;
                self.after_cr = *first == b'\r';
                if !second_half {
                    self.line_end(scan, reading);
                }
                piece = piece.get(1..).unwrap_or_default();
                continue;
            }
            self.after_cr = false;
            piece = self.within_line(piece, scan, reading);
        }
    }

    fn within_line<'p>(&mut self, piece: &'p [u8], scan: &mut Scan, reading: &mut Reading) -> &'p [u8] {
        if self.framing == Framing::Events && matches!(self.line, Line::Start | Line::Field(_)) {
            let at = if let Line::Field(at) = self.line { at } else { 0 };
            let Some((first, rest)) = piece.split_first() else { return piece };
            self.line = match DATA.get(usize::from(at)) {
                Some(expected) if expected == first && usize::from(at) + 1 == DATA.len() => Line::Data,
                Some(expected) if expected == first => Line::Field(at + 1),
                // A byte-order mark may stand before the first.
                _ if at == 0 && matches!(first, 0xef | 0xbb | 0xbf) => Line::Start,
                _ => Line::Other,
            };
            return rest;
        }
        let end = memchr::memchr2(b'\n', b'\r', piece).unwrap_or(piece.len());
        let (said, rest) = piece.split_at(end);
        if self.framing == Framing::Lines {
            self.line = Line::Data;
        }
        if self.line == Line::Data {
            scan.feed(said, reading);
        }
        rest
    }

    fn line_end(&mut self, scan: &mut Scan, reading: &mut Reading) {
        match (self.framing, self.line) {
            // Several lines of data are one text.
            (Framing::Events, Line::Data) => scan.feed(b"\n", reading),
            (Framing::Events, Line::Start) | (Framing::Lines, _) => {
                scan.reset(reading);
                reading.begins();
            }
            _ => {}
        }
        self.line = Line::Start;
    }
}

/// Counts in the words of all formats, as they were told.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    /// The output that Anthropic's first event tells is only a beginning.
    output_begun: u64,
    total: Option<u64>,
    cached: u64,
    cache_write: u64,
    cache_write_5m: Option<u64>,
    cache_write_1h: u64,
    /// Anthropic's: caches come on top of the input.
    cache_read_beside: Option<u64>,
    cache_write_beside: Option<u64>,
    reasoning: u64,
    audio_input: u64,
    audio_output: u64,
    /// Gemini's: thoughts and tools' results come on top.
    thoughts: u64,
    tool_prompt: u64,
    /// The input is OpenAI's `prompt_tokens`, which has the caches in it whatever else is told.
    contains_caches: bool,
}

impl Counts {
    fn told(&self) -> Told {
        let mut tokens = Tokens {
            cached: self.cached,
            cache_write: self.cache_write,
            reasoning: self.reasoning.saturating_add(self.thoughts),
            audio_input: self.audio_input,
            audio_output: self.audio_output,
            ..Tokens::default()
        };
        let mut input = self.input.map(|input| input.saturating_add(self.tool_prompt));
        if self.cache_read_beside.is_some() || self.cache_write_beside.is_some() {
            let (read, write) = (self.cache_read_beside.unwrap_or(0), self.cache_write_beside.unwrap_or(0));
            tokens.cached = tokens.cached.max(read);
            tokens.cache_write_1h = self.cache_write_1h.min(write);
            tokens.cache_write = write - tokens.cache_write_1h;
            if !self.contains_caches {
                input = input.map(|input| input.saturating_add(read).saturating_add(write));
            }
        }
        let output = self.output.map(|output| {
            // With xAI and Gemini's OpenAI format thoughts come on top, which only the sum tells.
            let by_sum = self.total.zip(input).map_or(0, |(total, input)| total.saturating_sub(input));
            output.saturating_add(self.thoughts).max(by_sum)
        });
        tokens.input = input.unwrap_or(0);
        tokens.output = output.unwrap_or(0);
        // Parts never exceed the whole, whatever was told.
        tokens.cached = tokens.cached.min(tokens.input);
        tokens.cache_write = tokens.cache_write.min(tokens.input - tokens.cached);
        tokens.cache_write_1h = tokens.cache_write_1h.min(tokens.input - tokens.cached - tokens.cache_write);
        tokens.audio_input = tokens.audio_input.min(tokens.input);
        tokens.reasoning = tokens.reasoning.min(tokens.output);
        tokens.audio_output = tokens.audio_output.min(tokens.output);
        Told { input, output, output_so_far: self.output_begun, tokens }
    }
}

/// What the current event says of a block of content.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Block {
    #[default]
    Nothing,
    Begins,
    Ends,
}

#[derive(Debug, Default)]
struct Reading {
    counts: Counts,
    text: Sample,
    model: String,
    id: String,
    service_tier: String,
    created: u64,
    last_choice: u64,
    sequence_number: u64,
    open_block: Option<u64>,
    block: Block,
    index: Option<u64>,
    finished: bool,
    /// This event carries sound, not text.
    sound: bool,
    /// The latest modality named in Gemini's details was sound.
    sound_detail: bool,
}

impl Reading {
    /// Another event begins.
    fn begins(&mut self) {
        self.sound = false;
        self.index = None;
        self.block = Block::Nothing;
    }

    /// Type and number of a block come in any order.
    fn block(&mut self) {
        match self.block {
            Block::Begins => self.open_block = Some(self.index.unwrap_or(0)),
            Block::Ends => self.open_block = None,
            Block::Nothing => {}
        }
    }
}

/// The part of a path behind where counts stand; the first tells that a stream only begins.
fn within_usage(path: &[Name]) -> Option<(bool, &[Name])> {
    match path {
        [Name::Usage, rest @ ..] | [Name::Response | Name::XGroq, Name::Usage, rest @ ..] => Some((false, rest)),
        [Name::Message, Name::Usage, rest @ ..] => Some((true, rest)),
        [Name::UsageMetadata, rest @ ..] => Some((false, rest)),
        _ => None,
    }
}

impl Reader for Reading {
    fn role(&mut self, path: &[Name]) -> Role {
        use Name::*;
        if let Some((_, rest)) = within_usage(path) {
            return if rest.is_empty() { Role::Nothing } else { Role::Value };
        }
        match path {
            [] => Role::Value,
            [
                Model | ModelVersion | Id | Created | ServiceTier | Type | Done | Index | SequenceNumber
                | PromptEvalCount | EvalCount | StopReason,
            ]
            | [Message | Response, Model | Id | ServiceTier]
            | [Choices, FinishReason | Index]
            | [Candidates, FinishReasonGemini]
            | [Delta, StopReason] => Role::Value,
            // OpenAI chat and completions; the rest of a choice is probabilities of tokens.
            [XGroq] | [Choices] | [Choices, Delta | Message] => Role::Nothing,
            [Choices, Text]
            | [Choices, Delta | Message, Content | Refusal | Reasoning | ReasoningContent | Thinking]
            | [Choices, Delta | Message, Content, Text]
            | [Choices, Delta | Message, Content, Thinking, Text]
            | [Choices, Delta | Message, ToolCalls, Function, Named | Arguments]
            | [Choices, Delta | Message, FunctionCall, Named | Arguments] => Role::Text,
            [Choices, Delta | Message, ToolCalls | FunctionCall] | [Choices, Delta | Message, ToolCalls, Function] => {
                Role::Nothing
            }
            // OpenAI Responses, and transcripts.
            [Delta] if !self.sound => Role::Text,
            [Output] | [Output, Content | Summary] | [Item] => Role::Nothing,
            [Output, Content | Summary, Text] | [Output, Arguments | Named | Input] | [Item, Named] => Role::Text,
            // Anthropic.
            [Content] | [ContentBlock] => Role::Nothing,
            [Content, Input] => Role::Written,
            [Content, Text | Thinking | Named]
            | [ContentBlock, Text | Thinking | Named]
            | [Delta, Text | Thinking | PartialJson] => Role::Text,
            // Ollama.
            [Message] | [Message, ToolCalls] | [Message, ToolCalls, Function] => Role::Nothing,
            [Message, Content | Thinking] | [Message, ToolCalls, Function, Named] | [Thinking | Response] => Role::Text,
            [Message, ToolCalls, Function, Arguments] => Role::Written,
            // Gemini.
            [Candidates] | [Candidates, Content] | [Candidates, Content, Parts] => Role::Nothing,
            [Candidates, Content, Parts, FunctionCallGemini] => Role::Nothing,
            [Candidates, Content, Parts, Text] | [Candidates, Content, Parts, FunctionCallGemini, Named] => Role::Text,
            [Candidates, Content, Parts, FunctionCallGemini, Args] => Role::Written,
            _ => Role::Never,
        }
    }

    fn number(&mut self, path: &[Name], value: u64) {
        use Name::*;
        let counts = &mut self.counts;
        let Some((begins, rest)) = within_usage(path) else {
            match path {
                [PromptEvalCount] => counts.input = Some(value),
                [EvalCount] => counts.output = Some(value),
                [SequenceNumber] => self.sequence_number = value,
                [Index] => {
                    self.index = Some(value);
                    self.block();
                }
                [Created] => self.created = value,
                [Choices, Index] => self.last_choice = self.last_choice.max(value),
                _ => {}
            }
            return;
        };
        match rest {
            [PromptTokens] => {
                counts.input = Some(value);
                counts.contains_caches = true;
            }
            [InputTokens | PromptTokenCount] => counts.input = Some(value),
            [OutputTokens] if begins => counts.output_begun = value,
            [CompletionTokens | OutputTokens | CandidatesTokenCount] => counts.output = Some(value),
            [TotalTokens] => counts.total = Some(value),
            [CachedTokens | PromptCacheHit | CachedContentTokenCount]
            | [PromptTokensDetails | InputTokensDetails | InputTokenDetails, CachedTokens] => counts.cached = value,
            [PromptTokensDetails | InputTokensDetails | InputTokenDetails, CacheWriteTokens] => {
                counts.cache_write = value;
            }
            [PromptTokensDetails | InputTokensDetails | InputTokenDetails, AudioTokens] => counts.audio_input = value,
            [CompletionTokensDetails | OutputTokensDetails | OutputTokenDetails, ReasoningTokens] => {
                counts.reasoning = value;
            }
            [CompletionTokensDetails | OutputTokensDetails | OutputTokenDetails, AudioTokens] => {
                counts.audio_output = value;
            }
            [CacheReadInput] => counts.cache_read_beside = Some(value),
            [CacheCreationInput] => counts.cache_write_beside = Some(value),
            [CacheCreation, Ephemeral5m] => counts.cache_write_5m = Some(value),
            [CacheCreation, Ephemeral1h] => counts.cache_write_1h = value,
            [ThoughtsTokenCount] => counts.thoughts = value,
            [ToolUsePromptTokenCount] => counts.tool_prompt = value,
            [PromptTokensDetailsGemini, TokenCount] if self.sound_detail => counts.audio_input = value,
            [CandidatesTokensDetails, TokenCount] if self.sound_detail => counts.audio_output = value,
            _ => {}
        }
        // Where only the parts are told, they are the whole.
        if let ([CacheCreation, _], None) = (rest, counts.cache_write_beside) {
            counts.cache_write_beside = Some(counts.cache_write_5m.unwrap_or(0).saturating_add(counts.cache_write_1h));
        }
    }

    fn word(&mut self, path: &[Name], word: &[u8]) {
        use Name::*;
        let text = || String::from_utf8_lossy(word).into_owned();
        match path {
            // `[DONE]`
            [] if word == b"DONE" => self.finished = true,
            _ if word == b"null" => {}
            [Model | ModelVersion] | [Message | Response, Model] if self.model.as_bytes() != word => {
                self.model = text();
            }
            [Id] | [Message | Response, Id] if self.id.is_empty() => self.id = text(),
            [ServiceTier | Usage, ..] | [Response | Message, ServiceTier | Usage, ..]
                if path.last() == Some(&ServiceTier) && self.service_tier.as_bytes() != word =>
            {
                self.service_tier = text();
            }
            [Choices, FinishReason] | [Candidates, FinishReasonGemini] | [Delta, StopReason] | [StopReason] => {
                self.finished = true;
            }
            [Done] if word == b"true" => self.finished = true,
            [Type] => match word {
                b"response.completed"
                | b"response.incomplete"
                | b"response.failed"
                | b"message_stop"
                | b"transcript.text.done"
                | b"speech.audio.done"
                | b"image_generation.completed" => self.finished = true,
                b"content_block_start" | b"content_block_stop" => {
                    self.block = if word.ends_with(b"start") { Block::Begins } else { Block::Ends };
                    self.block();
                }
                _ => self.sound = word.ends_with(b"audio.delta"),
            },
            [.., Modality] => self.sound_detail = word == b"AUDIO",
            _ => {}
        }
    }

    fn text(&mut self, piece: &[u8]) {
        self.text.add(piece);
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
