"""What is compared: one function a scenario, one figure a proxy and round."""
import contextlib, os, selectors, shutil, socket, statistics, subprocess, tempfile, threading, time

import load, peers
from measure import LOAD_CORE, PROXY_CORE, Process, free_port, on_core, show, wait_port, write


class Bench:
    def __init__(self, binary, rounds, seconds):
        self.binary, self.rounds, self.seconds = binary, rounds, seconds

    @contextlib.contextmanager
    def folder(self):
        with tempfile.TemporaryDirectory() as top:
            yield top

    def interleaved(self, figure, without=()):
        """Every proxy once a round: `figure(start, folder)` gives its figure, or several by title."""
        found, rounds = peers.found(self.binary, without), []
        for _ in range(self.rounds):
            figures = {}
            for name, (start, program) in found.items():
                with self.folder() as d:
                    figures[name] = figure(lambda port, origin, tls=None: start(program, d, port, origin, tls), d)
            rounds.append(figures)
        return rounds

    @contextlib.contextmanager
    def proxied(self, start, d, tls=None, origin=load.http_origin):
        """An origin with a proxy in front of it; gives the proxy and its port."""
        oport, port = free_port(), free_port()
        os.makedirs(os.path.join(d, "origin"), exist_ok=True)
        upstream = origin(os.path.join(d, "origin"), oport)
        try:
            wait_port(oport, upstream)
            with start(port, oport, tls) as proxy:
                wait_port(port, proxy)
                yield proxy, port
        finally:
            upstream.stop()

    def per_answer(self, start, d, work, tls=None):
        """µs of CPU an answer, after a second of warming up."""
        with self.proxied(start, d, tls) as (proxy, port):
            work(port, 1)
            before = proxy.cpu()
            count = work(port, self.seconds)
            return (proxy.cpu() - before) / count * 1e6


def get(b):
    rounds = b.interleaved(lambda start, d: b.per_answer(start, d, load.wrk))
    show("CPU per GET of 1 KiB, 64 keep-alive connections", "µs", rounds, {"nginx": 1.0, "caddy": 0.20})


def post(b):
    def figure(start, d):
        script = write(d, "post.lua", 'wrk.method="POST"; wrk.body=string.rep("y",1024); wrk.headers["Content-Type"]="application/json"\n')
        return b.per_answer(start, d, lambda port, seconds: load.wrk(port, seconds, script=script))
    show("CPU per POST of 1 KiB, 64 keep-alive connections", "µs", b.interleaved(figure), {"nginx": 1.0, "caddy": 0.20})


def churn(b):
    def figure(start, d):
        script = write(d, "post.lua", 'wrk.method="POST"; wrk.body=string.rep("y",1024); wrk.headers["Connection"]="close"\n')
        return b.per_answer(start, d, lambda port, seconds: load.wrk(port, seconds, script=script))
    show("CPU per POST on a new connection", "µs", b.interleaved(figure), {"nginx": 1.0})


def certificate(d, group=None):
    cert, key = os.path.join(d, "cert.pem"), os.path.join(d, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
                    "-out", cert, "-days", "30", "-subj", "/CN=bench.test", "-addext", "subjectAltName=DNS:bench.test"],
                   check=True, capture_output=True)
    return peers.Tls(cert, key, group)


def tls(b):
    for title, h1, bar in [("HTTP/1.1", True, 0.95), ("HTTP/2, 4 streams each", False, 0.65)]:
        def figure(start, d):
            return b.per_answer(start, d, lambda port, seconds: load.h2load(port, seconds, h1), certificate(d))
        show(f"CPU per GET of 1 KiB over TLS, {title}, 64 connections", "µs", b.interleaved(figure), {"nginx": bar})


def sse(b, streams=1000):
    def figure(start, d):
        with b.proxied(start, d, origin=lambda d, port: load.sse_origin(b.binary, d, port)) as (proxy, port):
            idle, peak = proxy.memory(), []
            timer = threading.Timer(b.seconds * 0.7, lambda: peak.append(proxy.memory()))
            timer.start()
            before = proxy.cpu()
            chunks = load.sse_load(port, streams, b.seconds)
            cpu = (proxy.cpu() - before) / max(chunks, 1) * 1e6
            timer.join()
            return cpu, (peak[0] - idle) / streams
    rounds = b.interleaved(figure)
    column = lambda i: [{name: f[i] for name, f in r.items()} for r in rounds]
    show(f"CPU per SSE event, {streams} streams × 20 a second, openings included", "µs", column(0), {"nginx": 1.05, "caddy": 0.60})
    show("memory per SSE stream (PSS over idle)", "KiB", column(1), {"absolute": 40})


