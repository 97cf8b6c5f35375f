//! `.env` files as Node's dotenv reads them, quotes and comments included.
//!
//! Source: dotenv 16 `lib/main.js`, whose one regular expression stands here.

use std::collections::HashMap;

use regex::Regex;

const LINE: &str = concat!(
    r"(?m)^\s*(?:export\s+)?([A-Za-z0-9_.-]+)(?:\s*=\s*?|:\s+?)",
    r#"(\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|\s*`(?:\\`|[^`])*`|[^#\r\n]+)?\s*(?:#.*)?$"#,
);

/// Of a name that is given twice the last value counts.
pub fn parse(text: &str) -> HashMap<String, String> {
    let Ok(pattern) = Regex::new(LINE) else { return HashMap::new() };
    // The pattern knows one kind of line end.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let vars = pattern.captures_iter(&text).filter_map(|found| {
        let name = found.get(1)?.as_str().to_owned();
        Some((name, value(found.get(2).map_or("", |m| m.as_str()).trim())))
    });
    vars.collect()
}

fn value(text: &str) -> String {
    let quote = text.chars().next().filter(|q| matches!(q, '\'' | '"' | '`'));
    let Some(quote) = quote.filter(|q| text.len() > 1 && text.ends_with(*q)) else { return text.to_owned() };
    let inner = &text[1..text.len() - 1];
    // Only double quotes mean more than themselves.
    if quote == '"' { inner.replace("\\n", "\n").replace("\\r", "\r") } else { inner.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_dotenv_reads() {
        let text = "# comment\nPLAIN=a b # note\nEMPTY=\nexport EXPORTED = x\nSINGLE='a # b'\nDOUBLE=\"a\\nb # c\" # d\n\
                    TICK=`it's \"so\"`\nYAML: colon\nMANY=\"one\ntwo\"\nHASH=a#b\nTWICE=1\nTWICE=2\nnot a line\nHALF='open\n";
        let vars = parse(&text.replace('\n', "\r\n"));
        let get = |name: &str| vars.get(name).map(String::as_str);
        for (name, value) in [
            ("PLAIN", "a b"),
            ("EMPTY", ""),
            ("EXPORTED", "x"),
            ("SINGLE", "a # b"),
            ("DOUBLE", "a\nb # c"),
            ("TICK", "it's \"so\""),
            ("YAML", "colon"),
            ("MANY", "one\ntwo"),
            ("HASH", "a"),
            ("TWICE", "2"),
            ("HALF", "'open"),
        ] {
            assert_eq!(get(name), Some(value), "{name}");
        }
        assert_eq!(get("not"), None);
    }
}
