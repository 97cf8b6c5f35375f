//! Certificates over the DNS challenge: Pebble really looks for the record, which a program or a stand-in for
//! Cloudflare's API sets in Pebble's own DNS server.

use crate::harness::cloudflare::{self, Cloudflare};
use crate::harness::pebble::{Pebble, installed_or_skip};
use crate::harness::process::{Proxy, Which, command, run_within};
use crate::harness::tls;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LONG: u64 = 90 * 24 * 3600;
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_until(proxy: &Proxy, what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}; it said:\n{}", proxy.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wait_for_log(proxy: &Proxy, part: &str) {
    wait_until(proxy, &format!("not logged: {part}"), || proxy.log().contains(part));
}

/// Waits until the name is served with a certificate of the CA.
fn wait_for(proxy: &Proxy, pebble: &Pebble, name: &str) {
    let authority = pebble.issuing_root();
    let is_served = || tls::get(pebble.https_port, name, &authority).is_ok_and(|r| r.text() == "here");
    wait_until(proxy, &format!("no certificate for {name}"), is_served);
}

fn start(pebble: &Pebble, storage: &Path, options: &str, sites: &str) -> Proxy {
    Proxy::start(Which::Llmproxy, &(pebble.options(storage, options) + sites), pebble.https_port)
}

fn site(names: &str, tls: &str) -> String {
    format!("{names} {{\n\ttls {{\n{tls}\n\t}}\n\trespond here\n}}\n")
}

/// A program for `dns exec` in a folder of its own, which also keeps what it noted.
struct Program {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Program {
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dns-record");
        let script = script.replace("FOLDER", folder.path().to_str().unwrap());
        std::fs::write(&path, format!("#!/bin/bash\nset -u\nPATH=/usr/bin:/bin\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, path }
    }

    /// Sets the record in the CA's DNS server, and clears it when the last value of its name is.
    fn that_works(pebble: &Pebble) -> Self {
        Self::new(&format!(
            r#"[ "$1" = --flag ] && shift
exec 9>FOLDER/lock; flock 9
echo "$1 $2" >> FOLDER/calls
mkdir -p "FOLDER/$2"
case $1 in
    set) touch "FOLDER/$2/$3"; action=set-txt; body="{{\"host\":\"$2.\",\"value\":\"$3\"}}" ;;
    clear) rm -f "FOLDER/$2/$3"; rmdir "FOLDER/$2" || exit 0; action=clear-txt; body="{{\"host\":\"$2.\"}}" ;;
esac
exec 3<>/dev/tcp/127.0.0.1/{}
printf 'POST /%s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s' $action ${{#body}} "$body" >&3
read -r answer <&3
[[ $answer == *200* ]]"#,
            pebble.dns_management()
        ))
    }

    /// `set NAME` and `clear NAME`, sorted.
    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        let mut calls: Vec<String> = text.lines().map(str::to_owned).collect();
        calls.sort_unstable();
        calls
    }
}

#[test]
fn wildcards_and_names_are_proved_by_a_program() {
    if !installed_or_skip() {
        return;
    }
    let (pebble, storage) = (Pebble::start(false, LONG), tempfile::tempdir().unwrap());
    let program = Program::that_works(&pebble);
    let options = format!("\tacme_dns exec {} --flag\n\ttls_resolvers {}\n", program.path.display(), pebble.resolver());
    let plain = |names: &str| format!("{names} {{\n\trespond here\n}}\n");
    let sites = [
        plain("*.wild.test"),
        // Proved at one name, at one time.
        plain("wild.test"),
        plain("a.test, b.other.test"),
        plain("covered.wild.test"),
        "forced.wild.test {\n\ttls force_automate\n\trespond here\n}\n".to_owned(),
        // The record of another name, to which the admin points.
        site("delegated.test", "\t\tdns_challenge_override_domain proof.elsewhere.test"),
    ];
    pebble
        .tell_dns("set-cname", &json!({"host": "_acme-challenge.delegated.test.", "target": "proof.elsewhere.test."}));
    let proxy = start(&pebble, storage.path(), &options, &sites.concat());
    let names = [
        "x.wild.test",
        "wild.test",
        "a.test",
        "b.other.test",
        "covered.wild.test",
        "forced.wild.test",
        "delegated.test",
    ];
    for name in names {
        wait_for(&proxy, &pebble, name);
    }
    assert_eq!(pebble.orders(), 6, "one for each name but the covered one: {}", proxy.log());
    let records = [
        "_acme-challenge.a.test",
        "_acme-challenge.b.other.test",
        "_acme-challenge.forced.wild.test",
        "_acme-challenge.wild.test",
        "_acme-challenge.wild.test",
        "proof.elsewhere.test",
    ];
    let expected: Vec<String> =
        ["clear", "set"].iter().flat_map(|action| records.iter().map(move |name| format!("{action} {name}"))).collect();
    wait_until(&proxy, "not all cleared", || program.calls() == expected);
}

#[test]
fn what_goes_wrong_is_told_and_leaves_no_record() {
    if !installed_or_skip() {
        return;
    }
    let (pebble, storage) = (Pebble::start(false, LONG), tempfile::tempdir().unwrap());
    let note = "echo \"$1 $2\" >> FOLDER/calls\n";
    let failing = Program::new(&format!("{note}echo \"the key $DNS_KEY is wrong\" >&2; exit 7"));
    let hanging = Program::new(&format!("{note}[ $1 = clear ] || sleep 600"));
    let silent = Program::new(note);
    let dns = |program: &Program, more: &str| {
        format!(
            "\t\tdns exec {} {{\n\t\t\ttimeout 1s\n\t\t}}\n\t\tresolvers {}\n{more}",
            program.path.display(),
            pebble.resolver()
        )
    };
    let sites = [
        site("failing.test", &dns(&failing, "")),
        site("hanging.test", &dns(&hanging, "")),
        site("silent.test", &dns(&silent, "\t\tpropagation_timeout 3s")),
    ];
    let file = pebble.options(storage.path(), "") + &sites.concat();
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &file, pebble.https_port, |command| {
        command.env("DNS_KEY", "not-to-be-shown");
    });
    wait_for_log(&proxy, "exit status: 7: the key … is wrong");
    wait_for_log(&proxy, "did not end within 1 s and was killed");
    let unseen =
        format!("the record _acme-challenge.silent.test was not seen within 3 s: {} has not got it", pebble.resolver());
    wait_for_log(&proxy, &unseen);
    assert!(!proxy.log().contains("not-to-be-shown"), "{}", proxy.log());
    for (program, name) in [(&failing, "failing"), (&hanging, "hanging"), (&silent, "silent")] {
        let expected = ["clear", "set"].map(|action| format!("{action} _acme-challenge.{name}.test"));
        wait_until(&proxy, &format!("{name} is not cleared"), || program.calls() == expected);
    }
    // The CA was not told to look for what is not there.
    assert!(!proxy.log().contains("urn:ietf:params:acme:error"), "{}", proxy.log());
}

