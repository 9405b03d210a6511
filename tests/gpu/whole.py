"""A step of seven billion parameters whole: pushed, its source deleted, evaluated on the device, pulled elsewhere, compared."""

import hashlib
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

from part import Broken, main
from registry import Registry, eventually
from work import weights

RUN = "lab/amber"
# The most that a program may have resident, whatever the checkpoint's size.
PEAK_BYTES = {"client": 1 << 30, "registry": 1 << 30}
READY_S, EVALUATED_S = 120, 300


def digests(folder):
    def digest(path):
        with open(path, "rb") as file:
            return path.name, hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor() as pool:
        return dict(pool.map(digest, sorted(folder.iterdir())))


def suites(told, work):
    """Of mmlu's 57 subjects, and of tasks that are unlike each other."""
    limits = told.size((10, 100), (1, 2))
    subjects = "mmlu" if not told.tiny else "mmlu_anatomy, mmlu_virology"
    rest = ", ".join(str(told.task(name)) for name in ("hellaswag", "arc_challenge", "lambada", "val_rolling"))
    (work / "mmlu.yaml").write_text(
        f"suite: mmlu\ndata: {told.data}/eval\ntasks: [{subjects}]\nlimit: {limits[0]}\nnum_fewshot: 5\ndtype: bfloat16\n"
    )
    (work / "rest.yaml").write_text(f"suite: rest\ntasks: [{rest}]\nlimit: {limits[1]}\ndtype: bfloat16\n")
    return [work / "mmlu.yaml", work / "rest.yaml"]


def whole(told, part):
    source, made, seconds = told.generated("amber")
    part.figure("generated", {**made, "seconds": seconds})
    part.check("the index says what the shape has", made["n_parameters"] == weights(json.loads((source / "config.json").read_text()))[2])
    was = digests(source)
    work, registry, worker, times = told.folder("whole"), Registry(told), None, {}
    size_gb = made["size_bytes"] / 1e9
    try:
        registry.client("run", "create", RUN)
        for suite in suites(told, work):
            registry.client("suite", "apply", suite, "--run", RUN)
        pushed = registry.client("push", RUN, "1", source)
        times["push, until it is ready"] = pushed.seconds
        step = registry.json("ls", RUN)
        part.check("the step is ready", len(step) == 1 and step[0]["state"] == "ready")
        ready = time.monotonic()
        shutil.rmtree(source)
        worker = registry.worker("--device", told.device, "--scratch", work, "--cache", work / "cache", "--name", "whole")
        alive = lambda: worker.process.poll() is None  # noqa: E731
        eventually(EVALUATED_S, lambda: registry.json("scores", RUN), alive, 0.2)
        times["ready to the first score"] = time.monotonic() - ready
        states = lambda: sorted(e["state"] for e in registry.json("eval", "list", RUN))  # noqa: E731
        over = lambda: set(states()) <= {"done", "failed", "parked", "cancelled"} and states()  # noqa: E731
        ended, _ = eventually(EVALUATED_S, over, alive, 0.2)
        times["ready to the last score"] = time.monotonic() - ready
        part.check(f"both suites are done ({', '.join(ended)})", ended == ["done", "done"])
        scores = registry.json("scores", RUN)
        tasks = {score["task"] for score in scores}
        wanted = 4 + told.size(57, 2)
        part.check(f"{len(tasks)} tasks have scores, {wanted} at least", len(tasks) >= wanted)
        part.check("all in bfloat16, on a step whose folder is gone",
                   {score["dtype"] for score in scores} == {"bfloat16"} and not source.exists())
        code, peak = worker.stop()
        part.check(f"the worker ends well when it is told to (exit {code})", code == 0)
        part.figure("worker's peak, MB", peak / 1e6)
        shutil.rmtree(work / "cache", ignore_errors=True)
        pulled = registry.client("pull", f"{RUN}@1", work / "pulled")
        times["pull"] = pulled.seconds
        part.check(f"{len(was)} files are those that were pushed, by SHA-256", digests(work / "pulled") == was and len(was) > 4)
        peaks = {"client": max(pushed.peak_bytes, pulled.peak_bytes), "registry": registry.peak_bytes()}
        for name, most in PEAK_BYTES.items():
            part.check(f"{name}: {peaks[name] / 1e6:.0f} MB resident at most, {most / 1e6:.0f} allowed", 0 < peaks[name] <= most)
        part.figure("seconds", {name: round(seconds, 1) for name, seconds in times.items()})
        part.figure("GB/s", {name: round(size_gb / times[name], 2) for name in ("push, until it is ready", "pull")})
    except Broken as broken:
        log = worker.log()[-1500:] if worker else ""
        raise Broken(f"{broken}: {log} {(registry.dir / 'stderr').read_text()[-1500:]}") from broken
    finally:
        if worker and worker.process.poll() is None:
            worker.stop()
        part.check(f"the registry ends well (exit {(code := registry.stop())})", code == 0)
        for left in (work / "pulled", registry.dir):
            shutil.rmtree(left, ignore_errors=True)


if __name__ == "__main__":
    main(whole)
