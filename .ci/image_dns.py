"""A name server for the gate: A records, truncated over UDP when they are many."""

import socket
import socketserver
import struct
import threading

A, IN, NXDOMAIN, TTL, MAX_UDP = 1, 1, 3, 5, 512


class Names:
    """Serves `zone`, which may be changed, on an address; counts what was asked."""

    def __init__(self, address: str):
        self.zone: dict[str, list[str]] = {}
        self.asked: set[tuple[str, str]] = set()
        for server in (socketserver.ThreadingUDPServer, socketserver.ThreadingTCPServer):
            server.allow_reuse_address = server.daemon_threads = True
            handler = Udp if server is socketserver.ThreadingUDPServer else Tcp
            bound = server((address, 53), handler)
            bound.names = self
            threading.Thread(target=bound.serve_forever, daemon=True).start()

    def answer(self, transport: str, query: bytes) -> bytes:
        # The name ends with an empty label; type and class follow.
        labels, at = [], 12
        while size := query[at]:
            labels.append(query[at + 1 : at + 1 + size].decode().lower())
            at += 1 + size
        name, (kind,) = ".".join(labels), struct.unpack_from("!H", query, at + 1)
        self.asked.add((transport, name))
        addresses = self.zone.get(name)
        code = NXDOMAIN if addresses is None else 0
        records = [
            struct.pack("!HHHIH", 0xC00C, A, IN, TTL, 4) + socket.inet_aton(address)
            for address in (addresses if addresses and kind == A else [])
        ]
        truncated = transport == "udp" and at + 5 + 16 * len(records) > MAX_UDP
        if truncated:
            records = []
        # A response, authoritative, recursion wanted and available.
        flags = 0x8580 | (0x0200 if truncated else 0) | code
        header = query[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0)
        return header + query[12 : at + 5] + b"".join(records)


class Udp(socketserver.BaseRequestHandler):
    def handle(self):
        query, sock = self.request
        sock.sendto(self.server.names.answer("udp", query), self.client_address)


class Tcp(socketserver.StreamRequestHandler):
    def handle(self):
        while len(size := self.rfile.read(2)) == 2:
            query = self.rfile.read(struct.unpack("!H", size)[0])
            answer = self.server.names.answer("tcp", query)
            self.wfile.write(struct.pack("!H", len(answer)) + answer)
