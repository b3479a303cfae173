"""What optimisers remember of the rows that are away: in memory, or in pages of a file, so that memory does not grow.

A row's momenta are one page. A page that a kept checkpoint may lead to is never written again: a row that trained gets
another page, and the checkpoint tells with its table which page is whose. So the file may hold anything where a process
was killed while it wrote: no checkpoint leads there. A page is free once the checkpoints have gone that led to it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sflam.errors import RunError
from sflam.files import ANYONE, reading, sync_folder, write_all, writing

RowState = dict[str, Any]
"""What an optimiser remembers of one row: momenta, and how many steps it took."""
BLOCK = 4096
"""Pages begin at multiples of it: writing one touches no block of another."""


class Moments:
    """Momenta of absent rows, in memory: where there is no run folder. A row is here or with its optimiser."""

    def __init__(self) -> None:
        self._rows: dict[int, RowState] = {}

    def give(self, row: int, own: RowState, *, changed: bool) -> None:
        """Keep what the optimiser remembers of a row that goes; ``changed`` since the last :meth:`state`, or not."""
        self._rows[row] = own

    def take(self, row: int) -> RowState | None:
        """Return what is kept of a row that comes; None where it never trained."""
        return self._rows.pop(row, None)

    def state(self, here: Mapping[int, RowState], changed: set[int]) -> dict[str, Any]:
        """Return what must survive a crash.

        Args:
            here: rows that are with their optimiser.
            changed: those that took a step since the last call.
        """
        return {str(row): own for row, own in sorted((dict(here) | self._rows).items())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state` returned, all of it here."""
        self._rows = {int(row): own for row, own in state.items()}


