//! Reads JSON as it passes, in chunks cut anywhere, and holds none of it: numbers and words at known places, and the
//! texts that tokens are counted of.
//!
//! Where a value stands is told by the names of the objects around it; arrays are looked through. What is not JSON is
//! passed over.

use crate::llm::peek::quote_or_backslash;

/// What a value is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Passed over; what is in it is asked for in turn.
    Nothing,
    /// Passed over with all that is in it.
    Never,
    /// A number, a short word: told when it is whole.
    Value,
    /// A text that is counted: told in pieces, unescaped. What is in an object or array is asked for in turn.
    Text,
    /// As `Text`, and a number is told.
    TextOrValue,
    /// A text that is counted; an object or array is counted as it is written.
    Written,
}

/// Who reads.
pub(super) trait Reader {
    /// What the value at `path` is read for. `path`: the names of the objects around it, the outermost first, unknown names
    /// as [`Name::Other`].
    fn role(&mut self, path: &[Name]) -> Role;
    /// A number above or equal to zero.
    fn number(&mut self, path: &[Name], value: u64);
    /// A short text, unescaped, at most [`LONGEST_WORD`] bytes of it; `true` is told as a word too.
    fn word(&mut self, path: &[Name], word: &[u8]);
    /// A piece of a text that is counted.
    fn text(&mut self, piece: &[u8]);
}

/// Bytes of a word that are kept.
pub(super) const LONGEST_WORD: usize = 256;

/// Objects within objects that are told apart; deeper ones are passed over.
const DEEPEST: usize = 12;

/// Brackets within brackets; beyond that nothing is read until [`Scan::reset`].
const NESTING: usize = 512;

macro_rules! names {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// A name that means something in one of the formats.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub(super) enum Name { #[default] Other, $($name),* }

        /// All names and their texts.
        const NAMES: &[(Name, &str)] = &[$((Name::$name, $text)),*];

        /// Bytes of the longest name.
        const LONGEST_NAME: usize = {
            let mut longest = 0;
            $(if $text.len() > longest { longest = $text.len(); })*
            longest
        };
    };
}

names! {
    Args = "args", Arguments = "arguments", AudioTokens = "audio_tokens", CacheCreation = "cache_creation",
    CacheCreationInput = "cache_creation_input_tokens", CacheReadInput = "cache_read_input_tokens",
    CacheWriteTokens = "cache_write_tokens", CachedContentTokenCount = "cachedContentTokenCount",
    CachedTokens = "cached_tokens", Candidates = "candidates", CandidatesTokenCount = "candidatesTokenCount",
    CandidatesTokensDetails = "candidatesTokensDetails", Choices = "choices", CompletionTokens = "completion_tokens",
    CompletionTokensDetails = "completion_tokens_details", Content = "content", ContentBlock = "content_block",
    Contents = "contents", Created = "created", Delta = "delta", Done = "done",

    Ephemeral1h = "ephemeral_1h_input_tokens", Ephemeral5m = "ephemeral_5m_input_tokens",
    EvalCount = "eval_count", FinishReason = "finish_reason", FinishReasonGemini = "finishReason",
    Function = "function", FunctionCall = "function_call", FunctionCallGemini = "functionCall",

    FunctionResponse = "functionResponse", Functions = "functions", Id = "id", Images = "images", Index = "index", Input = "input",
    InputTokenDetails = "input_token_details", InputTokens = "input_tokens",
    InputTokensDetails = "input_tokens_details", Instructions = "instructions", InlineData = "inlineData",
    Item = "item", Format = "format", Message = "message", Messages = "messages", MimeType = "mimeType", Modality = "modality", Model = "model",
    ModelVersion = "modelVersion", Named = "name", Output = "output",
    OutputTokenDetails = "output_token_details",
    OutputTokens = "output_tokens", OutputTokensDetails = "output_tokens_details",
    PartialJson = "partial_json", Parts = "parts", Prompt = "prompt", PromptCacheHit = "prompt_cache_hit_tokens",
    PromptEvalCount = "prompt_eval_count", PromptTokenCount = "promptTokenCount", PromptTokens = "prompt_tokens",
    PromptTokensDetails = "prompt_tokens_details", PromptTokensDetailsGemini = "promptTokensDetails",
    Reasoning = "reasoning", ReasoningContent = "reasoning_content", ReasoningTokens = "reasoning_tokens",
    Refusal = "refusal", Requests = "requests", Response = "response", Speaker = "role",
    ResponseFormat = "response_format", SequenceNumber = "sequence_number", ServiceTier = "service_tier",
    StopReason = "stop_reason", Suffix = "suffix", Summary = "summary", System = "system",
    SystemInstruction = "systemInstruction", SystemInstructionSnake = "system_instruction", Template = "template", Text = "text",
    Thinking = "thinking", ThoughtsTokenCount = "thoughtsTokenCount", TokenCount = "tokenCount",
    ToolCalls = "tool_calls", ToolUsePromptTokenCount = "toolUsePromptTokenCount", Tools = "tools",
    TotalTokenCount = "totalTokenCount", TotalTokens = "total_tokens", Type = "type", Usage = "usage",
    UsageMetadata = "usageMetadata", XGroq = "x_groq",
}

