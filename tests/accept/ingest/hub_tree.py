"""A folder as the Hub sees it: `ROOT/NAMESPACE/REPOSITORY/BRANCH/files…`, with git's own ids. No HTTP here.

A branch whose name has a `/` is a folder whose name has `%2F`; `REPOSITORY/.tags.json` maps tags to branches. All is
read afresh at each call, so a test may add, alter and remove files meanwhile; only digests are kept, and only while
size and time of a file are unchanged. A commit that was once listed stays known, as on the Hub, as far as its files'
bytes are still somewhere below ROOT; a new process knows the current commits alone.
"""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

LFS_FROM_BYTES = 1024
LFS_NAMES = (".bin", ".safetensors", ".model")


@dataclass(frozen=True)
class File:
    disk: Path
    size: int
    sha256: str
    blob_id: str
    pointer_size: int  # 0: not an LFS file
    modified: float


@dataclass
class Commit:
    id: str
    files: dict[str, File]
    folders: dict[str, str] = field(default_factory=dict)  # path: git's tree id
    modified: float = 0.0


class Hub:
    def __init__(self, root):
        self.root = Path(root)
        self._lock = threading.Lock()
        self._digests = {}  # path on disk: (size, mtime_ns, sha256, id of a git blob with these bytes)
        self._places = {}  # sha256: paths on disk that had it
        self._commits = {}  # (repository, commit id): Commit

    def repositories(self):
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.glob("[!.]*/[!.]*") if path.is_dir())

    def branches(self, repo):
        """None: there is no such repository."""
        folder = self.root / repo
        if repo.count("/") != 1 or ".." in repo or not folder.is_dir():
            return None
        folders = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        return {unquote(path.name): path for path in sorted(folders)}

    def tags(self, repo):
        path = self.root / repo / ".tags.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def head(self, repo, folder):
        """The commit that a branch has now."""
        files = {}
        for path in sorted(folder.rglob("*")):
            try:
                if path.is_file():
                    files[path.relative_to(folder).as_posix()] = self._file(path)
            except FileNotFoundError:
                continue  # removed since it was listed
        folders = {}
        tree = tree_id(files, "", folders)
        by = "hub <hub@localhost> 0 +0000"
        id = git_id("commit", f"tree {tree}\nauthor {by}\ncommitter {by}\n\n".encode())
        commit = Commit(id, files, folders, max((file.modified for file in files.values()), default=0.0))
        with self._lock:
            return self._commits.setdefault((repo, id), commit)

    def revision(self, repo, revision):
        """The commit that a branch, a tag or a commit id names; None where it names none."""
        branches = self.branches(repo) or {}
        name = self.tags(repo).get(revision, revision)
        if name in branches:
            return self.head(repo, branches[name])
        if (repo, revision) not in self._commits:
            for folder in branches.values():
                self.head(repo, folder)
        return self._commits.get((repo, revision))

    def place(self, sha256):
        """Where bytes with this digest lie now, or None."""
        for again in (False, True):
            if again:
                for repo in self.repositories():
                    for folder in self.branches(repo).values():
                        self.head(repo, folder)
            for path in sorted(self._places.get(sha256, ())):
                if path.is_file() and self._digest(path)[2] == sha256:
                    return path
        return None

    def _file(self, disk):
        size, mtime_ns, sha256, blob_id = self._digest(disk)
        pointer = b""
        if size >= LFS_FROM_BYTES or (size and disk.name.endswith(LFS_NAMES)):
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
            blob_id = git_id("blob", pointer)
        return File(disk, size, sha256, blob_id, len(pointer), mtime_ns / 1e9)

    def _digest(self, disk):
        stat = disk.stat()
        known = self._digests.get(disk)
        if known and known[:2] == (stat.st_size, stat.st_mtime_ns):
            return known
        sha256, blob = hashlib.sha256(), hashlib.sha1(f"blob {stat.st_size}\0".encode())
        with open(disk, "rb") as file:
            while piece := file.read(1 << 20):
                sha256.update(piece)
                blob.update(piece)
        known = (stat.st_size, stat.st_mtime_ns, sha256.hexdigest(), blob.hexdigest())
        with self._lock:
            self._digests[disk] = known
            self._places[known[2]] = self._places.get(known[2], frozenset()) | {disk}
        return known


def git_id(kind, data):
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


def tree_id(files, prefix, folders):
    """git's id of the tree below `prefix`; notes in `folders` the ids of all trees below it."""
    entries, below = [], {}
    for path, file in files.items():
        name, *rest = path[len(prefix) :].split("/")
        if rest:
            below.setdefault(name, {})[path] = file
        else:
            entries.append((name, "100644", name, file.blob_id))
    for name, inner in below.items():
        path = prefix + name
        folders[path] = tree_id(inner, path + "/", folders)
        # git sorts a folder as if its name ended in a slash.
        entries.append((name + "/", "40000", name, folders[path]))
    rows = sorted(entries, key=lambda entry: entry[0].encode())
    return git_id("tree", b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(id) for _, mode, name, id in rows))
