"""``COPY … TO STDOUT`` in blocks: a Python statement for every block instead of for every row, which would cost as much as the server's work."""

from __future__ import annotations

import selectors
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.sql import SQL, Composed

__all__ = ["CopyOut"]

_BLOCK: Final = 128 * 1024
"""Bytes joined into one block; memory is bounded by this much and one row."""


class CopyOut:
    """The output of one COPY, to be iterated once: blocks of whole rows, in order.

    Args:
        cursor: of a connection that does nothing else meanwhile.
        statement: ``COPY … TO STDOUT``.

    Attributes:
        rows: how many rows the server says it sent; ``None`` until the last block has been taken.
    """

    def __init__(self, cursor: psycopg.Cursor[Any], statement: SQL | Composed) -> None:
        self._cursor, self._statement = cursor, statement
        self.rows: int | None = None
        self.seen = 0

    def __iter__(self) -> Iterator[bytes]:
        """Run it.

        Raises:
            psycopg.Error: the database refused or broke off; what came before is no whole result. Its message holds no value.
        """
        # psycopg begins it, and cancels and drains it where this is left early; the rows are taken from libpq itself.
        with self._cursor.copy(self._statement):
            pgconn = self._cursor.connection.pgconn
            take, rows, size = pgconn.get_copy_data, list[memoryview](), 0
            with selectors.DefaultSelector() as waiting:
                waiting.register(pgconn.socket, selectors.EVENT_READ)
                while (count := take(1))[0] >= 0:
                    if count[0]:
                        rows.append(count[1])
                        size += count[0]
                        if size >= _BLOCK:
                            self.seen += len(rows)
                            yield b"".join(rows)
                            rows, size = [], 0
                    else:
                        waiting.select()
                        pgconn.consume_input()
            if rows:
                self.seen += len(rows)
                yield b"".join(rows)
            self.rows = self._told(pgconn)

    def _told(self, pgconn: Any) -> int:
        # INVARIANT: the output is whole only if the server says so after the last row.
        told, refused = None, None
        while (result := pgconn.get_result()) is not None:
            if result.status == ExecStatus.COMMAND_OK:
                told = result.command_tuples
            else:
                refused = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode("ascii", "replace")
        if told is None or refused is not None:
            error = psycopg.DatabaseError("COPY broke off")
            error.sqlstate = refused or None
            raise error
        return int(told)
