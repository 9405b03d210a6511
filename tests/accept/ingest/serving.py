"""What the Hub server and the fault proxy have in common: a log of requests, the port file, bytes that are counted.

A request's line is in the log a moment after its last byte is with the client. `GET /_settled` is answered once no
other request is under way, and is in no log: ask it before reading the log.

What a connection took is not yet what its client read, where the client leaves early: the buffers between are kept
small (some 200 KB). Where the proxy itself cuts, all that it counted is delivered: its log is then the exact one.
"""

import json
import os
import socket
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SETTLE_S = 60
BUFFER_BYTES = 1 << 16


class RequestLog:
    """One JSON line a request, flushed."""

    def __init__(self, path):
        self._file = open(path, "a", encoding="utf-8")
        self._under_way = 0
        self._changed = threading.Condition()

    @contextmanager
    def request(self, **line):
        """Gives the line to be filled in; it is written when the block ends, however it ends."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **line}
        with self._changed:
            self._under_way += 1
        try:
            yield line
        finally:
            with self._changed:
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()
                self._under_way -= 1
                self._changed.notify_all()

    def settled(self):
        with self._changed:
            return self._changed.wait_for(lambda: self._under_way == 0, SETTLE_S)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Handler(BaseHTTPRequestHandler):
    """A request at a time of one connection; who inherits gives `log` and `exchange`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    log: RequestLog

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except ConnectionError:  # the client left between two requests
            self.close_connection = True

    def do_GET(self):
        if self.path != "/_settled":
            return self.exchange()
        self.send_response(204 if self.log.settled() else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self):
        self.exchange()

    do_POST = do_PUT = do_DELETE = do_HEAD

    def exchange(self):
        raise NotImplementedError

    def send_counted(self, line, data):
        """Sends body bytes and adds to `line` what the connection took, also where it breaks in between."""
        data = memoryview(data)
        while data:
            n = self.connection.send(data)
            line["body_bytes"] += n
            data = data[n:]

    def log_message(self, format, *args):
        """The log says it."""


def serve(handler, port, port_file):
    """Serves on the loopback address until it is killed; `port_file` is there, whole, once connections are taken."""
    server = Server(("127.0.0.1", port), handler)
    fresh = Path(f"{port_file}.new")
    fresh.write_text(f"{server.server_address[1]}\n")
    os.replace(fresh, port_file)
    server.serve_forever()
