//! Token files: a token a line, read when the configuration is and watched like it.

use std::path::Path;
use std::sync::Arc;

use super::set::{Origin, TokenSet};
use super::token::Written;
use crate::base::diagnostic::nearest;
use crate::config::compile_cx::{CompileCx, CompileError};

/// A file with more wrong lines than this is not a token file.
const MOST_ERRORS: usize = 20;
const KEYS: [&str; 6] = ["models", "paths", "ips", "expires", "team", "app"];

/// Adds the tokens of a file to the set. All wrong lines are told, by their number and never by what is on them.
pub fn read(path: &str, set: &mut TokenSet, cx: &mut CompileCx<'_>) -> Vec<CompileError> {
    cx.watched.push(path.into());
    let unreadable = |why: &dyn std::fmt::Display| vec![CompileError::new("unreadable-file", format!("{path}: {why}"))];
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return unreadable(&error),
    };
    let Ok(text) = std::str::from_utf8(&bytes) else { return unreadable(&"not UTF-8 text") };
    let file: Arc<str> = path.into();
    let mut errors = Vec::new();
    let (mut tokens, mut weak) = (0, Vec::new());
    for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1_usize..) {
        let added = parse_line(line).and_then(|written| {
            let Some(written) = written else { return Ok(()) };
            let token = written.settle(&written.value)?;
            tokens += 1;
            if token.weak {
                weak.push(number);
            }
            set.add(token, Origin::Line(Arc::clone(&file), number))
        });
        if let Err(mut error) = added {
            error.message = format!("{path}:{number}: {}", error.message);
            errors.push(error);
        }
    }
    if errors.len() > MOST_ERRORS {
        let more = errors.len() - MOST_ERRORS;
        errors.truncate(MOST_ERRORS);
        errors.push(CompileError::new("invalid-token-line", format!("{path}: {more} more lines are wrong")));
    }
    advise(path, tokens, &weak, cx);
    errors
}

fn advise(path: &str, tokens: usize, weak: &[usize], cx: &mut CompileCx<'_>) {
    if tokens == 0 {
        let message = format!("{path} has no token: nobody is let in by it");
        cx.advise(CompileError::new("token-file-empty", message));
    }
    if let [first, others @ ..] = weak {
        let and = if others.is_empty() { String::new() } else { format!(" (and {} more)", others.len()) };
        let message = format!("{path}:{first}: the token is shorter than 16 bytes{and}");
        cx.advise(
            CompileError::new("weak-token", message).help("`llmproxy new-token` makes one that cannot be guessed"),
        );
    }
    if readable_by_all(Path::new(path)) {
        let help = format!("`chmod 640 {path}`, owned by the user and group that llmproxy runs as");
        let message = format!("{path} can be read by every user of this machine");
        cx.advise(CompileError::new("token-file-readable", message).help(help));
    }
}

fn readable_by_all(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o004 != 0)
}

/// `NAME VALUE [key=value …]`; `None` for a comment or an empty line.
fn parse_line(line: &str) -> Result<Option<Written>, CompileError> {
    let wrong = |message: String| CompileError::new("invalid-token-line", message);
    let mut words = line.split_whitespace().peekable();
    let Some(name) = words.next_if(|word| !word.starts_with('#')) else { return Ok(None) };
    let value = words.next().ok_or_else(|| wrong("a name without a token".to_owned()))?;
    let mut written = Written { name: name.to_owned(), value: value.to_owned(), ..Written::default() };
    // The words themselves are not shown: one of them may be the token, with a blank too many before it.
    for (word, position) in words.take_while(|word| !word.starts_with('#')).zip(3..) {
        let Some((key, value)) = word.split_once('=') else {
            return Err(wrong(format!("word {position} is not of the form key=value")));
        };
        if value.is_empty() {
            return Err(wrong(format!("word {position} has nothing after its `=`")));
        }
        let first_time = match key.strip_prefix("tag.") {
            Some(tag) => written.tags.insert(tag.to_owned(), value.to_owned()).is_none(),
            None => {
                let list = || value.split(',').filter(|v| !v.is_empty()).map(str::to_owned).collect();
                match key {
                    "models" => written.models.replace(list()).is_none(),
                    "paths" => written.paths.replace(list()).is_none(),
                    "ips" => written.ips.replace(list()).is_none(),
                    "expires" => written.expires.replace(value.to_owned()).is_none(),
                    "team" => written.team.replace(value.to_owned()).is_none(),
                    "app" => written.app.replace(value.to_owned()).is_none(),
                    _ => {
                        let error = wrong(format!("word {position} begins with an unknown key"));
                        return Err(match nearest(key, KEYS) {
                            Some(near) => error.help(format!("did you mean `{near}=`?")),
                            None => error.help("models, paths, ips, expires, team, app or tag.NAME"),
                        });
                    }
                }
            }
        };
        if !first_time {
            return Err(wrong(format!("word {position} says what is said already")));
        }
    }
    Ok(Some(written))
}

