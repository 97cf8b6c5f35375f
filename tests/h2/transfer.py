"""What ordinary clients do over HTTP/2, and how connections end.

    transfer.py CASE PORT tls|plain [PID]        prints one JSON object
"""

import json
import os
import signal
import sys
import time

from wire import *  # noqa: F403

MIB = 1 << 20


def upload(client, stream, data, trailers=None):
    """Sends a body as the windows allow."""
    windows = {0: 65535, stream: 65535}
    client.until(lambda: client.settings and client.acks)
    windows[stream] = client.settings[0].get(4, 65535)
    at = 0
    while at < len(data):
        room = min(windows[number] + client.credit.get(number, 0) - at for number in windows)
        if room <= 0:
            before = dict(client.credit)
            assert client.until(lambda: client.credit != before), "the window does not open"
            continue
        piece = data[at : at + min(room, 16384)]
        at += len(piece)
        last = at == len(data) and not trailers
        client.send(frame(DATA, END_STREAM if last else 0, stream, piece))
    if trailers:
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, client.encoder.encode(trailers)))


def download(client, stream):
    """Reads a whole answer, opening the windows again by what has come."""
    given = 0
    while stream not in client.ended and not client.closed:
        before = len(client.sizes)
        client.until(lambda: len(client.sizes) > before or stream in client.ended)
        taken = len(client.bodies.get(stream, b""))
        if taken > given:
            client.send(window_update(0, taken - given) + window_update(stream, taken - given))
            given = taken
    return client.bodies.get(stream, b"")


def bodies():
    """1 MiB up in small frames, and echoed down again."""
    client = Client(PORT, TLS)
    data = "".join(chr(97 + number % 23) for number in range(MIB)).encode()
    client.request(1, ("content-length", str(MIB)), path="/echo", method="POST", end=False)
    upload(client, 1, data)
    echoed = json.loads(download(client, 1))
    return {"status": client.status(1), "same": echoed["body"].encode() == data, "framing": echoed["framing"]}


def trailers():
    """As gRPC: trailers after the body both ways."""
    client = Client(PORT, TLS)
    fields = [("te", "trailers"), ("trailer", "x-sum"), ("content-type", "application/grpc")]
    client.request(1, *fields, path="/echo", method="POST", end=False)
    upload(client, 1, b"message", [("x-sum", "7")])
    client.answer(1)
    client.request(3, ("te", "trailers"), path="/trailers")
    client.answer(3)
    return {"up": json.loads(client.bodies[1])["trailers"], "down": client.trailers.get(3), "body": client.bodies[3].decode()}


def cancel():
    """RST_STREAM in a body, with two codes, and before the answer: the connection goes on."""
    client = Client(PORT, TLS)
    for stream, code in ((1, 8), (3, 0)):
        client.request(stream, path=f"/cut-off?{code}", method="POST", end=False)
        client.send(frame(DATA, 0, stream, b"half of"))
        client.barrier()
        time.sleep(0.1)  # so that what came is on its way to the upstream
        client.send(rst(stream, code))
    client.request(5, path="/hang?ms=8000")
    client.request(7, path="/sse?n=0&ms=20")
    client.until(lambda: client.bodies.get(7))
    client.barrier()
    time.sleep(0.1)
    client.send(rst(5) + rst(7))
    client.request(9)
    return {"after": client.answer(9)}


def window_kept():
    """A client that sends more than our window while nobody reads its body."""
    client = Client(PORT, TLS)
    client.until(lambda: client.settings and client.acks)
    client.request(1, path="/stuck", method="POST", end=False)
    sent = 0
    while not client.closed and not client.goaways and sent < 64 * MIB:
        client.send(frame(DATA, 0, 1, b"x" * 16384))
        sent += 16384
        client.until(lambda: client.goaways or 1 in client.resets, 0.0005)
        if 1 in client.resets:
            break
    client.until(lambda: client.goaways or 1 in client.resets, 5)
    return {"ended": client.outcome(1), "sent": sent}


def limits():
    """`read_header 1s` and `idle 2s`: what they act on, and what not."""
    waiting = Client(PORT, TLS)
    waiting.request(1, path="/hang?ms=4000")
    opened = Client(PORT, TLS)
    opened.barrier()
    began = time.monotonic()
    opened.send(frame(HEADERS, END_STREAM, 1, opened.block(path="/malformed")))
    assert opened.until(lambda: opened.closed, 5), "an open header block is not closed"
    block = time.monotonic() - began
    silent = Client(PORT, TLS, start=False)
    silent.send(PREFACE)
    assert silent.until(lambda: silent.closed, 5), "half a preface is not closed"
    idle = Client(PORT, TLS)
    began = time.monotonic()
    idle.request(1)
    assert idle.answer(1) == 200
    while not idle.closed and time.monotonic() - began < 6:
        idle.send(frame(PING, 0, 0, b"alive..."))
        idle.until(lambda: idle.closed, 0.2)
    return {"block": block, "idle": time.monotonic() - began, "goaways": idle.goaways, "open": waiting.answer(1)}


def drain():
    """The proxy is told to stop: GOAWAY, what is on its way is answered, GOAWAY, the end. A second client never answers."""
    client, mute = Client(PORT, TLS), Client(PORT, TLS)
    client.request(1, path="/hang?ms=700")
    client.barrier()
    mute.barrier()
    os.kill(PID, signal.SIGTERM)
    assert client.until(lambda: client.goaways)
    client.request(3)  # sent before the client could know
    client.until(lambda: client.closed)
    began = time.monotonic()
    mute.note = lambda got: None
    mute.until(lambda: mute.closed, 15)
    return {
        "statuses": [client.status(1), client.status(3)],
        "goaways": client.goaways,
        "clean": client.ended == {1, 3},
        "mute closed": mute.closed,
        "after": time.monotonic() - began,
    }


if __name__ == "__main__":
    PORT, TLS = int(sys.argv[2]), sys.argv[3] == "tls"
    PID = int(sys.argv[4]) if len(sys.argv) > 4 else None
    print(json.dumps(globals()[sys.argv[1]]()))
