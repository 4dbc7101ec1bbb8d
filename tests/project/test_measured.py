"""The page of tables is what `benchmarks/tables.py` makes of the raw results."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["tables"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["tables"]


def test_the_page_is_what_the_script_makes(tables):
    assert tables.PAGE.read_text(encoding="utf-8") == tables.page(), "Run: python benchmarks/tables.py"


def test_every_table_has_a_result(tables):
    for table in tables.TABLES:
        assert tables.newest(table.stem), table.title


def test_the_newest_counts(tables, tmp_path, monkeypatch):
    for date, seconds in (("2026-01-02", 1.0), ("2026-01-01", 2.0)):
        text = json.dumps({"rows": [{"name": date, "ratio": {"three products": seconds, "four products": 1.0}}]})
        (tmp_path / f"{date}-loss-cpu-n8-d4.json").write_text(text)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert "| 2026-01-02 | 1.00 | 1.00 | – |" in tables.page()
    assert "2026-01-01" not in tables.page()
