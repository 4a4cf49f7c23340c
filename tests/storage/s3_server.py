"""A bucket in memory that speaks as much of S3 as pyarrow asks for, on the loopback address."""

import io
import re
import threading
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: dict[str, bytes]
    parts: dict[str, dict[int, bytes]]

    def log_message(self, *_):
        """Quiet."""

    def answer(self, status=200, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def asked(self):
        parts = urlsplit(self.path)
        key = unquote(parts.path).lstrip("/").partition("/")[2]
        return key, {
            name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()
        }

    def body(self):
        """Sent at once, or in chunks; AWS's own chunks lie inside of either."""
        length = self.headers.get("Content-Length")
        data = self.rfile.read(int(length)) if length else unchunked(self.rfile)
        inner = self.headers.get("x-amz-decoded-content-length") is not None
        return unchunked(io.BytesIO(data)) if inner else data

    def do_GET(self):
        key, query = self.asked()
        if "list-type" in query:
            self.answer(body=listing(self.bucket, query.get("prefix", ""), query.get("delimiter", "")))
        elif key not in self.bucket and key:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            data = self.bucket.get(key, b"")
            first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
            part = data[int(first) : int(last) + 1] if first else data
            about = {"Content_Length": str(len(part)), "ETag": f'"{md5(data).hexdigest()}"',
                     "Last_Modified": "Sun, 29 Nov 2026 00:00:00 GMT"}  # fmt: skip
            self.answer(206 if first else 200, part, **about)

    do_HEAD = do_GET

    def do_PUT(self):
        key, query = self.asked()
        if "uploadId" in query:
            self.parts[query["uploadId"]][int(query["partNumber"])] = self.body()
        else:
            self.bucket[key] = self.body()
        self.answer(ETag='"0"')

    def do_POST(self):
        key, query = self.asked()
        body = self.body().decode()
        if "delete" in query:
            for name in re.findall("<Key>(.*?)</Key>", body):
                self.bucket.pop(unescape(name), None)
            self.answer(body=b"<DeleteResult></DeleteResult>")
        elif "uploads" in query:
            self.parts[key] = {}
            self.answer(body=f"<R><UploadId>{escape(key)}</UploadId></R>".encode())
        else:
            parts = self.parts.pop(query["uploadId"])
            self.bucket[key] = b"".join(parts[n] for n in sorted(parts))
            self.answer(body=b"<CompleteMultipartUploadResult><ETag>0</ETag></CompleteMultipartUploadResult>")

    def do_DELETE(self):
        self.bucket.pop(self.asked()[0], None)
        self.answer(204)


def unchunked(stream):
    """Chunks, each behind a line with its size in hex, and after the last one lines up to an empty one."""
    whole = b""
    while size := int(stream.readline().split(b";")[0] or b"0", 16):
        whole += stream.read(size)
        stream.readline()
    while stream.readline().strip():
        pass
    return whole


def listing(bucket, prefix, delimiter):
    found = {k: v for k, v in bucket.items() if k.startswith(prefix)}
    below = {k: k[len(prefix) :].partition(delimiter)[1] if delimiter else "" for k in found}
    folders = {prefix + k[len(prefix) :].partition("/")[0] + "/" for k in found if below[k]}
    files = "".join(
        f"<Contents><Key>{escape(k)}</Key><Size>{len(v)}</Size>"
        f"<LastModified>2026-11-29T00:00:00.000Z</LastModified></Contents>"
        for k, v in sorted(found.items())
        if not below[k]
    )
    more = "".join(f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in sorted(folders))
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{files}{more}</ListBucketResult>".encode()


def served():
    """A server with an empty bucket called `bucket`; `.uri` names it by its endpoint, and holds no key."""
    kind = type("Bound", (Handler,), {"bucket": {}, "parts": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    query = f"scheme=http&region=us-east-1&endpoint_override=127.0.0.1:{server.server_port}"
    return SimpleNamespace(server=server, bucket=kind.bucket, uri=f"s3://bucket/prefix?{query}")