class Clockwork:
    """An origin whose streams carry the time at which each event was sent: 50 streams, 20 events a second."""

    def __init__(self, _folder, port):
        self.listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.streams, self.lock, self.stopped = [], threading.Lock(), False
        self.p = self
        threading.Thread(target=self.accept, daemon=True).start()
        threading.Thread(target=self.tick, daemon=True).start()

    def poll(self):
        return None

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            s.settimeout(1)
            try:
                if s.recv(65536):
                    s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                    with self.lock:
                        self.streams.append(s)
            except OSError:
                pass

    def tick(self):
        while not self.stopped:
            with self.lock:
                streams = list(self.streams)
            for s in streams:
                event = b"data: %d\n\n" % time.monotonic_ns()
                try:
                    s.sendall(b"%x\r\n%s\r\n" % (len(event), event))
                except OSError:
                    with self.lock:
                        self.streams.remove(s)
                time.sleep(0.05 / max(len(streams), 1))
            if not streams:
                time.sleep(0.01)

    def stop(self):
        self.stopped = True
        self.listener.close()


def latency(b):
    def delays(port):
        sel, out = selectors.DefaultSelector(), []
        for _ in range(50):
            s = socket.create_connection(("127.0.0.1", port))
            s.sendall(load.sse_request())
            sel.register(s, selectors.EVENT_READ)
        end = time.monotonic() + b.seconds
        while time.monotonic() < end:
            for key, _ in sel.select(0.2):
                data, now = key.fileobj.recv(65536), time.monotonic_ns()
                for part in data.split(b"data: ")[1:]:
                    out.append((now - int(part.split(b"\n")[0])) / 1000)
        for key in list(sel.get_map().values()):
            key.fileobj.close()
        return statistics.median(out)

    def figure(start, d):
        with b.proxied(start, d, origin=Clockwork) as (_, port):
            through = delays(port)
        port = free_port()
        clock = Clockwork(d, port)
        try:
            return through - delays(port)
        finally:
            clock.stop()
    show("added p50 of an SSE event, 50 streams × 20 a second (over no proxy, measured beside it)", "µs", b.interleaved(figure), {"nginx": 1.1})


