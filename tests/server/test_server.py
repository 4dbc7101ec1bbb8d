"""The server as a process of its own, through real sockets."""

import base64
import contextlib
import io
import json
import shutil
import signal
import socket
import struct
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image

from helpers.commands import refused
from helpers.servers import serving
from sigmax.explain import explain
from sigmax.model.dual_encoder import load
from sigmax.server import items
from sigmax.server.run import is_loopback
from sigmax.training.settings import Settings
from sigmax.training.train import train

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
QUERIES = ["the lunar night", "sky", "what is hot?", "moon", "invoice", "night"]


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder, options=["--timeout", "2"]) as server:
        yield server


def until(true, seconds=20):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


# -- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["best-f1", "recall=0.3", "precision=0.99"])
def test_answers_are_those_of_the_model(rule, server, folder):
    answer = server.match(QUERIES, top_k=4, rule=rule)
    expected = load(folder).match(QUERIES, top_k=4, rule=rule)
    assert answer["model"] == "things"
    decision = expected[0].decision
    assert answer["rule"] == json.loads(json.dumps(decision.as_dict())) | {"promise": decision.promise}
    for query, found, matches in zip(QUERIES, answer["results"], expected, strict=True):
        assert found["query"] == query
        assert found["any"] == pytest.approx(matches.any, abs=1e-5)
        assert [one["candidate_id"] for one in found["accepted"]] == [one.candidate_id for one in matches.accepted]
        assert found["accepted_count"] == len(matches.accepted)
        assert found["outcome"] == matches.outcome
        assert found["familiar_p"] == pytest.approx(matches.familiar_p, abs=0.03), "rows of one product may round"
        assert found["unlike_training"] == (found["familiar_p"] <= 0.05)
        assert len(found["matches"]) == 4
        for one, match in zip(found["matches"], matches, strict=True):
            assert (one["candidate"], one["candidate_id"]) == (match.candidate, match.candidate_id)
            assert one["accepted"] == (match in matches.accepted)
            for name in ("logit", "share", "presence"):
                assert one[name] == pytest.approx(getattr(match, name), abs=1e-5)
    (alone,) = server.match(QUERIES[0], top_k=4, rule=rule)["results"]
    assert [one["candidate"] for one in alone["matches"]] == [one.candidate for one in expected[0]]


def test_explanations_are_those_of_the_model(server, folder):
    status, answer, _ = server.ask("/explain", {"query": QUERIES[:2], "top_k": 2})
    assert status == 200
    expected = [json.loads(json.dumps(one.as_dict())) for one in explain(load(folder), QUERIES[:2], top_k=2)]
    assert len(answer["words"]) > 2
    for found, one in zip(answer["items"], expected, strict=True):
        rows, wanted = found.pop("activations"), one.pop("activations")
        assert found.keys() == one.keys()
        assert (found["item"], found["offered"]) == (one["item"], 6)
        assert found["any"] == pytest.approx(one["any"], abs=1e-5)
        assert found["expected"] == pytest.approx(one["expected"], abs=1e-5)
        for row, want in zip(rows, wanted, strict=True):
            assert (row["candidate"], row["verdict"]) == (want["candidate"], want["verdict"])
            assert row["logit"] == pytest.approx(want["logit"], abs=1e-5)


def test_what_there_is(server):
    _, answer, _ = server.ask("/models")
    (model,) = answer["models"]
    assert (model["name"], model["candidates"], model["calibrated"], model["pictures"]) == ("things", 6, True, False)
    assert {rule["name"] for rule in answer["rules"]} >= {"best-f1", "precision"}
    assert server.ask("/health")[1]["status"] == "ok"
    status, description, _ = server.ask("/openapi.json")
    assert status == 200
    assert set(description["paths"]) == {"/match", "/explain", "/rate", "/models", "/health", "/metrics"}
    assert description["components"]["schemas"]["MatchRequest"]["examples"]


def test_the_page_is_there_and_safe(server):
    for path, kind in (("/", "text/html"), ("/style.css", "text/css"), ("/app.js", "text/javascript")):
        status, content, headers = server.ask(path)
        assert status == 200
        assert headers["content-type"].startswith(kind)
        assert b"http://" not in content.replace(b"http://www.w3.org", b"")
        assert b"https://" not in content
        assert b"innerHTML" not in content
    for path in ("/", "/match", "/nothing", "/health"):
        headers = server.ask(path)[2]
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
        assert not any(name.startswith("access-control") for name in headers)


