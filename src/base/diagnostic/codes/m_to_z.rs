//! The codes from M to Z.

use super::Code;

pub const CODES: &[Code] = &[
    (
        "malformed-matcher",
        "a matcher is not written as it should be",
        "Each kind of matcher has its own shape, shown in the help of the message and in the reference.",
    ),
    (
        "matcher-defined-twice",
        "a response matcher is defined twice",
        "Its name is unique within the directive. Rename one of the two.",
    ),
    (
        "matcher-outside-site",
        "a matcher is defined outside a site",
        "A named matcher `@name` belongs to one site and is defined inside its block. To share one, define it in \
         a snippet and import that into each site.",
    ),
    (
        "missing-module-id",
        "a JSON object does not say which module it is",
        "A handler needs `\"handler\"`, an issuer or storage `\"module\"`, with the name of the module.",
    ),
    ("missing-option", "an option is missing", "This choice needs a further option, which the message names."),
    (
        "mixed-schemes",
        "HTTP and HTTPS on one port",
        "A port speaks either HTTP or HTTPS. Two sites on one port must use the same; write the scheme into the \
         address (`http://`, `https://`) or use another port.",
    ),
    (
        "mixed-upstream-schemes",
        "the upstreams of one proxy have different schemes",
        "All upstreams of one `reverse_proxy` share one transport, so all are HTTP or all are HTTPS, as in Caddy. \
         Use two directives with matchers, or give upstreams settings of their own (`to URL { … }`): then each has its scheme.",
    ),
    (
        "named-route-cut-short",
        "only the first line of a named route has an effect",
        "Caddy joins the lines of a named route that have no matchers into one route and then keeps its first \
         handler alone; a file means here what it means there. Put the lines into a `route` block inside the named \
         route: then all of them run, in text order, here and in Caddy.",
    ),
    (
        "nesting-too-deep",
        "blocks are nested too deep",
        "Blocks inside blocks are limited to a depth that no real configuration comes near.",
    ),
    (
        "no-authentication-provider",
        "authentication without a way to authenticate",
        "An `authentication` handler needs the provider `http_basic`; without one nobody could ever get in.",
    ),
    (
        "no-certificate",
        "a site has no certificate",
        "The site is to be served over HTTPS and no certificate for it is to be had: CAs give those for wildcards over the DNS \
         challenge alone. Configure it with `tls { dns PROVIDER … }` or the option `acme_dns`, name the hosts one by one, name \
         certificate files with `tls CERT KEY`, use the internal CA with `tls internal`, or serve plain HTTP with `http://` in the \
         address.",
    ),
    (
        "no-jwt-key",
        "there is no key to check tokens with",
        "`jwt_auth` checks signatures with the keys that an issuer publishes (`jwks URL`), with those of files (`key FILE`) or \
         with a shared secret (`secret TEXT`). At least one of them is needed.",
    ),
    (
        "no-randomness",
        "the system gives no random bytes",
        "A secret key could not be made, as the operating system refused random bytes. This is a fault of the \
         machine.",
    ),
    (
        "not-supported-yet",
        "known, but cannot run yet",
        "This is a valid Caddy configuration that `adapt` understands and this version cannot run. It is refused \
         rather than ignored.",
    ),
    (
        "not-text",
        "the file is not text",
        "A configuration file is UTF-8 text without NUL bytes. This looks like a binary file, or like text in \
         another encoding.",
    ),
    (
        "old-args-placeholder",
        "an old spelling of an import argument",
        "`{args.0}` still works and means `{args[0]}`, the spelling that also has ranges.",
    ),
    (
        "old-spelling",
        "an old name of an option",
        "The option was renamed. The old name still works and means the same.",
    ),
    (
        "ollama-past-guard",
        "the Ollama API is reached past the access control",
        "`auth_token /v1/* …` guards only what is under `/v1/`. `ollama_compat` turns requests for `/api/chat` and others into \
         requests for `/v1/chat/completions` after access control has run, so that anybody could use the upstream by them. \
         Let the access control stand without a path, or give it `/` and `/api/*` as well.",
    ),
    (
        "on-demand-without-permission",
        "anybody could have certificates made for any name",
        "With `on_demand` a certificate is had when a client asks for a name. Where the site is for every name, or for a \
         wildcard, and a public CA is asked, strangers could use up your rate limits there. Name a URL that says which \
         names are yours, `on_demand_tls { ask URL }` in the global options, or write the hosts into the site's address.",
    ),
    (
        "open-upstream-key",
        "an upstream key is used by whoever comes",
        "The site can be reached from other machines and adds your API key to every request it passes on, so anybody who finds it spends your money. Put an access check before the proxy (`auth_token {$TOKEN}`, `basic_auth`, `forward_auth`, a `remote_ip` matcher, client certificates), or bind the site to a loopback address.",
    ),
    (
        "option-not-allowed-here",
        "an option stands where it has no meaning",
        "Some lines belong to the `log` option at the top of the file (`include`, `exclude`), others to the `log` \
         directive of a site (`hostnames`). Move the line to the other place.",
    ),
    (
        "path-in-site-address",
        "an address holds a path",
        "A path in a site's address works as a path matcher on the whole site. This is deprecated in Caddy: use \
         `handle /path*` inside the site.",
    ),
    (
        "path-required",
        "exactly one path is required",
        "This directive works on the path it matches, so it takes one path matcher such as `/api/*`.",
    ),
    (
        "placeholder-required",
        "a placeholder is required here",
        "This word is set rather than read, so it must be a placeholder such as `{my_value}`.",
    ),
    (
        "plain-port-443",
        "a TLS port is spoken to in plain text",
        "An upstream written as `host:443` has no scheme, so the connection is plain HTTP, as in Caddy; a TLS server answers that with an error. Write `https://host`, or give the transport `tls`.",
    ),
    (
        "removed-option",
        "an option that no longer exists",
        "Older versions of Caddy had this option; the message names what takes its place.",
    ),
    (
        "renamed-directive",
        "an old name of a directive",
        "The directive was renamed. The old name still works and means the same.",
    ),
    (
        "renamed-option",
        "an old name of an option",
        "The option was renamed. The old name still works and means the same.",
    ),
    (
        "secret-without-token",
        "a secret path stands for a token that is not there",
        "`secret NAME PATH` of `ollama_compat` opens the API with the rights of the token NAME of `auth_token`. No token of \
         that name is in the file, so that every request by the path is answered 401. Name the token as `auth_token` does.",
    ),
    (
        "short-secret-path",
        "a secret path can be guessed",
        "Whoever knows a secret path has the rights of the token it stands for, without any key. Make it as long and \
         random as a key: `openssl rand -hex 16` makes a good one.",
    ),
    ("text-after-brace", "nothing may follow `{` on its line", "The lines of a block begin below its opening brace."),
    (
        "timeout-cuts-slow-models",
        "a timeout is shorter than models think",
        "A reasoning model may be silent for minutes before its first byte and between two. A read or response header timeout below that ends the request with 504 though the upstream works, and the work is billed all the same. Without these timeouts a request still ends when the client leaves or the connection breaks.",
    ),
    (
        "token-file-empty",
        "a token file has no token",
        "The file can be read and has no line with a token, so nobody is let in by it. That is what happens when the \
         last token is taken out; if you meant another file, look at the path.",
    ),
    (
        "token-file-readable",
        "every user of the machine can read a token file",
        "A token file says who may spend your money. Let it belong to root and the group that llmproxy runs as, with \
         mode 0640. Tokens in it that are given as hashes are of no use to a reader, those in clear are.",
    ),
    (
        "token-not-fixed",
        "a token must not come from the request",
        "A token that the client chooses itself protects nothing. Use `{$NAME}`, `{env.NAME}` or \
         `{file./path}`.",
    ),
    (
        "too-many-outputs",
        "a map line has more outputs than destinations",
        "The line `map source a b` names the destinations; every line of its block gives one value for each at \
         most.",
    ),
    (
        "unclosed-block",
        "a block is never closed",
        "Every `{` at the end of a line needs its `}` on a line of its own. The message shows the block that was \
         still open when the file ended; the missing brace may belong to a block inside it, so look for a `}` \
         whose indent does not fit.",
    ),
    (
        "undefined-matcher",
        "a matcher is not defined",
        "`@name` refers to a named matcher, which is defined in the same site: `@name path /x/*`.",
    ),
    (
        "undefined-named-route",
        "a named route is not defined",
        "`invoke name` runs the route defined at the top of the file as `&(name) { … }`.",
    ),
    (
        "unexpected-block",
        "a block is not expected here",
        "This directive takes no block. Remove the braces and what is between them.",
    ),
    (
        "unexpected-close-brace",
        "a `}` closes nothing",
        "There is one `}` more than there are blocks. Remove it, or find the block above whose `{` is \
         missing.",
    ),
    (
        "unknown-algorithm",
        "there is no such signature algorithm",
        "`jwt_auth` knows HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA. `none`, a token \
         without a signature, is never accepted.",
    ),
    (
        "unknown-directive",
        "there is no such directive",
        "The first word of a line in a site is the name of a directive. If the name belongs to a plugin of Caddy, \
         it is not built in here. If it is an address, look for a missing `}` above.",
    ),
    (
        "unknown-encoding",
        "there is no such compression",
        "`encode` and `precompressed` of `file_server` know `gzip`, `zstd` and `br`.",
    ),
    (
        "unknown-hash-algorithm",
        "there is no such password hash",
        "Passwords are hashed with `bcrypt` or `argon2id`. Hashes of other kinds must be made anew.",
    ),
    (
        "unknown-level",
        "there is no such compression level",
        "zstd takes the levels `fastest`, `default`, `better` and `best`; gzip takes a number from 1 to 9, br one from 0 \
         to 11.",
    ),
    (
        "unknown-matcher",
        "there is no such matcher",
        "A named matcher is made of the kinds listed in the reference: `path`, `method`, `header`, `host`, \
         `query`, `remote_ip`, `not` and others.",
    ),
    (
        "unknown-module",
        "there is no such module",
        "The name in the JSON is not that of a module built in here. If it belongs to a plugin of Caddy, it is \
         not available.",
    ),
    (
        "unknown-operation",
        "there is no such operation",
        "The first argument names the operation; those that exist are listed in the reference page of the \
         directive.",
    ),
    (
        "unknown-option",
        "there is no such global option",
        "The first word of a line in the global options block is the name of an option. Directives do not belong \
         there.",
    ),
    (
        "unknown-policy",
        "there is no such policy",
        "The policies that exist are listed in the reference page of the directive.",
    ),
    (
        "unknown-protocol",
        "the `protocol` matcher does not know this protocol",
        "It knows `http`, `https`, `grpc`, `http/1.0`, `http/1.1`, `http/2` and `http/3`, in lower case; a \
         version may end in `+` for \"this or later\". Caddy accepts other words and then never matches.",
    ),
    (
        "unknown-response-matcher",
        "there is no such response matcher",
        "Responses are matched by `status` and `header`.",
    ),
    (
        "unknown-sort-option",
        "there is no such way to sort",
        "Directory listings sort by `name`, `namedirfirst`, `size` or `time`, in order `asc` or `desc`.",
    ),
    (
        "unknown-subdirective",
        "there is no such option here",
        "The lines of a directive's block are its options, listed in its reference page.",
    ),
    (
        "unknown-try-policy",
        "the `file` matcher does not know this policy",
        "The policies are `first_exist`, `first_exist_fallback`, `largest_size`, `smallest_size` and \
         `most_recently_modified`.",
    ),
    (
        "unneeded-header-up",
        "a header is set that the proxy sends by itself",
        "`X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` are sent to every upstream. The line does \
         no harm and can go.",
    ),
    (
        "unordered-directive",
        "a directive has no place in the order",
        "Directives run in a fixed order, and this one has none. Give it one with the global option `order`, or \
         use it inside `route`, where lines run as written.",
    ),
    (
        "unreadable-file",
        "a file cannot be read",
        "The file named in the configuration is missing, or may not be read by the user this program runs as.",
    ),
    (
        "unreadable-text",
        "the text cannot be split into words",
        "This is a fault of this program, not of the file. Please report it with the file if you can share \
         it.",
    ),
    (
        "unspecified-site-address",
        "an address is the unspecified address",
        "`0.0.0.0` and `[::]` as a site's address match requests for that very host, which no client sends. Write \
         `:80` for any host, and `bind` to choose an interface.",
    ),
    (
        "unterminated-heredoc",
        "a heredoc is never closed",
        "A heredoc goes on until its marker stands again. The rest of the file was read as its text.",
    ),
    (
        "unterminated-quote",
        "quoted text is never closed",
        "A quote at the beginning of a word goes on to the next quote of the same kind, over line ends too. The \
         rest of the file was read as quoted text. Inside double quotes write `\\\"` for a quote; inside \
         backticks nothing is escaped.",
    ),
    (
        "upstream-needs-host",
        "the upstream answers only to its own name",
        "The servers in front of this API refuse a request whose Host is not theirs, usually with 403. The proxy passes the client's Host on, as Caddy does, unless it speaks TLS to the upstream (`https://…`): then it sends the upstream's. Write `https://…`, or add `header_up Host` with the API's name.",
    ),
    (
        "weak-secret",
        "a secret is too short",
        "With a token in hand, short secrets can be found by trying: RFC 7518 asks for at least as many bytes as the digest has, \
         32 for HS256. A variable that is not set gives an empty secret. Make one with `openssl rand -base64 48`.",
    ),
    (
        "weak-token",
        "a token is short",
        "A token that stands in clear and has fewer than 16 bytes can be guessed by asking often enough. `llmproxy \
         new-token NAME` makes one that cannot.",
    ),
    (
        "wrapper-after-tls",
        "a listener wrapper stands on the wrong side of the TLS handshake",
        "Listener wrappers run in the order in which they are written, and those after `tls` see what TLS carries; where \
         `tls` is not written, all do, as in Caddy. `proxy_protocol` and `http_redirect` look at what comes before the \
         handshake: write `tls` on a line below them. It may stand there once.",
    ),
    (
        "wrong-argument-count",
        "too few or too many words",
        "The directive or option takes another number of arguments than this line has. Text with blanks in it is \
         one argument only inside quotes.",
    ),
    (
        "wrong-output-count",
        "a map's defaults do not fit its destinations",
        "There must be one default for each destination, or none at all.",
    ),
];
