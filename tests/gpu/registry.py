"""A registry on SQLite and a folder, with the client and workers as whole programs."""

import json
import os
import re
import subprocess
import time

from part import Broken, Peak, peak_bytes, run

START_S = 60


class Registry:
    def __init__(self, told):
        self.told, self.dir = told, told.folder("registry")
        self.log = open(self.dir / "stderr", "w")
        command = [told.registry, "serve", "--listen", "127.0.0.1:0", "--data", self.dir, "--evaluator", "off"]
        with open(self.dir / "stdout", "w") as stdout:
            self.process = subprocess.Popen([str(word) for word in command], stdout=stdout, stderr=self.log)
        self.env = {"FINELINE_CONFIG": str(self.dir / "client.toml")}
        until = time.monotonic() + START_S
        while not (found := re.search(r"http://[0-9.:]+", (self.dir / "stdout").read_text())):
            if self.process.poll() is not None or time.monotonic() > until:
                raise Broken(f"the registry did not start: {(self.dir / 'stderr').read_text()[-2000:]}")
            time.sleep(0.05)
        self.env |= {"FINELINE_URL": found[0], "FINELINE_TOKEN": (self.dir / "admin.token").read_text().strip()}
        self.evaluate = self.client("token", "create", "worker", "--scope", "evaluate").stdout.strip()

    def client(self, *words, **options):
        return run([self.told.fineline, *words], env=self.env, **options)

    def json(self, *words):
        return json.loads(self.client("--json", *words).stdout)

    def worker(self, *options, env=None):
        """A worker beside this; its log lies in the registry's folder."""
        return Worker(self, [str(option) for option in options], env or {})

    def peak_bytes(self):
        return peak_bytes(self.process.pid)

    def stop(self):
        """Its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Worker:
    def __init__(self, registry, options, env):
        told = registry.told
        self.path = registry.dir / "worker.stderr"
        command = [str(told.worker), "--server", registry.env["FINELINE_URL"], *options]
        with open(self.path, "w") as log:
            environment = {**os.environ, "FINELINE_TOKEN": registry.evaluate, **env}
            self.process = subprocess.Popen(command, stderr=log, stdout=subprocess.DEVNULL, env=environment)
        self.peak = Peak(self.process.pid)

    def log(self):
        return self.path.read_text()

    def stop(self):
        """(exit code, most memory resident)"""
        self.process.terminate()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return code, self.peak.ended()


def eventually(seconds, done, alive=None, every=0.1):
    """Waits until something is so; gives the seconds that it took."""
    begun = time.monotonic()
    while not (found := done()):
        if alive and not alive():
            raise Broken("a program that was to go on has ended")
        if time.monotonic() - begun > seconds:
            raise Broken(f"not so within {seconds} s")
        time.sleep(every)
    return found, time.monotonic() - begun