def memory(b):
    def idle(start, d):
        with b.proxied(start, d) as (proxy, _):
            return proxy.memory() / 1024

    def per_connection(start, d, tls=None, count=2000):
        import ssl
        context = ssl._create_unverified_context()
        with b.proxied(start, d, tls) as (proxy, port):
            before, socks = proxy.memory(), []
            for _ in range(count):
                s = socket.create_connection(("127.0.0.1", port))
                if tls:
                    s = context.wrap_socket(s, server_hostname="bench.test")
                s.sendall(b"GET / HTTP/1.1\r\nHost: bench.test\r\n\r\n" if tls else b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                s.recv(4096)
                socks.append(s)
            time.sleep(1)
            grown = (proxy.memory() - before) / count
            for s in socks:
                s.close()
            return grown

    rounds, b.rounds = b.rounds, min(b.rounds, 3)  # memory does not waver
    show("memory when idle, one site (PSS)", "MiB", b.interleaved(idle), {"absolute": 20})
    show("memory per idle connection after one request, HTTP/1.1 (PSS)", "KiB", b.interleaved(per_connection), {"absolute": 24})
    show("memory per idle connection after one request, TLS (PSS)", "KiB",
         b.interleaved(lambda start, d: per_connection(start, d, certificate(d))), {"absolute": 36})
    b.rounds = rounds


def startup(b):
    def figure(start, d):
        oport, port = free_port(), free_port()
        upstream = load.http_origin(d, oport)
        try:
            wait_port(oport, upstream)
            began = time.monotonic()
            with start(port, oport) as proxy:
                while True:
                    try:
                        s = socket.create_connection(("127.0.0.1", port), timeout=1)
                        break
                    except OSError:
                        if proxy.p.poll() is not None or time.monotonic() - began > 10:
                            raise RuntimeError("did not start")
                        time.sleep(0.0005)
                s.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                answer = b""
                while b"xxx" not in answer:
                    more = s.recv(65536)
                    if not more:
                        raise RuntimeError(f"not proxied: {answer!r}")
                    answer += more
                took = (time.monotonic() - began) * 1000
                s.close()
                return took
        finally:
            upstream.stop()
    show("start of the process to the first proxied answer", "ms", b.interleaved(figure), {"absolute": 30})


def bodies(b, count=5):
    def down(start, d):
        with b.proxied(start, d) as (proxy, port):
            before, idle = proxy.cpu(), proxy.memory()
            for _ in range(count):
                subprocess.run(on_core(LOAD_CORE) + ["curl", "-sf", "--noproxy", "*", "-o", "/dev/null", f"http://127.0.0.1:{port}/big"], check=True)
            return (proxy.cpu() - before) / (count * 0.1048576), (proxy.memory() - idle) / 1024

    def up(start, d):
        big = os.path.join("/dev/shm" if os.path.isdir("/dev/shm") else d, f"llmproxy-up-{os.getpid()}")
        with open(big, "wb") as f:
            f.truncate(100 << 20)
        sink, port = load.Sink(), free_port()
        try:
            with start(port, sink.port) as proxy:
                wait_port(port, proxy)
                before, idle = proxy.cpu(), proxy.memory()
                for _ in range(count):
                    subprocess.run(on_core(LOAD_CORE) + ["curl", "-sf", "--noproxy", "*", "-o", "/dev/null", "-H", "Expect:", "-X", "POST",
                                                         "-T", big, f"http://127.0.0.1:{port}/up"], check=True)
                return (proxy.cpu() - before) / (count * 0.1048576), (proxy.memory() - idle) / 1024
        finally:
            sink.stop()
            os.remove(big)

    for way, figure in [("down", down), ("up", up)]:
        rounds = b.interleaved(figure)
        column = lambda i: [{name: f[i] for name, f in r.items()} for r in rounds]
        show(f"CPU per GB of 100 MiB bodies, {way}", "s", column(0), {"caddy": 1.0})
        show(f"memory grown by {count} bodies of 100 MiB, {way} (PSS)", "MiB", column(1))


def reload(b, times=20):
    def figure(name, start, program, d):
        oport, port = free_port(), free_port()
        os.makedirs(os.path.join(d, "origin"))
        upstream = load.mixed_origin(b.binary, os.path.join(d, "origin"), oport)
        try:
            wait_port(oport, upstream)
            process, again = peers.reloadable(name, start, program, d, port, oport)
            with process:
                wait_port(port, process)
                steady, problems = load.Steady(port, rate=1000, connections=50, streams=50), []

                def reloads():
                    time.sleep(0.5)
                    try:
                        for _ in range(times):
                            again()
                            time.sleep(0.3)
                    except (OSError, subprocess.SubprocessError) as error:
                        problems.append(error)
                thread = threading.Thread(target=reloads)
                thread.start()
                steady.run(0.5 + times * 0.35)
                thread.join()
                if problems:
                    raise RuntimeError(f"{name} was not reloaded: {problems[0]}")
                return steady
        finally:
            upstream.stop()

    rounds = []
    for _ in range(min(b.rounds, 3)):
        counted = {}
        for name, (start, program) in peers.found(b.binary).items():
            with b.folder() as d:
                counted[name] = figure(name, start, program, d)
        rounds.append(counted)
    for title, field in [("requests that failed", "failed"), ("streams cut", "cut"), ("connections closed", "closed")]:
        show(f"{times} reloads under 1,000 POST/s and 50 streams: {title}", "of them",
             [{name: float(getattr(s, field)) for name, s in r.items()} for r in rounds], {"absolute": 0})
    print("  answered: " + ", ".join(f"{name} {s.answered}" for name, s in rounds[-1].items()))


def many_sites(n, port):
    lines = ["{", "\tadmin off", "\tauto_https off", "}"]
    for i in range(n):
        lines += [f"http://site{i}.test:{port} {{", "\theader X-Site %d" % i, "\trequest_header -X-Debug", "\t@api path /v1/*",
                  "\thandle @api {", '\t\trespond "api"', "\t}", f'\trespond "site {i}"', "}", ""]
    return "\n".join(lines) + "\n"


def validate(b):
    with b.folder() as d:
        text = many_sites(1000, 8080)
        path, walls = write(d, "Proxyfile", text), []
        for _ in range(b.rounds):
            began = time.monotonic()
            subprocess.run([b.binary, "validate", "--config", path], check=True, capture_output=True)
            walls.append({"llmproxy": (time.monotonic() - began) * 1000})
    show(f"validating {text.count(chr(10))} lines, 1,000 sites", "ms", walls)


def sites(b):
    rounds = []
    for _ in range(b.rounds):
        figures = {}
        for name, n in [("llmproxy", 1000), ("one site", 1)]:
            with b.folder() as d:
                port = free_port()
                path = write(d, "Proxyfile", many_sites(n, port))
                with Process([b.binary, "run", "--config", path, "--no-watch", "--workers", "1", "--control", d + "/c.sock"], PROXY_CORE, d) as proxy:
                    wait_port(port, proxy)
                    host = write(d, "host.lua", f'wrk.headers["Host"]="site{n - 1}.test"\n')
                    load.wrk(port, 1, script=host)
                    before = proxy.cpu()
                    count = load.wrk(port, b.seconds, script=host)
                    figures[name] = (proxy.cpu() - before) / count * 1e6
        rounds.append(figures)
    show("CPU per request with 1,000 sites against one", "µs", rounds, {"one site": 1.1})


ALL = {f.__name__: f for f in [get, post, sse, latency, memory, startup, tls, churn, bodies, reload, validate, sites]}
