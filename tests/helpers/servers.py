"""A running `sigmax serve`."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit


class Server:
    """A running `sigmax serve`."""

    def __init__(self, process):
        self.process = process
        self.said = process.stderr.readline()
        found = re.search(r"http://\S+", self.said)
        assert found, self.said + process.stderr.read()
        self.url = found[0]
        self.host, self.port = urlsplit(self.url).hostname, urlsplit(self.url).port

    def ask(self, path, body=None, *, method=None, headers=None, timeout=30):
        """(status, JSON or bytes, headers) of one request, on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        with contextlib.closing(connection):
            sent = json.dumps(body).encode() if isinstance(body, dict | list) else body
            head = {"content-type": "application/json"} if body is not None else {}
            connection.request(method or ("GET" if body is None else "POST"), path, sent, head | (headers or {}))
            answer = connection.getresponse()
            content = answer.read()
        told = {name.lower(): value for name, value in answer.getheaders()}
        is_json = told.get("content-type", "").startswith("application/json")
        return answer.status, json.loads(content) if is_json else content, told

    def match(self, query, **given):
        status, answer, _ = self.ask("/match", {"query": query, **given})
        assert status == 200, answer
        return answer

    def refuses(self, status, *said, path="/match", **given):
        got, answer, headers = self.ask(path, **given)
        assert got == status, answer
        assert set(answer) == {"error"}
        for text in said:
            assert text in answer["error"]
        return headers

    def metric(self, name):
        text = self.ask("/metrics")[1].decode()
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith(name)
        }

    def connect(self):
        return socket.create_connection((self.host, self.port), timeout=30)

    def memory(self):
        """Bytes of resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024


@contextlib.contextmanager
def serving(*folders, options=(), code=0, **environment):
    """A server, which at the end must stop with an exit code after SIGTERM."""
    command = [sys.executable, "-m", "sigmax", "serve", *map(str, folders), "--port", "0", *map(str, options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield Server(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == code
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
