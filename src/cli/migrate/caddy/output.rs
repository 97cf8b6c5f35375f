//! The Proxyfile, written: byte for byte the Caddyfile, but for lines that can be left out and say so.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::advice;
use super::survey::{Line, Survey, Verdict};
use crate::base::span::FileId;

/// What was written, for the report.
#[derive(Debug)]
pub struct Written {
    pub main: PathBuf,
    /// All files, imported ones too.
    pub files: Vec<PathBuf>,
    /// Lines that were made comments.
    pub left_out: usize,
    /// Imported files that stay where they are: an absolute path names them.
    pub elsewhere: Vec<PathBuf>,
    /// Files that not everybody may read, as the original was.
    pub closed: bool,
}

/// Lines that can go without changing an answer, with the reason.
pub fn dispensable(survey: &Survey) -> impl Iterator<Item = (&Line, &'static str)> {
    survey.lines.iter().filter(|line| line.verdict == Verdict::Unsupported).filter_map(|line| {
        let names: Vec<&str> = line.names.iter().map(String::as_str).collect();
        Some((line, advice::dispensable(&names)?))
    })
}

/// Writes `output` (a folder that exists, or a file) and beside it the imported files that lie below the original's folder.
/// Nothing that exists is overwritten, unless it is the same already.
pub fn write(survey: &Survey, output: &Path) -> Result<Written, String> {
    let mut sources = survey.sources.files().enumerate();
    let Some((_, main)) = sources.next() else { return Err("nothing was read".into()) };
    let from = main.path.clone().unwrap_or_else(|| PathBuf::from(&main.name));
    let folder = from.parent().unwrap_or(Path::new("."));
    let target = if output.is_dir() { output.join("Proxyfile") } else { output.to_path_buf() };
    let beside = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();

    let mut edits: BTreeMap<u32, Vec<(&Line, &str)>> = BTreeMap::new();
    for (line, why) in dispensable(survey) {
        edits.entry(line.span.file.0).or_default().push((line, why));
    }
    let mut planned = Vec::new();
    let mut written =
        Written { main: target.clone(), files: Vec::new(), left_out: 0, elsewhere: Vec::new(), closed: false };
    for (index, source) in survey.sources.files().enumerate() {
        let Some(path) = &source.path else { continue };
        let to = match (index, path.strip_prefix(folder)) {
            (0, _) => target.clone(),
            (_, Ok(relative)) => beside.join(relative),
            (_, Err(_)) => {
                written.elsewhere.push(path.clone());
                continue;
            }
        };
        let id = u32::try_from(index).unwrap_or(u32::MAX);
        let (text, count) = without(&source.text, FileId(id), edits.get(&id).map_or(&[], Vec::as_slice));
        // An import that stays in its place is what it was.
        if same_file(path, &to) && *text == *source.text {
            continue;
        }
        written.left_out += count;
        planned.push((path.clone(), to, text));
    }
    for (_, to, text) in &planned {
        if fs::symlink_metadata(to).is_ok() && !fs::read(to).is_ok_and(|there| there == text.as_bytes()) {
            return Err(format!("{} exists already and is kept; name another --output", to.display()));
        }
    }
    for (path, to, text) in planned {
        let mode = fs::metadata(&path).map_or(0o600, |meta| meta.mode() & 0o666);
        written.closed |= mode & 0o004 == 0;
        create(&to, &text, mode).map_err(|error| format!("{}: {error}", to.display()))?;
        written.files.push(to);
    }
    Ok(written)
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(mut file) => file.write_all(text.as_bytes()),
        // The same text, as was looked up before.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// The text with lines made comments, and how many directives those are. A line that cannot be one safely stays.
fn without(text: &str, file: FileId, lines: &[(&Line, &str)]) -> (String, usize) {
    let mut out = text.to_owned();
    let mut count = 0;
    // From the end, so that places before it stay true.
    let mut lines: Vec<_> = lines.iter().filter(|(line, _)| line.span.file == file).collect();
    lines.sort_by_key(|(line, _)| std::cmp::Reverse(line.span.start));
    for (line, why) in lines {
        let (start, end) = (line.span.start as usize, line.span.end as usize);
        let (Some(before), Some(body), Some(after)) = (text.get(..start), text.get(start..end), text.get(end..)) else {
            continue;
        };
        let from = before.rfind('\n').map_or(0, |n| n + 1);
        let rest = &after[..after.find('\n').unwrap_or(after.len())];
        let alone = before[from..].trim().is_empty() && rest.trim().is_empty();
        // A backslash at a line's end joins lines in comments too, and a value from the environment may hold line ends.
        let joins = body.lines().any(|line| line.trim_end().ends_with('\\'));
        if !alone || joins || line.from_env || body.contains("{$") {
            continue;
        }
        let indent = &before[from..];
        let mut comment = format!("{indent}# Left out for llmproxy: {why}.\n");
        let commented: Vec<String> =
            text[from..end].lines().map(|l| format!("{indent}# {}", l.strip_prefix(indent).unwrap_or(l))).collect();
        comment.push_str(&commented.join("\n"));
        out.replace_range(from..end, &comment);
        count += 1;
    }
    (out, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::migrate::caddy::survey::survey;
    use crate::compile::load::{Format, Source};

    fn source(path: &Path) -> Source {
        Source { path: path.to_path_buf(), format: Format::Proxyfile, text: None, env_files: Vec::new() }
    }

    #[test]
    fn nothing_is_changed_that_need_not_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Caddyfile");
        let text = "# mine\r\nhttp://a.test {\n\trespond   hello \n\timport more/*\n}\n";
        fs::write(&file, text).unwrap();
        fs::create_dir(folder.path().join("more")).unwrap();
        fs::write(folder.path().join("more/one"), "header A b\n").unwrap();
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        let written = write(&survey(&source(&file)), &out).unwrap();
        assert_eq!(fs::read_to_string(out.join("Proxyfile")).unwrap(), text);
        assert_eq!(fs::read_to_string(out.join("more/one")).unwrap(), "header A b\n");
        assert_eq!((written.left_out, written.files.len()), (0, 2));
        // Again: the same is there; then it is somebody's.
        write(&survey(&source(&file)), &out).unwrap();
        fs::write(out.join("more/one"), "changed").unwrap();
        assert!(write(&survey(&source(&file)), &out).unwrap_err().contains("exists already"));
    }

    #[test]
    fn what_can_go_becomes_a_comment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Caddyfile");
        let text = "{\n\tadmin :2019 {\n\t\torigins a\n\t}\n}\nhttp://a.test {\n\trespond hello\n\ttracing {\n\t\tspan x\n\t}\n}\n";
        fs::write(&file, text).unwrap();
        let written = write(&survey(&source(&file)), &folder.path().join("Proxyfile")).unwrap();
        let made = fs::read_to_string(&written.main).unwrap();
        assert_eq!(written.left_out, 2, "{made}");
        assert!(made.contains("\t# admin :2019 {\n\t# \torigins a\n\t# }\n}"), "{made}");
        let survey = survey(&source(&written.main));
        assert!(survey.runs, "{made}");
    }

    #[test]
    fn a_line_that_cannot_be_a_comment_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Caddyfile");
        let text = "http://a.test {\n\ttracing {\n\t\tspan \\\n\t\t\tx\n\t}\n}\n";
        fs::write(&file, text).unwrap();
        let written = write(&survey(&source(&file)), &folder.path().join("Proxyfile")).unwrap();
        assert_eq!((written.left_out, fs::read_to_string(&written.main).unwrap().as_str()), (0, text));
    }
}
