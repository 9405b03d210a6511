"""A small Hub of its own, read-only, for models: hub_server.py ROOT --port-file FILE --log FILE [OPTION...]

Written from the protocol and by none of our code, so that it can say when ours is wrong; hub_check.py holds it against
the real client. hub_tree.py says how ROOT is laid out. Each request is a JSON line of the log: time, method, path
(decoded, with its query), range, status, body_bytes (what the connection took of the body), authorization (whether it
came with one). For a CDN behind redirects, start a second one on the same ROOT first and name it to the other:
`--redirect-resolve http://127.0.0.1:PORT`.
"""

import argparse
import base64
import json
import re
from datetime import UTC, datetime
from hashlib import sha1
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

from hub_tree import Hub
from serving import Handler, RequestLog, serve


class Refusal(Exception):
    def __init__(self, status, code, message, **headers):
        super().__init__(message)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.status = status
        self.headers = {**({"X-Error-Code": code} if code else {}), "X-Error-Message": message, **named}


class HubHandler(Handler):
    hub: Hub
    options: argparse.Namespace

    def exchange(self):
        sent = {"method": self.command, "path": unquote(self.path), "range": self.headers["Range"]}
        came_with = self.headers["Authorization"] is not None
        with self.log.request(**sent, status=None, body_bytes=0, authorization=came_with) as self.line:
            try:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                try:
                    self.answer(body)
                except Refusal as refusal:
                    self.send_json({"error": str(refusal)}, refusal.status, refusal.headers)
            except OSError:
                self.close_connection = True  # the client has left

    def answer(self, body):
        url = urlsplit(self.path)
        self.query = dict(parse_qsl(url.query))
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts[0] == "blob" and len(parts) == 2:
            return self.blob(parts[1])
        self.authorize()
        match [self.command, *parts]:
            case ["GET" | "HEAD", "api", "models"]:
                self.models()
            case ["GET" | "HEAD", "api", "models", namespace, name]:
                self.info(f"{namespace}/{name}", "main")
            case ["GET" | "HEAD", "api", "models", namespace, name, "revision", revision]:
                self.info(f"{namespace}/{name}", revision)
            case ["GET" | "HEAD", "api", "models", namespace, name, "refs"]:
                self.refs(f"{namespace}/{name}")
            case ["GET" | "HEAD", "api", "models", namespace, name, "tree", revision, *path]:
                self.tree(f"{namespace}/{name}", revision, "/".join(path).strip("/"))
            case ["POST", "api", "models", namespace, name, "paths-info", revision]:
                self.paths_info(f"{namespace}/{name}", revision, body)
            case ["GET" | "HEAD", namespace, name, "resolve", revision, *path]:
                self.resolve(f"{namespace}/{name}", revision, "/".join(path))
            case _:
                raise Refusal(404, None, "there is no such page")

    def authorize(self):
        wanted, given = self.options.token, self.headers["Authorization"]
        if wanted is None or given == f"Bearer {wanted}":
            return
        if given is None:  # as the Hub speaks of what an anonymous client may not see
            raise Refusal(401, "RepoNotFound", "Invalid username or password.")
        raise Refusal(401, None, "Invalid credentials in Authorization header")

    def commit(self, repo, revision):
        self.repository(repo)
        commit = self.hub.revision(repo, revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def repository(self, repo):
        branches = self.hub.branches(repo)
        if branches is None:
            raise Refusal(404, "RepoNotFound", "Repository not found")
        return branches

    def models(self):
        author, search = self.query.get("author"), self.query.get("search", "").lower()
        repos = [repo for repo in self.hub.repositories() if author in (None, repo.split("/")[0])]
        repos = [repo for repo in repos if search in repo.lower() and "main" in self.hub.branches(repo)]
        self.send_page([(repo, lambda repo=repo: self.summary(repo, "main")) for repo in repos])

    def info(self, repo, revision):
        self.send_json(self.summary(repo, revision))

    def summary(self, repo, revision):
        commit = self.commit(repo, revision)
        blobs = is_true(self.query.get("blobs"))
        modified = date(commit.modified)
        return {
            "_id": sha1(repo.encode()).hexdigest()[:24],
            "id": repo,
            "modelId": repo,
            "author": repo.split("/")[0],
            "sha": commit.id,
            "lastModified": modified,
            "createdAt": modified,
            "private": self.options.token is not None,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [sibling(path, file, blobs) for path, file in sorted(commit.files.items())],
            "usedStorage": sum(file.size for file in commit.files.values()),
        }

    def refs(self, repo):
        heads = {name: self.hub.head(repo, folder).id for name, folder in self.repository(repo).items()}
        branches = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": id} for name, id in heads.items()]
        tags = [
            {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": heads[branch]}
            for tag, branch in sorted(self.hub.tags(repo).items())
            if branch in heads
        ]
        self.send_json({"branches": branches, "converts": [], "tags": tags, "pullRequests": []})

    def tree(self, repo, revision, folder):
        commit = self.commit(repo, revision)
        if folder and folder not in commit.folders:
            raise not_found(commit, folder)
        prefix = f"{folder}/" if folder else ""
        deep = is_true(self.query.get("recursive"))
        paths = [path for path in (*commit.files, *commit.folders) if path.startswith(prefix)]
        paths = sorted(path for path in paths if deep or "/" not in path[len(prefix) :])
        expand = is_true(self.query.get("expand"))
        self.send_page([(path, lambda path=path: entry(commit, path, expand)) for path in paths])

    def paths_info(self, repo, revision, body):
        commit = self.commit(repo, revision)
        form = parse_qs(body.decode())
        expand = is_true(form.get("expand", [""])[0])
        known = (path for path in form.get("paths", []) if path in commit.files or path in commit.folders)
        self.send_json([entry(commit, path, expand) for path in known])

    def resolve(self, repo, revision, path):
        commit = self.commit(repo, revision)
        file = commit.files.get(path)
        if file is None:
            raise not_found(commit, path)
        etag = f'"{file.sha256 if file.pointer_size else file.blob_id}"'
        headers = {"X-Repo-Commit": commit.id, "X-Linked-Size": str(file.size), "X-Linked-Etag": etag}
        if file.pointer_size and self.options.redirect_resolve:
            headers["Location"] = f"{self.options.redirect_resolve.rstrip('/')}/blob/{file.sha256}"
            return self.send_head(302, {**headers, "Content-Length": "0"})
        place = self.hub.place(file.sha256)
        if place is None:
            raise Refusal(404, "RevisionNotFound", f"{path} of commit {commit.id} is on disk no more")
        self.send_file(place, file.size, etag, headers)

    def blob(self, sha256):
        """What a redirect leads to: its address is the permission."""
        place = self.hub.place(sha256)
        if place is None:
            raise Refusal(404, None, "there is no such blob")
        self.send_file(place, place.stat().st_size, f'"{sha256}"', {})

    def send_file(self, place, size, etag, headers):
        headers = {**headers, "ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if etag in (self.headers["If-None-Match"] or ""):
            return self.send_head(304, headers)
        asked = self.headers["Range"] if self.command == "GET" and self.headers["If-Range"] in (None, etag) else None
        span = wanted_range(asked, size)
        begin, end = span or (0, size)
        if span:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        with open(place, "rb") as file:
            file.seek(begin)
            self.send_head(206 if span else 200, {**headers, "Content-Length": str(end - begin)})
            while self.command == "GET" and begin < end:
                piece = file.read(min(1 << 18, end - begin))
                if not piece:  # the file became shorter: the client must see it
                    self.close_connection = True
                    return
                self.send_counted(self.line, piece)
                begin += len(piece)

    def send_page(self, rows):
        """Answers with the rows behind the cursor, each made by its function, and where the next ones are."""
        cursor = base64.urlsafe_b64decode(self.query.get("cursor", "")).decode()
        rest = [row for row in rows if row[0] > cursor]
        page = rest[: max(1, min(self.options.page, int(self.query.get("limit", self.options.page))))]
        headers = {}
        if len(rest) > len(page):
            query = {**self.query, "cursor": base64.urlsafe_b64encode(page[-1][0].encode()).decode()}
            next_url = f"http://{self.headers['Host']}{urlsplit(self.path).path}?{urlencode(query)}"
            headers["Link"] = f'<{next_url}>; rel="next"'
        self.send_json([make() for _, make in page], headers=headers)

    def send_json(self, value, status=200, headers=None):
        data = json.dumps(value).encode()
        self.send_head(
            status, {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
        )
        if self.command != "HEAD":
            self.send_counted(self.line, data)

    def send_head(self, status, headers):
        self.line["status"] = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def not_found(commit, path):
    return Refusal(404, "EntryNotFound", f"Entry not found: {path}", X_Repo_Commit=commit.id)


def wanted_range(header, size):
    """(begin, end), end exclusive; None where the whole file is to be sent, as for several ranges at once."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").replace(" ", ""))
    if not match or match.group(0) == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        begin, end = max(size - int(last), 0), size
    else:
        begin, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < begin:
            return None
    if begin >= end:
        raise Refusal(416, None, "the range is not in the file", Content_Range=f"bytes */{size}")
    return begin, end


def entry(commit, path, expand):
    file = commit.files.get(path)
    if file is None:
        row = {"type": "directory", "oid": commit.folders[path], "size": 0, "path": path}
    else:
        row = {"type": "file", "oid": file.blob_id, "size": file.size, "path": path}
        if file.pointer_size:
            row["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    if expand:
        row["lastCommit"] = {"id": commit.id, "title": "files", "date": date(commit.modified)}
        row["securityFileStatus"] = None
    return row


def sibling(path, file, blobs):
    row = {"rfilename": path}
    if blobs:
        row |= {"size": file.size, "blobId": file.blob_id}
        if file.pointer_size:
            row["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return row


def date(seconds):
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def is_true(value):
    return (value or "").lower() in ("true", "1")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--port-file", required=True, help="where the port is written once connections are taken")
    parser.add_argument("--log", required=True)
    parser.add_argument("--token", help="answer 401 to whoever does not bear it")
    parser.add_argument("--page", type=int, default=1000, help="entries of a listing at most")
    parser.add_argument("--redirect-resolve", metavar="URL", help="large files are at URL/blob/SHA256: 302")
    options = parser.parse_args()
    HubHandler.hub, HubHandler.options, HubHandler.log = Hub(options.root), options, RequestLog(options.log)
    serve(HubHandler, options.port, options.port_file)


if __name__ == "__main__":
    main()
