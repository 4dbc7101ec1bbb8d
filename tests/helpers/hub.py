"""A hub of one's own: what huggingface_hub asks of huggingface.co, over HTTP, in memory."""

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories by name: a list of commits, each a dict of files."""

    def __init__(self):
        self.repositories = {}
        self.asked = []

    def commit_of(self, name, revision):
        commits = self.repositories[name]
        if revision in ("main", None):
            return len(commits) - 1
        return next(number for number in range(len(commits)) if self.sha(name, number) == revision)

    @staticmethod
    def sha(name, number):
        return hashlib.sha1(f"{name} {number}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    @property
    def hub(self):
        return self.server.hub

    def answer(self, value, code=200, headers=()):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for key, text in {"Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code):
        self.answer({"error": code}, 404, {"X-Error-Code": code})

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_POST(self):
        path, sent = urlsplit(self.path).path, self.body()
        self.hub.asked.append((path, self.headers.get("Authorization")))
        parts = path.strip("/").split("/")
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if not (self.headers.get("Authorization") or "").startswith("Bearer hf_may_write"):
            return self.answer({"error": "Invalid credentials"}, 401)
        if path == "/api/repos/create":
            about = json.loads(sent)
            name = f"{about.get('organization') or 'me'}/{about['name']}"
            self.hub.repositories.setdefault(name, [{}])
            return self.answer({"url": f"http://{self.headers['Host']}/{name}", "name": name})
        name = "/".join(parts[2:4])
        if parts[4] == "preupload":
            files = json.loads(sent)["files"]
            return self.answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        if parts[4] == "commit":
            files = dict(self.hub.repositories[name][-1])
            for line in map(json.loads, sent.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
                else:
                    assert line["key"] == "header", line["key"]
            self.hub.repositories[name].append(files)
            sha = self.hub.sha(name, len(self.hub.repositories[name]) - 1)
            url = f"http://{self.headers['Host']}/{name}/commit/{sha}"
            return self.answer({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})
        return self.answer({"error": f"unknown: {path}"}, 500)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((path, self.headers.get("Authorization")))
        parts = path.strip("/").split("/")
        api = parts[0] == "api"
        name = "/".join(parts[2:4] if api else parts[:2])
        if name not in self.hub.repositories:
            return self.missing("RepoNotFound")
        revision = parts[5] if api and len(parts) > 5 else None if api else parts[3]
        try:
            number = self.hub.commit_of(name, revision)
        except StopIteration:
            return self.missing("RevisionNotFound")
        files, sha = self.hub.repositories[name][number], self.hub.sha(name, number)
        if api and len(parts) > 4 and parts[4] == "tree":
            return self.answer(
                [
                    {"type": "file", "path": key, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for key, data in files.items()
                ]
            )
        if api:
            return self.answer({"id": name, "sha": sha, "siblings": [{"rfilename": key} for key in files]})
        data = files.get("/".join(parts[4:]))
        if data is None:
            return self.missing("EntryNotFound")
        return self.answer(data, headers={"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": sha})

    do_HEAD = do_GET


@contextlib.contextmanager
def serving(hub):
    """Give the address of a hub as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = hub
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
