"""Candidates in PostgreSQL with pgvector: for those who outgrow one machine, or keep their texts there anyway."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sigmax.candidates.store import Found, Sample, UnavailableError
from sigmax.errors import DataError, extra, first_line

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg_pool import ConnectionPool

__all__ = ["PostgresStore", "hidden", "is_postgres", "push"]

#: Seconds in which a connection is there and a search is done, at most.
CONNECT_SECONDS, SEARCH_SECONDS = 3.0, 10.0
#: Connections that are kept open, at most.
POOL = 4
#: Seconds for which a sample, and how many candidates there are, are kept.
FRESH_SECONDS = 60.0
#: Candidates written at a time: what a kill costs, at most.
BATCH = 2000
#: How many neighbours the graph keeps in sight while it searches, for each one asked for; 1,000 at most.
IN_SIGHT = 4
#: Mebibytes of the database's memory that building the graph may take, at most.
MOST_MEMORY = 2048
#: Numbers that pgvector's graph can index, at most.
MOST_NUMBERS = 2000


def is_postgres(text: str) -> bool:
    """Whether a text is the address of a database, as postgresql://host/database is."""
    return text.startswith(("postgresql://", "postgres://"))


def hidden(address: str) -> str:
    """Return an address without its password, wherever it stands."""
    without = re.sub(r"(://[^:/@?]*):[^@]*@", r"\1:…@", address)
    return re.sub(r"(password=)[^&\s]*", r"\1…", without)