/// The line of a token file that says this, or why there can be none.
pub fn line(name: &str, value: &str, settings: &[(String, String)]) -> Result<String, CompileError> {
    let settings: String = settings.iter().map(|(key, value)| format!(" {key}={value}")).collect();
    let line = format!("{name} {value}{settings}");
    let wrong = || CompileError::new("invalid-token-line", "a line of a token file has no place for blanks or `#`");
    let written = parse_line(&line)?.filter(|w| w.name == name && w.value == value).ok_or_else(wrong)?;
    written.settle(value)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::REGISTRY;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    struct Loaded {
        set: TokenSet,
        errors: Vec<CompileError>,
        advice: Vec<CompileError>,
        path: String,
    }

    fn load(text: &str) -> Loaded {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().display().to_string();
        let mut set = TokenSet::new().unwrap();
        let mut cx = CompileCx::new(&REGISTRY);
        let errors = read(&path, &mut set, &mut cx);
        assert_eq!(cx.watched, [file.path()]);
        Loaded { set, errors, advice: cx.advice, path }
    }

    #[test]
    fn a_line_says_all_there_is_to_a_token() {
        let text = "\u{feff}# our tokens\r\n\n  ide  the-token-of-the-ide models=gpt-4o*,o3 team=core tag.cost=42 # for all\n\
            ci\tsha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 paths=/v1/* ips=10.0.0.0/8 expires=2027-01-01 app=ci";
        let loaded = load(text);
        assert!(loaded.errors.is_empty() && loaded.advice.is_empty());
        let user = loaded.set.named("ide").unwrap().user();
        assert_eq!((user.get("team"), user.get("tag.cost"), user.get("app")), (Some("core"), Some("42"), None));
        let models: Vec<_> = user.models.as_ref().unwrap().patterns().map(str::to_owned).collect();
        assert_eq!(models, ["gpt-4o*", "o3"]);
        assert!(loaded.set.named("ci").is_some() && loaded.set.named("#").is_none());
    }

    #[test]
    fn every_wrong_line_is_told_by_its_number_alone() {
        let text = "good the-token-of-the-test\nlonely-secret-x\nb Bearer secret-value-x\nc secret-value-y modles=gpt\n\
            d secret-value-z expires=soon\ngood secret-value-w\ne the-token-of-the-test\nf secret-value-v team=\n\
            g secret-value-u team=a team=b\nsecret/value! g\n";
        let loaded = load(text);
        let told: Vec<_> = loaded.errors.iter().map(|e| e.message.replace(&loaded.path, "F")).collect();
        let expected = [
            "F:2: a name without a token",
            "F:3: word 3 is not of the form key=value",
            "F:4: word 3 begins with an unknown key",
            "F:5: `soon` is not a time at which a token can expire",
            "F:6: the name is that of F:1",
            "F:7: the value is that of F:1",
            "F:8: word 3 has nothing after its `=`",
            "F:9: word 4 says what is said already",
            "F:10: the name of a token is not usable",
        ];
        assert_eq!(told, expected);
        assert_eq!(loaded.errors[2].help.as_deref(), Some("did you mean `models=`?"));
        assert!(loaded.errors.iter().all(|e| !format!("{e:?}").contains("secret")), "{:?}", loaded.errors);
    }

    #[test]
    fn thousands_of_wrong_lines_are_told_in_few() {
        assert_eq!(load(&"x\n".repeat(10_000)).errors.len(), MOST_ERRORS + 1);
    }

    #[test]
    fn advice_about_files() {
        let codes = |loaded: &Loaded| loaded.advice.iter().map(|a| a.code).collect::<Vec<_>>();
        assert_eq!(codes(&load("# none\n")), ["token-file-empty"]);
        let weak = load("a short\nb the-token-of-the-test\nc tiny\n");
        assert_eq!(codes(&weak), ["weak-token"]);
        assert!(weak.advice[0].message.ends_with(":1: the token is shorter than 16 bytes (and 1 more)"));

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(readable_by_all(file.path()));
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(!readable_by_all(file.path()));
    }

    #[test]
    fn lines_are_made_as_they_are_read() {
        let with = |key: &str, value: &str| line("ide", "the-token-of-the-ide", &[(key.to_owned(), value.to_owned())]);
        assert_eq!(with("models", "gpt-4o*,o3").unwrap(), "ide the-token-of-the-ide models=gpt-4o*,o3");
        for (key, value) in [("team", "a b"), ("team", ""), ("expires", "soon"), ("modles", "x"), ("tag.a.b", "x")] {
            assert!(with(key, value).is_err(), "{key}={value}");
        }
        assert!(line("a b", "the-token-of-the-ide", &[]).is_err() && line("#a", "the-token", &[]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c#= .,*\\n\\r/:-]{0,60}|\\PC{0,40}") {
            for line in text.lines() {
                if let Ok(Some(written)) = parse_line(line) {
                    let _ = written.settle(&written.value);
                }
            }
        }
    }
}
