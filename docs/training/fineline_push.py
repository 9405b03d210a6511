"""Pushes the steps of a training run to a Fineline registry from inside of the loop, without holding it up.

One file, Python 3.9 or later, nothing but the standard library: copy it beside a training script. The work is done by
the command `fineline`, one process a step, in a thread behind the loop; FINELINE_URL and FINELINE_TOKEN (or
`fineline login`) say where to and as whom.

Invariants: `push` waits for no network and raises nothing (unless `strict`). What it took into a spool is pushed by
this process or by the next one with the same spool, until the registry says that it has it.
"""

from __future__ import annotations

import argparse
import atexit
import json
import logging
import math
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

log = logging.getLogger("fineline")

# A step that failed is tried again after so many seconds, each time after twice as many.
FIRST_PAUSE_S = 30.0
LONGEST_PAUSE_S = 3600.0
# How often the rank that commits asks whether all others have pushed.
COMMIT_PAUSE_S = 1.0


@dataclass(frozen=True)
class Failure:
    """A step that is not in the registry, and why."""

    step: int
    reason: str

    def __str__(self) -> str:
        return f"step {self.step} is not pushed: {self.reason}"


class PushError(RuntimeError):
    """Steps that are not in the registry; raised by a strict pusher alone."""

    def __init__(self, failures: list[Failure]) -> None:
        super().__init__("; ".join(map(str, failures)))
        self.failures = failures


@dataclass
class _Job:
    step: int
    folder: str
    options: list[str]
    commit: list[str] | None
    entry: str | None = None  # its place in the spool, which goes with the job
    n_tries: int = 0
    due: float = 0.0


