"""The parts of tests/gpu.sh, one after the other, each a process with a time of its own: see there."""

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from datetime import datetime, timezone
from pathlib import Path

import report

HERE = Path(__file__).parent
# (name, its program's words, seconds that it usually takes on a card, with a checkpoint that has to be generated): what is cheap and
# tells most comes first.
PARTS = [
    ("start", ["start.py"], 40),
    ("correct", ["correct.py"], 60),
    ("lmeval", ["lmeval.py"], 100),
    ("speed-amber", ["speed.py", "amber"], 120),
    ("loads", ["loads.py"], 40),
    ("auto", ["auto.py"], 30),
    ("memory", ["memory.py"], 120),
    ("speed-lmeval", ["speed.py", "lm-eval"], 200),
    ("whole", ["whole.py"], 240),
    ("speed-openllama", ["speed.py", "openllama"], 120),
]
MOST_S = 470


def unpack(pack, work):
    """The pack's programs and data, once."""
    made = hashlib.sha256((pack / "pack.json").read_bytes()).hexdigest()
    if (work / "unpacked").exists() and (work / "unpacked").read_text() == made:
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name in ("programs", "data"):
        with tarfile.open(pack / f"{name}.tar.xz") as tar:
            tar.extractall(work, filter="data")
    wheels = sorted(map(str, (pack / "wheels").glob("*.whl")))
    if wheels:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir",
                   "--disable-pip-version-check", "--root-user-action", "ignore", "--target", str(work / "site"), *wheels]
        subprocess.run(command, check=True)
    (work / "unpacked").write_text(made)


def libraries():
    """Folders with CUDA's libraries: those of Python's packages, the system's, and the driver's."""
    found = [path for place in sys.path if place for path in sorted(Path(place).glob("nvidia/*/lib")) if any(path.glob("lib*.so.*"))]
    found += [path for path in map(Path, ("/usr/local/cuda/lib64", "/usr/local/nvidia/lib64")) if path.is_dir()]
    return ":".join([*map(str, found), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])


def environment(options, work):
    told = {
        "device": options.device, "tiny": options.tiny, "python": sys.executable, "bin": str(work / "bin"), "data": str(work / "data"),
        "work": str(work), "tests": str(HERE.parent.resolve()),
    }
    env = {
        **os.environ, "FINELINE_GPU": json.dumps(told), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(work / "hf"),
        "TOKENIZERS_PARALLELISM": "true", "PYTHONUNBUFFERED": "1", "RUST_BACKTRACE": "0", "TMPDIR": str(work / "tmp"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(work / "site"), os.environ.get("PYTHONPATH")])),
    }
    (work / "tmp").mkdir(exist_ok=True)
    if options.device != "cpu":
        env["LD_LIBRARY_PATH"] = libraries()
    return env


def machine(device):
    """What it was run on."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {"processor": f"{os.cpu_count()} cores of {cpu}", "memory_gib": round(memory / 2**30), "card": None, "driver": None}
    if device != "cpu" and shutil.which("nvidia-smi"):
        said = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True
        ).stdout.splitlines()
        if said:
            found["card"], found["driver"] = (word.strip() for word in said[0].split(","))
    return found


def do(name, words, options, work, env, pack, most_s):
    """Runs a part and keeps what it found."""
    made, begun = work / f"part-{name}.json", time.monotonic()
    made.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / words[0]), str(made), *words[1:]]
    print(f"== {name}", flush=True)
    # A group of its own: what a part has started ends with it.
    child = subprocess.Popen(command, env=env, start_new_session=True)
    error = None
    try:
        code = child.wait(most_s)
    except subprocess.TimeoutExpired:
        error = f"it took longer than {most_s:.0f} s"
    except KeyboardInterrupt:
        error = "it was interrupted"
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()
    found = {"checks": [], "figures": {}, "needs_a_card": [], "error": None}
    if made.exists():
        found = json.loads(made.read_text())
    elif not error:
        error = f"it ended with {code} and without a result"
    found["error"] = error or found["error"]
    short = [check for check in found["checks"] if not check["ok"]]
    state = "broken" if found["error"] else "short" if short else "passed" if found["checks"] else "empty"
    result = {
        "part": name, "state": state, "seconds": round(time.monotonic() - begun, 1),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "device": options.device, "tiny": options.tiny,
        "arguments": sys.argv[1:], "pack": pack, **machine(options.device), **found,
    }
    (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"== {name}: {state} in {result['seconds']} s", flush=True)


def wanted_parts(options):
    known = [name for name, _, _ in PARTS]
    unknown = [name for name in options.parts if name not in known]
    if unknown:
        sys.exit(f"there is no part {', '.join(unknown)}: {' '.join(known)}")
    return [part for part in PARTS if not options.parts or part[0] in options.parts]


def main():
    parser = argparse.ArgumentParser(prog="tests/gpu.sh run", description="Checks and measures a device with what `pack` made.")
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="small shapes, for trying the script")
    parser.add_argument("--again", action="store_true", help="parts whose result is there are done again")
    parser.add_argument("--seconds", type=float, help="no part begins that would usually take longer than what is left of these, and none goes on")
    parser.add_argument("--work", type=Path, default=Path(os.environ.get("TMPDIR", "/tmp")) / "fineline-gpu")
    options = parser.parse_intermixed_args()
    options.out.mkdir(parents=True, exist_ok=True)
    begun, work = time.monotonic(), options.work.resolve()
    unpack(options.pack, work)
    pack = json.loads((options.pack / "pack.json").read_text())
    pack = {key: pack[key] for key in ("commit", "features", "versions")}
    env, left_out = environment(options, work), []
    for name, words, usual_s in wanted_parts(options):
        kept = options.out / f"{name}.json"
        if kept.exists() and not options.again and json.loads(kept.read_text())["state"] in ("passed", "short"):
            print(f"== {name}: {kept} is there")
            continue
        left_s = options.seconds - (time.monotonic() - begun) if options.seconds else MOST_S
        if usual_s > left_s:
            left_out.append(name)
            print(f"== {name}: not begun, {left_s:.0f} s are left")
        else:
            do(name, words, options, work, env, pack, min(MOST_S, left_s))
    text, failed = report.table(options.out, [name for name, _, _ in PARTS])
    (options.out / "report.md").write_text(text)
    print(f"\n{text}")
    sys.exit(bool(failed or left_out))


if __name__ == "__main__":
    main()
