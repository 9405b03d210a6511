"""What the parts of tests/gpu.sh share: what they are told, programs that are run, and what is kept of them."""

import json
import os
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

# By how much sums of log-probabilities in float32 may differ, absolute and relative: from another program's or another device's, and
# from the same one's in other batches.
AGAINST_ANOTHER = 1e-4
AGAINST_ITSELF = 1e-5


class Broken(Exception):
    """Something that a part needs did not work."""


class Told:
    """What a part is told, by the environment of run.py's processes."""

    def __init__(self):
        told = json.loads(os.environ["FINELINE_GPU"])
        self.device, self.tiny, self.python = told["device"], told["tiny"], told["python"]
        self.bin, self.data, self.work, self.tests = (Path(told[name]) for name in ("bin", "data", "work", "tests"))
        self.on_a_card = self.device != "cpu"
        self.measure, self.fineline = self.bin / "measure", self.bin / "fineline"
        self.worker, self.registry = self.bin / "fineline-evaluator", self.bin / "fineline-registry"

    def size(self, real, tiny):
        return tiny if self.tiny else real

    def how(self, dtype):
        """The options of `measure`."""
        return ["--device", self.device, "--dtype", dtype]

    def folder(self, name):
        """An empty folder."""
        path = self.work / name
        subprocess.run(["rm", "-rf", path], check=True)
        path.mkdir(parents=True)
        return path

    def model(self, name):
        return self.data / name

    def small_models(self):
        return {"run-step-003000": self.data / "run/step-003000", "stories260K": self.data / "models/stories260K"}

    def task(self, name):
        return self.data / f"lm_eval/tasks/{name}.yaml"

    def generated(self, shape):
        """A checkpoint of a released model's shape, made when it is not there; (folder, what was said of it, seconds or None)"""
        folder, said = self.work / shape, self.work / f"{shape}.json"
        if said.exists() and folder.exists():
            return folder, json.loads(said.read_text()), None
        subprocess.run(["rm", "-rf", folder], check=True)
        begun = time.monotonic()
        command = [self.measure, "generate", shape, folder, "--tokenizer", self.data / "tokenizer"]
        (made,) = lines(run(command + (["--tiny"] if self.tiny else [])).stdout)
        seconds = time.monotonic() - begun
        said.write_text(json.dumps(made))
        return folder, made, seconds


class Part:
    """What is found by a part: checks that hold or fall short, figures, and what wants a card."""

    def __init__(self):
        self.checks, self.figures, self.needs_a_card = [], {}, []

    def check(self, text, ok):
        self.checks.append({"text": text, "ok": bool(ok)})
        print(f"  {'ok   ' if ok else 'SHORT'} {text}", flush=True)
        return bool(ok)

    def figure(self, name, value):
        self.figures[name] = value
        print(f"        {name}: {shown(value)}", flush=True)

    def wants_a_card(self, text):
        self.needs_a_card.append(text)
        print(f"  -     needs a card: {text}", flush=True)


def shown(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)


class Ran:
    """A program that has ended."""

    def __init__(self, code, stdout, stderr, seconds, peak_bytes):
        self.code, self.stdout, self.stderr, self.seconds, self.peak_bytes = code, stdout, stderr, seconds, peak_bytes


def run(command, stdin=None, env=None, cwd=None, ends_well=True, timeout=None):
    """Runs a program to its end; its stderr is shown where it should have ended well and has not."""
    command, begun = [str(word) for word in command], time.monotonic()
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, **(env or {})}, cwd=cwd,
    )
    peak = Peak(child.pid)
    try:
        out, err = child.communicate(stdin.encode() if stdin is not None else None, timeout=timeout)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise Broken(f"{command} did not end within {timeout} s") from None
    ran = Ran(child.returncode, out.decode(), err.decode(errors="replace"), time.monotonic() - begun, peak.ended())
    if ends_well and ran.code:
        raise Broken(f"{command} ended with {ran.code}: {ran.stderr[-3000:]}")
    return ran


class Peak:
    """The most memory that a process had resident, looked at while it runs."""

    def __init__(self, pid):
        self.pid, self.bytes, self.over = pid, 0, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        while True:
            self.bytes = max(self.bytes, peak_bytes(self.pid))
            if self.over.wait(0.05):
                return

    def ended(self):
        self.over.set()
        self.thread.join()
        return self.bytes


def peak_bytes(pid):
    """VmHWM, which only grows; 0 when the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else 0


def lines(text):
    return [json.loads(line) for line in text.splitlines() if line]


def main(do):
    """A part as a process: `PART.py OUT` writes what was found."""
    part = Part()
    try:
        do(Told(), part)
        error = None
    except Exception as broken:  # What was found until here is kept.
        error = str(broken) if isinstance(broken, Broken) else traceback.format_exc()
        print(f"  BROKEN {error}", flush=True)
    found = {"checks": part.checks, "figures": part.figures, "needs_a_card": part.needs_a_card, "error": error}
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1))