#[test]
fn an_order_that_a_reload_gives_up_leaves_no_record() {
    if !installed_or_skip() {
        return;
    }
    let (pebble, storage) = (Pebble::start(false, LONG), tempfile::tempdir().unwrap());
    let program = Program::new("echo \"$1 $2\" >> FOLDER/calls");
    let tls = format!("\t\tdns exec {}\n\t\tresolvers {}", program.path.display(), pebble.resolver());
    let kept = "http://kept.test {\n\trespond here\n}\nhttps://127.0.0.1 {\n\ttls internal\n}\n";
    let proxy = start(&pebble, storage.path(), "", &(site("gone.test", &tls) + kept));
    wait_until(&proxy, "not set", || program.calls() == ["set _acme-challenge.gone.test"]);
    std::fs::write(&proxy.config, pebble.options(storage.path(), "") + kept).unwrap();
    run_within(proxy.command(Which::Llmproxy).arg("reload"), PATIENCE);
    wait_until(&proxy, "not cleared", || program.calls().contains(&"clear _acme-challenge.gone.test".to_owned()));
}

#[test]
fn cloudflare_sets_and_clears_the_record() {
    if !installed_or_skip() {
        return;
    }
    let (pebble, storage) = (Pebble::start(false, LONG), tempfile::tempdir().unwrap());
    let api = Cloudflare::start(pebble.dns_management());
    let dns = |token: &str, more: &str| {
        let (endpoint, resolver) = (api.endpoint(), pebble.resolver());
        format!(
            "\t\tdns cloudflare {{\n\t\t\tapi_token {token}\n\t\t\tendpoint {endpoint}\n{more}\t\t}}\n\t\tresolvers {resolver}\n\t\tdns_ttl 5s"
        )
    };
    let sites = [
        site("*.deep.zone.test", &dns("{env.CF_API_TOKEN}", "")),
        site("two.zone.test", &dns("{env.CF_API_TOKEN}", &format!("\t\t\tzone_token {}\n", cloudflare::ZONE_TOKEN))),
        site("elsewhere.test", &dns("{env.CF_API_TOKEN}", "")),
        site("denied.zone.test", &dns("a-token-that-is-wrong", "")),
        // May find the zone, and not write.
        site("read-only.zone.test", &dns(cloudflare::ZONE_TOKEN, "")),
    ];
    let file = pebble.options(storage.path(), "") + &sites.concat();
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &file, pebble.https_port, |command| {
        command.env("CF_API_TOKEN", cloudflare::TOKEN);
    });
    wait_for(&proxy, &pebble, "x.deep.zone.test");
    wait_for(&proxy, &pebble, "two.zone.test");
    wait_for_log(&proxy, "Cloudflare: the token sees no zone of _acme-challenge.elsewhere.test");
    wait_for_log(
        &proxy,
        "Cloudflare: GET /zones: status 403: Authentication error for … (10000); the token needs the permissions",
    );
    wait_for_log(&proxy, "Cloudflare: POST /zones/z1/dns_records: status 403");
    wait_until(&proxy, "records are left", || api.records().is_empty());
    let log = proxy.log();
    for secret in [cloudflare::TOKEN, cloudflare::ZONE_TOKEN, "a-token-that-is-wrong"] {
        assert!(!log.contains(secret), "{log}");
    }
    let asked = api.asked();
    assert_eq!(asked.iter().filter(|line| line.starts_with("DELETE")).count(), 2, "{asked:#?}");
}

