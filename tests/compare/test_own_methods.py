"""Own methods in the processes of ``compare --jobs``: their modules are imported, or one sentence says why not."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from sflam.allocate.registry import CELL_METHODS
from sflam.codec.quantizers import QUANTIZERS
from sflam.codec.torch_quantizers import TORCH_QUANTIZERS
from sflam.registry import OWN
from sflam.simulate.policies import POLICIES
from tests.conftest import Cli, assert_refused, sets

NAME = "methods_of_a_user"
MODULE = """
from sflam.allocate.registry import CELL_METHODS, register
from sflam.codec.torch_quantizers import register as register_quantizer
from sflam.codec.uniform import Uniform
from sflam.simulate.policies import POLICIES, register as register_policy

class Own(Uniform):
    name = "own"

register("mine", CELL_METHODS["equal"])
register_quantizer(Own())
register_policy("first", POLICIES["loss"])
"""


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Take back what a test registers."""
    tables: list[MutableMapping[str, Any]] = [
        CELL_METHODS,
        QUANTIZERS,
        TORCH_QUANTIZERS,
        POLICIES,
        *OWN.values(),
    ]
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)
    sys.modules.pop(NAME, None)


@pytest.fixture
def words(small: tuple[str, ...], tmp_path: Path) -> list[str]:
    """A comparison of two runs that need all three, two at once."""
    own = ("quant.scheme=own", "fleet.selected=2", "fleet.policy=first", "learn.rounds=1")
    return [
        "compare",
        *sets(*small, *own),
        "--methods",
        "sflam+mine,sfl-v2",
        "--jobs",
        "2",
        "--json",
        "--out",
        str(tmp_path / "out"),
    ]


def test_a_module_that_registers_is_imported_in_every_process(
    cli: Cli, words: list[str], forgotten: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{NAME}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(NAME)
    done = cli(*words)
    assert done.code == 0, done.err
    assert list(json.loads(done.out[-1])["methods"]) == ["sflam+mine", "sfl-v2"]


def test_what_a_program_registers_itself_runs_in_its_own_process_alone(
    cli: Cli, words: list[str], forgotten: None
) -> None:
    exec(MODULE, {"__name__": "__main__"})
    assert_refused(
        cli(*words),
        "--jobs is 2, but mine, first and own are registered by the program itself, .* give --jobs 1, or register "
        "them in a module that the program imports",
    )


def test_a_module_that_no_process_can_import(cli: Cli, words: list[str], forgotten: None) -> None:
    exec(MODULE, {"__name__": "nowhere_to_be_found"})
    done = cli(*words)
    errors = [line for line in done.err if not line.endswith(": failed")]
    assert done.code == 2 and len(errors) == 1
    assert "nowhere_to_be_found, which registers own methods, cannot be imported" in errors[0]
