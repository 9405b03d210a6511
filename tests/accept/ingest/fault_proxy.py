"""A proxy that breaks HTTP on purpose: fault_proxy.py HOST:PORT --port-file FILE --log FILE --control FILE

It stands before a Hub or a bucket and passes requests and answers on as they are, the Host header too, so that S3's
signatures hold. Which requests suffer stands in the control file, read again whenever it changed (replace it in one
step, by a rename); none, or an empty object, is no fault at all:

  {"cut": 0.3,                    share of requests whose connection closes within the body of the answer
   "slow": 0.05, "slow_s": 2.0,   share whose body comes in drops, over that time
   "status": {"429": 0.1},        share answered so without asking the server: 429 with Retry-After or, half of the
                                  time, RateLimit; 503 and others bare
   "wrong": 0.0,                  share whose body has the right size and some bytes flipped
   "match": "resolve/.*bin",      only requests whose decoded path and query have this
   "methods": ["GET"],            only these
   "times": 3,                    no more faults than this
   "seed": 1}                     which requests: a function of it and of how many have matched since the change

Each request is a JSON line of the log: time, method, path, range, fault, n (its count, for one that matches), status
(what the client got, null where nothing), body_bytes (what the client's connection took of the body), authorization.
"""

import argparse
import http.client
import json
import os
import random
import re
import socket
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote

from serving import BUFFER_BYTES, Handler, RequestLog, serve

NAMES = {"cut", "slow", "slow_s", "status", "wrong", "match", "methods", "times", "seed"}
SERVER_TIMEOUT_S = 600
DROPS = 40


class Control:
    """What the control file says, and how far its faults are used up."""

    def __init__(self, path):
        self._path = Path(path)
        self._lock = threading.Lock()
        self._mark = self._rules = None
        self._load()

    def draw(self, method, path):
        """(count, fault, chance of its own, rules) of a request; count and fault are None where none may strike it."""
        with self._lock:
            self._load()
            rules = self._rules
            if not re.search(rules.get("match", ""), path) or method not in rules.get("methods", [method]):
                return None, None, None, rules
            self._n += 1
            chance = random.Random(f"{rules.get('seed', 0)} {self._n}")
            at = chance.random()
            shares = {name: rules.get(name, 0) for name in ("cut", "slow", "wrong")} | rules.get("status", {})
            for fault, share in shares.items():
                at -= share
                if at < 0 and self._left > 0:
                    self._left -= 1
                    return self._n, fault, chance, rules
                if at < 0:
                    break
            return self._n, None, chance, rules

    def give_back(self):
        """A fault had nothing to strike, as flipped bytes in an answer without a body."""
        with self._lock:
            self._left += 1

    def _load(self):
        try:
            stat = self._path.stat()
            mark = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            text = self._path.read_text() if mark != self._mark else None
        except FileNotFoundError:
            mark, text = None, "{}"
        if self._rules is not None and mark == self._mark:
            return
        try:
            rules = json.loads(text)
            if unknown := set(rules) - NAMES:
                raise ValueError(f"unknown {sorted(unknown)}")
        except ValueError as error:
            # A test whose faults never come would pass for nothing.
            print(f"fault_proxy: {self._path}: {error}", file=sys.stderr, flush=True)
            os._exit(2)
        self._mark, self._rules = mark, rules
        self._n, self._left = 0, rules.get("times", float("inf"))