class Pusher:
    """Pushes folders as steps of one run, one after another, in the order of the calls.

    run      the run, as NAMESPACE/NAME.
    spool    a folder on the checkpoints' own file system. `push` takes hard links there, so that the trainer may delete
             its folder at once; what a killed process left there is pushed by the next. One spool for each process.
             Without a spool a folder has to stay as it is until its step was pushed.
    exclude  patterns of file names that are not pushed (`optimizer.pt`); needs a spool.
    queue    steps that may wait; a further one is not taken.
    limit_s  seconds that one try may take before it is ended and tried again later.
    exit_s   seconds that the end of the process waits for what still waits, when nobody called `close`.
    replace  makes a new revision where a step holds other bytes, instead of giving up that step.
    tell     is called with each Failure, by `push` and `close` and so in the loop's thread; logs a warning by default.
    strict   makes `push` and `close` raise PushError after they told.
    rank     this process among those of its job. Only rank 0 pushes, unless `push` names a session.
    program  the command.

    `n_pushed` counts the steps that were pushed, `longest_call_s` is what the loop waited for the longest `push`.
    """

    def __init__(
        self,
        run: str,
        *,
        spool: os.PathLike[str] | str | None = None,
        exclude: Iterable[str] = (),
        queue: int = 8,
        limit_s: float = 3600.0,
        exit_s: float = 60.0,
        replace: bool = False,
        tell: Callable[[Failure], None] = lambda failure: log.warning("%s", failure),
        strict: bool = False,
        rank: int | None = None,
        program: str = "fineline",
    ) -> None:
        self.run, self.exclude, self.queue, self.limit_s = run, tuple(exclude), queue, limit_s
        self.replace, self.tell, self.strict, self.program = replace, tell, strict, program
        self.rank = int(os.environ.get("RANK", "0")) if rank is None else rank
        if self.exclude and spool is None:
            raise ValueError("`exclude` needs a `spool`")
        self.spool = None if spool is None else Path(spool).absolute()
        # Lower priority than the training's: hashing uses all cores.
        self._prefix = ["nice", "-n", "10"] if shutil.which("nice") else []
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._jobs = self._left_in_spool()
        self._failures: list[Failure] = []  # not told yet
        self._missed: dict[int, str] = {}  # not in the registry, as far as is known
        self._child: subprocess.Popen[str] | None = None
        self.n_pushed, self.longest_call_s = 0, 0.0
        self._closing = self._over = False
        self._thread = threading.Thread(target=self._work, name="fineline-push", daemon=True)
        self._thread.start()
        atexit.register(self.close, exit_s)

    def push(
        self,
        step: int,
        folder: os.PathLike[str] | str,
        *,
        tokens: int | None = None,
        loss: float | None = None,
        label: str | None = None,
        tags: Iterable[str] = (),
        meta: Mapping[str, Any] | None = None,
        session: str | None = None,
        files: int | None = None,
    ) -> bool:
        """Queues a folder as a step and returns at once; whether the step was taken. Tells what failed meanwhile.

        With `session`, a word that all ranks of the job share for this step, each rank pushes its own folder. Rank 0
        then commits once the registry has `files` files, the number that all ranks have together.
        """
        if session is None and self.rank != 0:
            return True
        begun = time.monotonic()
        try:
            told = [f"--tokens={tokens}"] if tokens is not None else []
            if loss is not None and math.isfinite(loss):
                told.append(f"--loss={float(loss)!r}")
            if label is not None:
                told.append(f"--label={label}")
            told += [f"--tag={tag}" for tag in tags]
            told += [f"--meta={name}={value}" for name, value in (meta or {}).items()]
            replace = ["--replace"] if self.replace else []
            commit = None
            if session is None:
                options = [*told, *replace]
            else:
                options = [f"--session={session}", *replace]
                if self.rank == 0:
                    if files is None:
                        raise ValueError("rank 0 commits and needs `files`, the number of files of all ranks")
                    commit = [*options, "--commit", f"--files={files}", *told]
            self._take(_Job(int(step), str(Path(folder).absolute()), options, commit))
            taken = True
        except Exception as error:  # the training goes on whatever it is
            self._fail(int(step), str(error) or type(error).__name__)
            taken = False
        self.longest_call_s = max(self.longest_call_s, time.monotonic() - begun)
        self._tell_all()
        return taken

    def close(self, timeout_s: float = 600.0) -> list[Failure]:
        """Waits until every step was pushed or tried once more, at most `timeout_s`; gives the steps that are not in
        the registry. A spool keeps those for the next start."""
        atexit.unregister(self.close)
        if os.getpid() != self._pid:
            return []  # a fork of the process that pushes: the thread and the command are not ours
        with self._changed:
            self._closing = True
            for job in self._jobs:
                job.due = 0.0
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            self._over = True
            if self._child is not None:
                self._child.kill()
            self._changed.notify_all()
        self._thread.join()
        for job in self._jobs:
            self._missed.setdefault(job.step, f"it still waited after {timeout_s:g} s")
        self._jobs = []
        missing = [Failure(step, reason) for step, reason in sorted(self._missed.items())]
        call_ms = 1000 * self.longest_call_s
        log.info(
            "%d steps are pushed, %d are not; no call took more than %.1f ms", self.n_pushed, len(missing), call_ms
        )
        self._failures = missing
        self._tell_all()
        return missing

    # What the loop's thread does.

    def _take(self, job: _Job) -> None:
        if not os.path.isdir(job.folder):
            raise FileNotFoundError(f"there is no folder `{job.folder}`")
        with self._changed:
            if self._closing:
                raise RuntimeError("the pusher is closed")
            if len(self._jobs) >= self.queue:
                raise RuntimeError(f"it was not taken: {len(self._jobs)} steps wait to be pushed")
        if self.spool is not None:
            self._link(job)
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()

    def _link(self, job: _Job) -> None:
        """Takes a folder into the spool: hard links and what is to be said of it, there whole or not at all."""
        name = f"{job.step:012d}-{time.time_ns():x}"
        making, entry = self.spool / f".{name}", self.spool / name
        try:
            for at, _, names in os.walk(job.folder):
                to = making / "files" / os.path.relpath(at, job.folder)
                to.mkdir(parents=True)
                for file in names:
                    if not any(fnmatch(file, pattern) for pattern in self.exclude):
                        os.link(os.path.join(at, file), to / file)
            job.folder, job.entry = str(entry / "files"), str(entry)
            (making / "push.json").write_text(json.dumps(asdict(job)))
            making.rename(entry)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise

    def _left_in_spool(self) -> list[_Job]:
        if self.spool is None:
            return []
        self.spool.mkdir(parents=True, exist_ok=True)
        jobs = []
        for entry in sorted(self.spool.iterdir()):
            if entry.name.startswith("."):
                shutil.rmtree(entry, ignore_errors=True)  # a process was killed while it made it
                continue
            try:
                kept = _Job(**json.loads((entry / "push.json").read_text()))
            except (OSError, ValueError, TypeError) as error:
                log.warning("`%s` is passed over: %s", entry, error)
                continue
            kept.folder, kept.entry = str(entry / "files"), str(entry)
            jobs.append(kept)
        return jobs

    def _tell_all(self) -> None:
        with self._changed:
            failures, self._failures = self._failures, []
        for failure in failures:
            try:
                self.tell(failure)
            except Exception:
                log.exception("can't tell that %s", failure)
        if failures and self.strict:
            raise PushError(failures)

    def _fail(self, step: int, reason: str) -> None:
        with self._changed:
            self._missed[step] = reason
            self._failures.append(Failure(step, reason))

    # What the thread behind the loop does.

    def _work(self) -> None:
        while True:
            job = self._next()
            if job is None:
                return
            until = time.monotonic() + self.limit_s
            reason = self._run(job, job.options, job.folder, until)
            if reason is None and job.commit is not None:
                reason = self._run(job, job.commit, None, until)
                # The registry has another number of files: not all ranks have pushed yet.
                while reason is not None and "are wanted" in reason and self._pause(until):
                    reason = self._run(job, job.commit, None, until)
            self._settle(job, reason)

    def _next(self) -> _Job | None:
        """The first step that is due; None when there is nothing more to do."""
        with self._changed:
            while not self._over:
                now = time.monotonic()
                for job in self._jobs:
                    if job.due <= now:
                        return job
                if self._closing and not self._jobs:
                    return None
                self._changed.wait(min((job.due for job in self._jobs), default=now + 3600) - now)
            return None

    def _pause(self, until: float) -> bool:
        """Waits a little; whether there is time for another question."""
        with self._changed:
            self._changed.wait_for(lambda: self._over, COMMIT_PAUSE_S)
            return not self._over and time.monotonic() < until

    def _run(self, job: _Job, options: list[str], folder: str | None, until: float) -> str | None:
        """Runs the command; None when it did it, else why not."""
        # Nothing after `--` is taken for an option.
        command = [*self._prefix, self.program, "push", *options, "--", self.run, str(job.step)]
        command += [folder] if folder is not None else []
        if self._over:
            return "there was no time for it any more"
        try:
            # Not under the lock, which `push` takes. A session of its own: ctrl-c at the terminal ends the training and
            # not the push that `close` waits for.
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            return f"can't run `{self.program}`: {error}"
        with self._changed:
            self._child = child
            if self._over:
                child.kill()
        try:
            told, said = child.communicate(timeout=max(until - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return f"it took more than {self.limit_s:g} s"
        finally:
            with self._changed:
                self._child = None
        if child.returncode == 0:
            # What was sent, and why it can't be evaluated or which files were left out, if so.
            log.info("%s", " ".join(f"{told} {said}".split()))
            return None
        if self._over and child.returncode < 0:
            return "it was still under way when the time to close was over"
        return " ".join(said.split()) or f"`{self.program}` ended with {child.returncode}"

    def _settle(self, job: _Job, reason: str | None) -> None:
        """Lets a step go or keeps it for another try."""
        gone = reason is not None and not os.path.isdir(job.folder)
        # The step holds other bytes; trying again changes nothing, only `replace` does.
        refused = reason is not None and "--replace" in reason and "--replace" not in job.options
        done = reason is None or gone or refused
        if done and job.entry is not None:
            shutil.rmtree(job.entry, ignore_errors=True)
        if reason is None:
            self.n_pushed += 1
            log.info("step %d is pushed", job.step)
        elif job.n_tries == 0:
            self._fail(job.step, reason)
        with self._changed:
            if reason is None:
                self._missed.pop(job.step, None)
            else:
                self._missed[job.step] = reason
            if done or self._closing:
                self._jobs.remove(job)
            else:
                job.due = time.monotonic() + min(FIRST_PAUSE_S * 2**job.n_tries, LONGEST_PAUSE_S)
                job.n_tries += 1
            self._changed.notify_all()


def main() -> int:
    """Pushes what a process that is gone has left in its spool."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run", help="the run, as NAMESPACE/NAME")
    parser.add_argument("spool", help="the spool of the process that is gone")
    parser.add_argument("--timeout", type=float, default=86400.0, metavar="SECONDS", help="how long it may take")
    parser.add_argument("--rank", type=int, default=0, help="the rank whose spool it is")
    args = parser.parse_args()
    if not os.path.isdir(args.spool):
        parser.error(f"there is no folder `{args.spool}`")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return 1 if Pusher(args.run, spool=args.spool, rank=args.rank).close(args.timeout) else 0


if __name__ == "__main__":
    raise SystemExit(main())
