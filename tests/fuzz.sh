#!/bin/bash
# Each fuzz target for FUZZ_SECONDS (60; an hour in a nightly run). Needs the nightly toolchain and cargo-fuzz. What a target
# finds lies in fuzz/artifacts; the case goes into a test beside the code that it broke.
set -euo pipefail
cd "$(dirname "$0")/.."
for target in $(cargo +nightly fuzz list); do
	echo "---- $target"
	mkdir -p "fuzz/corpus/$target"
	# Texts that get past the first words.
	case $target in
	proxyfile | format) cp examples/*.Proxyfile "fuzz/corpus/$target/" ;;
	esac
	cargo +nightly fuzz run "$target" -- -max_total_time="${FUZZ_SECONDS:-60}" -max_len=4096 -timeout=10
done
