#!/usr/bin/env python3
"""What a TLS server accepts, refuses and prefers: a line for each check, exit status 1 when one fails.

Usage: tests/tls/check.py PORT NAME CA_FILE

For a server on loopback with an ECDSA certificate for NAME. Old protocols, single cipher suites and key exchange groups
are asked for with hellos written byte by byte, so that nothing depends on what the local OpenSSL still knows.
"""
import os, socket, ssl, struct, subprocess, sys

PORT, NAME, CA = int(sys.argv[1]), sys.argv[2], sys.argv[3]
failures = 0

TLS12 = {  # name: what llmproxy is to answer when nothing else is offered
    0xC02C: ("ECDHE-ECDSA-AES256-GCM-SHA384", True), 0xC02B: ("ECDHE-ECDSA-AES128-GCM-SHA256", True),
    0xCCA9: ("ECDHE-ECDSA-CHACHA20-POLY1305", True), 0xC030: ("ECDHE-RSA-AES256-GCM-SHA384", False),
    0xC02F: ("ECDHE-RSA-AES128-GCM-SHA256", False), 0xC024: ("ECDHE-ECDSA-AES256-SHA384", False),
    0xC023: ("ECDHE-ECDSA-AES128-SHA256", False), 0xC00A: ("ECDHE-ECDSA-AES256-SHA", False),
    0xC009: ("ECDHE-ECDSA-AES128-SHA", False), 0xC0AD: ("ECDHE-ECDSA-AES256-CCM", False),
    0x009F: ("DHE-RSA-AES256-GCM-SHA384", False), 0x009D: ("RSA-AES256-GCM-SHA384", False),
    0x002F: ("RSA-AES128-SHA", False), 0x000A: ("RSA-3DES", False), 0x0005: ("RSA-RC4-SHA", False),
    0xC007: ("ECDHE-ECDSA-RC4-SHA", False), 0xC006: ("ECDHE-ECDSA-NULL-SHA", False), 0x0001: ("RSA-NULL-MD5", False),
    0x0018: ("ADH-RC4-MD5", False), 0xC018: ("AECDH-AES128-SHA", False), 0x0003: ("EXPORT-RC4-40", False),
}
TLS13 = {0x1302: "AES256-GCM-SHA384", 0x1301: "AES128-GCM-SHA256", 0x1303: "CHACHA20-POLY1305", 0x1304: "AES128-CCM"}
GROUPS = {0x11EC: "X25519MLKEM768", 29: "X25519", 23: "P-256", 24: "P-384", 25: "P-521", 30: "X448", 256: "ffdhe2048"}
HELLO_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


def check(what, ok, seen=""):
    global failures
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {what}{': ' + str(seen) if seen != '' else ''}")


def extension(kind, body):
    return struct.pack("!HH", kind, len(body)) + body


def listed(form, items, width="H"):
    body = b"".join(struct.pack("!" + form, i) for i in items)
    return struct.pack("!" + width, len(body)) + body


def hello(version, suites, groups=(29, 23, 24), compressions=(0,), versions=(), shares=None, alpn=(), name=NAME):
    exts = b""
    if name:
        host = name.encode()
        exts += extension(0, struct.pack("!HBH", len(host) + 3, 0, len(host)) + host)
    exts += extension(10, listed("H", groups)) + extension(11, b"\1\0")
    exts += extension(13, listed("H", [0x0403, 0x0503, 0x0804, 0x0805, 0x0401, 0x0501, 0x0807]))
    exts += extension(23, b"") + extension(0xFF01, b"\0")
    if versions:
        exts += extension(43, listed("H", versions, "B"))
    if shares is not None:
        body = b"".join(struct.pack("!HH", g, len(k)) + k for g, k in shares)
        exts += extension(51, struct.pack("!H", len(body)) + body)
    if alpn:
        body = b"".join(bytes([len(p)]) + p for p in alpn)
        exts += extension(16, struct.pack("!H", len(body)) + body)
    body = struct.pack("!H", version) + os.urandom(32) + b"\0" + listed("H", suites)
    body += bytes([len(compressions), *compressions]) + struct.pack("!H", len(exts)) + exts
    handshake = b"\1" + struct.pack("!I", len(body))[1:] + body
    return b"\x16" + struct.pack("!HH", min(version, 0x0301), len(handshake)) + handshake


def ask(raw):
    """('hello', fields) or ('alert', number) or ('closed', None)."""
    with socket.create_connection(("127.0.0.1", PORT), timeout=10) as s:
        s.sendall(raw)
        data = b""
        while len(data) < 5 or len(data) < 5 + struct.unpack("!H", data[3:5])[0]:
            try:
                part = s.recv(4096)
            except ConnectionResetError:
                part = b""
            if not part:
                return "closed", None
            data += part
    if data[0] == 21:
        return "alert", data[6]
    body = data[9:]
    version, random, sid = struct.unpack("!H", body[:2])[0], body[2:34], body[34]
    at = 35 + sid
    suite, compression = struct.unpack("!HB", body[at:at + 3])
    exts, at = {}, at + 3
    end = at + 2 + struct.unpack("!H", body[at:at + 2])[0] if len(body) > at + 1 else at
    at += 2
    while at + 4 <= end:
        kind, size = struct.unpack("!HH", body[at:at + 4])
        exts[kind] = body[at + 4:at + 4 + size]
        at += 4 + size
    group = struct.unpack("!H", exts[51][:2])[0] if 51 in exts else None
    return "hello", {"version": struct.unpack("!H", exts[43])[0] if 43 in exts else version, "suite": suite,
                     "compression": compression, "retry": random == HELLO_RETRY, "group": group, "extensions": exts}


