//! What a model can do, by its id: an embedded table with a date, and entries of the file before it.
//!
//! Upstreams in the OpenAI format list nothing but ids; Ollama's clients want the context length, the capabilities, the
//! family. The table (`model_table.txt`, which says its columns and sources) answers for the models in wide use. For an id
//! that no line fits, the answer is careful: [`UNKNOWN_CONTEXT`] tokens, tools but neither images nor thinking.

use std::sync::LazyLock;

use super::model_glob::glob;

/// The day on which the embedded table was made.
pub const AS_OF: &str = "2026-11-21";

/// Unix time of [`AS_OF`]: stands in for the day on which a model was made, where the upstream does not tell.
pub const AS_OF_UNIX: i64 = 1_795_219_200;

/// For ids that no line fits. VS Code Copilot assumes the same when it is told nothing.
pub const UNKNOWN_CONTEXT: u64 = 32_768;

/// For ids that no line fits.
pub const UNKNOWN_OUTPUT: u64 = 4_096;

/// What a model can do. Text completion is one of them; an embedding model lacks it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u8);

impl Capabilities {
    pub const COMPLETION: Self = Self(1);
    pub const TOOLS: Self = Self(2);
    pub const VISION: Self = Self(4);
    pub const EMBEDDING: Self = Self(8);
    pub const THINKING: Self = Self(16);
    pub const INSERT: Self = Self(32);
    pub const AUDIO: Self = Self(64);

    /// In the order in which Ollama lists them, under Ollama's names.
    const NAMES: [(Self, &str); 7] = [
        (Self::COMPLETION, "completion"),
        (Self::TOOLS, "tools"),
        (Self::INSERT, "insert"),
        (Self::VISION, "vision"),
        (Self::EMBEDDING, "embedding"),
        (Self::THINKING, "thinking"),
        (Self::AUDIO, "audio"),
    ];

    /// One capability by its name; `None` when there is no such name.
    pub fn named(word: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, name)| *name == word).map(|(one, _)| *one)
    }

    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(one, _)| self.has(*one)).map(|(_, name)| *name)
    }

    /// All names there are, for messages.
    pub fn all_names() -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().map(|(_, name)| *name)
    }
}

/// What is known of one model. Texts are empty and numbers `None` where nobody published them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// A line of the table, or an entry that says its capabilities, fits the id. Nothing is refused for the others.
    pub known: bool,
    pub architecture: &'a str,
    pub family: &'a str,
    /// Longest prompt in tokens; prompt and answer together where the provider counts so.
    pub context: u64,
    /// Longest answer, in tokens; 0 for an embedding model.
    pub output: u64,
    pub capabilities: Capabilities,
    /// Of an embedding, or of the hidden state.
    pub embedding_length: Option<u64>,
    /// As `70.6B`.
    pub parameter_size: &'a str,
    /// As `Q4_K_M`.
    pub quantization: &'a str,
    /// Shown to a person; the id where there is none.
    pub display: &'a str,
    pub asks: Asks,
}

impl Facts<'_> {
    /// The number that `parameter_size` stands for; 0 when it is not known.
    pub fn parameter_count(&self) -> u64 {
        parameter_count(self.parameter_size)
    }
}

/// How a model wants to be asked in the OpenAI format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// The words that `reasoning_effort` may be, from little to much; none: it is not sent.
    pub efforts: Efforts,
    /// The `reasoning_effort` that means: do not think. `None`: nothing is sent.
    pub effort_off: Option<&'static str>,
    /// `max_completion_tokens` in place of `max_tokens`.
    pub max_completion_tokens: bool,
    /// Refuses `temperature` (but 1), `top_p` and penalties.
    pub no_sampling: bool,
    /// Refuses `stop` and `logprobs`.
    pub no_stop: bool,
}

/// Words of `reasoning_effort`, from little to much, with a `/` between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Efforts(&'static str);