@dataclass(frozen=True)
class PageLayout:
    """What a page holds, tensor after tensor: name, type and shape of each."""

    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, own: RowState) -> PageLayout:
        """Return that of a row."""
        arrays = {name: own[name].cpu().numpy() for name in sorted(own)}
        return cls(tuple((name, array.dtype.str, array.shape) for name, array in arrays.items()))

    @property
    def nbytes(self) -> int:
        """Bytes of a page that are used."""
        return sum(
            np.dtype(kind).itemsize * int(np.prod(shape, dtype=np.int64)) for _, kind, shape in self.tensors
        )

    @property
    def page_bytes(self) -> int:
        """Bytes from one page to the next."""
        return -(-self.nbytes // BLOCK) * BLOCK

    def packed(self, own: RowState) -> bytes:
        """Return the tensors of a row, end to end."""
        assert PageLayout.of(own) == self, "all rows of a side are alike"
        return b"".join(own[name].cpu().numpy().tobytes() for name, _, _ in self.tensors)

    def opened(self, body: bytes) -> RowState:
        """Return the row that :meth:`packed` packed."""
        found, start = {}, 0
        for name, kind, shape in self.tensors:
            count = int(np.prod(shape, dtype=np.int64))
            values = np.frombuffer(body, kind, count, start).reshape(shape).copy()
            found[name] = torch.from_numpy(values)
            start += values.nbytes
        return found


class PagedMoments(Moments):
    """Momenta of absent rows in a file.

    Args:
        path: of the file.
        kept: how many checkpoints are kept, each with what one call of :meth:`state` returned, or the same twice.
    """

    def __init__(self, path: Path, kept: int) -> None:
        super().__init__()
        self.path, self.kept = path, kept
        self._layout: PageLayout | None = None
        self._pages: dict[int, int] = {}  # of each row
        self._checks: dict[int, int] = {}  # CRC-32 of each row's page
        self._fresh: set[int] = set()  # pages no checkpoint leads to yet
        self._retired: list[tuple[int, int]] = []  # page, and the first table without it
        self._free: list[int] = []
        self._count = 0
        self._table = 0  # how many tables there were

    def give(self, row: int, own: RowState, *, changed: bool) -> None:
        """Write what the optimiser remembers of a row that goes, where its page does not hold that already."""
        if changed:
            with writing(self.path, "free space"), self._open() as file:
                self._write(file, row, own)

    def take(self, row: int) -> RowState | None:
        """Return what is kept of a row that comes.

        Raises:
            RunError: its page is damaged.
        """
        if row not in self._pages:
            return None
        assert self._layout is not None
        with reading(self.path, "put it back, or start a new run"), self.path.open("rb") as file:
            file.seek(self._pages[row] * self._layout.page_bytes)
            body = file.read(self._layout.nbytes)
        if zlib.crc32(body) != self._checks[row]:
            raise RunError(f"{self.path} is damaged (row {row}); put the right one back, or start a new run")
        return self._layout.opened(body)

    def state(self, here: Mapping[int, RowState], changed: set[int]) -> dict[str, Any]:
        """Write the rows that changed, wait until all is on disk, and return the table of pages."""
        with writing(self.path, "free space"):
            if changed or self._fresh:
                with self._open() as file:
                    for row in sorted(changed & here.keys()):
                        self._write(file, row, here[row])
                    os.fsync(file)
                for folder in (self.path.parent, self.path.parent.parent):
                    sync_folder(folder)
        if self._fresh:
            self._fresh.clear()
            self._table += 1
            # Before the next table is on disk the kept checkpoints have this one and those before it.
            gone = {page: None for page, first in self._retired if first <= self._table + 1 - self.kept}
            self._free += gone
            self._retired = [one for one in self._retired if one[0] not in gone]
        rows = sorted(self._pages)
        return {
            "layout": [] if self._layout is None else [[n, k, list(s)] for n, k, s in self._layout.tensors],
            "rows": torch.tensor(rows, dtype=torch.int64),
            "pages": torch.tensor([self._pages[row] for row in rows], dtype=torch.int64),
            "checks": torch.tensor([self._checks[row] for row in rows], dtype=torch.int64),
            "retired": [list(one) for one in self._retired],
            "table": self._table,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state` returned; what was written since is forgotten.

        Raises:
            ValueError: the file is shorter than its table.
        """
        if "layout" not in state:  # of a run whose momenta were in its checkpoints
            for row, own in state.items():
                self.give(int(row), own, changed=True)
            return
        self._layout = (
            PageLayout(tuple((n, k, tuple(s)) for n, k, s in state["layout"])) if state["layout"] else None
        )
        rows = state["rows"].tolist()
        self._pages = dict(zip(rows, state["pages"].tolist(), strict=True))
        self._checks = dict(zip(rows, state["checks"].tolist(), strict=True))
        self._retired = [(int(page), int(first)) for page, first in state["retired"]]
        self._table, self._fresh = int(state["table"]), set()
        taken = {*self._pages.values(), *(page for page, _ in self._retired)}
        self._count = 1 + max(taken, default=-1)
        self._free = sorted(set(range(self._count)) - taken, reverse=True)
        if self._layout and (not self.path.is_file() or self.path.stat().st_size < self._last_byte()):
            raise ValueError(f"{self.path} does not hold the momenta of its devices")

    def _last_byte(self) -> int:
        assert self._layout is not None
        return max(self._pages.values(), default=-1) * self._layout.page_bytes + self._layout.nbytes

    @contextmanager
    def _open(self) -> Iterator[int]:
        """Yield the file, open for writing; what an earlier process left is none of this run's without its table."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | (0 if self._count else os.O_TRUNC)
        file = os.open(self.path, flags, ANYONE)
        try:
            yield file
        finally:
            os.close(file)

    def _write(self, file: int, row: int, own: RowState) -> None:
        layout = self._layout = self._layout or PageLayout.of(own)
        page = self._pages.get(row)
        if page is None or page not in self._fresh:
            if page is not None:
                self._retired.append((page, self._table + 1))
            page = self._free.pop() if self._free else self._count
            self._count = max(self._count, page + 1)
            self._fresh.add(page)
        body = layout.packed(own)
        os.lseek(file, page * layout.page_bytes, os.SEEK_SET)
        write_all(file, body)
        self._pages[row], self._checks[row] = page, zlib.crc32(body)
