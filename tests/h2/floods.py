"""Floods, counted: how much of what carries nothing a client may send on one connection before it is closed.

    floods.py PORT tls|plain PID         prints one JSON object: for each flood, frames sent and how it ended
"""

import json
import sys
import time
from pathlib import Path

from wire import *  # noqa: F403

MOST = 6000


def flood(make, most=MOST, batch=50, prepare=None, barrier=True):
    """Sends `make(number)` until the connection ends or `most` were sent; after each batch waits for the server."""
    client = Client(PORT, TLS)
    client.barrier()
    if prepare:
        prepare(client)
    sent = 0
    while sent < most and not client.closed and not client.goaways:
        client.send(b"".join(make(client, sent + number) for number in range(batch)))
        sent += batch
        if barrier and not client.barrier():
            break
    client.until(lambda: client.closed, 5)
    outcome = client.outcome() if client.closed else "open"
    client.close()
    return {"sent": sent, "ended": outcome}


def open_stream(client):
    client.request(1, path="/unread", method="POST", end=False)


def stream_of(number):
    return 2 * number + 1


def request(client, number, path, end=True):
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream_of(number), client.block(path=path))


def header_bomb():
    """One large field in the table, then a byte for each copy of it: 12 KB that stand for 48 MB."""
    client = Client(PORT, TLS)
    client.request(1, ("x-bomb", "b" * 3900), path="/local")
    assert client.answer(1) == 200
    pseudo = b"\x82\x86\x84\x01\x09localhost"  # GET http /, from the static table: the large field stays the newest
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, pseudo + b"\xbe" * 12000))
    client.until(lambda: client.goaways or 3 in client.heads)
    return client.outcome(3)


def head_of(count, size):
    client = Client(PORT, TLS)
    block = client.block(*[(f"x-{number}", "v" * size) for number in range(count)], path="/malformed")
    client.send(frame(HEADERS, END_STREAM, 1, block[:16000]))
    rest = [block[at : at + 16000] for at in range(16000, len(block), 16000)] or [b""]
    for number, piece in enumerate(rest):
        client.send(frame(CONTINUATION, END_HEADERS if number == len(rest) - 1 else 0, 1, piece))
    client.until(lambda: client.goaways or 1 in client.heads)
    return client.outcome(1)


def memory(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def never_reading(pid):
    """Two hundred endless answers with all the window there is, of which the client reads nothing."""
    before = memory(pid)
    client = Client(PORT, TLS, first_settings=[(4, (1 << 31) - 1)], receive_buffer=4096)
    client.send(window_update(0, (1 << 31) - 1 - 65535))
    for number in range(200):
        client.send(request(client, number, "/firehose"))
    most = 0
    for _ in range(15):
        time.sleep(0.1)
        most = max(most, memory(pid) - before)
    client.close()
    return most


def no_window(pid):
    """The same, with windows that never open."""
    client = Client(PORT, TLS, first_settings=[(4, 0)])
    before = memory(pid)
    for number in range(200):
        client.send(request(client, number, "/firehose"))
    client.until(lambda: len(client.heads) == 200)
    most = 0
    for _ in range(10):
        time.sleep(0.1)
        most = max(most, memory(pid) - before)
    assert not client.sizes, client.sizes
    client.close()
    return most


def main():
    results = {
        "ping": flood(lambda c, n: frame(PING, 0, 0, b"flooding")),
        "settings": flood(lambda c, n: settings((3, n))),
        "settings acknowledged unasked": flood(lambda c, n: settings(flags=ACK)),
        "priority": flood(lambda c, n: frame(PRIORITY, 0, stream_of(n), b"\0\0\0\0\x10")),
        "window updates": flood(lambda c, n: window_update(0, 1)),
        "unknown frames": flood(lambda c, n: frame(0xBE, 0, 0, b"")),
        "empty data": flood(lambda c, n: frame(DATA, 0, 1), prepare=open_stream),
        "data of padding": flood(lambda c, n: frame(DATA, PADDED, 1, b"\3\0\0\0"), prepare=open_stream),
        "resets of no stream": flood(lambda c, n: rst(1), prepare=open_stream),
        "rapid reset": flood(lambda c, n: request(c, n, "/rapid") + rst(stream_of(n)), batch=10),
        "rapid reset at once": flood(lambda c, n: request(c, n, "/rapid") + rst(stream_of(n)), batch=3000, barrier=False),
        "rapid reset of bodies": flood(lambda c, n: request(c, n, "/rapid", end=False) + rst(stream_of(n)), batch=10),
        "made to reset": flood(lambda c, n: request(c, n, "/rapid") + window_update(stream_of(n), (1 << 31) - 1), batch=10),
        "malformed requests": flood(lambda c, n: frame(HEADERS, 5, stream_of(n), c.block(("te", "x"), path="/malformed"))),
        "continuation without end": flood(
            lambda c, n: frame(CONTINUATION, 0, 1, b"") if n else frame(HEADERS, 0, 1, c.block(path="/malformed")),
            barrier=False),
        "continuation of fields without end": flood(
            lambda c, n: frame(CONTINUATION, 0, 1, b"\0\1x\x7f\x81\x7c" + b"v" * 16000) if n
            else frame(HEADERS, 0, 1, c.block(path="/malformed")), barrier=False, batch=20),
        "header bomb": header_bomb(),
        "300 fields": head_of(300, 10),
        "1.2 MB of fields": head_of(120, 10_000),
        "never reading, KiB": never_reading(PID),
        "no window, KiB": no_window(PID),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    PORT, TLS, PID = int(sys.argv[1]), sys.argv[2] == "tls", int(sys.argv[3])
    main()
