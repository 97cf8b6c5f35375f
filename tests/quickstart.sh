#!/bin/bash
# ./quickstart without a key, on free ports: the curl line that it prints must work, and ending it must end all it started.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp)
QUICKSTART_PORT=18080 QUICKSTART_SAMPLE_PORT=18081 OPENAI_API_KEY="" ./quickstart >"$out" 2>&1 &
quickstart=$!
trap 'kill $quickstart 2>/dev/null || true; rm -f "$out"' EXIT
for _ in $(seq 12000); do
	grep -q 'Ctrl-C stops it' "$out" && break
	kill -0 $quickstart || { cat "$out"; exit 1; }
	sleep 0.1
done
line=$(sed -n 's/^  \(curl .*\)$/\1/p' "$out")
echo "$line"
answer=$(eval "$line -sS --max-time 20")
echo "$answer" | tail -4
grep -q '^data: {' <<<"$answer" && grep -q '^data: \[DONE\]' <<<"$answer" || { cat "$out"; exit 1; }
kill $quickstart
wait $quickstart || true
! curl -s --max-time 2 http://127.0.0.1:18080/ >/dev/null || { echo "it still listens"; exit 1; }
! curl -s --max-time 2 http://127.0.0.1:18081/ >/dev/null || { echo "the sample still listens"; exit 1; }
