"""What a command printed, and tables for it to read."""

import json

from helpers.data import things


class Done:
    """What a command printed, and its exit code."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def words(self):
        """Of stderr, on one line however it was wrapped."""
        return " ".join(self.err.split())


def refused(done, code, *said):
    """It failed as it should: nothing on stdout, a message without a traceback on stderr."""
    assert done.code == code, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    for text in said:
        assert text in done.words


def rows(**given):
    """The small data set of the training tests as rows of a table of pairs."""
    data = things(**given)
    split = {i: name for name, places in data.splits.items() for i in places.tolist()}
    answers = [[data.candidates[j] for j in data.graph[[i]].indices] for i in range(len(data.queries))]
    return [
        {"query": query, "answers": right, "split": split[i]}
        for i, (query, right) in enumerate(zip(data.queries, answers, strict=True))
    ]


def jsonl(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table), encoding="utf-8")
    return path
