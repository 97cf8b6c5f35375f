//! `{args[0]}`, `{args[1:]}` and the old `{args.0}` in imported words.

use std::ops::Range;

/// Searches that may run to the end of the word, each; Caddy has a like bound on braces that are never closed.
const MAX_LONG_SEARCHES: usize = 100;

/// What an argument placeholder says about itself, for a warning.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum ArgsWarning {
    /// `{args.0}`: the old spelling of this index.
    Deprecated(usize),
    /// No such argument; the text stays.
    OutOfRange,
    /// Not a number.
    BadIndex,
    /// `{args[1:]}` inside a longer word.
    NotAlone,
}

/// `{args[a:b]}` as a whole word: which arguments it stands for.
pub(super) fn variadic(text: &str, count: usize, warn: &mut dyn FnMut(ArgsWarning)) -> Option<Range<usize>> {
    let inner = text.strip_prefix("{args[")?.strip_suffix("]}")?;
    let Some((start, end)) = inner.split_once(':') else {
        if inner.is_empty() {
            warn(ArgsWarning::BadIndex);
        }
        return None;
    };
    // Two placeholders with a colon between them are not a range.
    if start.contains('}') || end.contains('{') {
        return None;
    }
    let mut index = |text: &str, default: usize| match text {
        "" => Some(default),
        _ => match text.parse::<usize>() {
            Ok(n) => Some(n),
            Err(_) => {
                warn(ArgsWarning::BadIndex);
                None
            }
        },
    };
    let (start, end) = (index(start, 0)?, index(end, count)?);
    if start > end || end > count {
        warn(ArgsWarning::OutOfRange);
        return None;
    }
    Some(start..end)
}

/// A word with its arguments filled in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub text: String,
    /// Which arguments were used.
    pub used: Vec<usize>,
}

/// Fills single-argument placeholders; `None` when the word stays as it is. `\{` and `\}` lose their backslash, as in
/// every text that passes Caddy's replacer.
pub(super) fn fill(text: &str, args: &[&str], warn: &mut dyn FnMut(ArgsWarning)) -> Option<Filled> {
    let bytes = text.as_bytes();
    memchr::memchr2(b'{', b'}', bytes)?;
    let mut out = String::with_capacity(text.len());
    let mut used = Vec::new();
    let (mut written, mut at, mut long_searches) = (0, 0, 0);
    while at < bytes.len() {
        let escaped = at > 0 && bytes[at - 1] == b'\\';
        if escaped && matches!(bytes[at], b'{' | b'}') {
            // The escape may lie before text that a placeholder has already replaced.
            if let Some(kept) = text.get(written..at - 1) {
                out.push_str(kept);
            }
            written = at;
        } else if bytes[at] == b'{' && long_searches < MAX_LONG_SEARCHES {
            let (end, long) = closing(bytes, at);
            long_searches += usize::from(long);
            if let Some(end) = end
                && let Some(index) = argument(&text[at + 1..end], args.len(), warn)
            {
                out.push_str(&text[written..at]);
                out.push_str(args[index]);
                used.push(index);
                at = end;
                written = end + 1;
            }
        }
        at += 1;
    }
    if written == 0 {
        return None;
    }
    out.push_str(text.get(written..).unwrap_or_default());
    Some(Filled { text: out, used })
}

/// The first unescaped `}` after an opening brace, and whether the search went past the next brace. None when another
/// brace opens first, as no argument's name holds one.
fn closing(bytes: &[u8], open: usize) -> (Option<usize>, bool) {
    let Some(next) = memchr::memchr2(b'{', b'}', &bytes[open + 1..]) else { return (None, true) };
    let mut end = open + 1 + next;
    if bytes[end] == b'{' {
        return (None, false);
    }
    let mut long = false;
    while end < bytes.len() - 1 && bytes[end - 1] == b'\\' {
        long = true;
        let Some(next) = memchr::memchr(b'}', &bytes[end + 1..]) else { return (None, true) };
        end += 1 + next;
    }
    (Some(end), long)
}

/// The argument that a placeholder's name stands for.
fn argument(name: &str, count: usize, warn: &mut dyn FnMut(ArgsWarning)) -> Option<usize> {
    let (index, old) = match (name.strip_prefix("args."), name.strip_prefix("args[").and_then(|n| n.strip_suffix(']')))
    {
        (Some(index), _) => (index, true),
        (None, Some(index)) => (index, false),
        (None, None) => return None,
    };
    if index.is_empty() {
        return None;
    }
    if !old && index.contains(':') {
        warn(ArgsWarning::NotAlone);
        return None;
    }
    let Ok(value) = index.parse::<usize>() else {
        warn(ArgsWarning::BadIndex);
        return None;
    };
    if value >= count {
        warn(ArgsWarning::OutOfRange);
        return None;
    }
    if old {
        warn(ArgsWarning::Deprecated(value));
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str, args: &[&str]) -> (String, Vec<ArgsWarning>) {
        let mut warnings = Vec::new();
        let out = fill(text, args, &mut |w| warnings.push(w));
        (out.map_or_else(|| text.to_owned(), |f| f.text), warnings)
    }

    #[test]
    fn single_arguments() {
        let args = ["a", "b c"];
        assert_eq!(filled("x{args[0]}-{args[1]}{host}", &args).0, "xa-b c{host}");
        assert_eq!(filled("{args.1}", &args), ("b c".to_owned(), vec![ArgsWarning::Deprecated(1)]));
        assert_eq!(filled("{args[2]}", &args), ("{args[2]}".to_owned(), vec![ArgsWarning::OutOfRange]));
        assert_eq!(filled("{args[x]}", &args).1, [ArgsWarning::BadIndex]);
        assert_eq!(filled("y{args[0:]}", &args).1, [ArgsWarning::NotAlone]);
        assert_eq!(filled("{{args[0]}}", &args).0, "{a}");
        assert_eq!(filled("\\{args[0]\\} \\{", &args).0, "{args[0]} {");
        assert_eq!(filled("plain", &args), ("plain".to_owned(), vec![]));
    }

    #[test]
    fn ranges() {
        let range = |text: &str| variadic(text, 3, &mut |_| {});
        assert_eq!(range("{args[:]}"), Some(0..3));
        assert_eq!(range("{args[1:]}"), Some(1..3));
        assert_eq!(range("{args[:2]}"), Some(0..2));
        assert_eq!(range("{args[1:2]}"), Some(1..2));
        assert_eq!((range("{args[2:1]}"), range("{args[:4]}"), range("{args[1]}")), (None, None, None));
        assert_eq!(range("{args[0]}:{args[1]}"), None);
    }
}