impl Efforts {
    const LEVELS: [&'static str; 3] = ["low", "medium", "high"];
    /// What most models take. For unknown models they are sent when a client asks for thinking.
    const ALL: Self = Self("low/medium/high");

    /// The word for a wanted `low`, `medium` or `high`: itself, else the next that is more, else the most there is.
    pub fn nearest(self, wanted: &str) -> Option<&'static str> {
        let rank = |word: &str| Self::LEVELS.iter().position(|level| *level == word);
        let words = || self.0.split('/').filter(|word| !word.is_empty());
        words().find(|word| rank(word) >= rank(wanted)).or(words().next_back())
    }
}

/// An entry of the file: what it says of the models that its glob fits; `None` leaves it to the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// `*` any run, `?` one character. Compared with the whole id, and with what follows its last `/`.
    pub glob: String,
    pub context: Option<u64>,
    pub output: Option<u64>,
    pub capabilities: Option<Capabilities>,
    pub family: Option<String>,
    pub parameter_size: Option<String>,
    pub quantization: Option<String>,
    pub embedding_length: Option<u64>,
    pub display: Option<String>,
}

/// The embedded table behind the entries of a file.
#[derive(Clone, Debug, Default)]
pub struct ModelTable {
    entries: Vec<Entry>,
    /// Names that stand for other models.
    names: Vec<(String, String)>,
}

impl ModelTable {
    /// `entries` in the file's order: of two that say the same thing, the first that fits counts.
    pub fn new(entries: Vec<Entry>) -> Self {
        Self { entries, names: Vec::new() }
    }

    /// The table where names stand for other models: what is known of those is known of the names, but for the shown name.
    #[must_use]
    pub fn with_names<'n>(&self, names: impl IntoIterator<Item = (&'n str, &'n str)>) -> Self {
        let names = names.into_iter().map(|(name, model)| (name.to_owned(), model.to_owned())).collect();
        Self { entries: self.entries.clone(), names }
    }

    /// What is known of the model `id`. A vendor's prefix (`openai/gpt-4o`) and the tag `:latest` do not matter.
    pub fn get<'a>(&'a self, id: &'a str) -> Facts<'a> {
        self.get_with(id, |_| {})
    }

    /// The same, with what somebody else tells of the model laid over the table and under the entries of the file.
    pub fn get_with<'a>(&'a self, id: &'a str, told: impl FnOnce(&mut Facts<'a>)) -> Facts<'a> {
        let id = id.strip_suffix(":latest").unwrap_or(id);
        let model = self.names.iter().find(|(name, _)| name == id).map_or(id, |(_, model)| model.as_str());
        let mut facts = embedded(model);
        told(&mut facts);
        // From the last to the first, so that the first has the last word.
        for entry in self.entries.iter().rev().filter(|entry| fits(&entry.glob, model)) {
            entry.lay_over(&mut facts);
        }
        if model != id {
            facts.display = id;
            for entry in self.entries.iter().rev().filter(|entry| fits(&entry.glob, id)) {
                entry.lay_over(&mut facts);
            }
        }
        facts
    }
}

impl Entry {
    fn lay_over<'a>(&'a self, facts: &mut Facts<'a>) {
        set(&mut facts.context, self.context);
        set(&mut facts.output, self.output);
        set(&mut facts.family, self.family.as_deref());
        set(&mut facts.architecture, self.family.as_deref());
        set(&mut facts.parameter_size, self.parameter_size.as_deref());
        set(&mut facts.quantization, self.quantization.as_deref());
        set(&mut facts.display, self.display.as_deref());
        facts.embedding_length = self.embedding_length.or(facts.embedding_length);
        if let Some(capabilities) = self.capabilities {
            facts.capabilities = capabilities;
            facts.known = true;
        }
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

struct Row {
    glob: &'static str,
    /// The glob up to its first wildcard: tells most rows that do not fit at a glance.
    prefix: &'static str,
    facts: Facts<'static>,
}

/// Rows, the most telling glob first.
static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let mut rows: Vec<Row> = include_str!("model_table.txt").lines().filter_map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(telling(row.glob)));
    rows
});

