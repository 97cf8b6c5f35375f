//! The words of `budget`.

use super::{Config, DIRECTIVE, HANDLER, LimitConfig, NAME, UnknownPrice, amount, is_name};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::types;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

const OPTIONS: [&str; 6] = ["key", "limit", "soft", "cut_off", "reserve", "unknown_price"];

pub fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let Some((name, short)) = cx.args.split_first() else { return Err(cx.arg_err(cx.node)) };
    let mut config = Config { name: name.text().to_owned(), ..Config::default() };
    if !is_name(&config.name) {
        return Err(cx.err(name.span, "invalid-value", NAME));
    }
    if !short.is_empty() {
        limit(cx, cx.node, short, &mut config)?;
    }
    for line in cx.node.lines() {
        cx.no_block(line)?;
        match line.name() {
            "key" => {
                let key = cx.one(line)?.text().to_owned();
                set(cx, line, &mut config.key, key)?;
            }
            "limit" => limit(cx, line, &line.args, &mut config)?,
            "soft" => {
                let word = cx.one(line)?;
                let percent = amount::percentage(word.text()).ok_or_else(|| {
                    let message = format!("`{}` is not a percentage", word.shown());
                    cx.err(word.span, "invalid-percentage", message).help("above 0% and up to 100%, such as `80%`")
                })?;
                set(cx, line, &mut config.soft, percent)?;
            }
            "cut_off" => {
                if !line.args.is_empty() {
                    return Err(cx.arg_err(line));
                }
                if std::mem::replace(&mut config.cut_off, true) {
                    return Err(cx.duplicate(line));
                }
            }
            "reserve" => {
                let word = cx.one(line)?;
                let tokens = amount::tokens(word.text()).ok_or_else(|| {
                    let message = format!("`{}` is not a number of tokens", word.shown());
                    cx.err(word.span, "invalid-number", message).help("for example `4096` or `8k`")
                })?;
                set(cx, line, &mut config.reserve, tokens)?;
            }
            "unknown_price" => {
                let word = cx.one(line)?;
                config.unknown_price = match word.text() {
                    "allow" => UnknownPrice::Allow,
                    "refuse" => UnknownPrice::Refuse,
                    _ => {
                        let message = format!("`{}` is neither `refuse` nor `allow`", word.shown());
                        return Err(cx.err(word.span, "invalid-value", message));
                    }
                };
            }
            _ => return Err(cx.unknown(line, &OPTIONS)),
        }
    }
    if config.limits.is_empty() {
        let message = format!("budget `{}` has no limit", config.name);
        let help = "for example `limit $20 per month`";
        return Err(Box::new(cx.err(cx.node.span(), "budget-without-limit", message).help(help)));
    }
    Ok(cx.route(types::handler(HANDLER.id, &config)))
}

/// `$100 per month`, `2M tokens per day`, `$5 in total`.
fn limit(cx: &DirectiveCx<'_, '_>, line: &Node, words: &[Token], config: &mut Config) -> Parsed<()> {
    let (written, count, period) = match words {
        [amount, link, period] => (amount.text().to_owned(), amount, [link, period]),
        [count, unit, link, period] if unit.text() == "tokens" => {
            (format!("{} tokens", count.text()), count, [link, period])
        }
        _ => return Err(cx.arg_err(line)),
    };
    let per = match period.map(Token::text) {
        ["per", word @ ("day" | "week" | "month")] => word,
        ["in", "total"] => "total",
        _ => {
            let [link, word] = period;
            let message = format!("`{} {}` is no period", link.shown(), word.shown());
            let d = cx.err(link.span.to(word.span), "invalid-period", message);
            return Err(Box::new(d.help("`per day`, `per week`, `per month` or `in total`")));
        }
    };
    let limit = amount::limit(&written, per).map_err(|(code, _)| {
        let d = cx.err(count.span, code, format!("`{}` is no amount to be spent", count.shown()));
        d.help("money as `$20` or `$0.50`, tokens as `500k tokens` or `2M tokens`; more than nothing")
    })?;
    let same = |known: &LimitConfig| {
        amount::limit(&known.limit, &known.per).is_ok_and(|l| (l.unit, l.period) == (limit.unit, limit.period))
    };
    if config.limits.iter().any(same) {
        return Err(cx.err(
            line.span(),
            "duplicate-option",
            format!("`{}` has a limit of this kind for this period already", DIRECTIVE.name),
        ));
    }
    config.limits.push(LimitConfig { limit: written, per: per.to_owned() });
    Ok(())
}

fn set<T>(cx: &DirectiveCx<'_, '_>, line: &Node, slot: &mut Option<T>, value: T) -> Parsed<()> {
    if slot.replace(value).is_some() { Err(cx.duplicate(line)) } else { Ok(()) }
}