def accepted(raw):
    kind, seen = ask(raw)
    return seen if kind == "hello" else None


def protocols():
    for version, name in [(0x0300, "SSL 3"), (0x0301, "TLS 1.0"), (0x0302, "TLS 1.1")]:
        seen = ask(hello(version, list(TLS12)))
        check(f"{name} is refused", seen[0] != "hello", seen)
    seen = accepted(hello(0x0303, list(TLS12)))
    check("TLS 1.2 is spoken", seen is not None and seen["version"] == 0x0303)
    seen = accepted(hello13())
    check("TLS 1.3 is spoken, and preferred", seen is not None and seen["version"] == 0x0304)


def hello13(suites=tuple(TLS13), groups=(29,), shares=((29, b"\x09" + bytes(31)),), versions=(0x0304, 0x0303), **more):
    return hello(0x0303, list(suites) + [0xC02B], groups, versions=versions, shares=shares, **more)


def ciphers():
    taken = [id for id in TLS12 if accepted(hello(0x0303, [id]))]
    expected = [id for id, (_, ok) in TLS12.items() if ok]
    check("TLS 1.2 suites", taken == expected, " ".join(TLS12[id][0] for id in taken))
    order, rest = [], list(reversed(taken))
    while rest:
        order.append(accepted(hello(0x0303, rest))["suite"])
        rest.remove(order[-1])
    check("TLS 1.2 in the server's order", order == expected, " ".join(TLS12[id][0] for id in order))
    taken = []
    for id in TLS13:
        seen = accepted(hello13([id], versions=(0x0304,)))
        if seen and seen["suite"] == id:
            taken.append(id)
    check("TLS 1.3 suites", sorted(taken) == [0x1301, 0x1302, 0x1303], " ".join(TLS13[id] for id in taken))


def key_exchange():
    def preferred(groups):
        # Without a share the server says which group it wants.
        seen = accepted(hello13(groups=groups, shares=(), versions=(0x0304,)))
        return seen["group"] if seen and seen["retry"] else None
    order, rest = [], list(GROUPS)
    while rest and (group := preferred(rest)) is not None:
        order.append(group)
        rest.remove(group)
    # The client's order counts; those that know the post-quantum group list it first.
    check("key exchange groups, post-quantum among them", order == [0x11EC, 29, 23, 24], " ".join(GROUPS[g] for g in order))


def odds():
    seen = accepted(hello(0x0303, list(TLS12), compressions=(1, 0)))
    check("no compression", seen is not None and seen["compression"] == 0)
    seen = ask(hello13(compressions=(1, 0)))
    check("TLS 1.3 with compression is refused", seen == ("alert", 47), seen)
    seen = accepted(hello(0x0303, list(TLS12)))
    check("secure renegotiation is told (RFC 5746)", 0xFF01 in seen["extensions"])
    check("extended master secret (RFC 7627)", 23 in seen["extensions"])
    seen = ask(hello13(name="unknown.invalid"))
    check("an unknown name gets no certificate", seen[0] == "alert" or not served("unknown.invalid"), seen[0])
    seen = ask(hello(0x0303, list(TLS12), alpn=[b"spdy/1"]))
    check("unknown ALPN protocols are refused", seen == ("alert", 120), seen)


def context(**options):
    made = ssl.create_default_context(cafile=CA)
    for name, value in options.items():
        setattr(made, name, value)
    return made


def connect(made, name=NAME, session=None):
    raw = socket.create_connection(("127.0.0.1", PORT), timeout=10)
    return made.wrap_socket(raw, server_hostname=name, session=session)


def served(name):
    made = context(check_hostname=False, verify_mode=ssl.CERT_NONE)
    try:
        with connect(made, name):
            return True
    except (ssl.SSLError, OSError):
        return False


def sessions():
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        made = context(minimum_version=version, maximum_version=version)
        made.set_alpn_protocols(["http/1.1"])
        session = None
        for expected in (False, True):
            with connect(made, session=session) as s:
                check(f"{s.version()} {'is resumed' if expected else 'shakes hands, chain complete'}",
                      s.session_reused == expected)
                s.sendall(f"GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
                while s.recv(4096):
                    pass
                session = s.session
    for offered, chosen in [(["h2", "http/1.1"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), ([], None)]:
        made = context()
        made.set_alpn_protocols(offered)
        with connect(made) as s:
            check(f"ALPN {offered}", s.selected_alpn_protocol() == chosen, s.selected_alpn_protocol())


def openssl():
    def client(*args, typed=b""):
        argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{PORT}", "-servername", NAME, "-CAfile", CA, *args]
        done = subprocess.run(argv, input=typed, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
        return done.stdout.decode(errors="replace")
    said = client("-tls1_2", typed=b"R\n")
    check("the client cannot renegotiate", "RENEGOTIATING" in said and "no renegotiation" in said.lower())
    said = client("-tls1_3", "-status", typed=b"Q\n")
    check("the chain verifies", "Verify return code: 0 (ok)" in said)
    check("OCSP", True, "not stapled" if "no response sent" in said else "stapled")
    request = f"GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode()
    said = client("-tls1_3", "-ign_eof", typed=request)
    check("no early data", "Max Early Data: 0" in said or "Max Early Data" not in said)


for part in (protocols, ciphers, key_exchange, odds, sessions, openssl):
    part()
sys.exit(1 if failures else 0)