/// Characters outside wildcards; a glob without any wildcard says more than one of the same length with.
fn telling(glob: &str) -> usize {
    let wild = glob.bytes().filter(|c| matches!(c, b'*' | b'?')).count();
    2 * (glob.len() - wild) + usize::from(wild == 0)
}

fn embedded(id: &str) -> Facts<'_> {
    let lower = id.to_ascii_lowercase();
    let last = lower.rsplit_once('/').map_or("", |(_, last)| last);
    let begins = |row: &&Row| lower.starts_with(row.prefix) || last.starts_with(row.prefix);
    let found = ROWS.iter().filter(begins).find(|row| fits(row.glob, &lower));
    let mut facts = found.map_or(UNKNOWN, |row| row.facts);
    if facts.display.is_empty() {
        facts.display = id;
    }
    facts
}

fn fits(pattern: &str, id: &str) -> bool {
    glob(pattern, id) || id.rsplit_once('/').is_some_and(|(_, last)| glob(pattern, last))
}

const UNKNOWN: Facts<'static> = Facts {
    known: false,
    architecture: "unknown",
    family: "unknown",
    context: UNKNOWN_CONTEXT,
    output: UNKNOWN_OUTPUT,
    capabilities: Capabilities(Capabilities::COMPLETION.0 | Capabilities::TOOLS.0),
    embedding_length: None,
    parameter_size: "",
    quantization: "",
    display: "",
    asks: Asks {
        efforts: Efforts::ALL,
        effort_off: None,
        max_completion_tokens: false,
        no_sampling: false,
        no_stop: false,
    },
};

/// `None` for a comment or an empty line; a test sees to it that every other line is one.
fn row(line: &'static str) -> Option<Row> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    let glob = word(&mut rest)?;
    let context = word(&mut rest)?.parse().ok()?;
    let output = number(word(&mut rest)?)?;
    let capabilities = capabilities(word(&mut rest)?)?;
    let asks = asks(word(&mut rest)?)?;
    let architecture = word(&mut rest)?;
    let parameter_size = text(word(&mut rest)?);
    let embedding_length = Some(number(word(&mut rest)?)?).filter(|length| *length > 0);
    let display = text(rest);
    let facts = Facts {
        known: true,
        architecture,
        family: architecture,
        context,
        output,
        capabilities,
        embedding_length,
        parameter_size,
        quantization: "",
        display,
        asks,
    };
    let prefix = glob.split(['*', '?']).next().unwrap_or_default();
    Some(Row { glob, prefix, facts })
}

