"""Ways to the server that people expect: HEAD, curl -d, packed bodies, other names, and a proxy in front of it."""

import contextlib
import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib

import pytest

from helpers.commands import refused
from helpers.servers import serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
ASKED = json.dumps({"query": "moon", "top_k": 2}).encode()


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder, options=["--root-path", "/sigmax", "--allowed-host", "models.example.com"]) as server:
        yield server


def raw(server, method, path, body=None, headers=()):
    """Status, headers and body of a request with exactly these headers beside Host and the length."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content


@pytest.mark.parametrize("path", ["/", "/app.js", "/health", "/models", "/metrics", "/openapi.json", "/sigmax/health"])
def test_head_is_get_without_the_body(server, path):
    status, headers, content = raw(server, "HEAD", path)
    got, same, body = raw(server, "GET", path)
    assert (status, content) == (got, b"") == (200, b"")
    assert headers["content-type"] == same["content-type"]
    if path not in ("/metrics",):  # which counts requests
        assert headers["content-length"] == str(len(body))
    assert raw(server, "HEAD", "/match")[0] == 405


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "application/json; charset=utf-8"])
def test_json_without_its_type(server, kind):
    headers = [] if kind is None else [("content-type", kind)]
    status, _, content = raw(server, "POST", "/match", ASKED, headers)
    assert status == 200, content
    assert len(json.loads(content)["results"][0]["matches"]) == 2


def test_curl(server):
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    done = subprocess.run(
        ["curl", "-s", f"{server.url}/match", "-d", '{"query": "moon"}'], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["results"][0]["query"] == "moon"


def test_forms_of_other_pages_are_not_taken_for_json(server):
    origin = ("origin", "https://evil.example")
    status, _, content = raw(
        server, "POST", "/match", ASKED, [("content-type", "application/x-www-form-urlencoded"), origin]
    )
    assert status == 415
    assert "content-type: application/json" in json.loads(content)["error"]
    assert raw(server, "POST", "/match", ASKED, [origin])[0] == 415
    assert raw(server, "POST", "/match", b"query=moon", [])[0] == 415


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)]
)
def test_packed_bodies(server, encoding, pack):
    headers = [("content-type", "application/json"), ("content-encoding", encoding)]
    status, _, content = raw(server, "POST", "/match", pack(ASKED), headers)
    assert status == 200, content


def test_packed_bodies_that_are_refused(server):
    def said(body, encoding="gzip"):
        headers = [("content-type", "application/json"), ("content-encoding", encoding)]
        status, _, content = raw(server, "POST", "/match", body, headers)
        return status, json.loads(content)["error"]

    assert said(ASKED) == (400, "The body is not in the content-encoding that the request names.")
    assert said(gzip.compress(ASKED)[:-9]) == (400, "The compressed body ends too early.")
    assert said(ASKED, "br")[0] == 415
    bomb = gzip.compress(b" " * 200_000_000)
    began = time.monotonic()
    status, error = said(bomb)
    assert status == 413, error
    assert time.monotonic() - began < 5
    assert server.memory() < 2e9


def test_allowed_hosts(server, folder):
    assert server.ask("/health", headers={"host": "models.example.com"})[0] == 200
    assert server.ask("/health", headers={"host": "MODELS.example.com:443"})[0] == 200
    server.refuses(421, "models.example.com", path="/health", headers={"host": "evil.example"})


def test_a_prefix_that_is_no_path(folder, sigmax):
    refused(sigmax("serve", folder, "--root-path", "sigmax"), 1, "--root-path", "a path such as /sigmax")


def test_the_prefix(server):
    for path in ("/sigmax/match", "/match"):
        assert raw(server, "POST", path, ASKED)[0] == 200
    assert server.ask("/openapi.json")[1]["servers"] == [{"url": "/sigmax"}]
    server.refuses(404, path="/sigmaxmatch")
    assert server.ask("/sigmax/../etc/passwd")[0] == 404


# -- behind a proxy ------------------------------------------------------------------------------

#: Configurations in which /sigmax/ is passed on as it is and /stripped/ without the prefix, and what starts each.
PROXIES = {
    "nginx": (
        """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location /sigmax/ {{ proxy_pass {url}; proxy_set_header Host models.example.com; }}
    location /stripped/ {{ proxy_pass {url}/; proxy_set_header Host models.example.com; }}
  }}
}}
""",
        ["-c", "{file}", "-e", "{folder}/error.log"],
    ),
    "caddy": (
        """
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  handle /sigmax/* {{
    reverse_proxy {url}
  }}
  handle_path /stripped/* {{
    reverse_proxy {url} {{
      header_up Host models.example.com
    }}
  }}
}}
""",
        ["run", "--adapter", "caddyfile", "--config", "{file}"],
    ),
}


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request, server, tmp_path_factory):
    configuration, words = PROXIES[request.param]
    program = shutil.which(request.param) or shutil.which(f"/usr/sbin/{request.param}")
    if program is None:
        asked = f"SIGMAX_{request.param.upper()}"
        assert asked not in os.environ, f"{asked} is set, but there is no {request.param}"
        pytest.skip(f"no {request.param}")
    folder = tmp_path_factory.mktemp(request.param)
    port = 18_000 + (server.port + list(PROXIES).index(request.param)) % 10_000
    names = {"folder": folder, "port": port, "url": server.url, "file": folder / "configuration"}
    names["file"].write_text(configuration.format(**names))
    process = subprocess.Popen(
        [program, *(word.format(**names) for word in words)],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(folder)},
    )
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


@pytest.mark.parametrize("prefix", ["/sigmax", "/stripped"])
def test_behind_a_proxy(proxy, prefix):
    """Whether the proxy takes the prefix away or leaves it."""
    for method, path, body, headers in (
        ("GET", "/", None, {}),
        ("GET", "/app.js", None, {}),
        ("HEAD", "/health", None, {}),
        ("POST", "/match", gzip.compress(ASKED), {"content-encoding": "gzip"}),
    ):
        with contextlib.closing(http.client.HTTPConnection(proxy.removeprefix("http://"), timeout=10)) as connection:
            connection.request(method, prefix + path, body, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["/sigmax", "/stripped"])
def test_the_page_behind_a_proxy(proxy, prefix):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium")
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        said = []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{proxy}{prefix}/")
        page.locator("#rule option").first.wait_for(state="attached")
        page.get_by_label("Your question").fill("the moon")
        page.locator("section caption", has_text="“the moon”").first.wait_for()
        assert said == []
        browser.close()


# -- its end as a service of Windows ---------------------------------------------------------------

#: A server for which another signal stands for Windows's own, which uvicorn handles there as it does SIGTERM here.
WINDOWS = """
import signal, sys
import uvicorn.server
signal.SIGBREAK = signal.SIGUSR1
uvicorn.server.HANDLED_SIGNALS += (signal.SIGBREAK,)
from sigmax.cli.main import main
main()
"""


@pytest.mark.slow
def test_a_service_of_windows_stops(folder):
    """At once, too: nothing is lost between the message and the first request."""
    command = [sys.executable, "-c", WINDOWS, "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert "Serving" in process.stderr.readline()
        process.send_signal(signal.SIGUSR1)
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()
        assert "Traceback" not in process.stderr.read()