def test_fifty_clients_are_answered_together(server, folder):
    expected = {query: load(folder).match(query, top_k=3) for query in QUERIES}
    before = server.metric("sigmax_batch_queries_")
    gate = threading.Barrier(50)

    def client(number):
        gate.wait()
        return [
            (query, server.match(query, top_k=3)["results"][0])
            for query in (QUERIES[(number + step) % len(QUERIES)] for step in range(6))
        ]

    with ThreadPoolExecutor(50) as pool:
        answers = [answer for found in pool.map(client, range(50)) for answer in found]
    assert len(answers) == 300
    for query, found in answers:
        assert found["query"] == query
        assert [one["candidate"] for one in found["matches"]] == [one.candidate for one in expected[query]]
        assert [one["logit"] for one in found["matches"]] == pytest.approx(
            [one.logit for one in expected[query]], abs=1e-5
        )
    after = server.metric("sigmax_batch_queries_")
    queries, batches = (
        after[key] - before.get(key, 0)
        for key in ('sigmax_batch_queries_sum{model="things"}', 'sigmax_batch_queries_count{model="things"}')
    )
    assert queries == 300
    assert batches < 200


def test_one_failure_does_not_spread(folder):
    """A query that breaks the encoder fails alone, whoever it was rated with."""
    from sigmax.server.served import Loaded, MatchWork

    loaded = Loaded(folder)
    vectors = loaded.model.vectors

    def breaks(queries, *given, **options):
        if "bad" in queries:
            raise RuntimeError("out of words")
        return vectors(queries, *given, **options)

    loaded.model.vectors = breaks
    works = [MatchWork([query], 2, "best-f1", 0.9) for query in ("sky", "bad", "moon")]
    good, bad, other = loaded.answer(works)
    assert isinstance(bad, RuntimeError)
    assert [good["results"][0]["query"], other["results"][0]["query"]] == ["sky", "moon"]


def test_rules_that_cannot_be_followed_fail_alone(folder):
    from sigmax.server.served import Loaded, MatchWork

    loaded = Loaded(folder)
    loaded.model.calibrator = None
    loaded.decide.cache_clear()
    works = [MatchWork(["sky", "moon"], 2, rule, 0.9) for rule in ("best-f1", "precision=0.5", "best-f1")]
    good, bad, other = loaded.answer(works)
    assert isinstance(bad, ValueError)
    assert [one["query"] for one in other["results"]] == ["sky", "moon"]
    assert other == good


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "Expected JSON"),
        (b"", "body"),
        (b"\xff\xfe", ""),
        ([], "body"),
        ({}, "query: Field required"),
        ({"query": 3}, "got a number"),
        ({"query": None}, "got null"),
        ({"query": []}, "Expected 1 to 64 queries, got 0"),
        ({"query": ["a"] * 65}, "Expected 1 to 64 queries, got 65"),
        ({"query": " \n"}, "Expected a text to match"),
        ({"query": "a" * 10_001}, "at most 10,000 characters, got 10,001"),
        (b'{"query": "\\ud800"}', "surrogate"),
        ({"query": [["a"]]}, "got a list"),
        ({"query": {"text": "a"}}, "picture"),
        ({"query": {"picture": "aGVsbG8="}}, "the model takes texts: expected a text, got a picture"),
        ({"query": "a", "topk": 3}, "topk"),
        ({"query": "a", "top_k": 0}, "top_k"),
        ({"query": "a", "top_k": 101}, "top_k"),
        ({"query": "a", "top_k": "3"}, "top_k"),
        ({"query": "a", "confidence": 1}, "confidence"),
        ({"query": "a", "rule": "precison=0.9"}, "Did you mean 'precision'"),
        ({"query": "a", "rule": "precision"}, "Expected a level for precision"),
        ({"query": "a", "rule": "precision=nan"}, "between 0 and 1"),
        ({"query": "a", "model": 3}, "model"),
    ],
)
def test_requests_that_are_refused(body, said, server):
    got, answer, _ = server.ask("/match", body)
    assert got in ((400, 422) if body == b"\xff\xfe" else (422,)), answer
    assert said in answer["error"]
    assert len(answer["error"]) < 500


