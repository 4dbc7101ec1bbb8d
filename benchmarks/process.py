"""How much memory a process has, as Linux counts it."""

from __future__ import annotations

from pathlib import Path


def status_bytes(field: str, pid: int | str = "self") -> int:
    """Bytes: resident now (VmRSS), at the peak (VmHWM), or of the process's own, no file's pages (RssAnon)."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[field].split()[0]) * 1024
