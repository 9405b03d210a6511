"""A server as a process, and its API over one kept connection."""

import hashlib
import http.client
import json
import pathlib
import re
import subprocess
import time
import urllib.parse


class Registry:
    def __init__(self, program, folder, database):
        folder.mkdir(parents=True, exist_ok=True)
        command = [program, "serve", "--listen", "127.0.0.1:0", "--evaluator", "off", "--data", str(folder)]
        if database:
            command += ["--database", database]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=open(folder / "log", "a"), text=True)
        line = self.process.stdout.readline()
        self.netloc = urllib.parse.urlsplit(line.split()[-1]).netloc
        self.token = (folder / "admin.token").read_text().strip()
        self.connection = http.client.HTTPConnection(self.netloc, timeout=3600)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def as_token(self, token):
        other = object.__new__(Registry)
        other.process, other.netloc, other.token = self.process, self.netloc, token
        other.connection = http.client.HTTPConnection(self.netloc, timeout=3600)
        return other

    def call(self, method, path, body, content_type="application/json"):
        if not isinstance(body, (bytes, type(None))):
            body = json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        self.connection.request(method, "/api/v1" + path, body, headers)
        response = self.connection.getresponse()
        answer = response.read()
        if response.status >= 300:
            raise SystemExit(f"{method} {path}: {response.status} {answer[:500]!r}")
        return json.loads(answer) if answer else None

    def post(self, path, body):
        return self.call("POST", path, body)

    def timed(self, method, path, body):
        """Milliseconds, and the answer; the body is made before."""
        body = json.dumps(body).encode()
        begun = time.perf_counter()
        answer = self.call(method, path, body)
        return (time.perf_counter() - begun) * 1000, answer

    def publish(self, run, step, of, number):
        """Milliseconds from opening a session to a ready checkpoint of the file of `of` and a new small one."""
        small = f"note {number}".encode()
        small_digest = hashlib.sha256(small).digest()
        entries = [
            {"path": "model.bin", "sha256": of.file.hex(), "size": of.size},
            {"path": "note.txt", "sha256": small_digest.hex(), "size": len(small)},
        ]
        manifest = hashlib.sha256(json.dumps({"files": entries}, separators=(",", ":")).encode()).hexdigest()
        chunk_bytes = of.size // len(of.chunks)
        chunks = [{"digest": f"sha256:{digest.hex()}", "size_bytes": chunk_bytes} for digest in of.chunks]
        large = {"path": "model.bin", "size_bytes": of.size, "digest": f"sha256:{of.file.hex()}", "chunks": chunks}
        digest = f"sha256:{small_digest.hex()}"
        note = {"path": "note.txt", "size_bytes": len(small), "digest": digest}
        note["chunks"] = [{"digest": digest, "size_bytes": len(small)}]
        large, note = json.dumps(large).encode(), json.dumps(note).encode()
        frame = b"FLF1\0\1\0\0" + len(small).to_bytes(4, "little") + small
        begun = time.perf_counter()
        session = self.post(f"{run}/push-sessions", {"step": step, "manifest_digest": f"sha256:{manifest}"})
        at = f"{run}/push-sessions/{session['id']}"
        self.call("PUT", f"{run}/chunks/{digest}?session={session['id']}", frame, "application/vnd.fineline.frame")
        self.post(f"{at}/files", large)
        self.post(f"{at}/files", note)
        session = self.post(f"{at}/commit", {"manifest_digest": f"sha256:{manifest}"})
        while session["state"] == "verifying":
            session = self.call("GET", f"{at}?wait_s=25", None)
        assert session["state"] == "committed" and not session["unchanged"], session
        return (time.perf_counter() - begun) * 1000

    def transactions_per_second(self, run, n=300):
        """Of one caller that waits for each: heartbeats of a push session, a transaction each."""
        session = self.post(f"{run}/push-sessions", {"step": 2_000_000})
        begun = time.perf_counter()
        for _ in range(n):
            self.post(f"{run}/push-sessions/{session['id']}/heartbeat", None)
        return n / (time.perf_counter() - begun)

    def forget_peak(self):
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak_bytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
