"""Holds hub_server.py against the real client: hub_check.py ENDPOINT ROOT REPO BRANCH [--page N] [--token TOKEN]

Run by a Python that has huggingface_hub. Reads everything of the branch through the client and compares it with the
folder ROOT/REPO/BRANCH by hashlib alone. Prints a line a check; exits 1 when one falls short.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("endpoint")
parser.add_argument("root", type=Path)
parser.add_argument("repo")
parser.add_argument("branch")
parser.add_argument("--page", type=int, default=1000, help="entries of a listing at most, as the server was told")
parser.add_argument("--token")
options = parser.parse_args()
home = tempfile.TemporaryDirectory()
# Read by huggingface_hub at import.
os.environ |= {"HF_ENDPOINT": options.endpoint, "HF_HOME": home.name, "HF_HUB_DISABLE_XET": "1"}
os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

from huggingface_hub import HfApi, HfFileSystem, RepoFile, RepoFolder  # noqa: E402
from huggingface_hub import errors as hub_errors  # noqa: E402
from huggingface_hub.utils import http_backoff  # noqa: E402

repo, branch = options.repo, options.branch
folder = options.root / repo / quote(branch, safe="")
on_disk = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
api = HfApi(token=options.token or False)
largest = max(on_disk, key=lambda path: on_disk[path].stat().st_size)
failed = []


def check(what, holds):
    print(("ok   " if holds else "FAIL ") + what, flush=True)
    if not holds:
        failed.append(what)


def raises(what, kind, call):
    try:
        call()
    except Exception as error:
        return check(f"{what}: {type(error).__name__}", isinstance(error, kind))
    check(f"{what}: nothing raised", False)


def git_blob(data):
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def same_entry(entry):
    data = on_disk[entry.path].read_bytes()
    if entry.lfs is None:
        return entry.size == len(data) < 1024 and entry.blob_id == git_blob(data)
    sha256 = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(data)}\n".encode()
    told = (entry.size, entry.lfs.size, entry.lfs.sha256, entry.lfs.pointer_size, entry.blob_id)
    return told == (len(data), len(data), sha256, len(pointer), git_blob(pointer))


def pages():
    """Entries of each page of the recursive listing, by the Link header alone."""
    url = f"{options.endpoint}/api/models/{repo}/tree/{quote(branch, safe='')}?recursive=True"
    while url:
        answer = http_backoff("GET", url, headers=bearer)
        answer.raise_for_status()
        yield len(answer.json())
        url = answer.links.get("next", {}).get("url")


bearer = {"Authorization": f"Bearer {options.token}"} if options.token else {}
refs = api.list_repo_refs(repo)
heads = {ref.name: ref.target_commit for ref in refs.branches}
named = branch in heads and set(map(len, heads.values())) == {40}
check(f"list_repo_refs: {len(heads)} branches, {len(refs.tags)} tags", named)
check("list_repo_refs: tags name commits of branches", all(tag.target_commit in heads.values() for tag in refs.tags))

info = api.model_info(repo, revision=branch, files_metadata=True)
check("model_info: the branch's commit", info.sha == heads[branch])
sizes = {sibling.rfilename: sibling.size for sibling in info.siblings}
check("model_info: files with sizes", sizes == {path: place.stat().st_size for path, place in on_disk.items()})
listed = [model.id for model in api.list_models(author=repo.split("/")[0])]
check("list_models: the repository is among its author's", repo in listed)

entries = list(api.list_repo_tree(repo, revision=branch, recursive=True, expand=True))
files = [entry for entry in entries if isinstance(entry, RepoFile)]
check(f"list_repo_tree: {len(files)} files, none twice", sorted(entry.path for entry in files) == sorted(on_disk))
check("list_repo_tree: sizes, git ids and LFS sha256 as computed from disk", all(map(same_entry, files)))
counts = list(pages())
fits = sum(counts) == len(entries) and all(n == options.page for n in counts[:-1]) and counts[-1] <= options.page
check(f"list_repo_tree: pages of {counts}", fits)
top = list(api.list_repo_tree(repo, revision=branch))
names = {path.split("/")[0] for path in on_disk}
check("list_repo_tree: the top folder alone", {entry.path for entry in top} == names)
for entry in top:
    if isinstance(entry, RepoFolder):
        inner = {item.path for item in api.list_repo_tree(repo, entry.path, revision=branch, recursive=True)}
        below = {path for path in on_disk if path.startswith(f"{entry.path}/")}
        check(f"list_repo_tree: below {entry.path}", below == inner & set(on_disk))
told = api.get_paths_info(repo, [largest, "no-such-file"], revision=branch)
fits = [entry.path for entry in told] == [largest] and same_entry(told[0])
check("get_paths_info: what is there, without what is not", fits)

got = api.hf_hub_download(repo, largest, revision=branch)
check(f"hf_hub_download: {largest}", Path(got).read_bytes() == on_disk[largest].read_bytes())
got = api.hf_hub_download(repo, largest, revision=heads[branch], cache_dir=Path(home.name) / "by-commit")
check("hf_hub_download: by commit id", Path(got).read_bytes() == on_disk[largest].read_bytes())

size = on_disk[largest].stat().st_size
begin, end = size // 3, min(size // 3 + 4096, size)
part = on_disk[largest].read_bytes()[begin:end]
files_system = HfFileSystem(endpoint=options.endpoint, token=options.token or False)
with files_system.open(f"{repo}/{largest}", "rb", revision=branch, block_size=4096) as file:
    file.seek(begin)
    check("HfFileSystem: a slice", file.read(end - begin) == part)
url = f"{options.endpoint}/{repo}/resolve/{quote(branch, safe='')}/{quote(largest)}"
answer = http_backoff("GET", url, headers={**bearer, "Range": f"bytes={begin}-{end - 1}"})
told = (answer.status_code, answer.headers.get("Content-Range"))
fits = told == (206, f"bytes {begin}-{end - 1}/{size}") and answer.content == part
check("Range: 206 with the slice", fits)
answer = http_backoff("GET", url, headers={**bearer, "Range": f"bytes={size}-"})
told = (answer.status_code, answer.headers.get("Content-Range"))
check("Range: 416 behind the end", told == (416, f"bytes */{size}"))

got = Path(api.snapshot_download(repo, revision=branch, cache_dir=Path(home.name) / "snapshot"))
check("snapshot_download: the folder is named by the commit", got.name == heads[branch])
pulled = {path.relative_to(got).as_posix(): path for path in got.rglob("*") if path.is_file()}
same = all(pulled[path].read_bytes() == place.read_bytes() for path, place in on_disk.items() if path in pulled)
check(f"snapshot_download: {len(pulled)} files, byte for byte", set(pulled) == set(on_disk) and same)

raises(
    "a missing file", hub_errors.EntryNotFoundError, lambda: api.hf_hub_download(repo, "no-such-file", revision=branch)
)
raises(
    "a missing folder",
    hub_errors.EntryNotFoundError,
    lambda: list(api.list_repo_tree(repo, "no-such", revision=branch)),
)
raises("a missing branch", hub_errors.RevisionNotFoundError, lambda: api.model_info(repo, revision="no-such"))
raises(
    "an unknown commit", hub_errors.RevisionNotFoundError, lambda: api.hf_hub_download(repo, largest, revision="0" * 40)
)
raises("a missing repository", hub_errors.RepositoryNotFoundError, lambda: api.model_info("no-such/repository"))
if options.token:
    stranger = HfApi(token=False)
    raises("a request without the token", hub_errors.RepositoryNotFoundError, lambda: stranger.model_info(repo))
    raises("a request with another token", hub_errors.HfHubHTTPError, lambda: HfApi(token="hf_other").model_info(repo))
home.cleanup()
print(f"{len(failed)} checks failed" if failed else "all checks hold")
sys.exit(1 if failed else 0)
