"""The proxies, each in front of one origin, each with its access log on and its other settings as an LLM site needs them."""
import os, shutil, signal, socket, subprocess, threading

from measure import LOAD_CORE, PROXY_CORE, ROOT, Process, on_core, write


def llmproxy(binary, d, port, origin, tls=None):
    site = f"https://bench.test:{port}" if tls else f"http://127.0.0.1:{port}"
    tls_lines = ""
    if tls:
        group = f"\t\tcurves {tls.group.lower()}\n" if tls.group else ""
        tls_lines = f"\ttls {tls.cert} {tls.key} {{\n{group}\t}}\n"
    config = write(d, "Proxyfile", f"""{{
	admin off
	auto_https off
}}
{site} {{
{tls_lines}	log {{
		output file {d}/access.log
	}}
	reverse_proxy 127.0.0.1:{origin}
}}
""")
    return Process([binary, "run", "--config", config, "--no-watch", "--workers", "1", "--control", d + "/control.sock"], PROXY_CORE, d)


def nginx(binary, d, port, origin, tls=None):
    listen = f"127.0.0.1:{port}" + (" ssl http2" if tls else "")
    tls_lines = ""
    if tls:
        tls_lines = f"ssl_certificate {tls.cert}; ssl_certificate_key {tls.key}; ssl_session_cache off; ssl_session_tickets off;"
        if tls.group:
            tls_lines += f" ssl_ecdh_curve {tls.group};"
    config = write(d, "nginx.conf", f"""
daemon off; worker_processes 1; pid {d}/pid; error_log {d}/error.log; worker_rlimit_nofile 20000;
events {{ worker_connections 10000; }}
http {{ access_log {d}/access.log combined buffer=64k flush=1s; keepalive_requests 100000000; client_max_body_size 0; http2_max_concurrent_streams 128;
client_body_temp_path {d}/b; proxy_temp_path {d}/p; fastcgi_temp_path {d}/f; uwsgi_temp_path {d}/u; scgi_temp_path {d}/s;
upstream o {{ server 127.0.0.1:{origin}; keepalive 1024; keepalive_requests 100000000; }}
server {{ listen {listen}; {tls_lines}
location / {{ proxy_pass http://o; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 1h; }} }} }}
""")
    return Process([binary, "-c", config, "-p", d], PROXY_CORE, d)


def syslog_sink():
    """haproxy writes no files: its log goes to a socket that nobody reads twice."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))

    def swallow():
        while True:
            s.recv(65536)

    threading.Thread(target=swallow, daemon=True).start()
    return s.getsockname()[1]


SYSLOG = None


def haproxy(binary, d, port, origin, tls=None, master=False):
    global SYSLOG
    SYSLOG = SYSLOG or syslog_sink()
    bind, tune = f"bind 127.0.0.1:{port}", ""
    if tls:
        pem = write(d, "pair.pem", open(tls.cert).read() + open(tls.key).read())
        bind += f" ssl crt {pem} alpn h2,http/1.1 no-tls-tickets" + (f" curves {tls.group}" if tls.group else "")
        tune = "  tune.ssl.cachesize 0\n"
    config = write(d, "haproxy.cfg", f"""
global
  nbthread 1
  maxconn 4000
  log 127.0.0.1:{SYSLOG} local0
{tune}defaults
  mode http
  log global
  option httplog
  option http-no-delay
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  {bind}
  default_backend b
backend b
  option forwardfor
  server s 127.0.0.1:{origin}
""")
    return Process([binary, "-f", config, "-db"] + (["-W"] if master else []), PROXY_CORE, d)


def caddy(binary, d, port, origin, tls=None, admin="off"):
    site = f"https://bench.test:{port}" if tls else f"http://127.0.0.1:{port}"
    tls_lines = ""
    if tls:
        group = f" {{\n\t\tcurves {tls.group.lower()}\n\t}}" if tls.group else ""
        tls_lines = f"\ttls {tls.cert} {tls.key}{group}\n"
    config = write(d, "Caddyfile", f"""{{
	admin {admin}
	auto_https off
	persist_config off
}}
{site} {{
{tls_lines}	log {{
		output file {d}/access.log
	}}
	reverse_proxy 127.0.0.1:{origin} {{
		transport http {{
			keepalive_idle_conns_per_host 1024
		}}
	}}
}}
""")
    return Process([binary, "run", "--config", config, "--adapter", "caddyfile"], PROXY_CORE, d,
                   {"GOMAXPROCS": "1", "XDG_DATA_HOME": d, "XDG_CONFIG_HOME": d})


def reloadable(name, start, program, d, port, origin):
    """The proxy, started so that it can be reloaded, and what makes it load its file anew."""
    if name == "llmproxy":
        process = start(program, d, port, origin)
        return process, lambda: done([program, "reload", "--force", "--config", f"{d}/Proxyfile", "--control", f"{d}/control.sock"])
    if name == "caddy":
        admin = f"unix/{d}/admin.sock"
        process = start(program, d, port, origin, admin=admin)
        return process, lambda: done([program, "reload", "--force", "--config", f"{d}/Caddyfile", "--adapter", "caddyfile", "--address", admin])
    process = start(program, d, port, origin, **({"master": True} if name == "haproxy" else {}))
    return process, lambda: os.kill(process.pid, signal.SIGUSR2 if name == "haproxy" else signal.SIGHUP)


def done(argv):
    subprocess.run(on_core(LOAD_CORE) + argv, check=True, capture_output=True, timeout=20)


class Tls:
    """A certificate for bench.test, and the one key exchange group that is offered (all, where none is named)."""

    def __init__(self, cert, key, group=None):
        self.cert, self.key, self.group = cert, key, group


def found(binary, without=()):
    """Name → (start, program), llmproxy first."""
    out = {"llmproxy": (llmproxy, binary)}
    places = [("nginx", nginx, shutil.which("nginx") or "/usr/sbin/nginx"),
              ("haproxy", haproxy, shutil.which("haproxy") or "/usr/sbin/haproxy"),
              ("caddy", caddy, os.environ.get("CADDY") or shutil.which("caddy") or os.path.join(ROOT, ".tools/venv/bin/caddy"))]
    for name, start, path in places:
        if name in without:
            continue
        if path and os.path.exists(path):
            out[name] = (start, path)
        else:
            print(f"({name} is not installed: left out)")
    return out
