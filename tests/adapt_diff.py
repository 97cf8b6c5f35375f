#!/usr/bin/env python3
"""Shows where `llmproxy adapt` differs from the real Caddy: the first JSON differences of each file.

usage: adapt_diff.py BIN [--all] [-v] [NAME…]
  BIN     the llmproxy binary, for example target/debug/llmproxy
  NAME    only cases whose name contains one of these words (`rp-`, `global`, `corpus/003`)
  -v      every difference of a file, not the first three, and what llmproxy said where it refused
  --all   prints the equal ones too

Compares the golden cases of tests/golden/adapt and, where it is present, the corpus beside the repository.
`caddy` is needed for the corpus alone. Exit code 1 when anything differs.
"""
import json, os, pathlib, shutil, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor

TESTS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS / "golden"))
GOLDEN = TESTS / "golden" / "adapt"
CORPUS = [pathlib.Path(os.environ.get("LLMPROXY_CORPUS", "")), TESTS.parent.parent / "shared/corpus/caddyfiles"]


def run(binary, work, name, env, adapter):
    command = [binary, "adapt", *(["--adapter", "caddyfile"] if adapter else []), "--config", name]
    try:
        done = subprocess.run(command, cwd=work, env={**env, "HOME": str(work)}, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return "hang", "no answer in 60 s"
    if done.returncode < 0 or "panicked at" in done.stderr:
        return "panic", done.stderr
    if done.returncode:
        return "refused", done.stderr
    try:
        return "json", json.loads(done.stdout)
    except ValueError:
        return "garbage", done.stdout


def differences(ours, caddys, at=""):
    if isinstance(ours, dict) and isinstance(caddys, dict):
        for key in sorted(ours.keys() | caddys.keys()):
            if key not in ours:
                yield f"{at}/{key}: missing, Caddy has {short(caddys[key])}"
            elif key not in caddys:
                yield f"{at}/{key}: {short(ours[key])}, Caddy has none"
            else:
                yield from differences(ours[key], caddys[key], f"{at}/{key}")
    elif isinstance(ours, list) and isinstance(caddys, list):
        if len(ours) != len(caddys):
            yield f"{at}: {len(ours)} elements, Caddy has {len(caddys)}: {short(ours)} / {short(caddys)}"
        for n, (a, b) in enumerate(zip(ours, caddys)):
            yield from differences(a, b, f"{at}/{n}")
    elif ours != caddys or type(ours) is not type(caddys):
        yield f"{at}: {short(ours)}, Caddy has {short(caddys)}"


def short(value):
    text = json.dumps(value)
    return text if len(text) < 110 else text[:107] + "..."


def golden_case(binary, file):
    from regen import read, split

    source, expected = split(read(file))
    env = json.loads((GOLDEN / "env.json").read_text())
    with tempfile.TemporaryDirectory(prefix="golden-") as work:
        shutil.copytree(GOLDEN / "files", work, dirs_exist_ok=True)
        (pathlib.Path(work) / "Proxyfile").write_bytes(source.encode())
        ours = run(binary, work, "Proxyfile", env, False)
    caddys = ("refused", expected[9:]) if expected.startswith("refused: ") else ("json", json.loads(expected))
    return ours, caddys


def corpus_case(binary, folder):
    env = json.loads((folder / "env.json").read_text())
    with tempfile.TemporaryDirectory(prefix="corpus-") as work:
        shutil.copy(folder / "Caddyfile", work)
        caddys = run(shutil.which("caddy") or "caddy", work, "Caddyfile", env, True)
        ours = run(binary, work, "Caddyfile", env, False)
    return ours, caddys


def main():
    flags = {a for a in sys.argv[1:] if a.startswith("-")}
    words = [a for a in sys.argv[1:] if not a.startswith("-")]
    if not words:
        sys.exit(__doc__)
    binary, words = str(pathlib.Path(words[0]).resolve()), words[1:]
    cases = [(f"golden/{f.stem}", golden_case, f) for f in sorted(GOLDEN.glob("*.txt"))]
    corpus = next((c for c in CORPUS if str(c) != "." and c.is_dir()), None)
    if corpus and shutil.which("caddy"):
        cases += [(f"corpus/{d.name}", corpus_case, d) for d in sorted(corpus.iterdir()) if d.is_dir()]
    else:
        print("the corpus is not compared: it or caddy is absent")
    cases = [c for c in cases if not words or any(w in c[0] for w in words)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda c: c[1](binary, c[2]), cases))
    equal = 0
    for (name, _, _), (ours, caddys) in zip(cases, results):
        if ours[0] == caddys[0] == "json":
            found = list(differences(ours[1], caddys[1]))
        elif ours[0] == caddys[0] == "refused":
            found = []
        else:
            said = str(ours[1]).strip() if ours[0] != "json" else ""
            why = f"; Caddy: {caddys[1].strip()}" if caddys[0] != "json" else ""
            found = [f"llmproxy {ours[0]}, Caddy {caddys[0]}{why}"]
            found += said.splitlines() if "-v" in flags else said.splitlines()[:2]
        if not found:
            equal += 1
            if "--all" in flags:
                print(f"equal {name}")
            continue
        print(f"DIFF  {name}")
        for line in found if "-v" in flags else found[:3]:
            print("      " + line)
        if len(found) > 3 and "-v" not in flags:
            print(f"      and {len(found) - 3} more")
    print(f"{equal} of {len(cases)} equal")
    return 0 if equal == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
