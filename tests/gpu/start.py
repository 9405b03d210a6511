"""The card, what the worker says where it can't have one, and what the device can do at most."""

import json
import os
import subprocess

from part import lines, main, run

# What is missing where no library is found: the driver first, where that is one of the system's own CUDA's libraries.
NOTHING_FOUND = ("there is no NVIDIA driver", "cuBLAS and cuRAND are missing")


def refused(told, device, env=None):
    """What a worker says that can't start: (exit code, stderr); no code where it went on, and there is no registry to go on with."""
    command = [told.worker, "--server", "http://127.0.0.1:9", "--token", "fl_none", "--device", device, "--once"]
    try:
        ran = subprocess.run(command, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired as over:
        return None, (over.stderr or b"").decode()
    return ran.returncode, ran.stderr


def start(told, part):
    if told.on_a_card:
        query = "name,driver_version,compute_cap,memory.total,memory.used,clocks.max.sm,clocks.max.mem"
        said = run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]).stdout.strip()
        part.figure("card", said)
        capability = float(said.splitlines()[0].split(",")[2])
        part.check(f"compute capability {capability} is 8.0 or later", capability >= 8.0)
    else:
        part.wants_a_card("the card's name, driver and capability")
    linked = subprocess.run(["ldd", told.worker], capture_output=True, text=True).stdout
    part.check("the worker needs no library of CUDA to start", "libcu" not in linked and "not found" not in linked)

    for device in ("cuda:0", "cuda:auto"):
        code, stderr = refused(told, device, {"LD_LIBRARY_PATH": ""} if told.on_a_card else None)
        if told.on_a_card and code is None and "the worker asks for work" in stderr:
            part.figure(f"{device} with no library path", "the system's own libraries were found")
            continue
        clear = any(text in stderr for text in NOTHING_FOUND) or "evaluator/cuda/build.sh makes one" in stderr
        part.check(f"without the libraries {device} says what is missing (exit {code})", code == 1 and clear)
    code, stderr = refused(told, "cuda:99")
    if told.on_a_card:
        part.check(f"card 99 is refused with how many there are (exit {code})",
                   code == 1 and "`cuda:99` is not there: this process sees" in stderr)
    else:
        part.check(f"card 99 is refused (exit {code})", code == 1 and "cuda:99" in stderr)
    code, stderr = refused(told, "gpu")
    part.check(f"a device that is none is refused with what there is (exit {code})", code == 2 and "cuda:N" in stderr)

    side = str(told.size(8192, 512))
    for dtype in ("float32", "bfloat16"):
        (rate,) = lines(run([told.measure, "products", *told.how(dtype), "--side", side]).stdout)
        part.figure(f"product_{dtype}_flops_per_s", rate["flops_per_s"])
    (rate,) = lines(run([told.measure, "copies", "--device", told.device, "--mib", str(told.size(4096, 64))]).stdout)
    for name, value in rate.items():
        part.figure(name, value)
    if told.on_a_card:
        part.figure("packages", json.loads(run([told.python, "-c", VERSIONS]).stdout))


VERSIONS = """
import json, platform
from importlib.metadata import PackageNotFoundError, version
found = {"python": platform.python_version()}
for name in ("torch", "transformers", "tokenizers", "safetensors", "lm_eval", "datasets", "accelerate", "pyarrow"):
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        found[name] = None
print(json.dumps(found))
"""

if __name__ == "__main__":
    main(start)
