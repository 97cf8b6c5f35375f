#!/usr/bin/env python3
"""What the directives for LLM clients cost, as ratios against a plain `reverse_proxy` in the same run.

Usage: benches/llm.py [auth metered stream] [--rounds N] [--seconds S] [--streams N] [--binary PATH]

  auth    a chat request of 1 KiB: plain; auth_token with 10 tokens and with 10,000; the model matcher; both; a token
          that has rights to some models
  metered the same request, answered with counts of tokens: auth_token alone; with rate_limit, usage, budget; with all
  stream  events of streamed answers: plain; the same with auth_token, cors, a model matcher, ollama_compat and
          cursor_compat in the site but nothing to translate; translated by ollama_compat; translated by cursor_compat

The method is that of compare: the proxy alone on one core, the load and the upstream on another, CPU time of the
proxy's process, rounds that go over every configuration in turn, each with a fresh process. A ratio is made within its
round; shown are the median of the rounds and the lowest and highest. A bar that is missed makes the exit status 1.
Needs wrk and nginx. A run takes less than six minutes.
"""
import argparse, hashlib, http.client, json, os, statistics, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "compare"))
from load import http_origin, sse_load, sse_origin, wrk
from measure import CORES, LOAD_CORE, PROXY_CORE, ROOT, Process, free_port, wait_port, write

CHAT = "/v1/chat/completions"
MODEL = "bench-model"


def token(i):
    return f"llmp_n{i}_" + hashlib.sha256(b"token %d" % i).hexdigest()[:40]


def token_file(d, name, count, settings=""):
    lines = (f"n{i} sha256:{hashlib.sha256(token(i).encode()).hexdigest()} {settings}\n" for i in range(count))
    return write(d, name, "".join(lines))


def start(binary, d, port, site, options=""):
    """The proxy with one site whose lines are `site`, and global options; its access log is on, as in compare."""
    lines = "\n\t".join(site.strip().splitlines())
    config = write(d, "Proxyfile", "{\n\tadmin off\n\tauto_https off\n" + options + "}\nhttp://127.0.0.1:%d {\n\tlog {\n\t\toutput file %s/access.log\n\t}\n\t%s\n}\n" % (port, d, lines))
    return Process([binary, "run", "--config", config, "--no-watch", "--workers", "1", "--control", d + "/c.sock"], PROXY_CORE, d)


