#!/usr/bin/python3 -IS
"""An engine for lazaret, as docs/engines.md describes one: convicts what holds a marker.

It needs no library: the few messages are put together by hand. The tests also have it misbehave.
"""

import os
import socket
import time

MARKER = b"lazaret-inert-marker-of-an-engine"
# Of a message, in bytes.
LARGEST = 1 << 16
CHUNK = 1 << 20

# Wire types of protobuf.
VARINT, BYTES = 0, 2


def take_varint(message, at):
    number, shift = 0, 0
    while True:
        byte = message[at]
        number, shift, at = number | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return number, at


def take_fields(message):
    """Fields by number: bytes of those that have a length, numbers of the others."""
    fields, at = {}, 0
    while at < len(message):
        key, at = take_varint(message, at)
        value, at = take_varint(message, at)
        if key & 7 == BYTES:
            value, at = message[at : at + value], at + value
        elif key & 7 != VARINT:
            raise ValueError("no message of lazaretd's")
        fields[key >> 3] = value
    return fields


def varint(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number, content):
    """A length-delimited field: bytes, text or a message."""
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def scanned(findings):
    """FromWorker { scanned: Scanned { findings } }"""
    message = b""
    for rule, severity in findings:
        message += field(1, field(1, rule.encode()) + field(2, severity.encode()))
    return field(1, message)


def read(memory):
    """Never by its offset, which others share. It is sealed: it neither changes nor ends earlier."""
    content, offset = bytearray(), 0
    while piece := os.pread(memory, CHUNK, offset):
        content += piece
        offset += len(piece)
    os.close(memory)
    return bytes(content)


def content_of(message, files):
    """ToWorker { scan: Scan { content } }, or sealed memory instead of the content."""
    scan = take_fields(take_fields(message)[1])
    content = scan.get(1)
    return read(files[0]) if content is None else content


def works(act):
    try:
        act()
        return True
    except OSError:
        return False


def abilities():
    """What it could do beside judging."""
    tries = {
        "reads /etc/passwd": lambda: open("/etc/passwd").close(),
        "writes files": lambda: open("/tmp/engine-was-here", "w").close(),
        "sees the network": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
        "signals init": lambda: os.kill(1, 0),
    }
    return [what for what, act in tries.items() if works(act)] + [f"uid {os.getuid()}"]


def judge(content):
    if b"please " + b"crash" in content:
        os.abort()
    if b"please " + b"stall" in content:
        time.sleep(3600)
    if b"please " + b"babble" in content:
        return b"\xff" * 40
    findings = []
    if MARKER in content:
        findings.append(("Marker", "Critical"))
    if b"please " + b"try" in content:
        findings.append(("Able: " + ", ".join(abilities()), "Error"))
    return scanned(findings)


def main():
    # Standard input is the socket.
    lazaretd = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=0)
    while True:
        message, files, _, _ = socket.recv_fds(lazaretd, LARGEST, 1)
        if not message:
            return
        lazaretd.send(judge(content_of(message, files)))


main()
