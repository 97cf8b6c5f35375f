//! The words of `alert`.

use super::condition::Condition;
use super::{Config, HANDLER, NAME, WebhookConfig, is_name};
use crate::client::ServiceUrl;
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::nanos::Nanos;
use crate::config::read::line;
use crate::config::types;
use crate::syntax::tree::Node;

const OPTIONS: [&str; 4] = ["when", "by", "webhook", "hold_off"];

pub fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let [name] = cx.args else { return Err(cx.arg_err(cx.node)) };
    let mut config = Config { name: name.text().to_owned(), ..Config::default() };
    if !is_name(&config.name) {
        return Err(cx.err(name.span, "invalid-value", NAME));
    }
    for line in cx.node.lines() {
        match line.name() {
            "when" => config.when.push(condition(cx, line)?),
            "by" => {
                cx.no_block(line)?;
                let text = cx.one(line)?.text().to_owned();
                if config.by.replace(text).is_some() {
                    return Err(cx.duplicate(line));
                }
            }
            "webhook" => config.webhooks.push(webhook(cx, line)?),
            "hold_off" => {
                cx.no_block(line)?;
                let nanos = line::duration(cx.one(line)?)?;
                if nanos <= 0 {
                    return Err(cx.err(line.span(), "invalid-duration", "`hold_off` is a time above zero"));
                }
                if config.hold_off.replace(Nanos(nanos)).is_some() {
                    return Err(cx.duplicate(line));
                }
            }
            _ => return Err(cx.unknown(line, &OPTIONS)),
        }
    }
    if config.when.is_empty() {
        let message = format!("alert `{}` has no `when`", config.name);
        let d = cx.err(cx.node.span(), "alert-without-condition", message);
        return Err(Box::new(d.help("for example `when spend over 1h > $10`")));
    }
    Ok(cx.route(types::handler(HANDLER.id, &config)))
}

fn condition(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<String> {
    cx.no_block(line)?;
    if line.args.is_empty() {
        return Err(cx.arg_err(line));
    }
    // A quoted word is several.
    let words: Vec<&str> = line.args.iter().flat_map(|arg| arg.text().split_whitespace()).collect();
    match Condition::parse(&words) {
        Ok(_) => Ok(words.join(" ")),
        Err(wrong) => {
            let place = line.args.get(wrong.word).map_or(line.span(), |word| word.span);
            Err(cx.err(place, "invalid-condition", wrong.message))
        }
    }
}

fn webhook(cx: &mut DirectiveCx<'_, '_>, line: &Node) -> Parsed<WebhookConfig> {
    let url = cx.one(line)?;
    ServiceUrl::parse(url.text()).map_err(|why| {
        let d = cx.err(url.span, "invalid-webhook-url", format!("this is not the URL of a webhook: {why}"));
        d.help("for example `https://hooks.example.com/llm`")
    })?;
    let mut config = WebhookConfig { url: url.text().to_owned(), secret: None };
    for option in line.lines() {
        cx.no_block(option)?;
        match option.name() {
            "secret" => {
                let secret = cx.one(option)?;
                cx.file.secrets.push(secret.span);
                if secret.text().is_empty() {
                    return Err(cx.err(secret.span, "invalid-webhook-secret", "the secret of a webhook is empty"));
                }
                if config.secret.replace(secret.text().to_owned()).is_some() {
                    return Err(cx.duplicate(option));
                }
            }
            _ => return Err(cx.unknown(option, &["secret"])),
        }
    }
    Ok(config)
}