def refuse_wrong(name, port, path, body, credential, mark):
    """A figure of refusals would look good: one request must get the answer that is to be measured."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        c.request("POST", path, body, {"Content-Type": "application/json", "Authorization": "Bearer " + credential})
        r = c.getresponse()
        first = r.read(512)
        if r.status != 200 or mark not in first:
            sys.exit(f"{name}: answered {r.status} {first[:300]!r}")
    finally:
        c.close()


def rounds_of(args, configurations, origin, measure):
    """One figure a configuration and round; `measure(name, port, proxy)` is what is done to a started proxy."""
    out = []
    with tempfile.TemporaryDirectory() as top:
        for number in range(args.rounds):
            figures = {}
            # Every second round goes the other way, so that a machine that warms up or slows down favours none.
            for name in list(configurations)[::1 if number % 2 == 0 else -1]:
                d = tempfile.mkdtemp(dir=top)
                oport, port = free_port(), free_port()
                upstream, proxy = origin(d, oport), None
                try:
                    wait_port(oport, upstream)
                    config = configurations[name](d, oport)
                    proxy = start(args.binary, d, port, *([config] if isinstance(config, str) else config))
                    wait_port(port, proxy)
                    figures[name] = measure(name, port, proxy)
                except RuntimeError as e:
                    with open(os.path.join(d, "log")) as log:
                        sys.exit(f"{name}: {e}\n{log.read()[-2000:]}")
                finally:
                    if proxy:
                        proxy.stop()
                    upstream.stop()
            out.append(figures)
    return out


def report(title, rounds, bars=()):
    """`bars`: (name, base, most, why). Returns whether all are held."""
    names = list(rounds[0])
    width = max(map(len, names))
    ratio = lambda name, base: [r[name] / r[base] for r in rounds]
    print(f"\n{title} ({len(rounds)} rounds; µs of CPU; lower is better)")
    for name in names:
        values = [r[name] for r in rounds]
        line = f"  {name:{width}}  median {statistics.median(values):8.2f}   {min(values):.2f} – {max(values):.2f}"
        if name != "plain":
            against = ratio(name, "plain")
            line += f"   ÷ plain: {statistics.median(against):.2f} ({min(against):.2f} – {max(against):.2f})"
        print(line)
    held = True
    for name, base, most, why in bars:
        against = ratio(name, base)
        median = statistics.median(against)
        held &= median < most
        print(f"  bar: {name} ÷ {base} below {most:.2f} ({why}): {median:.3f} ({min(against):.2f} – {max(against):.2f}), "
              f"{'held' if median < most else 'MISSED'}")
    return held


def chat_body(size):
    """A chat request of `size` bytes, its fields in the order in which OpenAI's Python package writes them."""
    make = lambda text: json.dumps({"messages": [{"role": "system", "content": "You are a helpful assistant.\nAnswer in short."},
                                                 {"role": "user", "content": text}], "model": MODEL, "temperature": 0.2})
    return make("word " * ((size - len(make(""))) // 5) + "." * ((size - len(make(""))) % 5))


def bench_auth(args):
    upstream = lambda matcher, port: f"reverse_proxy {matcher}127.0.0.1:{port}"
    model = "@served model gpt-* claude-* bench-*\n"
    file = lambda d, count, settings="": f"auth_token {{\n\tfile {token_file(d, 'tokens', count, settings)}\n}}\n"
    configurations = {
        "plain": lambda d, o: upstream("", o),
        "auth, 10 tokens": lambda d, o: file(d, 10) + upstream("", o),
        "auth, 10,000 tokens": lambda d, o: file(d, 10_000) + upstream("", o),
        "model matcher": lambda d, o: model + upstream("@served ", o),
        "auth + model": lambda d, o: file(d, 10) + model + upstream("@served ", o),
        "auth with model rights": lambda d, o: file(d, 10, "models=gpt-*,bench-*") + upstream("", o),
    }
    body = chat_body(1024)
    with tempfile.TemporaryDirectory() as d:
        def script(count):
            # All configurations see the same requests, the token in them included; 10,000 are asked with in turn.
            text = "\n".join(token(i) for i in range(count))
            path = write(d, f"tokens{count}", text + "\n")
            return write(d, f"chat{count}.lua", """
local requests, next = {}, 0
function init()
  for token in io.lines(%s) do
    requests[#requests + 1] = wrk.format("POST", "%s", {Host = "127.0.0.1", ["Content-Type"] = "application/json",
      Authorization = "Bearer " .. token}, %s)
  end
end
function request()
  next = next %% #requests + 1
  return requests[next]
end
""" % (json.dumps(path), CHAT, "[==[" + body + "]==]"))

        few, many = script(10), script(10_000)

        def measure(name, port, proxy):
            refuse_wrong(name, port, CHAT, body, token(9), b"xxx")
            load = many if "10,000" in name else few
            wrk(port, 1, script=load)
            before = proxy.cpu()
            count = wrk(port, args.seconds, script=load)
            return (proxy.cpu() - before) / count * 1e6

        rounds = rounds_of(args, configurations, http_origin, measure)
    return report("CPU per chat request of 1 KiB, 64 keep-alive connections", rounds, [
        ("auth + model", "plain", 1.15, "auth_token and a model matcher add less than 15 %"),
        ("auth, 10,000 tokens", "auth, 10 tokens", 1.10, "10,000 tokens cost what 10 cost, as far as a run can tell"),
    ])


def bench_metered(args):
    upstream = lambda port: f"reverse_proxy 127.0.0.1:{port}"
    auth = lambda d: f"auth_token {{\n\tfile {token_file(d, 'tokens', 10)}\n}}\n"
    usage = lambda d: f"usage {{\n\tledger {d}/usage.db\n}}\n"
    limits = """rate_limit {
	zone callers {
		key {auth.id}
		window 1m
		events 100000000
		tokens 1000000000000
		concurrent 1000
	}
}
"""
    budget = "budget person {\n\tlimit $1000000 per month\n\tlimit 1000000M tokens per day\n}\n"
    configurations = {
        "plain": lambda d, o: auth(d) + upstream(o),
        "usage": lambda d, o: (auth(d) + upstream(o), usage(d)),
        "rate_limit": lambda d, o: auth(d) + limits + upstream(o),
        "all": lambda d, o: (auth(d) + limits + budget + upstream(o), usage(d)),
    }
    body = chat_body(1024).replace(MODEL, "gpt-4o-mini")
    answer = lambda text: json.dumps({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 100, "total_tokens": 300}})
    answer = answer("xxxx " * ((1024 - len(answer(""))) // 5))
    with tempfile.TemporaryDirectory() as d:
        load = write(d, "chat.lua", """
local requests, next = {}, 0
function init()
  for token in string.gmatch(%s, "%%S+") do
    requests[#requests + 1] = wrk.format("POST", "%s", {Host = "127.0.0.1", ["Content-Type"] = "application/json",
      Authorization = "Bearer " .. token}, %s)
  end
end
function request()
  next = next %% #requests + 1
  return requests[next]
end
""" % (json.dumps(" ".join(token(i) for i in range(10))), CHAT, "[==[" + body + "]==]"))

        def measure(name, port, proxy):
            refuse_wrong(name, port, CHAT, body, token(9), b"usage" if len(answer) < 512 else b"xxxx")
            wrk(port, 1, script=load)
            before = proxy.cpu()
            count = wrk(port, args.seconds, script=load)
            return (proxy.cpu() - before) / count * 1e6

        rounds = rounds_of(args, configurations, lambda d, port: http_origin(d, port, answer), measure)
    held = report("CPU per chat request of 1 KiB that is counted, 64 keep-alive connections", rounds)
    added = [r["all"] - r["plain"] for r in rounds]
    median = statistics.median(added)
    print(f"  bar: limits, usage and budget add less than 10 µs: {median:.2f} ({min(added):.2f} – {max(added):.2f}), "
          f"{'held' if median < 10 else 'MISSED'}")
    return held and median < 10


def bench_stream(args):
    everything = lambda d: """cors *
auth_token {
	file %s
}
@served model gpt-* claude-* bench-*
ollama_compat /ollama
cursor_compat /cursor/*
""" % token_file(d, "tokens", 10)
    configurations = {
        "plain": lambda d, o: f"reverse_proxy 127.0.0.1:{o}",
        "untouched": lambda d, o: everything(d) + f"reverse_proxy @served 127.0.0.1:{o}",
        "ollama_compat": lambda d, o: f"ollama_compat\nreverse_proxy 127.0.0.1:{o}",
        "cursor_compat": lambda d, o: f"cursor_compat\nreverse_proxy 127.0.0.1:{o}",
    }
    body = json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "word " * 40}]}).encode()

    def measure(name, port, proxy):
        path, event, end = CHAT, b"\ndata: ", b"[DONE]"
        if name == "ollama_compat":
            path, event, end = "/api/chat", b'"done":', b'"done":true'
        refuse_wrong(name, port, path, body, token(0), event.strip())
        request = (f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token(0)}\r\n"
                   f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body
        before = proxy.cpu()
        events = sse_load(port, args.streams, args.seconds, request, event, end)
        cpu = proxy.cpu() - before
        # 20 a second and stream, the first ones later: half of that is a stalled upstream, not a measurement.
        if events < args.streams * 20 * args.seconds // 2:
            raise RuntimeError(f"{events} events came")
        return cpu / events * 1e6

    rounds = rounds_of(args, configurations, lambda d, port: sse_origin(args.binary, d, port), measure)
    return report(f"CPU per event of a stream, {args.streams} streams × 20 events/s, openings included", rounds, [
        ("untouched", "plain", 1.10, "an untouched stream costs no more, as far as a run can tell"),
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    run = {"auth": bench_auth, "metered": bench_metered, "stream": bench_stream}
    parser.add_argument("what", nargs="*", choices=[*run, []])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of load for a figure; streams get twice that")
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/llmproxy"))
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    if not os.path.exists(args.binary):
        sys.exit("build it first: cargo build --release")
    if CORES > 1:
        os.sched_setaffinity(0, {int(LOAD_CORE)})
    held = True
    for what in args.what or run:
        held &= run[what](argparse.Namespace(**{**vars(args), "seconds": args.seconds * (2 if what == "stream" else 1)}))
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