def test_nesting_does_not_break_the_parser(server):
    server.refuses(400, body=b'{"query":' + b"[" * 100_000)


def test_other_refusals(server):
    server.refuses(404, "Did you mean 'things'", body={"query": "a", "model": "thing"})
    server.refuses(404, body={"query": "a", "model": "../things"})
    server.refuses(404, path="/../../etc/passwd")
    server.refuses(404, path="/page/app.js")
    server.refuses(405, path="/match")
    server.refuses(415, "Expected JSON, got text/plain", body=b'{"query": "a"}', headers={"content-type": "text/plain"})
    server.refuses(422, "at most 8", path="/explain", body={"query": ["a"] * 9})


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "", "localhost.evil.example", "127.0.0.1.nip.io"]
)
def test_other_names_of_this_machine(host, server):
    server.refuses(421, "Expected the host to be", path="/health", headers={"host": host})


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:99", "[::1]:8000"])
def test_names_of_this_machine(host, server):
    assert server.ask("/health", headers={"host": host})[0] == 200


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_a_hundred_megabytes(chunked, server):
    """Refused while they come; they are not kept."""
    before = server.memory()
    megabyte = b"a" * 2**20
    with server.connect() as connection:
        head = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % (100 * 2**20)
        connection.sendall(b"POST /match HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n")
        connection.sendall(head + b"\r\n\r\n")
        with contextlib.suppress(OSError):  # the server need not read to the end
            for _ in range(100):
                connection.sendall(b"100000\r\n" + megabyte + b"\r\n" if chunked else megabyte)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"at most 1,048,576 bytes" in answer
    assert server.memory() - before < 30 * 2**20
    assert server.match("moon")["results"]


def test_slow_bodies_end_and_others_go_on(server):
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(20)]
        for connection in slow:
            connection.sendall(b"POST /match HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        began = time.monotonic()
        assert server.match("moon")["results"]
        assert time.monotonic() - began < 1.5
        for connection in slow:
            assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began > 1


def test_heads_that_do_not_end(server, monkeypatch):
    with server.connect() as connection:
        with contextlib.suppress(OSError):
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n")
            for _ in range(200):
                connection.sendall(b"x-filling: " + b"a" * 1000 + b"\r\n")
                time.sleep(0.0005)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    with server.connect() as silent, server.connect() as half:
        half.sendall(b"GET /health HT")
        for connection in (silent, half):
            assert connection.recv(65536) == b""  # closed when their time is over
    assert server.ask("/health")[0] == 200


def test_connections_cut_in_the_middle(server):
    body = json.dumps({"query": QUERIES * 10}).encode()
    for part in (10, len(body), len(body)):
        for _ in range(10):
            with server.connect() as connection:
                connection.sendall(
                    b"POST /match HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n" % len(body) + body[:part]
                )
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    assert server.match(QUERIES)["results"]


@pytest.mark.slow
def test_no_time(folder):
    with serving(folder, options=["--timeout", "0.5"]) as server:
        bodies = [{"query": [f"{client} {item} " * 1_500 for item in range(64)]} for client in range(6)]
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda body: server.ask("/match", body), bodies))
        late = [answer["error"] for status, answer, _ in answers if status == 504]
        assert late
        assert "No answer within 0.5 seconds" in late[0]
        assert {status for status, _, _ in answers} <= {200, 504}
        until(lambda: server.ask("/match", {"query": "moon"})[0] == 200)


def test_a_full_queue(folder):
    with serving(folder, options=["--max-queue", "64"]) as server:
        body = {"query": [f"{number} " * 500 for number in range(64)]}
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: server.ask("/match", body), range(8)))
        statuses = [status for status, _, _ in answers]
        assert statuses.count(200) >= 1
        assert statuses.count(503) >= 1
        for status, answer, headers in answers:
            if status == 503:
                assert headers["retry-after"] == "1"
                assert "64 queries wait already" in answer["error"]
        assert server.match("moon")["results"]


# -- pictures ------------------------------------------------------------------------------------


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind)
    return {"picture": base64.b64encode(file.getvalue()).decode()}


