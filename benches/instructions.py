#!/usr/bin/env python3
"""User-space instructions a request of a plain `reverse_proxy` site with its access log on, by valgrind's callgrind.

Usage: benches/instructions.py [get|post] [--binary PATH] [--requests N] [--top N] [--keep FILE]

Unlike CPU time, the count does not depend on what else the machine does: two runs of one binary differ by less than one
in a hundred. It says nothing of the kernel's work, of which a request costs more. One connection, one worker; counted
are N requests after 50 that are not. Functions are told apart only in a binary with symbols:

    CARGO_PROFILE_RELEASE_DEBUG=1 CARGO_PROFILE_RELEASE_STRIP=none cargo build --release

`--keep` saves callgrind's own output, for `callgrind_annotate --tree=caller`.
"""
import argparse, os, re, shutil, socket, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "compare"))
import load
from measure import PROXY_CORE, ROOT, Process, free_port, wait_port, write

BODY = 1024


def start(binary, d, port, origin):
    config = write(d, "Proxyfile", f"""{{
	admin off
	auto_https off
}}
http://127.0.0.1:{port} {{
	log {{
		output file {d}/access.log
	}}
	reverse_proxy 127.0.0.1:{origin}
}}
""")
    return Process(["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={d}/callgrind.out", binary, "run",
                    "--config", config, "--no-watch", "--workers", "1", "--control", d + "/control.sock"], PROXY_CORE, d)


def connect(port, proxy):
    end = time.time() + 90
    while time.time() < end and proxy.p.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=60)
        except OSError:
            time.sleep(0.3)
    with open(proxy.log_path) as log:
        sys.exit("llmproxy does not answer:\n" + log.read())


def ask(s, request, times):
    for _ in range(times):
        s.sendall(request)
        got = b""
        while b"x" * BODY not in got:
            piece = s.recv(65536)
            if not piece:
                sys.exit("the connection was closed")
            got += piece


def measure(binary, kind, requests, top, keep):
    with tempfile.TemporaryDirectory() as d:
        os.makedirs(d + "/origin")
        origin_port, port = free_port(), free_port()
        origin = load.http_origin(d + "/origin", origin_port)
        wait_port(origin_port, origin)
        proxy = start(binary, d, port, origin_port)
        try:
            s = connect(port, proxy)
            head = f"{kind.upper()} /v1/x HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            if kind == "post":
                head += f"Content-Type: application/json\r\nContent-Length: {BODY}\r\n"
            request = (head + "\r\n").encode() + (b"y" * BODY if kind == "post" else b"")
            ask(s, request, 50)
            control = lambda what: subprocess.run(["callgrind_control", "-i", what, str(proxy.pid)], check=True, capture_output=True)
            control("on")
            ask(s, request, requests)
            control("off")
        finally:
            proxy.p.terminate()
            proxy.p.wait(30)
            origin.stop()
        if keep:
            shutil.copy(d + "/callgrind.out", keep)
        report = subprocess.run(["callgrind_annotate", "--threshold=100", "--auto=no", d + "/callgrind.out"], capture_output=True, text=True)
    shown = 0
    for line in report.stdout.splitlines():
        found = re.match(r"\s*([\d,]+) \(\s*[\d.]+%\)\s+(.*)", line)
        if not found or shown > top:
            continue
        count = int(found[1].replace(",", "")) / requests
        if "PROGRAM TOTALS" in line:
            print(f"{kind}: {count:,.0f} instructions a request")
        else:
            print(f"{count:8,.0f}  {re.sub(r'/[^ ]*/(registry/src/[^/]*|library)/', '', found[2])[:140]}")
        shown += 1


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kinds", nargs="*", default=["get", "post"], metavar="get|post")
    p.add_argument("--binary", default=os.path.join(ROOT, "target/release/llmproxy"))
    p.add_argument("--requests", type=int, default=300)
    p.add_argument("--top", type=int, default=0)
    p.add_argument("--keep")
    args = p.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("needs valgrind")
    for kind in args.kinds:
        measure(os.path.abspath(args.binary), kind, args.requests, args.top, args.keep)


if __name__ == "__main__":
    main()
