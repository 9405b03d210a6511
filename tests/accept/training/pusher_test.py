"""What the Pusher promises beside the network, with a fake `fineline` that notes how it was called."""

import json
import math
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "docs/training"))
import fineline_push  # noqa: E402
from fineline_push import PushError, Pusher  # noqa: E402

# Notes its arguments, waits while the file `hold` is there, then ends as the files say: `answer` always, `early` at the
# first commit alone.
FAKE = f"""#!{sys.executable}
import json, pathlib, sys, time
here = pathlib.Path(__file__).parent
with open(here / "calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
while (here / "hold").exists():
    time.sleep(0.01)
early, answer = here / "early", here / "answer"
if "--commit" in sys.argv and early.exists():
    why = early.read_text()
    early.unlink()
    sys.exit(why)
if answer.exists():
    sys.exit(answer.read_text())
"""


class PusherTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.here = Path(folder.name)
        self.program = self.here / "fineline"
        self.program.write_text(FAKE)
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)
        self.step = self.here / "checkpoint"
        (self.step / "sub").mkdir(parents=True)
        for name in ("model.safetensors", "optimizer.pt", "sub/tokenizer.json"):
            (self.step / name).write_text(name)
        self.told = []

    def pusher(self, **options):
        options = {"spool": self.here / "spool", "rank": 0, "program": str(self.program), **options}
        pusher = Pusher("lab/a", tell=self.told.append, **options)
        self.addCleanup(pusher.close, 0.0)
        return pusher

    def calls(self):
        calls = self.here / "calls"
        return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    def spooled(self):
        return sorted(path.relative_to(self.here / "spool").as_posix() for path in (self.here / "spool").rglob("*"))

    def entries(self):
        return len([path for path in self.spooled() if "/" not in path])

    def until(self, holds):
        """Polls, as the thread behind the pusher tells nobody what it does."""
        deadline = time.monotonic() + 10
        while not holds():
            self.assertLess(time.monotonic(), deadline)
            threading.Event().wait(0.01)

    def test_what_the_command_is_told(self):
        pusher = self.pusher(replace=True)
        self.assertTrue(
            pusher.push(7, self.step, tokens=70, loss=-0.5, label="ckpt_7", tags=["best"], meta={"lr": 0.1})
        )
        self.assertEqual(pusher.close(20), [])
        [call] = self.calls()
        options = "--tokens=70 --loss=-0.5 --label=ckpt_7 --tag=best --meta=lr=0.1 --replace -- lab/a 7"
        self.assertEqual(call[:-1], ["push", *options.split()])
        self.assertEqual(self.spooled(), [])

    def test_a_loss_that_is_no_number_is_not_told(self):
        pusher = self.pusher()
        for loss in (math.nan, math.inf):
            pusher.push(1, self.step, loss=loss)
        pusher.close(20)
        self.assertNotIn("--loss", json.dumps(self.calls()))

    def test_only_the_first_rank_pushes_and_with_a_session_all_do(self):
        other = self.pusher(rank=1)
        self.assertTrue(other.push(1, self.step))
        self.assertTrue(other.push(2, self.step, tokens=5, session="job"))
        other.close(20)
        self.assertEqual([call[1:4] for call in self.calls()], [["--session=job", "--", "lab/a"]])

    def test_the_first_rank_asks_until_all_have_pushed(self):
        self.addCleanup(setattr, fineline_push, "COMMIT_PAUSE_S", fineline_push.COMMIT_PAUSE_S)
        fineline_push.COMMIT_PAUSE_S = 0.01
        (self.here / "early").write_text("push session `job` has 1 files and 2 are wanted")
        pusher = self.pusher()
        pusher.push(3, self.step, tokens=9, session="job", files=2)
        self.assertEqual(pusher.close(20), [])
        part, early, commit = self.calls()
        self.assertEqual(part[1:-1], "--session=job -- lab/a 3".split())
        self.assertEqual(early, commit)
        self.assertEqual(commit[1:], "--session=job --commit --files=2 --tokens=9 -- lab/a 3".split())

    def test_a_full_queue_takes_no_more_and_says_so(self):
        (self.here / "hold").touch()
        pusher = self.pusher(queue=2)
        taken = [pusher.push(step, self.step) for step in (1, 2, 3)]
        self.assertEqual(taken, [True, True, False])
        self.assertIn("2 steps wait", str(self.told))
        (self.here / "hold").unlink()
        self.assertEqual([failure.step for failure in pusher.close(20)], [3])

    def test_a_failure_is_told_at_the_next_call_and_again_at_the_end(self):
        (self.here / "answer").write_text("error: no")
        pusher = self.pusher()
        pusher.push(1, self.step)
        self.until(lambda: pusher._failures)
        self.assertEqual(self.told, [])
        pusher.push(2, self.step)
        self.assertEqual([str(failure) for failure in self.told], ["step 1 is not pushed: error: no"])
        self.assertEqual([failure.step for failure in pusher.close(20)], [1, 2])
        self.assertEqual(self.entries(), 2)

    def test_a_step_that_failed_is_tried_again_by_itself(self):
        self.addCleanup(setattr, fineline_push, "FIRST_PAUSE_S", fineline_push.FIRST_PAUSE_S)
        fineline_push.FIRST_PAUSE_S = 0.01
        (self.here / "answer").write_text("error: no")
        pusher = self.pusher()
        pusher.push(1, self.step)
        self.until(lambda: pusher._failures)
        (self.here / "answer").unlink()
        self.until(lambda: not pusher._jobs)
        self.assertEqual(pusher.close(20), [])

    def test_a_step_with_other_bytes_is_given_up(self):
        (self.here / "answer").write_text("error: other bytes\n\nhint: push with replace (`--replace`)")
        pusher = self.pusher()
        pusher.push(1, self.step)
        self.assertEqual([failure.step for failure in pusher.close(20)], [1])
        self.assertEqual((len(self.calls()), self.spooled()), (1, []))

    def test_only_a_strict_one_raises(self):
        strict = self.pusher(strict=True, program="/nowhere/fineline")
        strict.push(1, self.step)
        with self.assertRaisesRegex(PushError, "step 1 is not pushed: .*nowhere"):
            strict.close(20)
        strict.strict = False
        self.assertFalse(self.pusher().push(2, self.here / "missing" / "folder"))
        self.assertRegex(str(self.told[-1]), "step 2 is not pushed: there is no folder")

    def test_what_is_taken_is_kept_as_it_was(self):
        (self.here / "hold").touch()
        pusher = self.pusher(exclude=["optimizer*"])
        pusher.push(1, self.step)
        for file in ("model.safetensors", "sub/tokenizer.json"):
            (self.step / file).unlink()
        [entry] = [path for path in self.spooled() if "/" not in path]
        held = [path for path in (self.here / "spool" / entry / "files").rglob("*") if path.is_file()]
        self.assertEqual(sorted(path.read_text() for path in held), ["model.safetensors", "sub/tokenizer.json"])
        # Killed: nothing was told, and the next one pushes it.
        pusher.close(0.0)
        (self.here / "hold").unlink()
        self.assertEqual(self.pusher().close(20), [])
        self.assertEqual(self.spooled(), [])

    def test_an_entry_that_was_being_made_goes_and_a_broken_one_is_passed_over(self):
        (self.here / "spool/.half/files").mkdir(parents=True)
        (self.here / "spool/broken").mkdir()
        with self.assertLogs("fineline", "WARNING"):
            self.assertEqual(self.pusher().close(20), [])
        self.assertEqual(self.spooled(), ["broken"])

    def test_a_process_that_only_ends_still_pushes(self):
        code = f"""
from fineline_push import Pusher
Pusher("lab/a", rank=0, program={str(self.program)!r}, exit_s=20).push(1, {str(self.step)!r})
"""
        environment = {**os.environ, "PYTHONPATH": sys.path[0]}
        subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, check=True, timeout=30)
        self.assertEqual(self.calls()[0][2:], ["lab/a", "1", str(self.step)])

    def test_closing_ends_the_command_when_the_time_is_over(self):
        (self.here / "hold").touch()
        pusher = self.pusher()
        pusher.push(1, self.step)
        self.until(lambda: pusher._child is not None)
        child = pusher._child
        [failure] = pusher.close(0.1)
        self.assertIn("still under way", failure.reason)
        self.assertEqual(child.returncode, -signal.SIGKILL)
        self.assertEqual(self.entries(), 1)

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork")
    def test_a_fork_leaves_the_command_alone(self):
        (self.here / "hold").touch()
        pusher = self.pusher()
        pusher.push(1, self.step)
        pid = os.fork()
        if pid == 0:
            os._exit(0 if pusher.close(0.0) == [] else 1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        (self.here / "hold").unlink()
        self.assertEqual(pusher.close(20), [])


if __name__ == "__main__":
    unittest.main()