/// Places by hash: 1 + index among the names, 0 for none.
const PLACES: [u8; 512] = {
    let mut places = [0_u8; 512];
    let mut index = 0;
    while index < NAMES.len() {
        let mut at = hash(NAMES[index].1.as_bytes());
        while places[at] != 0 {
            at = (at + 1) % places.len();
        }
        #[allow(clippy::cast_possible_truncation)] // far fewer than 255
        let place = index as u8 + 1;
        places[at] = place;
        index += 1;
    }
    places
};

/// Of a text that is not empty.
const fn hash(text: &[u8]) -> usize {
    let (first, middle, last) = (text[0], text[text.len() / 2], text[text.len() - 1]);
    (text.len() * 37 + first as usize * 5 + middle as usize * 11 + last as usize * 17) % 512
}

impl Name {
    fn of(name: &[u8]) -> Self {
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Self::Other;
        }
        let mut at = hash(name);
        while let Some((found, text)) = PLACES[at].checked_sub(1).and_then(|index| NAMES.get(usize::from(index))) {
            if text.as_bytes() == name {
                return *found;
            }
            at = (at + 1) % PLACES.len();
        }
        Self::Other
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Between values.
    #[default]
    Between,
    /// In a name, or what may turn out to be one.
    Name,
    /// In a text that is passed over, told as a word, or counted.
    Skipped,
    Word,
    Text,
    /// In a number, `true`, `null`.
    Scalar(Role),
}

/// Where in the JSON it is.
#[derive(Debug)]
pub(super) struct Scan {
    state: State,
    /// Names of the objects around, innermost last.
    names: [Name; DEEPEST],
    /// Open objects.
    objects: usize,
    /// Open brackets, and which of them are objects: one bit each.
    depth: usize,
    kinds: [u64; NESTING / 64],
    /// A name comes next, not a value.
    name_next: bool,
    /// Told while deeper than this nothing is read, or all is text.
    whole: Option<(usize, Role)>,
    escape: Escape,
    held: [u8; LONGEST_WORD],
    len: usize,
    /// Nested too deeply to follow.
    lost: bool,
}

#[derive(Debug, Clone, Copy, Default)]
enum Escape {
    #[default]
    None,
    /// Behind a backslash.
    Begun,
    /// Within `\uXXXX`: digits so far, and their value.
    Unicode(u8, u16),
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            state: State::Between,
            names: [Name::Other; DEEPEST],
            objects: 0,
            depth: 0,
            kinds: [0; NESTING / 64],
            name_next: false,
            whole: None,
            escape: Escape::None,
            held: [0; LONGEST_WORD],
            len: 0,
            lost: false,
        }
    }
}

impl Scan {
    /// Another text begins.
    pub(super) fn reset(&mut self, reader: &mut impl Reader) {
        // A number may stand at the very end.
        self.end_scalar(reader);
        self.state = State::Between;
        (self.objects, self.depth, self.len) = (0, 0, 0);
        (self.name_next, self.whole, self.escape, self.lost) = (false, None, Escape::None, false);
    }

    /// The next piece of the text.
    pub(super) fn feed(&mut self, mut piece: &[u8], reader: &mut impl Reader) {
        while !self.lost && !piece.is_empty() {
            piece = match self.state {
                State::Between => self.between(piece, reader),
                State::Name | State::Skipped | State::Word | State::Text => self.within_string(piece, reader),
                State::Scalar(role) => self.within_scalar(piece, role, reader),
            };
        }
    }

