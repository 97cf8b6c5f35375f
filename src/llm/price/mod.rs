//! What calls cost: an embedded table of prices with a date, and lines of the file before it.
//!
//! Money is counted in whole billionths of a dollar ([`Nano`]); prices are dollars for a million tokens, kept in
//! millionths, which is a whole number of picodollars for one token. A call's parts are added up exactly and rounded up
//! once, to the next nanodollar: what is charged never falls short of the price, and exceeds it by less than a
//! billionth of a dollar a call.
//!
//! A model without a price costs `None`, which is not zero: nobody knows what it costs.

mod line;
mod nano;
mod table;

use std::sync::{Arc, LazyLock};

pub use line::{Line, LineError, Rate, Service};
pub use nano::Nano;

use super::model_glob;
use super::usage::Tokens;

/// The day on which the embedded table was made.
pub const AS_OF: &str = "2026-11-21";

/// Under which terms a call was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    pub service: Service,
}

/// The embedded table behind the lines of a file.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    /// One a model (or glob of models), in the file's order: the first that fits counts, and it alone.
    own: Vec<Tariff>,
}

/// All lines of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tariff {
    model: String,
    lines: Vec<Line>,
}

impl Prices {
    /// The embedded table alone.
    #[must_use]
    pub fn embedded() -> Arc<Self> {
        static EMBEDDED: LazyLock<Arc<Prices>> = LazyLock::new(Arc::default);
        Arc::clone(&EMBEDDED)
    }

    /// These prices with lines of the file before them. The lines of one model belong together, wherever they stand.
    #[must_use]
    pub fn with(&self, lines: impl IntoIterator<Item = Line>) -> Self {
        let mut own = gather(lines);
        own.extend(self.own.iter().cloned());
        Self { own }
    }

    /// What a call costs; `None` when no price is known of the model.
    #[must_use]
    pub fn cost(&self, model: &str, tokens: &Tokens, terms: Terms) -> Option<Nano> {
        let tariff = self.own.iter().find(|tariff| fits(&tariff.model, model));
        tariff.or_else(|| table::find(model)).and_then(|tariff| tariff.cost(tokens, terms))
    }

    /// Whether a price of this model is known.
    #[must_use]
    pub fn knows(&self, model: &str) -> bool {
        self.own.iter().any(|tariff| fits(&tariff.model, model)) || table::find(model).is_some()
    }
}

fn gather(lines: impl IntoIterator<Item = Line>) -> Vec<Tariff> {
    let mut out: Vec<Tariff> = Vec::new();
    for line in lines {
        match out.iter_mut().find(|tariff| tariff.model == line.model) {
            Some(tariff) => tariff.lines.push(line),
            None => out.push(Tariff { model: line.model.clone(), lines: vec![line] }),
        }
    }
    out
}

fn fits(pattern: &str, model: &str) -> bool {
    model_glob::matches(pattern, model)
        || model.rsplit_once('/').is_some_and(|(_, last)| model_glob::matches(pattern, last))
}

impl Tariff {
    /// The line for this length of input under this service; what has no line of its own costs what others do.
    fn line(&self, input: u64, service: Service) -> Option<&Line> {
        let within = || self.lines.iter().filter(|line| line.above == 0 || input > line.above);
        let above = within().map(|line| line.above).max()?;
        let step = |service| within().find(move |line| line.above == above && line.service == service);
        step(service).or_else(|| step(Service::Standard)).or_else(|| within().max_by_key(|line| line.rate.input))
    }