class ProxyHandler(Handler):
    control: Control
    target: tuple[str, int]

    def exchange(self):
        path = unquote(self.path)
        n, self.fault, self.chance, self.rules = self.control.draw(self.command, path)
        sent = {"method": self.command, "path": path, "range": self.headers["Range"], "fault": self.fault, "n": n}
        came_with = self.headers["Authorization"] is not None
        with self.log.request(**sent, status=None, body_bytes=0, authorization=came_with) as self.line:
            try:
                if (self.fault or "").isdigit():
                    for _ in self.request_body():
                        pass
                    self.refuse(int(self.fault))
                else:
                    with socket.socket() as server:
                        # So that a cut leaves little in between that the server counts as sent.
                        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
                        server.settimeout(SERVER_TIMEOUT_S)
                        server.connect(self.target)
                        self.pass_on(server)
            except (OSError, http.client.HTTPException) as error:
                self.line["error"] = repr(error)
                self.close_connection = True

    def refuse(self, status):
        data = json.dumps({"error": f"{status} on purpose"}).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        if status == 429:
            wait = [("Retry-After", "1"), ("RateLimit", '"api";r=0;t=1')]
            headers |= [self.chance.choice(wait)]
        self.send_head(status, http.client.responses.get(status, ""), headers.items())
        if self.command != "HEAD":
            self.send_counted(self.line, data)

    def pass_on(self, server):
        # A connection for each request: nothing of one answer can be taken for another's after a cut.
        head = [self.raw_requestline.rstrip(b"\r\n").decode("latin-1")]
        head += [f"{name}: {value}" for name, value in self.headers.items() if name.lower() != "expect"]
        server.sendall("\r\n".join([*head, "", ""]).encode("latin-1"))
        for piece in self.request_body():
            server.sendall(piece)
        answer = http.client.HTTPResponse(server, method=self.command)
        answer.begin()
        has_body = answer.chunked or answer.length != 0
        if self.fault in ("slow", "wrong") and not has_body:
            self.control.give_back()
            self.fault = self.line["fault"] = None
        if self.fault == "cut" and not has_body:
            self.close_connection = True  # nothing to cut but the answer itself
            return
        self.send_head(answer.status, answer.reason, answer.headers.items())
        if has_body:
            self.pass_body(answer)
        self.close_connection |= answer.will_close

    def pass_body(self, answer):
        # How long a body in chunks will be, nobody knows: faults strike its beginning.
        length = BUFFER_BYTES if answer.length is None else answer.length
        cut = self.chance.randrange(length) if self.fault == "cut" else None
        flips = sorted(self.chance.sample(range(length), min(3, length))) if self.fault == "wrong" else []
        if flips and answer.length is None:
            flips = [0]
        size = max(1, length // DROPS) if self.fault == "slow" else BUFFER_BYTES
        passed = 0
        while piece := answer.read(size if cut is None else min(size, cut - passed)) if passed != cut else b"":
            piece = bytearray(piece)
            for at in flips:
                if passed <= at < passed + len(piece):
                    piece[at - passed] ^= 0xFF
            self.send_piece(piece, answer.chunked)
            passed += len(piece)
            if self.fault == "slow":
                time.sleep(self.rules.get("slow_s", 2.0) / DROPS)
        if cut is not None or answer.length:  # the latter: the server itself broke off
            self.close_connection = True
        elif answer.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def send_piece(self, piece, chunked):
        if chunked:
            self.wfile.write(b"%x\r\n" % len(piece))
        self.send_counted(self.line, piece)
        if chunked:
            self.wfile.write(b"\r\n")

    def request_body(self):
        """The request's body in pieces, framed as it came."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while True:
                yield (line := self.rfile.readline())
                size = int(line.split(b";")[0], 16)
                if size == 0:
                    while line not in (b"\r\n", b""):
                        yield (line := self.rfile.readline())
                    return
                yield self.rfile.read(size + 2)
        left = int(self.headers["Content-Length"] or 0)
        while left and (piece := self.rfile.read(min(left, BUFFER_BYTES))):
            left -= len(piece)
            yield piece

    def send_head(self, status, reason, headers):
        """The head word for word: nothing is added to what the server said."""
        self.line["status"] = status
        rows = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
        self.wfile.write("\r\n".join(rows).encode("latin-1"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", metavar="HOST:PORT")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--port-file", required=True, help="where the port is written once connections are taken")
    parser.add_argument("--log", required=True)
    parser.add_argument("--control", required=True, help="the faults; may be missing and come later")
    options = parser.parse_args()
    host, port = options.target.rsplit(":", 1)
    ProxyHandler.target = (host, int(port))
    ProxyHandler.control, ProxyHandler.log = Control(options.control), RequestLog(options.log)
    serve(ProxyHandler, options.port, options.port_file)


if __name__ == "__main__":
    main()
