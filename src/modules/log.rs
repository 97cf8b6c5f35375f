//! `log`: the access log of a site.
//!
//! ```text
//! log {
//!     output file /var/log/llmproxy/access.log {
//!         roll_size 100MiB
//!         roll_keep 10
//!     }
//!     format json
//! }
//! ```
//!
//! Without a block the entries go to the default log. A name (`log audit { … }`) makes the log a target of `log_name`.
//! `hostnames` chooses the hosts of the site that it is for, `no_hostname` none: such a log is reached by `log_name` only.

use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::read::Line;
use crate::config::read::log::{self, Place};
use crate::config::registry::{Directive, Doc};

pub const DIRECTIVE: Directive = Directive {
    name: "log",
    renamed_to: None,
    ordered: false,
    matcher: false,
    parse,
    doc: &Doc {
        summary: "Turns on the access log of the site.",
        syntax: "log [name] [{ output … format … level … sampling … hostnames … no_hostname }]",
        examples: &[
            "log",
            "log {\n\toutput stdout\n\tformat console\n\tlevel ERROR\n}",
            "log audit {\n\toutput file /tmp/audit.log {\n\t\troll_size 10MiB\n\t\troll_keep_for 30d\n\t}\n\tno_hostname\n}",
            "log {\n\tformat filter {\n\t\trequest>headers>Cookie delete\n\t\trequest>remote_ip ip_mask 16 32\n\t}\n}",
        ],
        rejected: &[
            ("log a b", "wrong-argument-count"),
            ("log {\n\toutput paper\n}", "unknown-module"),
            ("log {\n\tformat jason\n}", "unknown-module"),
            ("log {\n\toutput file\n}", "wrong-argument-count"),
            ("log {\n\toutput file /x {\n\t\troll_size big\n\t}\n}", "invalid-size"),
            ("log {\n\tinclude http\n}", "option-not-allowed-here"),
            ("log {\n\tlevels INFO\n}", "unknown-subdirective"),
        ],
        adapt_only: false,
    },
};

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let access = log::read(&Line::of(cx.node), Place::Site, &mut cx.file.diagnostics)?;
    Ok(vec![ConfigValue::AccessLog(access)])
}
