//! The steps to switch the service from Caddy to llmproxy, and back.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What is to be done about certificates.
pub enum Certificates {
    /// Caddy kept none that was found.
    None,
    /// The file names a folder that both use.
    Shared(PathBuf),
    /// They lie in llmproxy's storage now.
    Copied,
    /// They lie in Caddy's folder.
    Found(PathBuf),
}

const SERVICE_FILE: &str = "/etc/llmproxy/Proxyfile";

/// `proxyfile`: what will run; `closed`: not everybody may read it.
pub fn steps(caddyfile: &Path, proxyfile: &Path, closed: bool, certificates: &Certificates) -> String {
    let mut out = String::from("\nTo switch the service (systemd):\n");
    let mut number = 0;
    let mut step = |text: &str| {
        number += 1;
        let _ = writeln!(out, "  {number}. {text}");
    };
    step("sudo packaging/install.sh                      # its first site listens on 127.0.0.1:8080 alone");
    if proxyfile != Path::new(SERVICE_FILE) {
        step(&format!("sudo install -m 640 -g llmproxy {} {SERVICE_FILE}.new", proxyfile.display()));
    } else if closed {
        step(&format!("sudo chgrp llmproxy {SERVICE_FILE}       # the service must be able to read it"));
    }
    step("variables that Caddy's unit sets (Environment=, EnvironmentFile=): into /etc/llmproxy/environment");
    match certificates {
        Certificates::Found(folder) => {
            step(&format!(
                "sudo llmproxy migrate caddy {} --copy-storage   # certificates and account",
                caddyfile.display()
            ));
            let _ = writeln!(
                out,
                "     or share the folder of Caddy, in the global options: storage file_system {}",
                folder.display()
            );
            out.push_str(&sharing(folder));
        }
        Certificates::Shared(folder) => out.push_str(&sharing(folder)),
        Certificates::Copied | Certificates::None => {}
    }
    let mut step = |text: &str| {
        number += 1;
        let _ = writeln!(out, "  {number}. {text}");
    };
    step("sudo systemctl disable --now caddy             # ports 80 and 443 are free now");
    if proxyfile == Path::new(SERVICE_FILE) {
        step("sudo systemctl restart llmproxy");
    } else {
        step(&format!("sudo mv {SERVICE_FILE}.new {SERVICE_FILE}      # taken over at once"));
    }
    step("sudo llmproxy status --control /run/llmproxy/control.sock   # sites and certificates");
    out.push_str("Back: sudo systemctl disable --now llmproxy && sudo systemctl enable --now caddy\n");
    out
}

/// The unit of llmproxy may write nothing but its own folders, and Caddy's are closed to others.
fn sharing(folder: &Path) -> String {
    format!(
        "     A folder of Caddy's user needs this in `sudo systemctl edit llmproxy`:\n       [Service]\n       User=caddy\n       Group=caddy\n       ReadWritePaths={}\n",
        folder.display()
    )
}
