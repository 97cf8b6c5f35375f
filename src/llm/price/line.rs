//! One line of prices, in the words of the option `price`.

use super::super::usage::Tokens;
use super::Nano;
use super::nano::decimal;

/// Most dollars for a million tokens: beyond is a slip of the pen.
const MOST: u64 = 100_000;

/// Picodollars for a token, which are millionths of a dollar for a million tokens. `None`: as [`Rate::cost`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    pub input: u64,
    pub cached: Option<u64>,
    pub write: Option<u64>,
    pub write_1h: Option<u64>,
    pub audio_input: Option<u64>,
    pub output: u64,
    pub reasoning: Option<u64>,
    pub audio_output: Option<u64>,
}

/// Which of a provider's services served a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    #[default]
    Standard,
    Batch,
    Flex,
    Priority,
}

impl Service {
    const WORDS: [(&'static str, Self); 3] =
        [("batch", Self::Batch), ("flex", Self::Flex), ("priority", Self::Priority)];

    /// From the word of a price line or of an answer's `service_tier`; the standard one for any other word.
    #[must_use]
    pub fn named(word: &str) -> Self {
        Self::WORDS.iter().find(|(name, _)| *name == word).map_or(Self::Standard, |(_, service)| *service)
    }
}

/// What a model costs, from some length of input on, under one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The model's id, or a glob of ids.
    pub model: String,
    /// For calls whose input has more tokens than this; 0 = all.
    pub above: u64,
    pub service: Service,
    pub rate: Rate,
}

/// What is wrong with a line of prices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// Index of the word that is wrong; of the last one, where a word is missing.
    pub word: usize,
    pub message: String,
}

impl Line {
    /// The words that name a price.
    pub const PARTS: [&'static str; 8] =
        ["in", "cached", "write", "write_1h", "audio_in", "out", "reasoning", "audio_out"];

    /// `MODEL [above N] [batch|flex|priority] in N [cached N] …`, after the word `price`.
    pub fn parse(words: &[&str]) -> Result<Self, LineError> {
        let error = |word: usize, message: String| LineError { word, message };
        let Some((model, _)) = words.split_first() else {
            return Err(error(0, "a price needs a model".to_owned()));
        };
        if model.is_empty() {
            return Err(error(0, "the model has no name".to_owned()));
        }
        let mut line = Self { model: (*model).to_owned(), above: 0, service: Service::Standard, rate: Rate::default() };
        let mut given: Vec<&str> = Vec::new();
        let mut at = 1;
        while let Some(&name) = words.get(at) {
            let once = if Service::named(name) == Service::Standard { name } else { "service" };
            if given.contains(&once) {
                return Err(error(at, format!("`{name}` stands here twice")));
            }
            given.push(once);
            if once == "service" {
                line.service = Service::named(name);
                at += 1;
                continue;
            }
            if name != "above" && !Self::PARTS.contains(&name) {
                let parts = Self::PARTS.map(|part| format!("`{part}`")).join(", ");
                let message = format!("`{name}` is no part of a price: {parts}, `above`, `batch`, `flex`, `priority`");
                return Err(error(at, message));
            }
            let Some(&value) = words.get(at + 1) else {
                return Err(error(at, format!("`{name}` needs a number")));
            };
            line.set(name, value).map_err(|message| error(at + 1, message))?;
            at += 2;
        }
        if !given.contains(&"in") {
            return Err(error(words.len() - 1, "the price of the input is missing: `in` and a number".to_owned()));
        }
        Ok(line)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        if name == "above" {
            self.above = value
                .parse()
                .ok()
                .filter(|n| *n > 0 && *n <= 1_000_000_000)
                .ok_or_else(|| format!("`{value}` is not a number of tokens"))?;
            return Ok(());
        }
        let price = decimal(value, 6)
            .filter(|price| *price <= MOST * 1_000_000)
            .ok_or_else(|| format!("`{value}` is not a price in dollars for a million tokens, such as `2.5`"))?;
        match name {
            "in" => self.rate.input = price,
            "cached" => self.rate.cached = Some(price),
            "write" => self.rate.write = Some(price),
            "write_1h" => self.rate.write_1h = Some(price),
            "audio_in" => self.rate.audio_input = Some(price),
            "out" => self.rate.output = price,
            "reasoning" => self.rate.reasoning = Some(price),
            _ => self.rate.audio_output = Some(price),
        }
        Ok(())
    }
}

impl Rate {
    /// What a call of these tokens costs, rounded up to the next nanodollar, [`Nano::MOST`] at most.
    ///
    /// Cached, written and heard tokens are parts of the input; thought and spoken ones of the output.
    #[must_use]
    pub fn cost(&self, tokens: &Tokens) -> Nano {
        let write = self.write.unwrap_or(self.input);
        let input = [
            (tokens.cached, self.cached.unwrap_or(self.input)),
            (tokens.cache_write, write),
            (tokens.cache_write_1h, self.write_1h.unwrap_or(write)),
            (tokens.audio_input, self.audio_input.unwrap_or(self.input)),
        ];
        let mut output = [
            (tokens.audio_output, self.audio_output.unwrap_or(self.output)),
            (tokens.reasoning, self.reasoning.unwrap_or(self.output)),
        ];
        if self.reasoning.is_none() {
            output[1].0 = 0;
        }
        let picos = whole(tokens.input, self.input, &input).saturating_add(whole(tokens.output, self.output, &output));
        Nano(i64::try_from(picos.div_ceil(1_000)).unwrap_or(i64::MAX).min(Nano::MOST.0))
    }
}

/// The parts at their prices and the rest of the whole at its own.
fn whole(tokens: u64, price: u64, parts: &[(u64, u64)]) -> u128 {
    let times = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
    let in_parts = parts.iter().fold(0_u64, |sum, (part, _)| sum.saturating_add(*part));
    let rest = times(tokens.saturating_sub(in_parts), price);
    parts.iter().fold(rest, |sum, (part, price)| sum.saturating_add(times(*part, *price)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Line, LineError> {
        Line::parse(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn a_line_is_read() {
        let line = parse("gpt-4o above 200000 flex in 2.5 cached 1.25 out 10").unwrap();
        assert_eq!((line.above, line.service), (200_000, Service::Flex));
        assert_eq!((line.rate.input, line.rate.cached, line.rate.output), (2_500_000, Some(1_250_000), 10_000_000));
        assert_eq!(line.rate.write, None);
        assert_eq!(parse("m in 0").unwrap().rate, Rate::default());
    }

    #[test]
    fn what_makes_no_sense_is_refused_at_its_word() {
        for (line, word) in [
            ("", 0),
            ("m", 0),
            ("m out 10", 2),
            ("m in", 1),
            ("m in -1", 2),
            ("m in 1e3", 2),
            ("m in nan", 2),
            ("m in 0.0000001", 2),
            ("m in 100001", 2),
            ("m in 1 in 2", 3),
            ("m batch flex in 2", 2),
            ("m above 0 in 2", 2),
            ("m above many in 2", 2),
            ("m input 2", 1),
            ("m in 2 out 3 cached", 5),
        ] {
            assert_eq!(parse(line).map_err(|e| e.word), Err(word), "{line}");
        }
    }
}
