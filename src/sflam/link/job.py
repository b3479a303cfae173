"""A served job as a device finds it: what the server says of it, checked, and its files, fetched once."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sflam import config
from sflam.config import Job
from sflam.errors import ServeError
from sflam.files import replace_file, replacing, writing
from sflam.link.contract import PROTOCOL
from sflam.link.https_client import LARGEST, Link
from sflam.plugins import pin_of
from sflam.sizes import FLOAT_BITS, MAX_BITS, MIN_BITS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ELSEWHERE = "choose another --folder"


@dataclass(frozen=True)
class ServedJob:
    """What the server says of the job.

    Attributes:
        run: name of the run.
        device: this device's number.
        cut: blocks it keeps.
        bits: per value up and down.
        bits_adapters: per adapter value up; 32 for floats.
        task: what the loss is.
        classes: names of the labels, in the order of their numbers.
        fresh: newly initialised layers of the head.
        scheme: name of the quantizer.
        segment: name of the file with its part of the model.
        graphs: name and SHA-256 of the file with the same part as graphs, for a device without torch; None where
            there is none.
        graphs_refused: why there is none.
        files: name -> SHA-256, in hexadecimal, of every file it may need.
        plugins: names and hashes of what the job needs.
        job: the job file as TOML.
        sizes: name -> bytes of every file it may need; no file may turn out larger.
        trained: weights that this device trains.
        body: bytes of the largest body there can be.
        digest: of all of this, as the server names the job when it is asked for the round.
        dim: hidden size of the model.
        moved: how often the device's cut was moved since the run began.
        layout: where the parts of a model are that was split by its structure, unchecked; None for known families.
    """

    run: str
    device: int
    cut: int
    bits: tuple[int, int]
    bits_adapters: int
    task: str
    classes: tuple[str, ...]
    fresh: tuple[str, ...]
    scheme: str
    segment: str
    graphs: tuple[str, str] | None
    graphs_refused: str
    files: dict[str, str]
    plugins: tuple[str, ...]
    job: str
    sizes: dict[str, int]
    trained: int
    body: int
    dim: int
    layout: Any = None
    moved: int = 0
    digest: str = ""

    def settings(self, folder: Path) -> Job:
        """Return the job's settings, written to ``folder``; plug-ins that they name are not loaded.

        Raises:
            ServeError: the folder holds a link, which could lead out of it, or cannot be written.
            ConfigError: they cannot be.
        """
        expect_no_links(folder)
        with writing(folder, ELSEWHERE, ServeError):
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / "job.toml", self.job.encode())
        job = config.load(folder / "job.toml", run_plugins=False)
        # Paths that a server names lead nowhere here; of [data] the device's own user decides.
        return replace(job, model=replace(job.model, name="served", adapter=""))

    def fetch(self, link: Link, cache: Path, names: Sequence[str] | None = None) -> None:
        """Download files that ``cache`` does not hold; all by default. Raises ServeError as :func:`fetch` does."""
        with writing(cache, ELSEWHERE, ServeError):
            cache.mkdir(parents=True, exist_ok=True)
        for name in self.files if names is None else names:
            if name not in self.files:
                raise ServeError(
                    f"the server names no file {name[:60]!r}; use the same version on both sides"
                )
            fetch(link, cache, name, self.files[name], most=self.sizes.get(name, LARGEST))


def described(link: Link, plugins: Sequence[str] = ()) -> ServedJob:
    """Return the server's description of the job.

    Args:
        link: the way to the server.
        plugins: resolved names of those that the device loaded.

    Raises:
        ServeError: the server speaks another protocol, the description is malformed, or the job needs other plug-ins.
    """
    description = link.json("GET", "/v1/job")
    if not isinstance(description, dict) or description.get("protocol") != PROTOCOL:
        theirs = description if isinstance(description, dict) else {}
        raise ServeError(
            f"the server (sflam {str(theirs.get('version', 'of another kind'))[:30]}) speaks protocol "
            f"{str(theirs.get('protocol', 'unknown'))[:10]}, this device (sflam {version('sflam')}) {PROTOCOL}; use "
            "the same version of sflam on both sides"
        )
    named = description.get("plugins", [])
    expect_plugins(named, plugins)
    try:
        up, down = map(int, description["bits"])
        return ServedJob(
            run=str(description["run"]),
            device=int(description["device"]),
            cut=int(description["cut"]),
            bits=(up, down),
            bits_adapters=_adapter_bits(description.get("bits_adapters", FLOAT_BITS)),
            task=str(description["task"]),
            classes=tuple(map(str, description["classes"])),
            fresh=tuple(map(str, description["fresh"])),
            scheme=str(description["scheme"]),
            segment=_name(str(description["segment"])),
            graphs=_named(description.get("graphs")),
            graphs_refused=str(description.get("graphs_refused") or "")[:300],
            files={_name(str(name)): str(sha256) for name, sha256 in description["files"].items()},
            plugins=tuple(named),
            job=str(description["job"]),
            sizes={_name(str(name)): _count(size) for name, size in description.get("sizes", {}).items()},
            trained=_count(description.get("trained", 0)),
            body=_count(description.get("body", 0)),
            dim=_count(description.get("dim", 0)),
            layout=description.get("layout"),
            moved=_count(description.get("moved", 0)),
            digest=job_digest(description),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, ServeError):
            raise
        raise ServeError(
            f"the server's description of the job lacks {error}; use the same version on both sides"
        ) from error


def job_digest(description: Mapping[str, Any]) -> str:
    """Return the digest of a description, by which both sides name a job; bits may change from round to round."""
    named = {key: value for key, value in description.items() if key != "bits"}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def expect_plugins(named: Any, own: Sequence[str]) -> None:
    """Raise ServeError unless the plug-ins that a server's job names are among a device's own, with the same content.

    Args:
        named: names and hashes, as the server reports them.
        own: resolved names of those that the device loaded.
    """
    if not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise ServeError("the server's list of plug-ins is malformed; use the same version on both sides")
    pins = {pin_of(name) for name in own}
    for name in named:
        if pin_of(name) in pins:
            continue
        file, _, pin = name[:200].partition("#")
        raise ServeError(
            f"the job needs the plug-in {file!r} ({pin[:19]}), and a device loads no code that a server names; get it "
            "from a source you trust, read it, and give it with --plugin"
        )


def fetch(
    link: Link, cache: Path, name: str, sha256: str, *, most: int = LARGEST, at: str = "/v1/files"
) -> None:
    """Download a file of at most ``most`` bytes from the paths beneath ``at``, unless ``cache`` holds it.

    Raises:
        ServeError: what came is not what was announced.
    """
    path = cache / _name(name)
    if path.is_file():
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return
    with writing(path, ELSEWHERE, ServeError), replacing(path) as file:
        if link.download(f"{at}/{name}", file, most=most) != sha256:
            raise ServeError(f"{name} came damaged; join again")


def expect_no_links(folder: Path) -> None:
    """Raise ServeError where a device's folder, or anything in it, is a link that could lead out of it."""
    inside = [Path(at, name) for at, below, names in os.walk(folder) for name in (*below, *names)]
    for path in inside:
        if path.is_symlink():
            raise ServeError(
                f"{path} is a link, and a device reads and writes within its own folder alone; remove it, or choose "
                "another --folder"
            )


def _count(found: Any) -> int:
    """Return a number that a server announces; raises ValueError for one that is none."""
    if type(found) is not int or not 0 <= found < 1 << 62:
        raise ValueError(f"a whole number where {str(found)[:30]!r} stands")
    return found


def _adapter_bits(found: Any) -> int:
    """Return the bits in which adapters go up; raises ValueError for a width that there is not."""
    if type(found) is not int or not (MIN_BITS <= found <= MAX_BITS or found == FLOAT_BITS):
        raise ValueError(f"bits of adapters, where {str(found)[:30]!r} stands")
    return found


def _named(found: Any) -> tuple[str, str] | None:
    """Return name and hash of a file that may be missing."""
    return None if found is None else (_name(str(found["name"])), str(found["sha256"]))


def _name(name: str) -> str:
    """Return the name of a file; raises ServeError unless it is one within a folder."""
    if not NAME.fullmatch(name):
        raise ServeError(
            f"the server names a file {name[:60]!r}; names are letters, digits, '.', '_' and '-'"
        )
    return name
