#!/usr/bin/env python3
"""Holds a release binary to its limits: start to the first served request within 30 ms, and a 10,000-line file of
1,000 sites validated within 200 ms (the best of several, on a quiet machine). usage: startup_times.py BIN"""
import os, pathlib, socket, subprocess, sys, tempfile, time

BIN = str(pathlib.Path(sys.argv[1]).resolve())


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def first_request(work):
    port = free_port()
    file = pathlib.Path(work) / "start.Proxyfile"
    file.write_text(f'http://:{port} {{\n\tbind 127.0.0.1\n\trespond "ok"\n}}\n')
    began = time.perf_counter()
    child = subprocess.Popen([BIN, "run", "--config", file], env=environment(work), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as s:
                    s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    assert s.recv(100).startswith(b"HTTP/1.1 200")
                    return time.perf_counter() - began
            except ConnectionRefusedError:
                assert child.poll() is None and time.perf_counter() - began < 10, "it does not start"
                time.sleep(0.0005)
    finally:
        child.kill()
        child.wait()


def validation(work):
    site = """http://site-{n}.example.test {{
	header X-Site {n}
	handle_path /v1/* {{
		reverse_proxy 127.0.0.1:{port} {{
			header_up Host api.example.test
		}}
	}}
	respond "site {n}" 404
}}

"""
    file = pathlib.Path(work) / "many.Proxyfile"
    file.write_text("".join(site.format(n=n, port=10000 + n) for n in range(1000)))
    assert len(file.read_text().splitlines()) >= 9999
    began = time.perf_counter()
    subprocess.run([BIN, "validate", "--config", file], env=environment(work), check=True, capture_output=True)
    return time.perf_counter() - began


def environment(work):
    return {"HOME": work, "XDG_RUNTIME_DIR": work, "PATH": os.environ["PATH"]}


failed = False
with tempfile.TemporaryDirectory() as work:
    for what, measure, limit in [("start to first served request", first_request, 0.030), ("10,000 lines validated", validation, 0.200)]:
        best = min(measure(work) for _ in range(10))
        late = best > limit
        failed |= late
        print(f"{what}: {best * 1000:.1f} ms, limit {limit * 1000:.0f} ms{' — TOO SLOW' if late else ''}")
sys.exit(failed)
