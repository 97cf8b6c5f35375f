//! `explain CODE`: the long form of a diagnostic.

use std::process::ExitCode;

use super::args::ExplainArgs;
use super::fail;
use crate::base::diagnostic::{codes, nearest};

pub fn explain(args: &ExplainArgs) -> ExitCode {
    let Some(code) = &args.code else {
        for (code, title, _) in codes::all() {
            println!("{code:32} {title}");
        }
        return ExitCode::SUCCESS;
    };
    match codes::all().find(|(known, ..)| known == code) {
        Some((code, title, long)) => {
            println!("{code}: {title}\n\n{long}");
            ExitCode::SUCCESS
        }
        None => match nearest(code, codes::all().map(|(c, ..)| *c)) {
            Some(near) => fail(format_args!("there is no code `{code}`; did you mean `{near}`?")),
            None => fail(format_args!("there is no code `{code}`; `llmproxy explain` lists them")),
        },
    }
}
