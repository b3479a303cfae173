"""What Python users may lean on: about ten names, light to import, usable in ten lines."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sflam

NAMES = [
    *("Callback", "FleetAround"),
    *("Job", "MlflowCallback", "Recording", "Result", "RoundRecord", "SflamError", "WandbCallback"),
    *(
        "draw_accuracy",
        "draw_cost",
        "generate",
        "load",
        "model_folder",
        "plan_network",
        "predict",
        "read_runs",
    ),
    *(
        f"register_{kind}"
        for kind in ("allocator", "family", "loss", "method", "metric", "partition", "policy", "quantizer")
    ),
    *("replay", "resume", "start", "train"),
]


def test_the_public_names_are_these() -> None:
    """A name added, removed or renamed is a decision, not an accident."""
    assert sflam.__all__ == NAMES
    assert set(NAMES) <= set(dir(sflam))
    for name in NAMES:
        assert getattr(sflam, name).__doc__, name


def test_no_public_name_is_hidden_by_a_module_of_that_name() -> None:
    """Importing ``sflam.x`` binds the module to ``x``; where x is a function too, its second use would fail."""
    import sflam.run.predict
    import sflam.run.replay
    import sflam.run.start

    for name in NAMES * 2:
        assert not inspect.ismodule(getattr(sflam, name)), name
    assert {path.stem for path in Path(sflam.__file__).parent.iterdir()} & set(NAMES) == set()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sflam' has no attribute 'trian'"):
        _ = sflam.trian


def test_importing_loads_nothing_heavy_until_a_name_is_used() -> None:
    code = (
        "import sys, sflam\n"
        "heavy = {'torch', 'transformers', 'peft', 'sklearn', 'matplotlib'}\n"
        "first = sorted(heavy & set(sys.modules))\n"
        "sflam.load(None, ['learn.rounds=3']), sflam.Job(), sflam.SflamError, sflam.RoundRecord\n"
        "print(first, sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] []\n"


def test_every_public_function_takes_paths_as_text_or_path() -> None:
    for name, parameter in (
        ("load", "path"),
        ("start", "folder"),
        ("resume", "folder"),
        ("predict", "run_dir"),
    ):
        assert str(inspect.signature(getattr(sflam, name)).parameters[parameter].annotation).startswith(
            "str | Path"
        )


def test_the_ten_lines_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import sflam\n.*?)```", readme, re.DOTALL)
    short = '["learn.local_steps=1", "fleet.devices=3", "learn.rounds=1", '
    assert code.count('["learn.rounds=10", ') == 1
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {}
    exec(code.replace('["learn.rounds=10", ', short), known)
    assert isinstance(known["result"], sflam.Result)
    assert (tmp_path / known["result"].run_dir / "adapter" / "adapter_model.safetensors").is_file()


def test_resume_and_errors_from_python(small: tuple[str, ...], tmp_path: Path) -> None:
    job = sflam.load(None, small)
    begun = sflam.start(job, str(tmp_path / "run"))
    first = next(begun.rounds())
    assert isinstance(first, sflam.RoundRecord) and first.round == 0
    resumed = sflam.resume(str(tmp_path / "run"))
    assert resumed.records == [first] and [item.round for item in resumed.rounds()] == [1]
    with pytest.raises(sflam.SflamError, match="already holds a run"):
        sflam.start(job, str(tmp_path / "run"))
    with pytest.raises(ValueError, match="unknown section"):
        sflam.load(None, ["lern.rounds=1"])
