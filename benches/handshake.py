#!/usr/bin/env python3
"""What a TLS handshake costs llmproxy, as a ratio against nginx with the same certificate in the same run.

Usage: benches/handshake.py [--rounds N] [--count N] [--binary PATH] [--load PATH] [--key p256|rsa2048]

Full TLS 1.3 handshakes with X25519 on both; beside it X25519MLKEM768 (where only llmproxy has it) and resumption by
ticket. The figure is CPU time of the server's process tree divided by handshakes, as in compare; servers take turns
within a round, and the median of each round's own ratio is shown with its spread. The bar: a full handshake with X25519
costs at most 0.55 of nginx's.
"""
import argparse, json, os, shutil, statistics, subprocess, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "compare"))
from measure import LOAD_CORE, PROXY_CORE, ROOT, Process, free_port, wait_port, write

BAR = 0.55
NAME = "bench.test"


def certificate(d, kind):
    key = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "p256" else \
        ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    run = lambda *argv: subprocess.run(argv, check=True, cwd=d, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run("openssl", "genpkey", *key, "-out", "key.pem")
    run("openssl", "req", "-x509", "-new", "-key", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=" + NAME,
        "-addext", "subjectAltName=DNS:" + NAME)
    return os.path.join(d, "cert.pem"), os.path.join(d, "key.pem")


def llmproxy(binary, d, port, cert, key):
    config = write(d, "Proxyfile", "{\n\tadmin off\n\tauto_https off\n}\nhttps://%s:%d {\n\tbind 127.0.0.1\n\ttls %s %s {\n\t\tcurves "
                   "x25519mlkem768 x25519\n\t}\n\trespond ok\n}\n" % (NAME, port, cert, key))
    return Process([binary, "run", "--config", config, "--no-watch", "--workers", "1", "--control", d + "/control.sock"],
                   PROXY_CORE, d)


def nginx(binary, d, port, cert, key):
    config = write(d, "nginx.conf", """
daemon off; worker_processes 1; pid %s/pid; error_log %s/error.log;
events { worker_connections 1000; }
http { access_log off; client_body_temp_path %s/b; proxy_temp_path %s/p; fastcgi_temp_path %s/f; uwsgi_temp_path %s/u; scgi_temp_path %s/s;
server { listen 127.0.0.1:%d ssl; server_name %s; ssl_certificate %s; ssl_certificate_key %s; ssl_protocols TLSv1.2 TLSv1.3;
ssl_ecdh_curve X25519; ssl_session_tickets on; return 200 "ok"; } }
""" % (d, d, d, d, d, d, d, port, NAME, cert, key))
    return Process([binary, "-c", config, "-p", d], PROXY_CORE, d)


def load_program(given):
    if given:
        return given
    out = subprocess.run(["cargo", "bench", "--no-run", "--bench", "handshake_load", "--message-format", "json"], cwd=ROOT,
                         check=True, stdout=subprocess.PIPE).stdout
    built = [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]
    return next(b["executable"] for b in built if b.get("executable") and b["target"]["name"] == "handshake_load")


def measure(load, process, port, count, mode):
    """CPU seconds of one handshake; None when the server does not do it."""
    argv = ["taskset", "-c", LOAD_CORE] if shutil.which("taskset") and (os.cpu_count() or 1) > 1 else []
    argv += [load, str(port), NAME, str(count), mode]
    before = process.cpu()
    done = int(subprocess.run(argv, check=True, stdout=subprocess.PIPE, timeout=600).stdout)
    spent = process.cpu() - before
    return spent / done if done >= count * 0.95 else None


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--rounds", type=int, default=5)
    args.add_argument("--count", type=int, default=3000, help="handshakes a server, mode and round")
    args.add_argument("--binary", default=os.path.join(ROOT, "target/release/llmproxy"))
    args.add_argument("--load", help="the built handshake_load; built in release mode when absent")
    args.add_argument("--key", choices=["p256", "rsa2048"], default="p256")
    args = args.parse_args()
    load = load_program(args.load)
    peers = {"llmproxy": (llmproxy, os.path.abspath(args.binary))}
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if os.path.exists(program):
        peers["nginx"] = (nginx, program)
    else:
        print("nginx is missing and left out")
    seen = {}  # (mode, peer) → microseconds of each round
    with tempfile.TemporaryDirectory() as top:
        cert, key = certificate(top, args.key)
        running = {}
        try:
            for name, (start, binary) in peers.items():
                d = os.path.join(top, name)
                os.mkdir(d)
                port = free_port()
                running[name] = (start(binary, d, port, cert, key), port)
                wait_port(port, running[name][0])
            for mode in ("full", "post-quantum", "resumed"):
                for round in range(args.rounds + 1):
                    for name, (process, port) in running.items():
                        cost = measure(load, process, port, args.count if round else max(args.count // 10, 10), mode)
                        if cost is not None and round:  # the first one warms up
                            seen.setdefault((mode, name), []).append(cost * 1e6)
        finally:
            for process, _ in running.values():
                process.stop()
    over = False
    for mode in ("full", "post-quantum", "resumed"):
        ours, theirs = seen.get((mode, "llmproxy")), seen.get((mode, "nginx"))
        if not ours:
            print(f"{mode:13} llmproxy does not do it")
            over |= mode == "full"
            continue
        line = f"{mode:13} llmproxy {statistics.median(ours):7.1f} us, {1e6 / statistics.median(ours):7.0f} a CPU second"
        if theirs:
            ratios = sorted(a / b for a, b in zip(ours, theirs))
            ratio = statistics.median(ratios)
            line += f"; nginx {statistics.median(theirs):7.1f} us; ratio {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            if mode == "full":
                over |= ratio > BAR
                line += f", bar {BAR}: {'met' if ratio <= BAR else 'MISSED'}"
        print(line)
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