def bomb():
    """A small file that says it holds 60,000 × 60,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return {"picture": base64.b64encode(data).decode()}


def test_pictures_that_are_refused():
    refused = {
        "base64": {"picture": "§§"},
        "something else": {"picture": base64.b64encode(b"hello, world").decode()},
        "40,000,000 pixels": bomb(),
        "10,000,000 bytes": {"picture": "A" * 14_000_000},
    }
    for said, item in refused.items():
        with pytest.raises(ValueError, match=said):
            items.queries_of([item], pictures=True)
    with pytest.raises(ValueError, match="something else"):  # a format whose decoder runs another program
        items.queries_of([{"picture": base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n").decode()}], pictures=True)
    with pytest.raises(ValueError, match="takes pictures"):
        items.queries_of(["a text"], pictures=True)


@pytest.mark.slow
def test_pictures_are_matched(tmp_path):
    from sigmax.data.sources import load_data

    data = load_data("digits")
    train(data, Settings(loss="sigmoid", encoder="convnet", steps=3)).save(tmp_path / "digits")
    model = load(tmp_path / "digits")
    shown = [Image.fromarray(np.asarray(query.image())) for query in data.queries[:3]]
    with serving(tmp_path / "digits") as server:
        assert server.ask("/models")[1]["models"][0]["pictures"] is True
        answer = server.match([encoded(image) for image in shown], top_k=10)
        for found, matches in zip(answer["results"], model.match(shown, top_k=10), strict=True):
            assert [one["candidate"] for one in found["matches"]] == [one.candidate for one in matches]
            assert [one["logit"] for one in found["matches"]] == pytest.approx([one.logit for one in matches], abs=1e-4)
        server.refuses(422, "pixels", body={"query": bomb()})
        server.refuses(422, "takes pictures", body={"query": "seven"})
        whole = base64.b64decode(encoded(shown[0])["picture"])
        broken = whole[: len(whole) // 2]
        server.refuses(422, "cannot be decoded", body={"query": {"picture": base64.b64encode(broken).decode()}})
        status, answer, _ = server.ask("/explain", {"query": [encoded(shown[0])]})
        assert status == 200
        assert answer["items"][0]["item"] == "picture 1"


# -- the key -------------------------------------------------------------------------------------


def test_the_key(folder):
    """With it others are let in, by whatever name they call the server."""
    with serving(folder, options=["--host", "0.0.0.0"], SIGMAX_API_KEY="sésame") as server:
        body = {"query": "moon"}
        for headers in ({}, {"authorization": "Bearer sesame"}, {"x-api-key": ""}, {"authorization": "Basic s"}):
            told = server.refuses(401, "Expected the server's key", body=body, headers=headers)
            assert told["www-authenticate"] == "Bearer"
        for path in ("/models", "/metrics", "/openapi.json", "/nothing"):
            server.refuses(401, path=path)
        for path in ("/", "/app.js", "/health"):
            assert server.ask(path)[0] == 200
        key = "sésame".encode().decode("latin-1")  # as clients send UTF-8
        for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
            for host in ("any.example", "localhost"):
                assert server.ask("/match", body, headers=headers | {"host": host})[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_others_need_a_key(host, folder, sigmax, monkeypatch):
    assert not is_loopback(host)
    monkeypatch.setenv("SIGMAX_API_KEY", "")
    refused(sigmax("serve", folder, "--host", host), 2, "SIGMAX_API_KEY")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere"], 1, "nowhere: expected a folder with sigmax.json"),
        (["FOLDER", "FOLDER"], 2, "expected different ones"),
        (["FOLDER", "--port", "70000"], 2, "--port"),
        (["FOLDER", "--port", "TAKEN"], 1, "in use"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_served(words, code, said, folder, server, sigmax):
    places = {"FOLDER": folder, "TAKEN": server.port}
    refused(sigmax("serve", *(places.get(word, word) for word in words)), code, said)


# -- its end, and other models -------------------------------------------------------------------


def test_sigterm_answers_what_has_begun(folder):
    with serving(folder) as server:
        body = json.dumps({"query": [f"{number} " * 800 for number in range(64)]}).encode()
        with server.connect() as connection:
            head = b"POST /match HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            connection.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
            until(lambda: sum(server.metric("sigmax_batch_queries_sum").values()) >= 64)
            server.process.send_signal(signal.SIGTERM)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["results"]) == 64
        assert server.process.wait(30) == 0


@pytest.mark.slow
def test_killed_and_started_again(folder, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    kept = tmp_path / "kept"
    kept.mkdir()
    with pytest.raises(AssertionError), serving(folder, TMPDIR=str(kept)) as server:
        port = server.port
        assert server.match("moon")["results"]
        server.process.kill()
        server.process.wait()
    with serving(folder, options=["--port", port], TMPDIR=str(kept)) as server:
        assert server.port == port
        assert server.match("moon")["results"]
    assert list(kept.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def other(folder, names):
    """The same model over candidates of other names, as a newer one."""
    model = load(folder)
    model.candidates = names
    return model


@pytest.mark.slow
def test_a_newer_model_takes_over_and_a_damaged_one_does_not(folder, tmp_path):
    """Under load, without a lost request."""
    served = tmp_path / "things"
    shutil.copytree(folder, served)
    newer = other(folder, ["star", "earth", "fire", "ice", "rain", "tree"])
    with serving(served) as server:
        ended, answers = threading.Event(), []

        def client():
            while not ended.is_set():
                answers.append(server.ask("/match", {"query": "the lunar night", "top_k": 6}))

        clients = [threading.Thread(target=client) for _ in range(8)]
        for one in clients:
            one.start()
        try:
            until(lambda: answers)
            newer.save(served)
            until(lambda: server.metric("sigmax_reloads_total"), 60)
        finally:
            ended.set()
            for one in clients:
                one.join()
        assert {status for status, _, _ in answers} == {200}
        offered = [{one["candidate"] for one in answer["results"][0]["matches"]} for _, answer, _ in answers]
        assert offered[0] == set(load(folder).candidates)
        after = server.match(QUERIES, top_k=6)
        assert {one["candidate"] for one in after["results"][0]["matches"]} == set(newer.candidates)
        assert server.metric("sigmax_reloads_total") == {'sigmax_reloads_total{model="things",outcome="loaded"}': 1}

        weights = served / "query_encoder" / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:1000])
        until(lambda: server.ask("/health")[1]["status"] == "degraded", 60)
        (health,) = server.ask("/health")[1]["models"]
        assert "could not be loaded" in health["error"]
        assert str(tmp_path) not in health["error"]
        assert server.match(QUERIES, top_k=6) == after
        shutil.move(served, tmp_path / "away")
        time.sleep(1.5)
        assert server.match(QUERIES, top_k=6) == after
        shutil.move(tmp_path / "away", served)
        weights.write_bytes(whole)
        until(lambda: server.ask("/health")[1]["status"] == "ok", 60)
        assert server.match(QUERIES, top_k=6) == after


def test_two_models(folder, tmp_path):
    other(folder, ["star", "earth", "fire", "ice", "rain", "tree"]).save(tmp_path / "other")
    with serving(folder, tmp_path / "other") as server:
        server.refuses(422, "expected one of things, other", body={"query": "moon"})
        for name, one in (("things", load(folder)), ("other", load(tmp_path / "other"))):
            (found,) = server.match("moon", model=name, top_k=6)["results"]
            assert {match["candidate"] for match in found["matches"]} == set(one.candidates)


# -- fuzzed --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_api_is_as_it_describes_itself(server):
    import schemathesis
    from schemathesis import checks

    held_to = [
        checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        checks.negative_data_rejection,
        checks.allow_header_conformance,
    ]
    description = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in description.get_all_operations()]
    assert len(operations) == 6
    seen = set()
    for operation in operations:
        for mode in schemathesis.GenerationMode if operation.body else (schemathesis.GenerationMode.POSITIVE,):

            @settings(max_examples=25, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
            @given(case=operation.as_strategy(generation_mode=mode))
            def conforms(case):
                answer = case.call(timeout=10)
                seen.add((case.path, answer.status_code))
                # A body over the limit is refused before it is read; the check does not know 413 as a refusal.
                large = answer.status_code == 413
                held = [one for one in held_to if not (large and one is checks.negative_data_rejection)]
                case.validate_response(answer, checks=held)

            conforms()
    assert {("/match", 200), ("/match", 422), ("/explain", 200), ("/models", 200), ("/metrics", 200)} <= seen
