"""`--device cuda:auto`: a process a card, that come and go with their parent."""

from pathlib import Path

from part import Broken, main, run
from registry import Registry, eventually
from start import refused


def children(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def auto(told, part):
    if not told.on_a_card:
        code, stderr = refused(told, "cuda:auto")
        part.check(f"without a card it ends with what is missing (exit {code})",
                   code == 1 and ("evaluator/cuda/build.sh" in stderr or "there is no NVIDIA driver" in stderr))
        part.wants_a_card("a process a card, one evaluation each, all gone with their parent")
        return
    n_cards = len(run(["nvidia-smi", "--list-gpus"]).stdout.splitlines())
    registry = Registry(told)
    worker = None
    try:
        work = told.folder("auto")
        (work / "suite.yaml").write_text(f"suite: auto\ntasks: [{told.task('copa')}]\nlimit: 20\ndtype: bfloat16\n")
        for i in range(n_cards):
            registry.client("run", "create", f"lab{i}/auto")
            registry.client("suite", "apply", work / "suite.yaml", "--run", f"lab{i}/auto")
            registry.client("push", f"lab{i}/auto", "1", told.model("run/step-003000"))
        worker = registry.worker("--device", "cuda:auto", "--name", "fleet", "--scratch", work)
        alive = lambda: worker.process.poll() is None  # noqa: E731
        there, seconds = eventually(60, lambda: len(children(worker.process.pid)) == n_cards and children(worker.process.pid), alive)
        part.check(f"{n_cards} cards, {len(there)} processes, after {seconds:.1f} s", len(there) == n_cards)
        done = lambda: [e for i in range(n_cards) for e in registry.json("eval", "list", f"lab{i}/auto", "--state", "done")]  # noqa: E731
        eventually(120, lambda: len(done()) == n_cards, alive)
        names = {evaluation["worker"] for evaluation in done()}
        part.figure("workers", sorted(names))
        part.check("each is named by its card", names <= {f"fleet-{i}" for i in range(n_cards)} and names)
        code, _ = worker.stop()
        eventually(30, lambda: not any(Path(f"/proc/{pid}").exists() for pid in there))
        part.check(f"SIGTERM ends all of them (exit {code})", code == 0)
    except Broken as broken:
        raise Broken(f"{broken}: {worker.log()[-2000:] if worker else ''}") from broken
    finally:
        if worker and worker.process.poll() is None:
            worker.stop()
        registry.stop()


if __name__ == "__main__":
    main(auto)
