//! `redir`: sends the client to another address.
//!
//! `redir https://example.com{uri}` answers 302 (temporary), `redir … permanent` 301; any other 3xx code may be given, or
//! 401, or a placeholder. `html` answers a page that takes browsers on and leaves other clients alone. The address is
//! sent as written once its placeholders are filled in.

use serde_json::{Value, json};

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types;
use crate::config::weak_string::WeakString;

pub const DIRECTIVE: Directive = Directive {
    name: "redir",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Redirects to another address.",
        syntax: "redir [matcher] <to> [<code>|permanent|temporary|html]",
        examples: &[
            "redir https://example.com{uri}",
            "redir https://example.com{uri} permanent",
            "redir /old /new 308",
            "redir * /login html",
        ],
        rejected: &[
            ("redir", "wrong-argument-count"),
            ("redir /x", "wrong-argument-count"),
            ("redir a 200", "invalid-status"),
            ("redir a soon", "invalid-status"),
        ],
        adapt_only: false,
    },
};

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let Some((to, rest)) = cx.args.split_first() else { return Err(cx.arg_err(cx.node)) };
    if let Some(extra) = rest.get(1) {
        cx.warn_ignored(extra.span);
    }
    cx.warn_ignored_block();
    let code = match rest.first().map_or("", |t| t.text()) {
        "permanent" => "301",
        "temporary" | "" => "302",
        "html" => {
            let headers = json!({ "Content-Type": ["text/html; charset=utf-8"] });
            let page = json!({ "status_code": 200, "headers": headers, "body": html_page(to.text()) });
            return Ok(cx.route(types::handler("static_response", &page)));
        }
        // Checked when the request is answered.
        placeholder if placeholder.starts_with('{') => placeholder,
        code => {
            let redirects = code.parse::<i32>().is_ok_and(|n| (300..400).contains(&n) || n == 401);
            if !redirects {
                let d = cx.err(rest[0].span, "invalid-status", "not a status that `redir` may answer with");
                return Err(Box::new(d.help("a 3xx code, 401, `permanent`, `temporary` or `html`")));
            }
            code
        }
    };
    let status: Value = serde_json::to_value(WeakString::from(code)).unwrap_or_default();
    let answer = json!({ "status_code": status, "headers": { "Location": [to.text()] } });
    Ok(cx.route(types::handler("static_response", &answer)))
}

fn html_page(to: &str) -> String {
    let to = escape_html(to);
    format!(
        "<!DOCTYPE html>\n<html>\n\t<head>\n\t\t<title>Redirecting...</title>\n\t\t\
         <script>window.location.replace(\"{to}\");</script>\n\t\t\
         <meta http-equiv=\"refresh\" content=\"0; URL='{to}'\">\n\t</head>\n\t\
         <body>Redirecting to <a href=\"{to}\">{to}</a>...</body>\n</html>\n"
    )
}

/// As Go's `html.EscapeString`.
fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_cannot_be_broken_out_of() {
        let page = html_page("a<'\">&{http.request.uri}");
        assert!(page.contains("replace(\"a&lt;&#39;&#34;&gt;&amp;{http.request.uri}\");</script>\n\t\t<meta"));
        assert!(page.starts_with("<!DOCTYPE html>\n<html>\n\t<head>\n\t\t<title>"));
    }
}
