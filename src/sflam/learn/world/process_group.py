"""The ranks of a job as a process group of torch: gloo between CPUs, NCCL between GPUs of their own.

Nested values travel as bytes, unpickled. A rank that fails leaves its reason in the group's store and ends, which
breaks the others' exchanges: they read the reason in the store, and no rank waits for one that is gone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from sflam import errors
from sflam.errors import RanksError, SflamError
from sflam.learn.nested import packed, unpacked
from sflam.learn.world.world import World, dealt

PATIENCE = timedelta(hours=2)
"""Longest wait for a rank that has not closed its connection: it works, rank 0 plans or writes, or its host is gone."""
LONG = timedelta(days=365)
"""The same where ranks only lend memory to a server."""
REASON_S = 2.0
"""How long a reason may come after the break it is of."""


class ProcessGroup(World):
    """Ranks over torch.distributed.

    Args:
        store: by which ranks find each other.
        rank: which this one is.
        size: how many there are.
        local: ranks on this host.

    Attributes:
        gpus: whether every rank of this host has a GPU of its own.
        idle: called before anything is exchanged: what a rank that waits for others may do for them.
    """

    def __init__(self, store: Any, rank: int, size: int, local: int) -> None:
        self.rank, self.size, self._store = rank, size, store
        self.idle: Callable[[], None] = lambda: None
        self._callers: Any = None
        gpus = torch.cuda.device_count()
        self.gpus = dist.is_nccl_available() and gpus >= local
        if gpus:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)) % gpus)
        if "OMP_NUM_THREADS" not in os.environ:  # ranks of one host share its cores
            torch.set_num_threads(max(1, torch.get_num_threads() // local))
        with self.watched():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if self.gpus else "gloo",
                store=dist.PrefixStore("group", store),  # type: ignore[attr-defined]
                rank=rank,
                world_size=size,
                timeout=PATIENCE,
            )

    def mine(self, devices: Sequence[int], loads: Callable[[], Mapping[int, int]]) -> list[int]:
        """Return the devices of this rank; every rank deals them out alike."""
        return dealt(loads(), self.size)[self.rank]

    def first(self, value: Any = None) -> Any:
        """Return rank 0's value on every rank."""
        self.idle()
        leads = self.rank == 0
        body = packed(value) if leads else b""
        length = torch.tensor([len(body)])
        with self.watched():
            dist.broadcast(length, 0)
            found = _bytes(body, int(length))
            dist.broadcast(found, 0)
        return value if leads else unpacked(found.numpy().tobytes())

    def collect(self, own: Any) -> list[Any]:
        """Return the values of all ranks on rank 0."""
        body, lengths = self._lengths(own)
        leads = self.rank == 0
        padded = _bytes(body, max(lengths))
        found = [torch.empty_like(padded) for _ in lengths] if leads else None
        with self.watched():
            dist.gather(padded, found, 0)
        return _opened(found or [], lengths)

    def gather(self, own: Any) -> list[Any]:
        """Return the values of all ranks on every rank."""
        body, lengths = self._lengths(own)
        padded = _bytes(body, max(lengths))
        found = [torch.empty_like(padded) for _ in lengths]
        with self.watched():
            dist.all_gather(found, padded)
        return _opened(found, lengths)

    def each(self, number: int) -> list[int]:
        """Return the numbers of all ranks on every rank; no rank is idle first."""
        found = torch.zeros(self.size, dtype=torch.int64)
        found[self.rank] = number
        with self.watched():
            dist.all_reduce(found, group=self._callers)
        numbers: list[int] = found.tolist()
        return numbers

    def sum(self, tensor: Tensor) -> None:
        """Add a tensor up over all ranks, in place; through the CPU where ranks share GPUs."""
        self.idle()
        here = tensor if tensor.device.type == "cpu" or self.gpus else tensor.cpu()
        with self.watched():
            dist.all_reduce(here)
        if here is not tensor:
            tensor.copy_(here)

    def wait_long(self) -> None:
        """Let :meth:`each` wait for as long as a server may be without devices; every rank calls it at once."""
        with self.watched():
            self._callers = dist.new_group(backend="gloo", timeout=LONG)

    def fail(self, error: BaseException) -> None:
        """Leave the reason why this rank ends, for the others."""
        known = isinstance(error, SflamError)
        reason = {
            "type": type(error).__name__ if known else "",
            "text": str(error) if known else _line(f"{type(error).__name__}: {error}"),
            "diverged": list(getattr(error, "devices", ())),
        }
        with suppress(RuntimeError):  # the store may have gone with rank 0
            self._store.set(f"failed/{self.rank}", json.dumps(reason))
        self.close()

    def close(self) -> None:
        """Leave the group."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def _lengths(self, own: Any) -> tuple[bytes, list[int]]:
        self.idle()
        body = packed(own)
        return body, self.each(len(body))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turn an exchange that broke into the reason why."""
        try:
            yield
        except RuntimeError as error:
            self._raise(error)

    def _raise(self, broken: RuntimeError) -> NoReturn:
        """Raise what ended another rank, as far as it left word; otherwise name those that left none."""
        self.close()
        others = [rank for rank in range(self.size) if rank != self.rank]
        until = time.monotonic() + REASON_S
        try:
            self._store.set(f"broken/{self.rank}", "1")
            while True:
                for rank in others:
                    if self._store.check([f"failed/{rank}"]):
                        raise _reason(
                            rank, self.size, json.loads(self._store.get(f"failed/{rank}"))
                        ) from None
                silent = [rank for rank in others if not self._store.check([f"broken/{rank}"])]
                if time.monotonic() > until:
                    break
                time.sleep(0.05)
        except RuntimeError:
            silent = [0]  # the store went with it
        if silent:
            named = f"rank{'s' * (len(silent) > 1)} {', '.join(map(str, silent))} of {self.size}"
            raise RanksError(f"{named} ended without a word", silent) from None
        raise RanksError(f"the connection between the {self.size} ranks broke ({_line(broken)})") from broken


def _reason(rank: int, size: int, found: Mapping[str, Any]) -> SflamError:
    kind = getattr(errors, found["type"], None)
    if isinstance(kind, type) and issubclass(kind, SflamError):
        error = kind(found["text"])
        error.devices = tuple(found["diverged"])  # type: ignore[attr-defined]
        return error
    return RanksError(f"rank {rank} of {size} failed ({found['text']})")


def _bytes(body: bytes, length: int) -> Tensor:
    """Return bytes as uint8 [length], zero beyond their end."""
    found = torch.zeros(length, dtype=torch.uint8)
    if body:
        found[: len(body)] = torch.frombuffer(bytearray(body), dtype=torch.uint8)
    return found


def _opened(found: Sequence[Tensor], lengths: Sequence[int]) -> list[Any]:
    return [unpacked(own[:n].numpy().tobytes()) for own, n in zip(found, lengths, strict=False)]


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200]
