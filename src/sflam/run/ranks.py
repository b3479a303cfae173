"""Several processes that train one job: those that torchrun started, or those that ``--ranks`` starts on this host.

Rank 0 runs the command. The others assemble the job that it names, do as it orders, and print nothing unless rank 0
has gone without a word.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sflam.config import Job, load
from sflam.errors import ConfigError, RanksError, SflamError
from sflam.learn.world.world import ALONE, World
from sflam.run.compatibility import check
from sflam.run.ranks_check import check_ranks

if TYPE_CHECKING:
    from sflam.learn.world.process_group import ProcessGroup

ENDING_S = 10.0
"""How long rank 0 waits for the ranks it started."""
HERE = "127.0.0.1"


def quieten() -> None:
    """Keep torch from reporting what an exchange that broke does in C++; before torch is imported."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def follows() -> bool:
    """Return whether this process is one of several, and not the first."""
    return ranks_running() > 1 and int(os.environ["RANK"]) > 0


def restarted() -> bool:
    """Return whether torchrun started this process again after one of them was lost."""
    return ranks_running() > 1 and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def together(ranks: int | None, job: Job | None = None) -> Iterator[World]:
    """Lead the ranks of a command: those of torchrun, or as many as are asked for; yield what rank 0 is to use.

    Args:
        ranks: how many are asked for; None for those of torchrun, or one.
        job: what they are to train, where that is known yet.

    Raises:
        ConfigError: ranks are asked for that cannot be, or that cannot train the job.
    """
    size = ranks_running()
    if ranks is not None and ranks < 1:
        raise ConfigError(f"--ranks is {ranks}; it must be at least 1")
    if ranks is not None and size > 1 and ranks != size:
        raise ConfigError(f"--ranks is {ranks}, but torchrun started {size} processes; leave out --ranks")
    if size == 1 and (ranks or 1) == 1:
        yield ALONE
        return
    if job is not None:
        check(job)
        check_ranks(job, max(size, ranks or 1))
    quieten()
    if size > 1:
        with _led(_of_torchrun()) as world:
            yield world
    else:
        assert ranks is not None
        with _started(ranks) as world:
            yield world


def follow() -> None:
    """Do as rank 0 orders, until it ends the run.

    Raises:
        SystemExit: another rank has ended, or this one failed.
    """
    quieten()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts all of them: rank 0 ends the run
    world = _of_torchrun()
    try:
        _obey(world)
        world.close()
    except RanksError as error:
        alive = [rank for rank in range(world.size) if rank not in error.ended]
        if 0 in error.ended and world.rank == min(alive):
            print(f"sflam: {error}; go on with sflam train --resume and the run's folder", file=sys.stderr)
        raise SystemExit(2) from None
    except SflamError as error:
        world.fail(error)
        raise SystemExit(2) from None
    except BaseException as error:
        world.fail(error)
        raise


def _obey(world: World) -> None:
    from sflam.learn.world.fleet import ORDER, Follower
    from sflam.run.assemble import assembled
    from sflam.run.job_model import backbone_for

    assembly: Any = None
    follower: Any = None
    while (order := world.first()) and (name := order.pop(ORDER)) != "end":
        if name == "assemble":
            assembly = assembled(load(None, order["job"]), world)
            follower = Follower(assembly.halves, world)
        elif name == "lend":
            world.wait_long()
            assembly = backbone_for(load(None, order["job"]), order["kind"], order["classes"], world=world)
        elif name == "scored":
            assembly.scored(**order)
        else:
            getattr(follower, name)(**order)


@contextmanager
def _led(world: ProcessGroup) -> Iterator[World]:
    from sflam.learn.world.fleet import ORDER

    try:
        yield world
        world.first({ORDER: "end"})
        world.close()
    except RanksError:
        world.close()
        raise
    except BaseException as error:
        world.fail(error)
        raise


@contextmanager
def _started(ranks: int) -> Iterator[World]:
    """Start the ranks beside this process, each in a process that reads nothing, and see them end."""
    import torch.distributed as dist
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    from sflam.learn.world.process_group import ProcessGroup

    if not dist.is_available():
        raise ConfigError("--ranks needs a torch with torch.distributed; train on one rank")
    store = dist.TCPStore(HERE, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    common = {
        "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_ADDR": HERE, "MASTER_PORT": store.port,
        "TORCHELASTIC_USE_AGENT_STORE": True,
    }  # fmt: skip
    others = []
    try:
        for rank in range(1, ranks):
            own = {name: str(value) for name, value in (common | {"RANK": rank, "LOCAL_RANK": rank}).items()}
            words = [sys.executable, "-m", "sflam", "train"]
            others.append(subprocess.Popen(words, env=os.environ | own, stdin=subprocess.DEVNULL))
        with _led(ProcessGroup(PrefixStore("attempt-0", store), 0, ranks, ranks)) as world:
            yield world
    finally:
        for other in others:
            try:
                other.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                other.kill()
                other.wait()


def _of_torchrun() -> ProcessGroup:
    """Join the processes that the environment names, as torchrun does.

    Raises:
        ConfigError: it names them in part, as where RANK and WORLD_SIZE are another program's.
    """
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    from sflam.learn.world.process_group import ProcessGroup

    try:
        store, rank, size = next(iter(rendezvous("env://")))
    except ValueError as error:
        reason = str(error).rpartition("environment variable ")[2]
        raise ConfigError(
            f"RANK and WORLD_SIZE are set, as torchrun does, but the other processes cannot be found ({reason}); start "
            "with torchrun, or unset both"
        ) from None
    # torchrun's store outlives the processes: those it starts again would meet at the addresses of the lost ones.
    attempt = PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    return ProcessGroup(attempt, rank, size, int(os.environ.get("LOCAL_WORLD_SIZE", str(size))))


def ranks_running() -> int:
    """Return how many processes torchrun started together, or 1; raises ConfigError for numbers that are none."""
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "1")
    if not rank:
        return 1
    if not (rank.isdecimal() and size.isdecimal()):
        raise ConfigError(
            f"RANK is {rank!r} and WORLD_SIZE {size!r}, no numbers; start with torchrun, or unset both"
        )
    return int(size)
