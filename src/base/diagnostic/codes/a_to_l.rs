//! The codes from A to L.

use super::Code;

pub const CODES: &[Code] = &[
    (
        "account-not-fixed",
        "an account would be made from the request",
        "User names and password hashes of `basic_auth` are settled when the file is loaded: a text, `{$VAR}` \
         or `{env.VAR}`. A placeholder that shows the request would let a client choose its own password.",
    ),
    (
        "acme-ca-not-usable",
        "certificates cannot be ordered from this CA",
        "`acme_ca` (or `dir`, `test_dir` of `issuer acme`) is the whole URL of the CA's directory, with `https://` in front, such as \
         `https://ca.example.com:9000/acme/local/directory`. `acme_ca_root` (`trusted_roots`) names a PEM file with the certificate \
         of the root that signed the CA's own; llmproxy must be able to read it.",
    ),
    (
        "address-used-twice",
        "two servers listen on one address",
        "A listening address belongs to one server. Let the servers share one `listen` entry, or give each its \
         own port.",
    ),
    (
        "alert-without-condition",
        "an alert has no condition",
        "An alert needs a line that says when it is due: `when spend over 1h > $10`, `when errors over 5m > 5%`, \
         `when budget NAME > 80%` or `when new_network`.",
    ),
    (
        "algorithm-without-key",
        "an algorithm is accepted that no key can verify",
        "`algorithms` of `jwt_auth` names one that none of its keys is for: HS256 and its kin need a `secret`, all others a \
         public key from `key` or `jwks`. A public key is never taken for a secret, or everybody who has it could sign.",
    ),
    (
        "ambiguous-site",
        "two sites have the same address",
        "Two site blocks claim the same address, so nobody could say which one a request belongs to. Merge the \
         two blocks, or give one of them another host, port or path. A host counts as the same whatever its case, \
         and an address without a port means the HTTPS port.",
    ),
    (
        "anonymous-block",
        "a block inside an import's block needs a name",
        "The block given to `import` is split by the first word of each line: `{blocks.name}` in the snippet \
         stands for what follows `name`. A brace without a word before it has no name. Write one, or use \
         `{block}` for everything.",
    ),
    (
        "args-out-of-range",
        "the import gives fewer arguments than the snippet uses",
        "`{args[1]}` is the second argument of the `import` line. When the line has fewer, the text stays as it \
         is, braces and all, as in Caddy. Give the argument on the `import` line, or remove the placeholder.",
    ),
    (
        "bad-args-index",
        "the index of an import argument is not usable",
        "`{args[0]}` takes one number and may stand anywhere in a word. A range such as `{args[1:]}` must be a \
         word of its own, since it becomes several words.",
    ),
    (
        "bad-listener-address",
        "a listening address is not usable",
        "`bind` and `default_bind` take hosts, IP addresses, `unix//path` or `fd/3`, with the network before a \
         slash where it is not TCP.",
    ),
    (
        "bad-site-address",
        "a site's address is not usable",
        "An address is `[scheme://]host[:port][/path]`: the scheme is `http` or `https`, an IPv6 address stands \
         in brackets, `*` stands for exactly one label of a name, and `:80` alone means any host.",
    ),
    ("bad-value", "a value is not usable", "The option takes one of the values that the help of the message lists."),
    (
        "brace-glued-to-address",
        "a space is missing between an address and `{`",
        "A brace opens a block only when it is a word of its own. In `example.com{` it would be part of the \
         address. Write `example.com {`.",
    ),
    (
        "brace-not-alone",
        "`}` must stand on a line of its own",
        "A closing brace ends the block that the matching `{` opened. It stands first on its line and nothing \
         follows it there.",
    ),
    (
        "brace-on-new-line",
        "`{` must end the line it belongs to",
        "A block belongs to the directive on whose line it opens. A brace on the next line opens a block that \
         belongs to nothing.",
    ),
    (
        "budget-without-limit",
        "a budget has no limit",
        "A budget limits nothing until it is told what may be spent: `limit $20 per month`, `limit 2M tokens per day` or \
         `limit $5 in total`; or on one line, `budget person $20 per month`.",
    ),
    (
        "cannot-read-file",
        "the configuration file cannot be read",
        "The file is missing, is a directory, or may not be read by this user. Name another with `--config`.",
    ),
    (
        "certificate-expired",
        "a certificate given by file has expired",
        "No client would accept it. Renew it, or leave the file out and let llmproxy obtain a certificate. A running \
         server keeps the certificates it has until the file is replaced.",
    ),
    (
        "certificate-expires-soon",
        "a certificate given as a file is near its end",
        "What is given as a file is not renewed by llmproxy. Put a new one in its place in time; the file is watched.",
    ),
    (
        "certificate-not-usable",
        "a certificate or key cannot be used",
        "The file is missing or may not be read, is not PEM, or holds no certificate or key.",
    ),
    (
        "certificate-not-valid-yet",
        "a certificate is not valid yet",
        "Its validity begins in the future, or the clock of this machine is wrong. It is served all the same.",
    ),
    (
        "certificate-wrong-key",
        "certificate and key do not belong together",
        "The key is that of another certificate. When both files are replaced one after the other this is seen for a \
         moment: a running server keeps the old pair until the new one is whole.",
    ),
    (
        "certificate-wrong-name",
        "a certificate is not for the names of its site",
        "`tls CERT KEY` serves that certificate for every name of the site, and a client refuses one that does not have \
         the name it asked for. Give the site a certificate that names it, or move the name to another site.",
    ),
    (
        "comma-in-address",
        "an address holds a comma",
        "Several addresses of one site are separated by spaces, or by a comma and a space: `a.example, \
         b.example`. Without the space it is one address with a comma in it.",
    ),
    (
        "comment-joins-lines",
        "a backslash in a comment joins two lines",
        "A backslash outside quotes escapes the end of its line, and Caddy's language lets it do so inside a \
         comment as well. The line below is then read as the end of the line before the comment. Put the comment \
         on a line of its own.",
    ),
    (
        "conflicting-tls-policies",
        "two sites want different TLS for the same name",
        "TLS settings are chosen by server name before the request is read. Two sites of one name and port must \
         have the same ones.",
    ),
    (
        "contradicting-options",
        "two options contradict each other",
        "Each of them makes sense alone, but both together cannot be obeyed. Remove one.",
    ),
    (
        "cors-credentials-for-all",
        "cookies of every visitor would be open to every page",
        "With `credentials`, a browser sends the visitor's cookies and lets the calling page read the answer. Where every \
         origin may call (`*`, `https://*` or `null`), any page in the world could so act in the name of whoever is logged in. \
         Name the origins that may, or leave `credentials` out: a token in the `Authorization` header needs none.",
    ),
    (
        "default-on-request-header",
        "`?` sets a default on response headers only",
        "`?Field value` gives a response header a value when the handler gave it none. Request headers have \
         no such default: use a matcher such as `header !Field` with `request_header`.",
    ),
    (
        "directive-not-allowed-here",
        "a directive is not allowed in this place",
        "Some directives set up a whole site (`bind`, `tls`, `log`, `handle_errors`) and stand directly in its \
         block, not inside `handle` or `route`; a few others belong in particular blocks only.",
    ),
    (
        "directive-outside-site",
        "a directive stands where an address belongs",
        "At the top of a file stand global options, snippets, named routes and sites; directives stand inside a \
         site. A file with a single site may leave the braces out, but its first line is still the address.",
    ),
    (
        "dns-provider-not-usable",
        "the provider of the DNS challenge cannot be used",
        "`dns exec PROGRAM` needs a program that is there and that the user llmproxy runs as may execute. `dns cloudflare TOKEN` \
         needs an API token that may edit the zone's records; an `endpoint` of its own begins with `https://`. With placeholders \
         such as `{env.CF_API_TOKEN}`, the variable must be set where llmproxy runs. `acme_dns` without a provider uses that of the \
         option `dns`, which must then be there.",
    ),
    (
        "duplicate-host",
        "a host is listed twice in one matcher",
        "The names of a `host` matcher are compared without regard to case, and names beyond ASCII in their \
         `xn--` form. One of the two is superfluous: remove it.",
    ),
    (
        "duplicate-input",
        "a map has the same input twice",
        "Only the first of two equal inputs would ever be used. Remove one.",
    ),
    (
        "duplicate-matcher",
        "a matcher is defined twice",
        "The name of a matcher is unique in its site. Rename one of the two, or write both conditions into one \
         block, which then must all hold.",
    ),
    (
        "duplicate-option",
        "an option is given twice",
        "The option takes one value; the second would silently replace the first. Remove one.",
    ),
    (
        "duplicate-secret",
        "two secret paths are the same",
        "Each `secret` of `ollama_compat` stands for one token: a request by a path that stands for two could not be \
         told whose rights it has. Give each client a path of its own, such as `openssl rand -hex 16` makes.",
    ),
    (
        "duplicate-snippet",
        "a snippet is defined twice",
        "The name of a snippet is unique in the file and everything it imports. Rename one of the two, or remove \
         it.",
    ),
    (
        "duplicate-token",
        "two tokens have one name or one value",
        "The name of a token says in logs and limits whose request it was, and its value decides which rights count: \
         neither may belong to two tokens, in the file itself or in token files. A value counts as the same when one \
         is given in clear and the other as its `sha256:` hash. Give one of them another name, or remove it.",
    ),
    (
        "duplicate-user",
        "a user name is given twice",
        "`basic_auth` has one password for each user name. Remove one of the two lines.",
    ),
    (
        "empty-braces",
        "`{}` is not an empty block",
        "Two braces without a blank between them are an ordinary word. An empty block needs its braces on two \
         lines, and most directives that take a block can simply leave it out.",
    ),
    (
        "empty-password",
        "a user name or password hash is empty",
        "Each line of `basic_auth` is a user name and the hash of the password. If the hash comes from an \
         environment variable, see that it is set where llmproxy runs.",
    ),
    (
        "empty-token",
        "a token is empty",
        "An empty token would let everybody in, so it is refused. Most often the environment variable it comes \
         from is not set in the service: check with `systemctl show -p Environment`, or use `--envfile`.",
    ),
    (
        "encrypted-key",
        "a private key is encrypted",
        "llmproxy has nobody to ask for the passphrase. Write the key without one, readable by its user alone: \
         `openssl pkey -in encrypted.key -out plain.key`.",
    ),
    ("endless-map", "a map refers to its own output", "The value of a destination cannot be computed from itself."),
    (
        "expected-address",
        "another address is expected after a comma",
        "A comma at the end of an address says that another address follows, on this line or the next. Remove the \
         comma after the last one.",
    ),
    (
        "expected-open-brace",
        "a block is expected",
        "A snippet `(name)` and a named route `&(name)` are followed by a block: `{` on the same line, `}` on a \
         line of its own.",
    ),
    (
        "file-too-large",
        "a configuration file is too large",
        "A configuration file is read whole, so its size is bounded, before and after environment variables are \
         filled in. A file of this size is most likely not a configuration at all.",
    ),
    (
        "folder-required",
        "the path is not a folder",
        "`record` makes a file for each request, so it needs the path of a folder. One that does not exist is made when \
         the first record is written; one that is a file or a device cannot be.",
    ),
    (
        "global-options-not-first",
        "global options must come first",
        "A block without an address holds the global options. There is one at most, and it is the first block of \
         the file. A site block needs an address before its brace.",
    ),
    (
        "health-check-not-made",
        "an upstream is not checked",
        "Options beginning with `health_` have an effect only beside `health_uri` or `health_port`. An upstream whose \
         address has a placeholder of the request cannot be checked without a request: it counts as healthy, and \
         `fail_duration` can watch it.",
    ),
    (
        "heredoc-indent",
        "a heredoc line is indented less than its closing marker",
        "The blanks before the closing marker are taken off every line, so every line that is not empty must \
         begin with exactly those blanks. Tabs and spaces are not the same.",
    ),
    (
        "heredoc-marker",
        "a heredoc has no usable marker",
        "A heredoc is `<<MARKER`, its text on the following lines, and `MARKER` again. The marker is made of \
         letters, digits, `-` and `_`. Write `\\<<` for a word that begins with two angle brackets.",
    ),
    (
        "ignored-words",
        "some words are ignored",
        "Caddy accepts these words and does nothing with them, and so do we. Remove them, so that nobody believes \
         that they act.",
    ),
    (
        "import-cycle",
        "an import leads back to itself",
        "A snippet or file imports itself, perhaps by way of others, which would never end.",
    ),
    (
        "import-empty",
        "an imported file is empty",
        "The file exists and holds nothing but blanks. This is allowed, but seldom meant.",
    ),
    (
        "import-no-match",
        "no file matches an import pattern",
        "A pattern with `*` or `?` may match nothing; the import is then empty. Files whose name begins with a \
         dot are not matched by a leading `*`. The directory is watched: a file that appears later is taken up.",
    ),
    (
        "import-not-found",
        "there is no such snippet or file",
        "`import` looks for a snippet of this name first, which must be defined above, and then for a file, \
         relative to the file that holds the import line.",
    ),
    (
        "import-pattern",
        "an import pattern has too many wildcards",
        "A pattern may hold one `*` and one `?`, and no `[…]`. More could take very long to match.",
    ),
    (
        "import-too-deep",
        "imports are nested too deep",
        "Imports inside imports are limited. Real configurations have two or three levels.",
    ),
    (
        "import-too-large",
        "imports bring in too many words",
        "Snippets that import one another several times multiply. The total is bounded so that a small file \
         cannot use up the memory of the machine.",
    ),
    (
        "import-unreadable",
        "an imported file cannot be read",
        "The file exists but is a directory, is not text, or may not be read by this user.",
    ),
    (
        "incomplete-zone",
        "a zone of `rate_limit` lacks what it is to count",
        "A zone needs a `window` with `events` or `tokens`, or `concurrent`, or `rate`; several together are all held to. A window without \
         anything to count in it, or a count without its window, is a mistake: `window 1m` and `events 100` is a hundred requests in any minute.",
    ),
    (
        "invalid-amount",
        "an amount to be spent is not usable",
        "`limit` of `budget` takes money in dollars, with the sign (`$20`, `$0.50`), or a number of tokens with the word \
         behind it (`500k tokens`, `2M tokens`). It must be more than nothing.",
    ),
    (
        "invalid-condition",
        "a condition of an alert is not usable",
        "A condition is what is watched, over how long, and what is too much: `spend over 1h > $10`, `tokens over 10m > 2M`, \
         `spend over 1h > 3x baseline 7d`, `errors over 5m > 5%`, `rate_limited over 5m > 10%`, `budget NAME > 80%`, or \
         `new_network`. Without `over` it is an hour, for shares five minutes. A baseline is 2 to 1024 times as long as what is measured.",
    ),
    (
        "invalid-duration",
        "a duration is not usable",
        "A duration is a number with a unit, or several: `300ms`, `30s`, `1m30s`, `2h`, `1d`.",
    ),
    (
        "invalid-expiry",
        "a token's expiry is not a time",
        "A token expires at a time in UTC: `2027-01-01`, from the first moment of that day on, or \
         `2027-01-01T18:30:00Z`.",
    ),
    (
        "invalid-header-field",
        "not a name that a header can have",
        "A header field name holds letters, digits and a few signs such as `-` and `_`, without spaces and \
         without the colon that follows it on the wire: write `X-Name value`, not `X-Name: value`.",
    ),
    (
        "invalid-header-name",
        "a header name is not usable",
        "The name of a header is made of letters, digits and a few signs such as `-`.",
    ),
    (
        "invalid-ip-range",
        "an IP range is not usable",
        "A range is an address or an address with a prefix length: `10.0.0.0/8`, `2001:db8::/32`. \
         `private_ranges` stands for all private ones.",
    ),
    (
        "invalid-json-config",
        "a JSON configuration does not fit",
        "The field is unknown, has the wrong type, or lacks a required part. Unknown fields are refused rather \
         than ignored: a mistyped option would otherwise do nothing.",
    ),
    (
        "invalid-jwks-url",
        "the URL of a key set is not usable",
        "`jwks` takes the address at which an issuer publishes its keys, `https://` and a host first. It stands as `jwks_uri` in \
         the issuer's `/.well-known/openid-configuration`.",
    ),
    (
        "invalid-jwt-key",
        "a key file is not usable",
        "`key` of `jwt_auth` takes a file with public keys or certificates in PEM, or a JSON Web Key (set): RSA from 2048 bits, \
         EC P-256 or P-384, or Ed25519. The public half of a private key is written by `openssl pkey -in FILE -pubout`.",
    ),
    (
        "invalid-limit",
        "a limit makes no sense",
        "Limits are whole numbers from 1 on, and bounded: `events` to a thousand million, `tokens` to a million million, `concurrent` and `burst` to a \
         million, `window` to 400 days, `ipv4_prefix` to 32 bits and `ipv6_prefix` to 128. To refuse every request, answer it with \
         `respond 429` or `abort` instead.",
    ),
    (
        "invalid-listen-address",
        "a listening address is not usable",
        "An address is `[network/]host:port` or `[network/]host:first-last`, or `unix//absolute/path`.",
    ),
    (
        "invalid-log",
        "a log cannot be written as it is configured",
        "A log needs a level (DEBUG, INFO, WARN, ERROR, PANIC, FATAL), a file name that does not depend on a \
         request, file modes in octal digits, and times of day as `15:04`. Where namespaces are both included and \
         excluded, each must be an exception to one of the other list.",
    ),
    (
        "invalid-method",
        "a request method is not usable",
        "A method is one word such as `GET` or `POST`; several are separated by blanks, without commas.",
    ),
    (
        "invalid-mount-path",
        "a path to put an API under is not usable",
        "`ollama_compat /ollama` puts the Ollama API under `/ollama`, and everything below that path is meant: write no \
         `*`. The path begins with a slash and has letters, digits and `-._~` in each part. To bound the directive to \
         some requests, give it a named matcher: `ollama_compat @name /ollama`.",
    ),
    (
        "invalid-number",
        "a number is not usable",
        "The option takes a number in the range stated in its reference page.",
    ),
    (
        "invalid-origin",
        "an origin is not usable",
        "An origin is what a browser sends as `Origin`: a scheme, a host and, unless it is the scheme's own, a port, as in \
         `https://app.example.com` or `http://localhost:3000`, without a path and without a slash at the end. \
         `https://*.example.com` stands for all names below a domain, `http://localhost:*` for all ports, `*` for every origin.",
    ),
    (
        "invalid-password-hash",
        "a password is not given as a hash",
        "`basic_auth` takes the hash of a password, never the password itself: it begins with `$2a$`, `$2b$` \
         or `$2y$` for bcrypt and with `$argon2id$` for argon2id. `caddy hash-password` makes one.",
    ),
    (
        "invalid-percentage",
        "a percentage is not usable",
        "A percentage is a number with its sign, above 0% and up to 100%: `80%`, `99.5%`.",
    ),
    (
        "invalid-period",
        "a period is not usable",
        "What may be spent is said `per day`, `per week`, `per month` or `in total`. Days begin at midnight, weeks on Monday, \
         months on the first, all of UTC.",
    ),
    (
        "invalid-price",
        "a price of a model makes no sense",
        "A price is written as `price MODEL in 2.5 cached 1.25 out 10`: US dollars for a million tokens, zero or more, with at most \
         six digits behind the point. `in` is always there; `cached`, `write`, `write_1h`, `audio_in`, `out`, `reasoning` and \
         `audio_out` where they differ; `above 200000`, `batch`, `flex` or `priority` before them for the calls they are for.",
    ),
    (
        "invalid-proxy-url",
        "the URL of a forward proxy is not usable",
        "It is `http://host:port`, `https://host:port` or `socks5://host:port`, with user and password before the \
         host where needed.",
    ),
    (
        "invalid-rate",
        "a rate is not usable",
        "`rate` of `rate_limit` is a whole number of requests by second, minute or hour, as nginx writes it: `10r/s`, `30r/m`, `100r/h`. `burst N` says how many may \
         come ahead of their time; those wait for it, unless `nodelay` lets all of them, or `delay N` the first N, go on at once.",
    ),
    (
        "invalid-regexp",
        "a regular expression is not usable",
        "The syntax is that of RE2: no look-around and no back-references, which keeps matching linear in the \
         length of the text.",
    ),
    (
        "invalid-resolver",
        "a DNS server is not usable",
        "A DNS server is an address or a name, with a port where it is not 53: `1.1.1.1`, `[2606:4700:4700::1111]:53`, \
         `dns.example.com:5353`. DNS over HTTPS or TLS is not spoken here.",
    ),
    (
        "invalid-rewrite",
        "a rewrite is not usable",
        "The target of the rewrite cannot be made into a valid URI, or one of its regular expressions is wrong.",
    ),
    (
        "invalid-secret-path",
        "a secret path is not usable",
        "A secret path is one part of a path, of letters, digits and `-._~`, such as `openssl rand -hex 16` makes. An \
         empty one, as from a variable that is not set, would let everybody in.",
    ),
    (
        "invalid-share",
        "a share of requests is not usable",
        "`sample` takes a number above 0 and at most 1: `1` is every request, `0.1` every tenth by chance. To record \
         nothing, leave the line out.",
    ),
    (
        "invalid-size",
        "a size is not usable",
        "A size is a number of bytes with an optional unit: `512`, `10MB` (decimal), `10MiB` (binary).",
    ),
    (
        "invalid-status",
        "a status code is not usable",
        "A status is a three-digit code such as `404`, and where a class is allowed, `4xx`.",
    ),
    (
        "invalid-tls-options",
        "TLS options for an upstream are not usable",
        "The certificate authorities or the client certificate named here cannot be read, or the options do not \
         fit together.",
    ),
    (
        "invalid-tls-policy",
        "TLS settings do not fit together",
        "The protocol versions, ciphers, curves or client authentication named here are unknown or cannot be \
         combined.",
    ),
    (
        "invalid-token-hash",
        "the hash of a token is not usable",
        "A token may be given as `sha256:` with 64 hexadecimal digits, or as an argon2id hash, which begins with \
         `$argon2id$`. Anything else that begins so is taken for a mistake, not for a token in clear. `llmproxy \
         hash-token` makes both.",
    ),
    (
        "invalid-token-line",
        "a line of a token file cannot be read",
        "A line is `NAME VALUE [key=value …]` with blanks between and none inside. The keys are `models`, `paths`, \
         `ips` (lists with commas), `expires`, `team`, `app` and `tag.NAME`. What stands behind `#` is a comment. \
         Until the line is mended the tokens that were loaded before go on; nothing of the changed file counts.",
    ),
    (
        "invalid-token-name",
        "the name of a token is not usable",
        "The name comes first, then the token: `token ide VALUE`. It stands in logs, in headers and in the tokens \
         that `llmproxy new-token` makes, so it has only letters, digits and `._@+-`, at most 64.",
    ),
    (
        "invalid-upstream-address",
        "the address of an upstream is not usable",
        "An upstream is `host:port`, `http://host:port`, `https://host`, `h2c://host:port` or \
         `unix//absolute/path`. A path is not part of it: use `rewrite`.",
    ),
    (
        "invalid-value",
        "a word is not one of those that may stand there",
        "An option of this kind takes one of a few words, such as `on` or `off`, or a text of a certain form. The \
         message names those that fit, or the nearest of them. Words are case-sensitive.",
    ),
    (
        "invalid-webhook-secret",
        "the secret of a webhook is not usable",
        "The secret signs what is sent. It is any text, or base64 behind `whsec_` as Standard Webhooks has it; `{$VAR}`, \
         `{env.VAR}` and `{file./path}` keep it out of the file. It cannot be empty, nor come from a request.",
    ),
    (
        "invalid-webhook-url",
        "the URL of a webhook is not usable",
        "A webhook is a whole URL, with `https://` (or `http://`, for a receiver in your own network) in front and without a user name.",
    ),
    (
        "jwks-without-tls",
        "keys are fetched without TLS",
        "Whoever can change what comes over this connection can put a key of their own in the place of the issuer's, and then \
         make tokens that open. Use `https://`; plain `http://` is for an issuer on the same machine.",
    ),
    (
        "key-in-clear",
        "a key stands in clear in the file",
        "Who can read the file can use the key, and it ends up in backups and version control. Put it into the \
         environment and write `{$NAME}`, or into a file and write `{file./path}`.",
    ),
];
