"""A PostgreSQL with pgvector of one's own, which can be killed and started again."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest


class Database:
    """A server whose data lie in a folder; it listens at a socket there and at no port."""

    def __init__(self, folder):
        import pgserver

        self.binaries = Path(pgserver.__file__).parent / "pginstall" / "bin"
        self.folder = Path(folder)
        self.process = None
        #: It refuses to run as root.
        self.user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        if self.user:
            subprocess.run(["chown", "-R", "nobody:nogroup", str(folder)], check=True)
        made = [
            self.binaries / "initdb",
            "-D",
            self.folder / "data",
            "-U",
            "postgres",
            "--auth=trust",
            "-N",
            "-E",
            "UTF8",
        ]
        subprocess.run(list(map(str, made)), check=True, capture_output=True, cwd=self.folder, **self.user)
        self.start()

    def start(self):
        command = [self.binaries / "postgres", "-D", self.folder / "data", "-h", "", "-k", self.folder, "-F"]
        self.process = subprocess.Popen(
            list(map(str, command)), cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self.user
        )
        for _ in range(200):
            ready = subprocess.run([str(self.binaries / "pg_isready"), "-h", str(self.folder)], capture_output=True)
            if ready.returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError("the database did not start")

    def kill(self):
        """End it without warning, its children too, as a machine that fails does."""
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        for process in [self.process.pid, *map(int, children.stdout.split())]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()

    def address(self, user="postgres", password="", database="postgres"):
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@/{database}?host={self.folder}"

    def run(self, *statements):
        import psycopg

        with psycopg.connect(self.address(), autocommit=True) as connection:
            for statement in statements:
                done = connection.execute(statement)
            return done.fetchall() if done.description else None


@contextlib.contextmanager
def database():
    """A running server, gone at the end with all that it holds."""
    pytest.importorskip("pgserver")
    pytest.importorskip("psycopg_pool")
    with tempfile.TemporaryDirectory(prefix="sigmax-pg-") as folder:
        os.chmod(folder, 0o755)
        server = Database(folder)
        try:
            yield server
        finally:
            server.kill()