class PostgresStore:
    """Candidates in a table of PostgreSQL, searched by pgvector's graph.

    The table has the columns place, id, text, metadata (jsonb) and vector; what it holds is told in sigmax_candidates.

    Args:
        address: postgresql://user:password@host/database.
        table: its name.
        where: only candidates whose metadata has these values, all of them.

    Raises:
        UnavailableError: the database cannot be reached.
        DataError: it lets nobody in with this address, or has no such table.
        ImportError: psycopg is not installed.
    """

    def __init__(self, address: str, *, table: str = "candidates", where: Mapping[str, Any] | None = None) -> None:
        self.address, self.table, self.where = address, table, dict(where or {})
        self._pool = _pool(address)
        self._kept: dict[str, tuple[float, Any]] = {}
        try:
            with self._connected() as connection:
                about = _about(connection, table)
        except BaseException:
            self._pool.close(timeout=1.0)
            raise
        if about is None:
            self.close()
            raise DataError(
                f"{hidden(address)}: no candidates in a table {table!r}. Write them: sigmax push DIR {hidden(address)}"
            )
        self.about: dict[str, Any] = about
        self.fingerprint = str(about["fingerprint"])
        self.dimensions = int(about["dimensions"])
        if not about["complete"]:
            self.close()
            raise DataError(
                f"{hidden(address)}: the table {table!r} is not whole: its last push was interrupted. Go on with it: "
                f"sigmax push DIR {hidden(address)}"
            )

    def filtered(self, where: Mapping[str, Any]) -> PostgresStore:
        """Return the same store over the candidates whose metadata has these values besides; it shares connections."""
        store: PostgresStore = object.__new__(PostgresStore)
        store.__dict__.update(self.__dict__, where={**self.where, **where}, _kept={})
        return store

    def close(self) -> None:
        """Close the connections."""
        self._pool.close(timeout=1.0)

    @property
    def size(self) -> int:
        """How many candidates may be found; up to a minute old."""
        query = f"SELECT count(*) FROM {_name(self.table)} WHERE {self._condition}"
        return int(self._lately("size", lambda: self._rows(query, self._parameters())[0][0]))

    def search(self, queries: NDArray[np.float32], k: int) -> list[Found]:
        """Find k candidates for each query through the graph; all are compared where a filter leaves it too few.

        Several queries are shared out among the connections, for the database to work on at once.

        Raises:
            UnavailableError: the database cannot be reached, or took too long.
        """
        if queries.shape[1] != self.dimensions:
            raise DataError(f"Expected queries of {self.dimensions} numbers, got {queries.shape[1]}.")
        size = self.size
        if len(queries) <= 1:
            return self._search(queries, k, size)
        parts = np.array_split(queries, min(POOL, len(queries)))
        with ThreadPoolExecutor(len(parts)) as threads:
            found = threads.map(lambda part: self._search(part, k, size), parts)
            return [one for part in found for one in part]

    def _search(self, queries: NDArray[np.float32], k: int, size: int) -> list[Found]:
        found = []
        with self._connected() as connection, connection.transaction():
            connection.execute(f"SET LOCAL hnsw.ef_search = {min(1000, max(1, IN_SIGHT * k))}")
            for asked in queries:
                given = self._parameters() | {"asked": np.asarray(asked, np.float32), "k": k}
                rows = connection.execute(self._nearest, given, prepare=True).fetchall()
                if len(rows) < min(k, size):
                    rows = self._all_compared(connection, self._nearest, given)
                found.append(_found(rows))
        return found

    @property
    def _nearest(self) -> str:
        return (
            f"SELECT place, id, text, -(vector <#> %(asked)s) FROM {_name(self.table)} WHERE {self._condition} "
            "ORDER BY vector <#> %(asked)s LIMIT %(k)s"
        )

    def exact(self, queries: NDArray[np.float32], k: int) -> list[Found]:
        """Find k candidates for each query by comparing all: what `search` is measured against."""
        with self._connected() as connection, connection.transaction():
            return [
                _found(self._all_compared(connection, self._nearest, self._parameters() | {"asked": asked, "k": k}))
                for asked in queries
            ]

    @staticmethod
    def _all_compared(connection: Connection[Any], query: str, given: Mapping[str, Any]) -> list[Any]:
        with connection.transaction():
            connection.execute("SET LOCAL enable_indexscan = off")
            rows: list[Any] = connection.execute(query, given).fetchall()
            connection.execute("SET LOCAL enable_indexscan = on")
        return rows

    def sample(self, count: int) -> Sample:
        """Draw candidates, up to a minute ago: the first in the order of a hash of their ids."""
        query = (
            f"SELECT place, vector, text FROM {_name(self.table)} WHERE {self._condition} ORDER BY md5(id) "
            "LIMIT %(count)s"
        )

        def drawn() -> Sample:
            rows = self._rows(query, self._parameters() | {"count": count})
            vectors = np.array([row[1].to_numpy() for row in rows], np.float32).reshape(-1, self.dimensions)
            return Sample(np.array([row[0] for row in rows], np.int64), vectors, [row[2] for row in rows])

        sample: Sample = self._lately(f"sample {count}", drawn)
        return sample

    def describe(self) -> dict[str, Any]:
        """Tell what it is, without a password."""
        kind = {"kind": "pgvector", "database": hidden(self.address), "table": self.table, "size": self.size}
        return kind | ({"where": self.where} if self.where else {})

    @property
    def _condition(self) -> str:
        return "metadata @> %(where)s::jsonb" if self.where else "true"

    def _parameters(self) -> dict[str, Any]:
        return {"where": json.dumps(self.where)} if self.where else {}

    def _rows(self, query: str, given: Mapping[str, Any]) -> list[Any]:
        with self._connected() as connection:
            rows: list[Any] = connection.execute(query, given).fetchall()
        return rows

    def _lately(self, name: str, make: Callable[[], Any]) -> Any:
        then, value = self._kept.get(name, (-np.inf, None))
        if time.monotonic() - then > FRESH_SECONDS:
            value = make()
            self._kept[name] = time.monotonic(), value
        return value

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection[Any]]:
        with _told(self.address), self._pool.connection(timeout=CONNECT_SECONDS) as connection:
            yield connection


