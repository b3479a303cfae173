"""What the tests of whole runs share: a tiny model, a few samples, the command line in this process."""

from __future__ import annotations

import gc
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, fields, is_dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test asks the network, nor waits until it is given up

# The suite draws the same cases every time; HYPOTHESIS_PROFILE=explore looks for others.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Seconds on one core; whatever a test is about is set on top.
SHORT = ("learn.rounds=2", "learn.local_steps=2", "learn.batch=4", "fleet.devices=3", "learn.device=cpu")
# A PNG of one white pixel: what stands for a chart that no test looks at.
DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a4944415478da63f80f00010101"
    "001cb08c990000000049454e44ae426082"
)


@dataclass(frozen=True)
class CommandOutput:
    """What a command left: its exit code, and the lines it wrote."""

    code: int
    out: list[str]
    err: list[str]


Cli = Callable[..., CommandOutput]
Edit = Callable[[Path], object]


def files(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(output: CommandOutput, *sentences: str) -> None:
    """These problems were reported, a line each, and nothing else beside notes and progress."""
    errors = [line for line in output.err if not line.startswith(("note: ", "round "))]
    assert (output.code, output.out, len(errors)) == (2, [], len(sentences)), errors
    for sentence in sentences:
        assert any(line.startswith("sflam: ") and re.search(sentence, line) for line in errors), (
            sentence,
            errors,
        )


def cut_short(name: str, share: float) -> Edit:
    """Return the edit that leaves the first part of a file."""

    def edit(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: int(share * len(raw))])

    return edit


def replaced(name: str, old: str, new: str) -> Edit:
    """Return the edit that replaces a text that must be there."""

    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return edit


def written(name: str, content: str | bytes) -> Edit:
    """Return the edit that replaces a file."""
    return lambda folder: (folder / name).write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import all tests without garbage collection, which would walk the libraries again and again: half of the time.

    What the libraries keep is left out of every later collection.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Nothing waits for the disk, half of the time of a tiny run: no test cuts the power of this machine.

    Tests that count these calls, or let them fail, do so in place of this; processes of their own wait.
    """

    def fsync(file: Any) -> None:
        os.fstat(
            file if isinstance(file, int) else file.fileno()
        )  # fails as fsync does where nothing is open

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run the real command line in this process; a traceback is a failure of the test."""
    from sflam.cli import main

    def run(*arguments: object) -> CommandOutput:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["sflam", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        output = capsys.readouterr()
        return CommandOutput(left.value.code or 0, output.out.splitlines(), output.err.splitlines())

    return run


def sets(*settings: str) -> list[str]:
    """Return the command line's ``--set`` options."""
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture
def forget() -> Iterator[Callable[[], None]]:
    """Take back what a test registers, at its end or when it calls this, as if in a new process."""
    from sflam import plugins, registry
    from sflam.allocate.registry import CELL_METHODS
    from sflam.codec.quantizers import QUANTIZERS
    from sflam.codec.torch_quantizers import TORCH_QUANTIZERS
    from sflam.data.partition import PARTITIONS
    from sflam.learn.methods import METHODS
    from sflam.learn.metrics import METRICS
    from sflam.learn.settings.practice import BUNDLES
    from sflam.model.architecture import LIKE, READERS
    from sflam.model.families import FAMILIES
    from sflam.model.losses import LOSSES
    from sflam.simulate.policies import POLICIES

    tables: list[MutableMapping[str, Any]] = [
        *(
            CELL_METHODS,
            QUANTIZERS,
            TORCH_QUANTIZERS,
            METHODS,
            BUNDLES,
            POLICIES,
            LOSSES,
            METRICS,
            PARTITIONS,
            FAMILIES,
            READERS,
            LIKE,
        ),
        *(plugins.LOADED, *registry.OWN.values()),
    ]
    before, modules = [dict(table) for table in tables], set(sys.modules)

    def back() -> None:
        for table, kept in zip(tables, before, strict=True):
            table.clear()
            table.update(kept)
        registry.FROM_PLUGINS.clear()
        for name in [name for name in sys.modules if "plugin" in name and name not in modules]:
            del sys.modules[name]

    yield back
    back()


Save = Callable[["Figure", Path], None]


def kind_of(value: object) -> object:
    """Return all of a value but its numbers, of which it tells what they are: whole, finite, above or below zero."""
    if isinstance(value, str):
        return re.sub(r"\d[\d.]*", "0", value)
    if isinstance(value, bool | None):
        return value
    if isinstance(value, Real):
        finite = math.isfinite(value)
        return finite, value > 0, value < 0, finite and value == int(value)
    if isinstance(value, Mapping):
        return tuple((key, kind_of(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(kind_of, value))
    assert is_dataclass(value), f"how {type(value)} is drawn is not known"
    return type(value), tuple(kind_of(getattr(value, field.name)) for field in fields(value))


@pytest.fixture(scope="session")
def unrendered() -> Iterator[Save]:
    """Charts of runs are built and their files written, but not rendered; yields the real save.

    Of points that differ in nothing but their numbers a chart is built once. Both were most of a tiny run.
    """
    from sflam.files import replace_file, writing
    from sflam.report.charts import curves, figure, partition
    from sflam.report.charts.tidy import points_of
    from sflam.run import finish, replay

    def curve_panels(records: Any, *, method: str, devices: object = ()) -> list[Any]:
        return curves.curve_panels(records, method) if records else []

    def partition_panels(record: Any) -> list[Any]:
        return [partition.partition_panel(record)]

    def save(_: Figure | None, path: Path) -> None:
        with writing(path, "choose another folder"):
            replace_file(path, DOT)

    def once(draw: Callable[..., Figure], panels: Callable[..., list[Any]]) -> Callable[..., Figure | None]:
        built: set[object] = set()

        def drawn(data: object, *, title: str = "", **more: object) -> Figure | None:
            shown = panels(data, **more)
            kind = kind_of((tuple(points_of(shown)), more, len(title)))
            if figure.save is save and kind in built:
                return None
            if any(points_of(shown)):  # discs are not known by their points
                built.add(kind)
            return draw(data, title=title, **more)

        return drawn

    real = figure.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure, "save", save)
        patch.setattr(finish, "draw_partition", once(finish.draw_partition, partition_panels))
        patch.setattr(finish, "draw_curves", drawn := once(finish.draw_curves, curve_panels))
        patch.setattr(replay, "draw_curves", drawn)
        yield real


@pytest.fixture
def rendered(unrendered: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are rendered in this test."""
    monkeypatch.setattr("sflam.report.charts.figure.save", unrendered)


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory, unrendered: Save) -> Path:
    """A folder with a tiny ViT in ``vit/`` and sixty digits in ``digits.npz``; charts are not rendered."""
    import torch

    from sflam.data.sources import digits
    from sflam.model.backbone import quiet
    from tests.tiny import tiny

    folder = tmp_path_factory.mktemp("room")
    with quiet():
        tiny("vit", dtype=torch.float32).model.save_pretrained(folder / "vit")
    whole = digits()
    np.savez(folder / "digits.npz", image=whole.inputs[:60], label=whole.labels[:60])
    return folder


@pytest.fixture(scope="session")
def small(room: Path) -> tuple[str, ...]:
    """Settings of a run on the tiny model: a fraction of a second a round."""
    return (*SHORT, f"model.name={room / 'vit'}", f"data.name={room / 'digits.npz'}", "model.rank=2")


@pytest.fixture(scope="session")
def finished(small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; its owner keeps it as it is."""
    import sflam
    from sflam import config

    folder = tmp_path_factory.mktemp("runs") / "run"
    sflam.train(config.load(None, small), folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"
