# Tasks; CI runs the same commands through ./test. `just` is optional: each line is a plain command.

# everything a change must pass
test *flags:
    ./test {{flags}}

# the quick cycle: types, then the unit tests of one room, such as `just unit modules::auth_token`
check:
    cargo check --quiet --all-targets

unit filter="":
    cargo test --quiet --lib {{filter}}

# one behaviour file against llmproxy and Caddy, such as `just behaviour 12-handle-path`
behaviour name="":
    BEHAVIOUR={{name}} cargo test --quiet --test it behaviours

# where `adapt` differs from Caddy's, such as `just adapt rp-`
adapt *names:
    cargo build --quiet && tests/adapt_diff.py target/debug/llmproxy {{names}}

# the expected half of the golden adapt cases, made anew by the real Caddy
golden *names:
    tests/golden/regen.py {{names}}

format:
    cargo fmt

lint:
    cargo clippy --quiet --all-targets -- -D warnings

# the reference pages, made anew from the program
docs:
    WRITE_REFERENCE=1 cargo test --quiet --test it reference

# one fuzz target for a minute, such as `just fuzz parser` (needs nightly and cargo-fuzz)
fuzz target seconds="60":
    cargo +nightly fuzz run {{target}} -- -max_total_time={{seconds}}