/// Providers are plugins in Caddy, so the real one cannot be asked: this is what its code makes of such lines.
#[test]
fn the_adapted_json_is_that_of_caddy_with_the_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Proxyfile");
    let text = "{\n\tacme_dns cloudflare {env.CF}\n\tdns exec /bin/dns\n\ttls_resolvers 9.9.9.9\n}\n".to_owned()
        + "a.test {\n\ttls {\n\t\tdns exec /bin/dns --flag {\n\t\t\ttimeout 5s\n\t\t}\n\t\tpropagation_timeout -1\n"
        + "\t\tpropagation_delay 5s\n\t\tdns_ttl 1m\n\t\tdns_challenge_override_domain b.test\n\t\tresolvers 1.1.1.1\n\t}\n}\n"
        + "c.test {\n\trespond here\n}\n";
    std::fs::write(&file, text).unwrap();
    let output = run_within(command(Which::Llmproxy, folder.path()).arg("adapt").arg("--config").arg(&file), PATIENCE);
    let adapted: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let second = 1_000_000_000_i64;
    let expected = json!({
        "automation": {"policies": [
            {"subjects": ["a.test"], "issuers": [{"module": "acme", "challenges": {"dns": {
                "provider": {"name": "exec", "command": "/bin/dns", "args": ["--flag"], "timeout": 5 * second},
                "ttl": 60 * second, "propagation_delay": 5 * second, "propagation_timeout": -1,
                "resolvers": ["1.1.1.1"], "override_domain": "b.test",
            }}}]},
            {"issuers": [{"module": "acme", "challenges": {"dns": {
                "provider": {"name": "cloudflare", "api_token": "{env.CF}"}, "resolvers": ["9.9.9.9"],
            }}}]},
        ]},
        "dns": {"name": "exec", "command": "/bin/dns"},
        "resolvers": ["9.9.9.9"],
    });
    assert_eq!(adapted["apps"]["tls"], expected, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn validate_finds_what_would_fail_later() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    let validate = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let output =
            run_within(command(Which::Llmproxy, folder.path()).arg("validate").arg("--config").arg(&file), PATIENCE);
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    for (tls, part) in [
        ("dns exec /nonexistent/dns", "/nonexistent/dns: No such file"),
        (&format!("dns exec {}", plain.display()), "not executable by this user"),
        ("dns exec surely-no-such-program", "no such program in PATH"),
        ("dns cloudflare {env.SURELY_NOT_SET}", "`api_token` is empty"),
        ("dns cloudflare {file./nonexistent/token}", "/nonexistent/token: No such file"),
        ("dns cloudflare a-token {\n\t\t\tendpoint http://cf.example\n\t\t}", "`endpoint` must be"),
        ("dns exec /bin/true\n\t\tresolvers https://dns.example", "is not a DNS server"),
    ] {
        let (valid, said) = validate("Proxyfile", &site("*.a.test", &format!("\t\t{tls}")));
        assert!(!valid && said.contains(part), "{tls}: {said}");
        // Told at the line that asks for it.
        assert!(said.contains("tls {"), "{tls}: {said}");
        assert!(!said.contains("a-token"), "{said}");
    }
    let (valid, said) = validate("Proxyfile", &site("*.a.test", "\t\tdns exec /bin/true"));
    assert!(valid, "{said}");
    let (valid, said) = validate("Proxyfile", "*.a.test {\n\trespond here\n}\n");
    assert!(!valid && said.contains("no-certificate") && said.contains("acme_dns"), "{said}");

    let json = |dns: serde_json::Value| {
        json!({"apps": {"http": {"servers": {}}, "tls": {"automation": {"policies": [
            {"subjects": ["*.a.test"], "issuers": [{"module": "acme", "challenges": {"dns": dns}}]},
        ]}}}})
        .to_string()
    };
    for (dns, part) in [
        (json!({"provider": {"name": "route53"}}), "dns exec PROGRAM"),
        (json!({}), "no provider"),
        (json!({"provider": {"name": "exec", "comand": "x"}}), "has the fields `command`"),
        (json!({"provider": {"name": "exec", "command": "/bin/true"}, "propagation_timeout": -5}), "only -1"),
    ] {
        let (valid, said) = validate("config.json", &json(dns.clone()));
        assert!(!valid && said.contains(part), "{dns}: {said}");
    }
}
