//! `new-token` and `hash-token`: tokens for `auth_token`. A token is never an argument, where other users of the machine and the
//! shell's history could see it.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::args::{HashTokenArgs, NewTokenArgs};
use super::fail;
use crate::base::hex::hex;
use crate::base::password::hash_argon2id;
use crate::modules::auth_token::{LONGEST, PREFIX, check_name, digest, file_line, name_in};

/// Letters and digits of the random part: 238 bits.
const RANDOM: usize = 40;

pub fn new_token(args: &NewTokenArgs) -> ExitCode {
    let settings = match settings(args) {
        Ok(settings) => settings,
        Err(message) => return fail(message),
    };
    if let Err(error) = check_name(&args.name) {
        return fail(format_args!("{}: {}", error.message, error.help.unwrap_or_default()));
    }
    let Some(random) = random_text() else { return fail("the system gives no random bytes") };
    let token = format!("{PREFIX}{}_{random}", args.name);
    match file_line(&args.name, &sha256(&token), &settings) {
        Ok(line) => {
            println!("token: {token}\nline:  {line}");
            eprintln!("The token is for the client and is not shown again; the line is for the token file.");
            ExitCode::SUCCESS
        }
        Err(error) => match error.help {
            Some(help) => fail(format_args!("{}: {help}", error.message)),
            None => fail(error.message),
        },
    }
}

fn settings(args: &NewTokenArgs) -> Result<Vec<(String, String)>, &'static str> {
    let given = [
        ("models", &args.models),
        ("paths", &args.paths),
        ("ips", &args.ips),
        ("expires", &args.expires),
        ("team", &args.team),
        ("app", &args.app),
    ];
    let mut out: Vec<_> =
        given.iter().filter_map(|(key, value)| Some(((*key).to_owned(), value.as_ref()?.clone()))).collect();
    for tag in &args.tag {
        let (key, value) = tag.split_once('=').ok_or("a tag is given as KEY=VALUE")?;
        out.push((format!("tag.{key}"), value.to_owned()));
    }
    Ok(out)
}

pub fn hash_token(args: &HashTokenArgs) -> ExitCode {
    if !matches!(args.algorithm.as_str(), "sha256" | "argon2" | "argon2id") {
        return fail(format_args!("unknown algorithm `{}`: it is `sha256` or `argon2`", args.algorithm));
    }
    let token = match read_token() {
        Ok(token) => token,
        Err(message) => return fail(message),
    };
    if args.algorithm == "sha256" {
        if token.len() < 16 {
            eprintln!(
                "llmproxy: fewer than 16 bytes can be found from their hash; `llmproxy new-token` makes a good one"
            );
        }
        println!("{}", sha256(&token));
        return ExitCode::SUCCESS;
    }
    if name_in(token.as_bytes()).is_none_or(|name| check_name(name).is_err()) {
        return fail(format_args!(
            "a token with a slow hash says which one it is: `{PREFIX}NAME_SECRET`, with NAME as in the token file"
        ));
    }
    match hash_argon2id(token.as_bytes()) {
        Some(hash) => {
            println!("{hash}");
            ExitCode::SUCCESS
        }
        None => fail("the system gives no random bytes"),
    }
}

fn sha256(token: &str) -> String {
    format!("sha256:{}", hex(&digest(token.as_bytes())))
}

/// Letters and digits, each as likely as any other: bytes that would make some likelier are thrown away.
fn random_text() -> Option<String> {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut out = String::with_capacity(RANDOM);
    while out.len() < RANDOM {
        let mut bytes = [0_u8; 64];
        getrandom::fill(&mut bytes).ok()?;
        let fair = bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(LETTERS[usize::from(byte % 62)]));
        out.extend(fair.take(RANDOM - out.len()));
    }
    Some(out)
}

/// One line of standard input; typed without being shown when that is a terminal.
fn read_token() -> Result<String, String> {
    let stdin = std::io::stdin();
    let mut text = String::new();
    let read = if stdin.is_terminal() {
        eprint!("Token: ");
        let _ = std::io::stderr().flush();
        let _hidden = Hidden::new(&stdin);
        let read = stdin.lock().read_line(&mut text);
        eprintln!();
        read
    } else {
        stdin.lock().take(2 * LONGEST as u64).read_to_string(&mut text)
    };
    read.map_err(|error| format!("cannot read the token: {error}"))?;
    match text.trim() {
        "" => Err("no token was given".to_owned()),
        token if token.len() > LONGEST => Err(format!("a token has at most {LONGEST} bytes")),
        token if token.contains(char::is_whitespace) => Err("a token has no blanks in it".to_owned()),
        token => Ok(token.to_owned()),
    }
}

/// The terminal does not show what is typed until this is dropped.
struct Hidden<'a> {
    terminal: &'a std::io::Stdin,
    before: Option<rustix::termios::Termios>,
}

impl<'a> Hidden<'a> {
    fn new(terminal: &'a std::io::Stdin) -> Self {
        let before = tcgetattr(terminal).ok();
        if let Some(mut modes) = before.clone() {
            modes.local_modes.remove(LocalModes::ECHO);
            let _ = tcsetattr(terminal, OptionalActions::Flush, &modes);
        }
        Self { terminal, before }
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(self.terminal, OptionalActions::Flush, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_parts_are_long_and_differ() {
        let (a, b) = (random_text().unwrap(), random_text().unwrap());
        assert!(a.len() == RANDOM && a != b && a.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    #[test]
    fn the_printed_hash_is_the_usual_one() {
        assert_eq!(sha256("test"), "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
    }
}