    fn cost(&self, tokens: &Tokens, terms: Terms) -> Option<Nano> {
        Some(self.line(tokens.input, terms.service)?.rate.cost(tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Line {
        Line::parse(&line.split(' ').collect::<Vec<_>>()).unwrap()
    }

    fn dollars(model: &str, tokens: Tokens) -> String {
        let cost = Prices::embedded().cost(model, &tokens, Terms::default());
        cost.map_or_else(|| "unknown".to_owned(), |cost| cost.to_string())
    }

    const MILLION: u64 = 1_000_000;

    #[test]
    fn each_part_of_a_call_is_charged_once() {
        // OpenAI: cached tokens are part of the prompt, reasoning is part of the output.
        let openai = Tokens { input: 10_000, cached: 8_000, output: 1_000, reasoning: 600, ..Tokens::default() };
        // 2,000 · 2.50 + 8,000 · 1.25 + 1,000 · 10
        assert_eq!(dollars("gpt-4o", openai), "0.025");
        // Anthropic: 1,000 fresh + 5,000 read + 2,000 written + 3,000 written for an hour.
        let anthropic = Tokens {
            input: 11_000,
            cached: 5_000,
            cache_write: 2_000,
            cache_write_1h: 3_000,
            output: 100,
            ..Tokens::default()
        };
        // 1,000 · 3 + 5,000 · 0.30 + 2,000 · 3.75 + 3,000 · 6 + 100 · 15
        assert_eq!(dollars("claude-sonnet-4-5-20250929", anthropic), "0.0315");
        // Sound is charged by its own price.
        let sound = Tokens { input: 300, audio_input: 100, output: 50, audio_output: 40, ..Tokens::default() };
        // 200 · 2.50 + 100 · 32 + 10 · 10 + 40 · 64
        assert_eq!(dollars("gpt-audio", sound), "0.00636");
        assert_eq!(dollars("text-embedding-3-small", Tokens { input: MILLION, ..Tokens::default() }), "0.02");
    }

    #[test]
    fn a_long_input_is_charged_by_the_line_for_long_ones() {
        let tokens = |input| Tokens { input, output: 1_000, ..Tokens::default() };
        assert_eq!(dollars("gemini-2.5-pro", tokens(200_000)), "0.26");
        // All of it: 200,001 · 2.50 + 1,000 · 15
        assert_eq!(dollars("gemini-2.5-pro", tokens(200_001)), "0.5150025");
        assert_eq!(dollars("qwen3-max", tokens(33_000)), "0.0912");
    }

    #[test]
    fn services_have_prices_of_their_own() {
        let tokens = Tokens { input: MILLION / 10, output: 1_000, ..Tokens::default() };
        let cost = |model, service| Prices::embedded().cost(model, &tokens, Terms { service }).unwrap().to_string();
        assert_eq!(cost("gpt-5", Service::Standard), "0.135");
        assert_eq!(cost("gpt-5", Service::Flex), "0.0675");
        assert_eq!(cost("gpt-5", Service::Batch), "0.0675");
        assert_eq!(cost("gpt-5", Service::Priority), "0.27");
        // Without a line for it, what others pay.
        assert_eq!(cost("gpt-5-pro", Service::Priority), cost("gpt-5-pro", Service::Standard));
    }

    #[test]
    fn names_in_every_guise_have_the_price_of_their_model() {
        let tokens = Tokens { input: MILLION, ..Tokens::default() };
        for (model, cost) in [
            ("gpt-4o", "2.5"),
            ("GPT-4o", "2.5"),
            ("openai/gpt-4o", "2.5"),
            ("gpt-4o-2024-08-06", "2.5"),
            ("gpt-4o-2024-05-13", "5"),
            ("claude-opus-4-7-20260416", "5"),
            ("anthropic/claude-opus-4-7", "5"),
            ("claude-opus-4-7@20260416", "5"),
            ("us.anthropic.claude-opus-4-7", "5.5"),
            ("models/gemini-2.5-flash", "0.3"),
            ("mistral-small-latest", "0.15"),
            ("gpt-5.2-2025-12-11", "1.75"),
            ("gpt-4o-mini:latest", "0.15"),
            // Prices of what anybody may serve are not known.
            ("llama3.1", "unknown"),
            ("acme/gpt-4o", "unknown"),
            ("gpt-4oo", "unknown"),
            ("", "unknown"),
            ("-latest", "unknown"),
        ] {
            assert_eq!(dollars(model, tokens), cost, "{model}");
        }
    }

    #[test]
    fn lines_of_the_file_come_first() {
        let own = ["llama* in 0 out 0", "gpt-4o in 1", "house-? in 2 out 3", "gpt-4o above 100 in 4"].map(words);
        let prices = Prices::embedded().with(own);
        let cost = |model: &str, input| {
            let tokens = Tokens { input, output: 1_000, ..Tokens::default() };
            prices.cost(model, &tokens, Terms::default()).map(|cost| cost.to_string())
        };
        // Free on purpose is zero, and known.
        assert_eq!(cost("meta-llama/llama-3", MILLION).as_deref(), Some("0"));
        assert_eq!(cost("acme/house-x", 100).as_deref(), Some("0.0032"));
        // The table's own line of a model does not shine through: its output is free now.
        assert_eq!(cost("gpt-4o", 100).as_deref(), Some("0.0001"));
        assert_eq!(cost("gpt-4o", 101).as_deref(), Some("0.000404"));
        assert_eq!(cost("gpt-4o-mini", 0).as_deref(), Some("0.0006"));
        assert!(prices.knows("house-1") && !prices.knows("house-10"));
        let inner = prices.with([words("gpt-4o in 9")]);
        assert_eq!(
            inner.cost("gpt-4o", &Tokens { input: MILLION, ..Tokens::default() }, Terms::default()),
            Some(Nano(9_000_000_000))
        );
    }

    #[test]
    fn parts_that_exceed_the_whole_and_absurd_counts_do_no_harm() {
        let tokens = Tokens { input: 5, cached: 10, output: 1, reasoning: 7, ..Tokens::default() };
        // All of the ten were read from the cache; nothing is taken off below zero.
        assert_eq!(dollars("gpt-4o", tokens), "0.0000225");
        let absurd = Tokens { input: u64::MAX, output: u64::MAX, cached: u64::MAX, ..Tokens::default() };
        assert_eq!(Prices::embedded().cost("o1-pro", &absurd, Terms::default()), Some(Nano::MOST));
    }

    #[test]
    fn a_cost_is_rounded_up_once() {
        let prices = Prices::default().with([words("m in 0.0001 out 0.0001")]);
        let cost = |input, output| {
            prices.cost("m", &Tokens { input, output, ..Tokens::default() }, Terms::default()).unwrap().0
        };
        // A tenth of a nanodollar a token.
        assert_eq!([cost(0, 0), cost(1, 0), cost(5, 5), cost(6, 5), cost(10, 10)], [0, 1, 1, 2, 2]);
    }
}