def push(
    address: str,
    ids: Sequence[str],
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    *,
    fingerprint: str,
    generation: str,
    table: str = "candidates",
    metadata: Callable[[int], Mapping[str, Any]] | None = None,
    advance: Callable[[float, str], None] | None = None,
) -> int:
    """Write candidates into a table and index it; one that was begun is gone on with.

    An older table of the same name answers until the new one is whole, and is then replaced in one transaction.

    Args:
        address: of the database, which needs the extension vector, or a user who may make it.
        ids: (m,), each once.
        texts: (m,).
        vectors: (m, d), in memory or mapped.
        fingerprint: of what made the vectors.
        generation: of the candidates: an unfinished push of others is begun anew.
        table: its name.
        metadata: place -> what `where` may ask of that candidate.
        advance: told now and then how much is done, from 0 to 1, and what it is.

    Returns:
        How many were written now: fewer than all where an earlier run had written some, none where the same are there.

    Raises:
        UnavailableError: the database cannot be reached.
        DataError: it lets nobody in, or lacks the extension; vectors of more than 2,000 numbers.
        ImportError: psycopg is not installed.
    """
    size, width = vectors.shape
    if width > MOST_NUMBERS:
        raise DataError(f"pgvector indexes vectors of up to {MOST_NUMBERS:,} numbers, these have {width:,}.")
    fresh = f"{table}_new"
    named = _name(fresh)
    made_of = {"fingerprint": fingerprint, "generation": generation, "dimensions": width}
    with _told(address), contextlib.closing(_connect(address)) as connection:
        _prepare(connection, address)
        about = _about(connection, table)
        if about == {**made_of, "complete": True}:
            return 0
        about = _about(connection, fresh)
        if about is None or any(about[name] != value for name, value in made_of.items()):
            with connection.transaction():
                connection.execute(f"DROP TABLE IF EXISTS {named}")
                connection.execute(
                    f"CREATE TABLE {named} (place bigint PRIMARY KEY, id text NOT NULL, text text NOT NULL, "
                    f"metadata jsonb NOT NULL, vector vector({width}) NOT NULL)"
                )
                _say(connection, fresh, {**made_of, "complete": False})
        [written] = connection.execute(f"SELECT coalesce(max(place) + 1, 0) FROM {named}").fetchone() or [0]
        for start in range(written, size, BATCH):
            stop = min(start + BATCH, size)
            with (
                connection.transaction(),
                connection.cursor() as cursor,
                cursor.copy(
                    f"COPY {named} (place, id, text, metadata, vector) FROM STDIN WITH (FORMAT BINARY)"
                ) as copy,
            ):
                copy.set_types(["int8", "text", "text", "jsonb", "vector"])
                parts = ids[start:stop], texts[start:stop], np.asarray(vectors[start:stop], np.float32)
                for place, key, text, vector in zip(range(start, stop), *parts, strict=True):
                    copy.write_row((place, key, text, _json({} if metadata is None else metadata(place)), vector))
            if advance is not None:
                advance(0.5 * stop / size, f"writing {size:,} candidates")
        if advance is not None:
            advance(0.5, "building the graph")
        # A graph that fits into memory is built many times as fast.
        needed = size * (4 * width + 400) // 2**20 + 64
        connection.execute(f"SET maintenance_work_mem = '{min(needed, MOST_MEMORY)}MB'")
        _index(connection, fresh)
        with connection.transaction():
            connection.execute(f"DROP TABLE IF EXISTS {_name(table)}")
            connection.execute(f"ALTER TABLE {named} RENAME TO {_name(table)}")
            for kind in ("graph", "facts", "ids"):
                connection.execute(f"ALTER INDEX {_name(f'{fresh}_{kind}')} RENAME TO {_name(f'{table}_{kind}')}")
            connection.execute(f"ALTER INDEX {_name(f'{fresh}_pkey')} RENAME TO {_name(f'{table}_pkey')}")
            connection.execute("DELETE FROM sigmax_candidates WHERE name IN (%s, %s)", (table, fresh))
            _say(connection, table, {**made_of, "complete": True})
    return int(size - written)


def _index(connection: Connection[Any], table: str) -> None:
    """Build what is not there yet; each whole or not at all."""
    named = _name(table)
    for kind, what in (
        ("graph", "USING hnsw (vector vector_ip_ops) WITH (m = 16, ef_construction = 128)"),
        ("facts", "USING gin (metadata jsonb_path_ops)"),
        ("ids", "USING btree (md5(id))"),
    ):
        connection.execute(f"CREATE INDEX IF NOT EXISTS {_name(f'{table}_{kind}')} ON {named} {what}")
    connection.execute(f"ANALYZE {named}")


