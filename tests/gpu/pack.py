"""Puts together what a GPU machine without network and Rust needs: `pack.py DIR PROGRAMS FEATURES DATA`. The programs lie in PROGRAMS
already, stripped; DATA is the folder with real models, tasks and evaluation sets. Prints the size of each thing."""

import hashlib
import json
import re
import subprocess
import sys
import tarfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

# What a machine with PyTorch and transformers has, of that which lm-eval needs.
THERE = {
    "absl-py", "accelerate", "click", "filelock", "fsspec", "huggingface-hub", "jinja2", "joblib", "numpy", "packaging", "pandas", "pyarrow",
    "python-dateutil", "pyyaml", "regex", "requests", "sacrebleu", "scikit-learn", "setuptools", "six", "torch", "tqdm", "transformers",
    "typing-extensions", "xxhash",
}
PYTHON = "3.12"
PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"]
# Tasks by their files, and data of the library's.
TASKS = ["hellaswag", "arc_easy", "arc_challenge", "piqa", "winogrande", "openbookqa", "copa", "boolq", "mmlu_anatomy", "lambada", "val_rolling"]
ALSO = ["eval/mmlu/dev.jsonl", "eval/mmlu/test.jsonl", "run/val.txt", "run/step-003000", "run/step-000512", "models/stories260K"]
MOST_BYTES = 64 << 20


def files_of(data):
    """The files below DATA that are carried."""
    found = {data / path for path in ALSO}
    for task in TASKS:
        yaml = data / f"lm_eval/tasks/{task}.yaml"
        found.add(yaml)
        found |= {(yaml.parent / path).resolve() for path in re.findall(r": (\.\./\S+\.jsonl)", yaml.read_text(encoding="utf-8"))}
    return sorted(found)


def archive(path, files):
    """A tar of (file or folder, name in it), the same for the same content."""

    def plain(info):
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
        return info

    with tarfile.open(path, "w:xz", preset=6) as tar:
        for file, name in files:
            tar.add(file, name, filter=plain)


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def wheels_wanted():
    """lm-eval and what it needs beyond what is there, in the versions of this Python."""
    from packaging.requirements import Requirement

    todo, found = [("lm_eval", ())], {}
    while todo:
        name, extras = todo.pop()
        if normal(name) in THERE or (normal(name), extras) in found:
            continue
        package = distribution(name)
        found[normal(name), extras] = (package.metadata["Name"], package.version)
        for need in map(Requirement, package.requires or []):
            if not need.marker or any(need.marker.evaluate({"extra": extra, "python_version": PYTHON}) for extra in extras or ("",)):
                todo.append((need.name, tuple(sorted(need.extras))))
    return sorted(set(found.values()))


def download(folder):
    folder.mkdir(parents=True, exist_ok=True)
    wanted = wheels_wanted()
    for name, version in wanted:
        if any(normal(path.name.split("-")[0]) == normal(name) and path.name.split("-")[1] == version for path in folder.glob("*.whl")):
            continue
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        command = [*pip, "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
        command += [word for platform in PLATFORMS for word in ("--platform", platform)] + ["-d", str(folder), f"{name}=={version}"]
        if subprocess.run(command, capture_output=True).returncode:
            # Without a wheel of its own, and of Python alone.
            command = [*pip, "wheel", "--quiet", "--no-deps", "-w", str(folder), f"{name}=={version}"]
            subprocess.run(command, check=True)
    return {name: version for name, version in wanted}


def main():
    out, programs, features, data = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    archive(out / "programs.tar.xz", [(path, f"bin/{path.name}") for path in sorted(programs.iterdir())])
    carried = [(path, f"data/{path.relative_to(data)}") for path in files_of(data)]
    archive(out / "data.tar.xz", carried + [(programs.parent / "tokenizer", "data/tokenizer")])
    versions = {}
    try:
        distribution("lm_eval")
    except PackageNotFoundError:
        sys.exit(f"there is no lm_eval for {sys.executable}: tests/full/checkpoints.sh --install makes one that has it")
    if features == "cuda":
        versions = download(out / "wheels")
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    said = {
        "commit": commit, "features": features, "versions": versions,
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.glob("*.tar.xz"))},
    }
    (out / "pack.json").write_text(json.dumps(said, indent=1) + "\n")
    sizes = [(f"program {path.name}", path.stat().st_size) for path in sorted(programs.iterdir())]
    sizes += [(path.name, path.stat().st_size) for path in sorted(out.rglob("*")) if path.is_file()]
    for name, size in sizes:
        print(f"{size / 1e6:9.2f} MB  {name}")
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{total / 1e6:9.2f} MB  in all, {MOST_BYTES / 1e6:.1f} at most")
    sys.exit(total > MOST_BYTES)


if __name__ == "__main__":
    main()
