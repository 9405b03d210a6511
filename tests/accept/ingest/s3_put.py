"""Puts files into a bucket with the standard library alone, so that no client of ours is needed to fill one.

  s3_put.py ENDPOINT BUCKET PREFIX PATH    each file of the folder PATH as PREFIX/its/path; a file PATH as PREFIX
  s3_put.py ENDPOINT BUCKET --delete KEY

Path style, AWS signature 4, the body unsigned; AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION say who asks. An
empty PREFIX is the bucket's root. Prints how much was put.
"""

import argparse
import hashlib
import hmac
import http.client
import os
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

UNSIGNED = "UNSIGNED-PAYLOAD"


def signed_headers(method, host, path, now):
    """The headers that make a request without a query the key's own; `path` is percent-encoded as it is sent."""
    region = os.environ["AWS_REGION"]
    time = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{time[:8]}/{region}/s3/aws4_request"
    headers = {"host": host, "x-amz-content-sha256": UNSIGNED, "x-amz-date": time}
    names = ";".join(headers)
    canonical = "\n".join(
        [method, path, "", *(f"{name}:{value}" for name, value in headers.items()), "", names, UNSIGNED]
    )
    to_sign = "\n".join(["AWS4-HMAC-SHA256", time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    for part in (time[:8], region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"{os.environ['AWS_ACCESS_KEY_ID']}/{scope}"
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return headers


class Bucket:
    def __init__(self, endpoint, bucket):
        url = urlsplit(endpoint)
        self._host, self._root = url.netloc, f"{url.path.rstrip('/')}/{bucket}/"
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(url.netloc, timeout=60)

    def put(self, key, path):
        with open(path, "rb") as body:
            self._send("PUT", key, body, {"content-length": str(os.fstat(body.fileno()).st_size)})

    def delete(self, key):
        self._send("DELETE", key, None, {})

    def _send(self, method, key, body, headers):
        path = quote(self._root + key, safe="/-._~")
        headers |= signed_headers(method, self._host, path, datetime.now(UTC))
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status not in (200, 204):
            raise SystemExit(f"s3_put: {method} {key}: {answer.status} {text.decode(errors='replace')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("endpoint")
    parser.add_argument("bucket")
    parser.add_argument("prefix", nargs="?")
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--delete", metavar="KEY")
    options = parser.parse_args()
    bucket = Bucket(options.endpoint, options.bucket)
    if options.delete is not None:
        bucket.delete(options.delete)
        return print(f"deleted {options.delete}")
    if options.path is None:
        parser.error("say PREFIX and PATH, or --delete KEY")
    files = {options.prefix: options.path}
    if options.path.is_dir():
        prefix = f"{options.prefix.strip('/')}/".lstrip("/")
        found = sorted(path for path in options.path.rglob("*") if path.is_file())
        files = {prefix + path.relative_to(options.path).as_posix(): path for path in found}
    for key, path in files.items():
        bucket.put(key, path)
    print(f"put {len(files)} files, {sum(path.stat().st_size for path in files.values())} bytes")


if __name__ == "__main__":
    main()