/// Takes a word and the spaces behind it off `rest`.
fn word(rest: &mut &'static str) -> Option<&'static str> {
    let (word, behind) = rest.split_once(' ')?;
    *rest = behind.trim_start();
    Some(word)
}

fn text(word: &str) -> &str {
    if word == "-" { "" } else { word }
}

/// `-` is zero.
fn number(word: &str) -> Option<u64> {
    if word == "-" { Some(0) } else { word.parse().ok() }
}

fn capabilities(words: &str) -> Option<Capabilities> {
    let mut all = Capabilities::default();
    for word in words.split(',').filter(|word| *word != "-") {
        all = all.with(Capabilities::named(word)?);
    }
    Some(if all.has(Capabilities::EMBEDDING) { all } else { all.with(Capabilities::COMPLETION) })
}

fn asks(words: &'static str) -> Option<Asks> {
    let mut asks = Asks::default();
    for word in words.split(',').filter(|word| *word != "-") {
        match word.split_once('=') {
            None if word == "effort" => asks.efforts = Efforts::ALL,
            None if word == "max_completion_tokens" => asks.max_completion_tokens = true,
            None if word == "no_sampling" => asks.no_sampling = true,
            None if word == "no_stop" => asks.no_stop = true,
            Some(("effort", words)) => asks.efforts = Efforts(words),
            Some(("off", word)) => asks.effort_off = Some(word),
            _ => return None,
        }
    }
    Some(asks)
}

/// `8.0B` is 8,000,000,000; 0 for what is not such a text.
fn parameter_count(size: &str) -> u64 {
    let Some((last, unit)) = size.char_indices().next_back() else { return 0 };
    let zeros: u32 = match unit.to_ascii_uppercase() {
        'K' => 3,
        'M' => 6,
        'B' => 9,
        'T' => 12,
        _ => return 0,
    };
    let (whole, part) = size[..last].split_once('.').unwrap_or((&size[..last], ""));
    let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > zeros as usize {
        return 0;
    }
    let scale = 10_u64.pow(zeros);
    let whole = whole.parse::<u64>().unwrap_or(0).saturating_mul(scale);
    let part = part.parse::<u64>().unwrap_or(0) * scale / 10_u64.pow(u32::try_from(part.len()).unwrap_or(0));
    whole.saturating_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        let lines = include_str!("model_table.txt").lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let row = row(line).unwrap_or_else(|| panic!("not a row: {line}"));
            let facts = row.facts;
            assert_eq!(row.glob, row.glob.to_ascii_lowercase(), "{line}");
            assert!(facts.context >= facts.output, "{line}");
            assert_eq!(facts.output == 0, facts.capabilities.has(Capabilities::EMBEDDING), "{line}");
            assert!(facts.parameter_size.is_empty() || facts.parameter_count() > 0, "{line}");
            let words = facts.asks.efforts.0.split('/').filter(|word| !word.is_empty());
            assert!(
                words.clone().is_sorted_by_key(|word| Efforts::LEVELS.iter().position(|level| *level == word)),
                "{line}"
            );
            assert!(words.clone().all(|word| Efforts::LEVELS.contains(&word)), "{line}");
            assert!(facts.asks.effort_off.is_none_or(|word| ["none", "minimal", "low"].contains(&word)), "{line}");
        }
        let mut globs: Vec<&str> = ROWS.iter().map(|row| row.glob).collect();
        let all = globs.len();
        globs.sort_unstable();
        globs.dedup();
        assert_eq!(globs.len(), all, "a glob stands twice");
        assert!(include_str!("model_table.txt").contains(&format!("As of {AS_OF}.")));
    }

    #[test]
    fn the_most_telling_line_wins() {
        let table = ModelTable::default();
        for (id, name, context) in [
            ("gpt-5", "GPT-5", 272_000),
            ("gpt-5-2025-08-07", "GPT-5", 272_000),
            ("GPT-5-Mini", "GPT-5 mini", 272_000),
            ("gpt-5.1-chat-latest", "GPT-5.1 Chat", 128_000),
            ("openai/gpt-4o-mini", "GPT-4o mini", 128_000),
            ("gpt-4", "GPT-4", 8_192),
            ("gpt-4-0125-preview", "GPT-4 preview", 128_000),
            ("anthropic/claude-sonnet-4-5-20250929", "Claude Sonnet 4.5", 200_000),
            ("us.anthropic.claude-opus-4-7-v1:0", "Claude Opus 4.7", 1_000_000),
            ("claude-sonnet-5", "Claude Sonnet 5", 1_000_000),
            ("meta-llama/Llama-3.1-8B-Instruct", "Llama 3.1 8B", 131_072),
            ("llama3.1:latest", "Llama 3.1", 131_072),
            ("accounts/fireworks/models/llama-v3p1-8b-instruct", "Llama", 8_192),
            ("Qwen/Qwen2.5-Coder-7B-Instruct", "Qwen2.5 Coder 7B", 32_768),
            ("models/gemini-2.5-flash-lite", "Gemini 2.5 Flash-Lite", 1_048_576),
            ("text-embedding-3-small", "text-embedding-3-small", 8_191),
            ("openai/gpt-oss-120b", "gpt-oss 120B", 131_072),
        ] {
            let facts = table.get(id);
            assert_eq!((facts.display, facts.context, facts.known), (name, context, true), "{id}");
        }
    }

    #[test]
    fn an_unknown_model_is_described_with_care() {
        let table = ModelTable::default();
        let facts = table.get("acme/house-model:latest");
        assert!(!facts.known);
        assert_eq!((facts.context, facts.output, facts.display), (32_768, 4_096, "acme/house-model"));
        assert_eq!(facts.capabilities.names().collect::<Vec<_>>(), ["completion", "tools"]);
        let by_name = table.get("house-embedder");
        assert_eq!(by_name.capabilities.names().collect::<Vec<_>>(), ["embedding"]);
        assert_eq!(by_name.display, "house-embedder");
    }

    #[test]
    fn a_name_is_described_as_the_model_it_stands_for() {
        let entry = |glob: &str, context| Entry { glob: glob.into(), context: Some(context), ..Entry::default() };
        let table = ModelTable::new(vec![entry("gpt-4", 9), entry("smart", 7)]);
        let named = table.with_names([("old", "gpt-4"), ("smart", "gpt-4"), ("fast", "gpt-4o-mini")]);
        let told = |name| (named.get(name).context, named.get(name).display.to_owned());
        assert_eq!(told("fast:latest"), (128_000, "fast".to_owned()));
        assert_eq!(told("old"), (9, "old".to_owned()));
        assert_eq!(told("smart"), (7, "smart".to_owned()));
        assert_eq!(named.get("fast").asks, table.get("gpt-4o-mini").asks);
        assert_eq!(named.get("gpt-4"), table.get("gpt-4"));
    }

    #[test]
    fn entries_of_the_file_come_first() {
        let entry = |glob: &str, context| Entry { glob: glob.into(), context, ..Entry::default() };
        let mut own = entry("house-*", Some(64_000));
        own.capabilities = Some(Capabilities::COMPLETION.with(Capabilities::VISION));
        own.family = Some("house".into());
        let table = ModelTable::new(vec![entry("house-large", Some(128_000)), own, entry("gpt-4o", Some(9))]);
        let large = table.get("acme/house-large");
        assert_eq!((large.context, large.family, large.known), (128_000, "house", true));
        assert!(large.capabilities.has(Capabilities::VISION) && !large.capabilities.has(Capabilities::TOOLS));
        // What an entry leaves open the table tells.
        let known = table.get("gpt-4o");
        assert_eq!((known.context, known.output, known.display), (9, 16_384, "GPT-4o"));
        assert_eq!(table.get("gpt-4o-mini").context, 128_000);
    }

    #[test]
    fn the_nearest_effort_is_asked_for() {
        for (words, wanted, sent) in [
            ("low/medium/high", "medium", Some("medium")),
            ("low/high", "medium", Some("high")),
            ("low/high", "low", Some("low")),
            ("high", "low", Some("high")),
            ("low", "high", Some("low")),
            ("", "high", None),
        ] {
            assert_eq!(Efforts(words).nearest(wanted), sent, "{words} {wanted}");
        }
        let table = ModelTable::default();
        assert_eq!(table.get("mistral-large-latest").asks.efforts.nearest("low"), None);
        assert_eq!(table.get("mistral-medium-latest").asks.efforts.nearest("medium"), Some("high"));
    }

    #[test]
    fn parameter_sizes_are_numbers() {
        for (size, count) in [
            ("8.0B", 8_000_000_000),
            ("999.9M", 999_900_000),
            ("1.0T", 1_000_000_000_000),
            ("", 0),
            ("B", 0),
            ("x8B", 0),
        ] {
            assert_eq!(parameter_count(size), count, "{size}");
        }
        assert_eq!(parameter_count("99999999999999999999T"), 0);
    }
}