    fn between<'p>(&mut self, mut piece: &'p [u8], reader: &mut impl Reader) -> &'p [u8] {
        while let Some((first, rest)) = piece.split_first() {
            if !self.takes(*first, reader) {
                return piece;
            }
            piece = rest;
            if self.state != State::Between || self.lost {
                break;
            }
        }
        piece
    }

    /// A byte between values; false when it is the first of a number or a word, and to be looked at again.
    fn takes(&mut self, byte: u8, reader: &mut impl Reader) -> bool {
        match byte {
            b'"' if self.name_next => {
                self.len = 0;
                self.written_out(b'"', reader);
                self.state = State::Name;
            }
            b'"' => {
                let role = self.role(reader);
                self.len = 0;
                self.written_out(b'"', reader);
                self.state = match role {
                    Role::Text | Role::TextOrValue | Role::Written => State::Text,
                    Role::Value => State::Word,
                    Role::Nothing | Role::Never => State::Skipped,
                };
            }
            b'{' | b'[' => self.open(byte == b'{', reader),
            b'}' | b']' => self.close(byte, reader),
            b',' => {
                self.name_next = self.innermost_is_object();
                self.written_out(byte, reader);
            }
            b':' => {
                self.name_next = false;
                self.written_out(byte, reader);
            }
            b' ' | b'\n' | b'\r' | b'\t' => {}
            _ => {
                self.len = 0;
                self.state = State::Scalar(self.role(reader));
                return false;
            }
        }
        true
    }

    fn role(&mut self, reader: &mut impl Reader) -> Role {
        if let Some((_, role)) = self.whole {
            return role;
        }
        match self.names.get(..self.objects) {
            Some(path) => reader.role(path),
            None => Role::Never,
        }
    }

    fn is_written_out(&self) -> bool {
        matches!(self.whole, Some((_, Role::Written)))
    }

    /// A byte of JSON that is itself text.
    fn written_out(&self, byte: u8, reader: &mut impl Reader) {
        if self.is_written_out() {
            reader.text(&[byte]);
        }
    }

    fn innermost_is_object(&self) -> bool {
        let top = self.depth.wrapping_sub(1);
        self.kinds.get(top / 64).is_some_and(|word| word >> (top % 64) & 1 == 1)
    }

    fn open(&mut self, object: bool, reader: &mut impl Reader) {
        let role = self.role(reader);
        if self.whole.is_none() && matches!(role, Role::Never | Role::Written) {
            self.whole = Some((self.depth, role));
        }
        let Some(word) = self.kinds.get_mut(self.depth / 64) else {
            self.lost = true;
            return;
        };
        let bit = 1 << (self.depth % 64);
        *word = if object { *word | bit } else { *word & !bit };
        self.depth += 1;
        self.name_next = object;
        if object {
            if let Some(name) = self.names.get_mut(self.objects) {
                *name = Name::Other;
            }
            self.objects += 1;
        }
        self.written_out(if object { b'{' } else { b'[' }, reader);
    }

    fn close(&mut self, bracket: u8, reader: &mut impl Reader) {
        self.written_out(bracket, reader);
        if self.depth == 0 {
            return;
        }
        if self.innermost_is_object() {
            self.objects -= 1;
        }
        self.depth -= 1;
        self.name_next = false;
        if self.whole.is_some_and(|(depth, _)| depth >= self.depth) {
            self.whole = None;
        }
    }

    fn within_string<'p>(&mut self, piece: &'p [u8], reader: &mut impl Reader) -> &'p [u8] {
        match self.escape {
            Escape::None => {}
            Escape::Begun | Escape::Unicode(..) => return self.escaped(piece, reader),
        }
        let end = quote_or_backslash(piece).unwrap_or(piece.len());
        let (plain, rest) = piece.split_at(end);
        self.said(plain, reader);
        let Some((special, rest)) = rest.split_first() else { return rest };
        if *special == b'\\' {
            self.escape = Escape::Begun;
        } else {
            self.end_string(reader);
        }
        rest
    }

    fn escaped<'p>(&mut self, piece: &'p [u8], reader: &mut impl Reader) -> &'p [u8] {
        let Some((byte, rest)) = piece.split_first() else { return piece };
        match self.escape {
            Escape::Unicode(digits, value) => {
                let digit = char::from(*byte).to_digit(16).and_then(|d| u16::try_from(d).ok()).unwrap_or(0);
                let value = value << 4 | digit;
                if digits < 3 {
                    self.escape = Escape::Unicode(digits + 1, value);
                } else {
                    self.escape = Escape::None;
                    self.unicode(value, reader);
                }
            }
            _ if *byte == b'u' => self.escape = Escape::Unicode(0, 0),
            _ => {
                self.escape = Escape::None;
                let meant = match byte {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'b' => 8,
                    b'f' => 12,
                    other => *other,
                };
                self.said(&[meant], reader);
            }
        }
        rest
    }

    /// Halves of a pair are told as one character of that size: for counting, which of them it is makes no difference.
    fn unicode(&mut self, value: u16, reader: &mut impl Reader) {
        let meant = match value {
            0xd800..=0xdbff => return,
            0xdc00..=0xdfff => '\u{1f600}',
            value => char::from_u32(u32::from(value)).unwrap_or(' '),
        };
        let mut utf8 = [0; 4];
        self.said(meant.encode_utf8(&mut utf8).as_bytes(), reader);
    }

    fn said(&mut self, plain: &[u8], reader: &mut impl Reader) {
        match self.state {
            State::Text if !plain.is_empty() => reader.text(plain),
            State::Name | State::Word => {
                self.hold(plain);
                if self.state == State::Name && self.is_written_out() {
                    reader.text(plain);
                }
            }
            _ => {}
        }
    }

    /// Keeps as much of a name or a word as there is room for.
    fn hold(&mut self, said: &[u8]) {
        let room = self.held.get_mut(self.len..).unwrap_or_default();
        let n = room.len().min(said.len());
        if let (Some(room), Some(said)) = (room.get_mut(..n), said.get(..n)) {
            room.copy_from_slice(said);
        }
        self.len += n;
    }

    fn end_string(&mut self, reader: &mut impl Reader) {
        let state = std::mem::take(&mut self.state);
        let said = self.held.get(..self.len).unwrap_or_default();
        match state {
            State::Name => {
                let name = Name::of(said);
                if let Some(slot) = self.objects.checked_sub(1).and_then(|at| self.names.get_mut(at)) {
                    *slot = name;
                }
                self.written_out(b'"', reader);
                return;
            }
            State::Word => {
                if let Some(path) = self.names.get(..self.objects) {
                    reader.word(path, said);
                }
            }
            _ => {}
        }
        self.written_out(b'"', reader);
    }

    fn within_scalar<'p>(&mut self, piece: &'p [u8], role: Role, reader: &mut impl Reader) -> &'p [u8] {
        let ends = |b: &u8| matches!(b, b',' | b'}' | b']' | b':' | b'"' | b'{' | b'[' | b' ' | b'\n' | b'\r' | b'\t');
        let end = piece.iter().position(ends).unwrap_or(piece.len());
        let (said, rest) = piece.split_at(end);
        if self.is_written_out() {
            reader.text(said);
        }
        if matches!(role, Role::Value | Role::TextOrValue) {
            self.hold(said);
        }
        if !rest.is_empty() {
            self.end_scalar(reader);
        }
        rest
    }

    fn end_scalar(&mut self, reader: &mut impl Reader) {
        let State::Scalar(role) = self.state else { return };
        self.state = State::Between;
        let said = self.held.get(..self.len).unwrap_or_default();
        let Some(path) = self.names.get(..self.objects) else { return };
        if !matches!(role, Role::Value | Role::TextOrValue) || said.is_empty() {
            return;
        }
        match said.first() {
            Some(b'0'..=b'9') => {
                let text = std::str::from_utf8(said).unwrap_or_default();
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range, checked
                let written = || text.parse::<f64>().ok().filter(|n| (0.0..9e15).contains(n)).map(|n| n as u64);
                if let Some(value) = text.parse::<u64>().ok().or_else(written) {
                    reader.number(path, value);
                }
            }
            _ => reader.word(path, said),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default, Debug, PartialEq, Clone)]
    struct Seen {
        values: Vec<(Vec<Name>, String)>,
        text: Vec<u8>,
    }

    impl Reader for Seen {
        fn role(&mut self, path: &[Name]) -> Role {
            match path {
                [.., Name::Text] => Role::Text,
                [.., Name::Arguments] => Role::Written,
                [.., Name::Delta] => Role::Never,
                [.., Name::Model | Name::InputTokens | Name::Done] => Role::Value,
                _ => Role::Nothing,
            }
        }
        fn number(&mut self, path: &[Name], value: u64) {
            self.values.push((path.to_vec(), value.to_string()));
        }
        fn word(&mut self, path: &[Name], word: &[u8]) {
            self.values.push((path.to_vec(), String::from_utf8_lossy(word).into_owned()));
        }
        fn text(&mut self, piece: &[u8]) {
            self.text.extend_from_slice(piece);
        }
    }

    fn read(pieces: &[&[u8]]) -> Seen {
        let (mut scan, mut seen) = (Scan::default(), Seen::default());
        for piece in pieces {
            scan.feed(piece, &mut seen);
        }
        scan.reset(&mut seen);
        seen
    }

    const JSON: &str = r#" {"model" : "a\"bé" , "usage":{"input_tokens":12,"x":[{"model":"in"},{"y":1}],"input_tokens": 1.9e1},
        "delta":{"model":"no","text":"no"}, "text":"one\n\u00e9\ud83d\ude00", "choices":[{"text":["two","é"]},{"arguments":{"a b":[1,true,"x\"y"]}}],
        "done":true,"model":null} "#;

    #[test]
    fn values_and_texts_are_told_with_their_places() {
        let seen = read(&[JSON.as_bytes()]);
        let values: Vec<_> = seen.values.iter().map(|(p, v)| (p.as_slice(), v.as_str())).collect();
        assert_eq!(
            values,
            [
                (&[Name::Model][..], "a\"bé"),
                (&[Name::Usage, Name::InputTokens], "12"),
                (&[Name::Usage, Name::Other, Name::Model], "in"),
                (&[Name::Usage, Name::InputTokens], "19"),
                (&[Name::Done], "true"),
                (&[Name::Model], "null"),
            ]
        );
        assert_eq!(String::from_utf8_lossy(&seen.text), "one\né😀twoé{\"a b\":[1,true,\"x\"y\"]}");
    }

    #[test]
    fn a_text_may_be_cut_anywhere() {
        let (json, whole) = (JSON.as_bytes(), read(&[JSON.as_bytes()]));
        for at in 0..json.len() {
            assert_eq!(read(&[&json[..at], &json[at..]]), whole, "{at}");
        }
        assert_eq!(read(&json.chunks(1).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn every_name_is_found() {
        for (name, text) in NAMES {
            assert_eq!(Name::of(text.as_bytes()), *name);
        }
        for other in ["", "x", "usages", "Usage", "a name that is longer than all of those that are known"] {
            assert_eq!(Name::of(other.as_bytes()), Name::Other);
        }
    }

    #[test]
    fn nesting_is_followed_or_passed_over() {
        let deep = |n: usize| format!("{}\"model\":\"m\"{}", "{\"x\":".repeat(n - 1) + "{", "}".repeat(n));
        assert_eq!(read(&[deep(DEEPEST).as_bytes()]).values.len(), 1);
        assert_eq!(read(&[deep(DEEPEST + 1).as_bytes()]).values.len(), 0);
        let lost = format!("[{},{{\"model\":\"m\"}}]", "[".repeat(5000));
        assert_eq!(read(&[lost.as_bytes()]).values.len(), 0);
        let behind = format!("{{\"x\":{}{},\"model\":\"m\"}}", "[".repeat(400), "]".repeat(400));
        assert_eq!(read(&[behind.as_bytes()]).values.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_and_cut_alike(bytes in prop::collection::vec(prop_oneof![
            Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'), Just(b':'), Just(b','), Just(b'u'), any::<u8>()
        ], 0..80), at in 0_usize..80) {
            let mut json = b"{\"model\":\"m\",\"text\":".to_vec();
            json.extend(bytes);
            let at = at.min(json.len());
            prop_assert_eq!(read(&[&json[..at], &json[at..]]), read(&[&json]));
        }
    }
}
