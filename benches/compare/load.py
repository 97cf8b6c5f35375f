"""Origins and load, all on the core that the proxy does not have."""
import json, os, re, selectors, shutil, socket, subprocess, threading, time

from measure import LOAD_CORE, Process, on_core, write


def http_origin(d, port, answer="x" * 1024):
    """nginx: 1 KiB from memory, or this answer, for any method, and /big from a file of 100 MiB in memory."""
    big = os.path.join("/dev/shm" if os.path.isdir("/dev/shm") else d, f"llmproxy-bench-{os.getpid()}")
    os.makedirs(big, exist_ok=True)
    if not os.path.exists(os.path.join(big, "big")):
        with open(os.path.join(big, "big"), "wb") as f:
            f.truncate(100 << 20)
    config = write(d, "origin.conf", f"""
daemon off; worker_processes 1; pid {d}/opid; error_log {d}/oerror.log; worker_rlimit_nofile 20000;
events {{ worker_connections 10000; }}
http {{ access_log off; keepalive_requests 100000000; sendfile on; client_max_body_size 0;
client_body_temp_path {d}/ob; proxy_temp_path {d}/op; fastcgi_temp_path {d}/of; uwsgi_temp_path {d}/ou; scgi_temp_path {d}/os;
server {{ listen 127.0.0.1:{port}; location / {{ default_type application/json; return 200 '{answer}'; }}
location = /big {{ root {big}; default_type application/octet-stream; }} }} }}
""")
    process = Process([shutil.which("nginx") or "/usr/sbin/nginx", "-c", config, "-p", d], LOAD_CORE, d)
    stop = process.stop

    def stop_and_remove():
        stop()
        shutil.rmtree(big, ignore_errors=True)

    process.stop = stop_and_remove
    return process


def sse_origin(binary, d, port):
    """llmproxy's own stand-in for the API: 20 events a second to each stream."""
    config = {"admin": {"disabled": True}, "apps": {"http": {"servers": {"s": {"listen": [f"127.0.0.1:{port}"], "routes": [
        {"handle": [{"handler": "sample_llm", "delay": 50_000_000}]}]}}}}}
    path = write(d, "sse.json", json.dumps(config))
    return Process([binary, "run", "--config", path, "--no-watch", "--workers", "1", "--control", d + "/sse.sock"], LOAD_CORE, d)


def mixed_origin(binary, d, port):
    """The same beside an answer of 1 KiB to everything else."""
    api = {"match": [{"path": ["/v1/chat/completions"]}], "handle": [{"handler": "sample_llm", "delay": 50_000_000}]}
    rest = {"handle": [{"handler": "static_response", "body": "x" * 1024}]}
    config = {"admin": {"disabled": True}, "apps": {"http": {"servers": {"s": {"listen": [f"127.0.0.1:{port}"], "routes": [api, rest]}}}}}
    path = write(d, "mixed.json", json.dumps(config))
    return Process([binary, "run", "--config", path, "--no-watch", "--workers", "1", "--control", d + "/mixed.sock"], LOAD_CORE, d)


class Sink:
    """An origin that reads bodies of any size and answers 200: one thread, a connection at a time."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        buffer = bytearray(1 << 20)
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            head = b""
            while b"\r\n\r\n" not in head:
                more = s.recv(65536)
                if not more:
                    break
                head += more
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            left = int(length.group(1)) - len(head.partition(b"\r\n\r\n")[2]) if length else 0
            while left > 0:
                n = s.recv_into(buffer)
                if n == 0:
                    break
                left -= n
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            s.close()

    def stop(self):
        self.listener.close()


def wrk(port, seconds, connections=64, script=None):
    """Answers got over plain HTTP; a bad one ends the run."""
    argv = on_core(LOAD_CORE) + ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s"] + (["-s", script] if script else [])
    out = subprocess.run(argv + [f"http://127.0.0.1:{port}/v1/x"], capture_output=True, text=True, timeout=seconds + 30).stdout
    if "Non-2xx" in out:
        raise RuntimeError(out)
    return int(re.search(r"(\d+) requests in", out).group(1))


def h2load(port, seconds, h1=False, connections=64):
    """Answers got over TLS."""
    argv = on_core(LOAD_CORE) + ["h2load", f"-D{seconds}", f"-c{connections}", "-m1" if h1 else "-m4"] + (["--h1"] if h1 else [])
    argv += [f"--connect-to=127.0.0.1:{port}", f"https://bench.test:{port}/v1/x"]
    out = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 30).stdout
    told = re.search(r"(\d+) total.*?(\d+) succeeded, (\d+) failed, (\d+) errored", out)
    if not told or int(told.group(3)) or int(told.group(4)):
        raise RuntimeError(out)
    return int(told.group(2))


class Steady:
    """Requests at a steady rate over kept connections, and streams that are opened anew when they end, on one thread.
    Counts what a client notices: requests that failed, streams that were cut, connections that were closed."""

    POST = b"POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1024\r\n\r\n" + b"y" * 1024

    def __init__(self, port, rate, connections, streams):
        self.port, self.rate, self.connections, self.streams = port, rate, connections, streams
        self.answered = self.failed = self.cut = self.closed = 0

    def run(self, seconds):
        self.selector, self.idle = selectors.DefaultSelector(), []
        for _ in range(self.connections):
            self.idle.append(self.opened("post"))
        for _ in range(self.streams):
            self.stream()
        began, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < seconds:
            while sent < elapsed * self.rate and self.idle:
                s = self.idle.pop(0)
                self.selector.get_key(s).data.update(busy=True, got=b"")
                self.send(s, self.POST)
                sent += 1
            for key, _ in self.selector.select(0.002):
                self.read(key.fileobj, key.data)
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()

    def opened(self, kind):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        s.setblocking(False)
        self.selector.register(s, selectors.EVENT_READ, {"kind": kind, "busy": False, "got": b""})
        return s

    def stream(self, s=None):
        s = s or self.opened("stream")
        self.selector.get_key(s).data.update(busy=True, got=b"")
        self.send(s, sse_request())

    def send(self, s, request):
        try:
            s.send(request)
        except OSError:
            pass  # the read says what became of it

    def read(self, s, state):
        try:
            data = s.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.gone(s, state)
            return
        state["got"] = (state["got"] + data)[-4096:]
        if state["kind"] == "stream":
            if state["got"].endswith(b"\r\n0\r\n\r\n"):
                state["busy"] = False
                self.stream(s)
            return
        head, _, body = state["got"].partition(b"\r\n\r\n")
        if len(body) == 1024:
            state["busy"] = False
            self.answered += 1
            self.failed += not head.startswith(b"HTTP/1.1 200 ")
            self.idle.append(s)

    def gone(self, s, state):
        self.selector.unregister(s)
        s.close()
        self.closed += 1
        if state["kind"] == "stream":
            begun = state["busy"] and bool(state["got"])
            self.cut += begun
            self.failed += state["busy"] and not begun
            self.stream()
            return
        self.failed += state["busy"]
        if s in self.idle:
            self.idle.remove(s)
        self.idle.append(self.opened("post"))


def sse_request():
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "word " * 40}]}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def sse_load(port, streams, seconds, request=sse_request(), event=b"\ndata: ", last=b"[DONE]"):
    """Opens `streams` streams over and over for `seconds`; returns the events that came."""
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