def _prepare(connection: Connection[Any], address: str) -> None:
    import psycopg
    from pgvector.psycopg import register_vector

    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.Error as error:
        raise DataError(
            f"{hidden(address)}: the extension vector (pgvector) is not there and could not be made "
            f"({first_line(error)}). Install it, or ask who may: CREATE EXTENSION vector."
        ) from None
    register_vector(connection)
    connection.execute("CREATE TABLE IF NOT EXISTS sigmax_candidates (name text PRIMARY KEY, about jsonb NOT NULL)")


def _about(connection: Connection[Any], table: str) -> dict[str, Any] | None:
    """What a table holds, as it was told when it was written; None where there is no such table."""
    there = connection.execute("SELECT to_regclass('sigmax_candidates'), to_regclass(%s)", (_name(table),)).fetchone()
    if there is None or None in there:
        return None
    row = connection.execute("SELECT about FROM sigmax_candidates WHERE name = %s", (table,)).fetchone()
    return None if row is None else dict(row[0])


def _say(connection: Connection[Any], table: str, about: Mapping[str, Any]) -> None:
    connection.execute(
        "INSERT INTO sigmax_candidates VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET about = excluded.about",
        (table, _json(about)),
    )


def _json(value: Mapping[str, Any]) -> Any:
    from psycopg.types.json import Jsonb

    return Jsonb(dict(value))


def _name(table: str) -> str:
    """A name between quotes: what is given can be no SQL."""
    return '"' + table.replace('"', '""') + '"'


def _found(rows: Sequence[Any]) -> Found:
    places, ids, texts, products = ([row[column] for row in rows] for column in range(4))
    return Found(np.array(places, np.int64), np.array(products, np.float32), ids, texts)


def _connect(address: str) -> Connection[Any]:
    with extra("postgres"):
        import psycopg
    return psycopg.connect(address, autocommit=True, connect_timeout=int(CONNECT_SECONDS))


def _pool(address: str) -> ConnectionPool:
    """A pool of connections: a broken one is replaced, so that the store recovers when the database does."""
    with extra("postgres"):
        import psycopg
        from pgvector.psycopg import register_vector
        from psycopg_pool import ConnectionPool

    def ready(connection: Connection[Any]) -> None:
        with contextlib.suppress(psycopg.ProgrammingError):  # without the extension there is no table either
            register_vector(connection)
        connection.execute(f"SET statement_timeout = {int(1000 * SEARCH_SECONDS)}")

    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # what it has to say, `_told` says
    with _told(address):
        with contextlib.closing(_connect(address)):  # a wrong password is told at once, and not after a time-out
            pass
        return ConnectionPool(
            address,
            min_size=1,
            max_size=POOL,
            open=True,
            configure=ready,
            check=ConnectionPool.check_connection,
            timeout=CONNECT_SECONDS,
            reconnect_timeout=CONNECT_SECONDS,
            kwargs={"autocommit": True, "connect_timeout": int(CONNECT_SECONDS)},
        )


@contextlib.contextmanager
def _told(address: str) -> Iterator[None]:
    """Say what went wrong with the database, without the password."""
    import psycopg
    from psycopg_pool import PoolClosed, PoolTimeout

    try:
        yield
    except (psycopg.errors.InvalidPassword, psycopg.errors.InvalidAuthorizationSpecification):
        raise DataError(f"{hidden(address)}: the database lets nobody in with this user and password.") from None
    except psycopg.OperationalError as error:
        reason = hidden(first_line(error))
        if "authentication failed" in reason or "no password supplied" in reason:
            raise DataError(f"{hidden(address)}: the database lets nobody in with this user and password.") from None
        if "FATAL" in reason and "does not exist" in reason:
            raise DataError(f"{hidden(address)}: {reason.rpartition('FATAL: ')[2].strip()}.") from None
        raise UnavailableError(f"{hidden(address)}: the database cannot be reached just now ({reason}).") from None
    except (PoolTimeout, PoolClosed):
        raise UnavailableError(f"{hidden(address)}: the database cannot be reached just now.") from None
    except psycopg.Error as error:
        raise DataError(f"{hidden(address)}: {first_line(error)}") from None
