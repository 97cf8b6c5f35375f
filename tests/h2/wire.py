"""HTTP/2 as bytes: a client that sends what it is told, right or wrong, and says what came of it.

Frames are made here by hand (hyperframe, which is a client's library, refuses to make wrong ones); `hpack` makes header
blocks that are right, and `hyperframe` reads what the server says.
"""

import socket
import ssl
import struct
import time

import hpack
from hyperframe.frame import Frame

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CODES = (
    "NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE_ERROR "
    "REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM INADEQUATE_SECURITY HTTP_1_1_REQUIRED"
).split()
PATIENCE = 10.0


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    length = len(payload) if length is None else length
    return length.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def settings(*pairs, flags=0):
    return frame(SETTINGS, flags, 0, b"".join(struct.pack(">HI", number, value) for number, value in pairs))


def window_update(stream, increment):
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def rst(stream, code=8):
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def code_name(number):
    return CODES[number] if number < len(CODES) else str(number)


class Client:
    """One connection. `events` is what the server said, in order."""

    def __init__(self, port, tls, host="localhost", start=True, first_settings=(), receive_buffer=None):
        raw = socket.socket()
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(PATIENCE)
        raw.connect(("127.0.0.1", port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = raw
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(raw, server_hostname=host)
            assert self.socket.selected_alpn_protocol() == "h2"
        self.authority = f"{host}:{port}"
        self.scheme = "https" if tls else "http"
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.buffer, self.closed = b"", False
        self.goaways, self.resets, self.heads, self.trailers, self.bodies, self.ended = [], {}, {}, {}, {}, set()
        self.pongs, self.settings, self.acks, self.sizes, self.credit = [], [], 0, [], {}
        if start:
            self.send(PREFACE + settings(*first_settings))

    # ---- sending

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            pass  # refused early: what is read next says why

    def block(self, *fields, path="/ok", method="GET", pseudo=None):
        if pseudo is None:
            pseudo = [(":method", method), (":scheme", self.scheme), (":authority", self.authority), (":path", path)]
        return self.encoder.encode(list(pseudo) + list(fields))

    def request(self, stream, *fields, path="/ok", method="GET", pseudo=None, end=True):
        flags = END_HEADERS | (END_STREAM if end else 0)
        self.send(frame(HEADERS, flags, stream, self.block(*fields, path=path, method=method, pseudo=pseudo)))

    # ---- receiving

    def read(self):
        """One frame; `False` once the connection is closed."""
        while True:
            if len(self.buffer) >= 9:
                parsed, length = Frame.parse_frame_header(memoryview(self.buffer[:9]))
                if len(self.buffer) >= 9 + length:
                    body, self.buffer = self.buffer[9 : 9 + length], self.buffer[9 + length :]
                    parsed.parse_body(memoryview(body))
                    self.note(parsed)
                    return True
            try:
                more = self.socket.recv(65536)
            except (ConnectionError, ssl.SSLError):
                more = b""
            if not more:
                self.closed = True
                return False
            self.buffer += more

    def note(self, got):
        stream = got.stream_id
        if got.type == GOAWAY:
            self.goaways.append((got.last_stream_id, code_name(got.error_code)))
        elif got.type == RST_STREAM:
            self.resets[stream] = code_name(got.error_code)
        elif got.type == SETTINGS:
            if "ACK" in got.flags:
                self.acks += 1
            else:
                self.settings.append(got.settings)
                self.send(settings(flags=ACK))
        elif got.type == PING:
            if "ACK" in got.flags:
                self.pongs.append(got.opaque_data)
            else:
                self.send(frame(PING, ACK, 0, got.opaque_data))
        elif got.type == HEADERS:
            fields = dict(self.decoder.decode(got.data))
            (self.trailers if stream in self.heads else self.heads)[stream] = fields
        elif got.type == DATA:
            self.bodies[stream] = self.bodies.get(stream, b"") + got.data
            self.sizes.append((stream, len(got.data)))
        elif got.type == WINDOW_UPDATE:
            self.credit[stream] = self.credit.get(stream, 0) + got.window_increment
        if got.type in (HEADERS, DATA) and "END_STREAM" in got.flags:
            self.ended.add(stream)

    def until(self, done, limit=PATIENCE):
        """Reads until `done()`, the end of the connection, or nothing for the limit. Whether it is done."""
        end = time.monotonic() + limit
        while not done() and not self.closed:
            left = end - time.monotonic()
            if left <= 0:
                break
            self.socket.settimeout(left)
            try:
                self.read()
            except TimeoutError:
                break
        self.socket.settimeout(PATIENCE)
        return done()

    def barrier(self):
        """Whether the server still answers, having read all that was sent before and said what it had to say.

        Twice, because it may answer a PING before it says what is wrong with a stream.
        """
        for _ in range(2):
            mark = struct.pack(">Q", 0x6261727269657200 + len(self.pongs))
            self.send(frame(PING, 0, 0, mark))
            if not self.until(lambda: mark in self.pongs):
                return False
        return True

    def status(self, stream):
        return int(self.heads[stream][":status"]) if stream in self.heads else None

    def answer(self, stream):
        """Waits for the whole answer on a stream: its status, or how it failed."""
        self.until(lambda: stream in self.ended or stream in self.resets or self.goaways)
        if stream in self.ended:
            return self.status(stream)
        return self.outcome(stream)

    def outcome(self, stream=None):
        """What the connection came to, in one word: `connection CODE`, `stream CODE`, `status N`, `closed`, `open`."""
        errors = [code for _, code in self.goaways if code != "NO_ERROR"]
        if errors:
            return f"connection {errors[0]}"
        if stream in self.resets and self.resets[stream] != "NO_ERROR":
            return f"stream {self.resets[stream]}"
        if stream in self.heads:
            return f"status {self.status(stream)}"
        return "closed" if self.closed else "open"

    def close(self):
        self.socket.close()
