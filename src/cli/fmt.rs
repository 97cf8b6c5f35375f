//! `fmt`: the formatter on files.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use super::args::{FmtArgs, default_file};
use super::fail;
use crate::syntax;

pub fn fmt(args: &FmtArgs) -> ExitCode {
    let path = match &args.path {
        Some(path) => path.clone(),
        None => match default_file() {
            Ok(path) => path,
            Err(message) => return fail(message),
        },
    };
    let stdin = path == Path::new("-");
    let read = if stdin {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(&path)
    };
    let text = match read {
        Ok(text) => text,
        Err(error) => return fail(format_args!("cannot read {}: {error}", path.display())),
    };
    let formatted = syntax::format(&text);
    if args.diff {
        print_diff(&text, &formatted);
        return ExitCode::from(u8::from(text != formatted));
    }
    if args.overwrite {
        if stdin {
            return fail("standard input cannot be overwritten");
        }
        if text != formatted
            && let Err(error) = std::fs::write(&path, &formatted)
        {
            return fail(format_args!("cannot write {}: {error}", path.display()));
        }
        return ExitCode::SUCCESS;
    }
    let _ = std::io::stdout().write_all(formatted.as_bytes());
    if text != formatted {
        eprintln!("llmproxy: {} is not formatted; `llmproxy fmt --overwrite` mends it", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Line by line: what stays has two spaces before it, what goes `- `, what comes `+ `.
fn print_diff(before: &str, after: &str) {
    let (a, b): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let mut out = String::new();
    let mut j = 0;
    for line in &a {
        // Formatting keeps words: a line that is to be found further on marks what was inserted before it.
        match b[j..].iter().take(3).position(|l| l == line) {
            Some(ahead) => {
                b[j..j + ahead].iter().for_each(|l| out.push_str(&format!("+ {l}\n")));
                out.push_str(&format!("  {line}\n"));
                j += ahead + 1;
            }
            None => {
                out.push_str(&format!("- {line}\n"));
                if let Some(new) = b.get(j)
                    && new.trim() == line.trim()
                    && !line.trim().is_empty()
                {
                    out.push_str(&format!("+ {new}\n"));
                    j += 1;
                }
            }
        }
    }
    b[j..].iter().for_each(|l| out.push_str(&format!("+ {l}\n")));
    let _ = std::io::stdout().write_all(out.as_bytes());
}
