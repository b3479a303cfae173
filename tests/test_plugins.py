"""Plug-ins: loaded once, before settings are checked; pinned by their hash; found again when the original is gone."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

import sflam
from sflam import config, plugins
from sflam.errors import ConfigError, ModelError, RunError, ServeError
from sflam.link.job import expect_plugins
from sflam.records import history
from sflam.records.run_folder import RunFolder
from sflam.registry import OWN, own_modules
from tests.conftest import Cli, assert_refused, sets

Forget = Callable[[], None]

MINE = """
import sflam
from sflam.codec.uniform import Uniform

class Halved(Uniform):
    name = "halved"

    def encode(self, x, bits, seed):
        return super().encode(x / 2, bits, seed)

    def decode(self, packed):
        return super().decode(packed) * 2

sflam.register_quantizer(Halved())
sflam.register_policy("firsts", lambda known: tuple(range(known.settings.selected)))
"""
ALL = """
import sflam
from sflam.allocate.registry import CELL_METHODS
from sflam.learn.methods import METHODS

sflam.register_allocator("even", CELL_METHODS["equal"])
sflam.register_loss("own", lambda logits, targets, settings: None)
sflam.register_metric("own", len)
sflam.register_partition("own", len)
sflam.register_policy("own", len)
"""


def written(folder: Path, text: str = MINE, name: str = "mine.py") -> Path:
    """Return a job file whose plug-in lies beside it, in a folder below."""
    (folder / "plugs").mkdir(exist_ok=True)
    (folder / "plugs" / name).write_text(text)
    job = folder / "job.toml"
    job.write_text(f'plugins = ["plugs/{name}"]\n[quant]\nscheme = "halved"\n')
    return job


def test_a_file_beside_the_job_file_is_loaded_before_its_settings_are_checked(
    tmp_path: Path, forget: Forget
) -> None:
    job = sflam.load(written(tmp_path))
    sha256 = hashlib.sha256(MINE.encode()).hexdigest()
    assert job.plugins == (f"{tmp_path}/plugs/mine.py#sha256={sha256}",)
    assert job.quant.scheme == "halved" and set(OWN["policy"]) == {"firsts"}
    assert own_modules() == {}  # other processes load the file, not a module


def test_the_same_content_is_loaded_once(tmp_path: Path, forget: Forget) -> None:
    first = sflam.load(written(tmp_path))
    (tmp_path / "copy.py").write_text(MINE)
    again = sflam.load(None, [f'plugins=["{tmp_path}/copy.py"]', "quant.scheme=halved"])
    assert len(plugins.LOADED) == 1
    assert config.load(written(tmp_path)) == first and again.plugins[0].endswith(first.plugins[0][-64:])


def test_the_digest_knows_the_content_and_not_the_place(tmp_path: Path, forget: Forget) -> None:
    found = {}
    for name, text in (("here", MINE), ("there", MINE), ("changed", MINE + "\nTWO = 2\n")):
        forget()
        (tmp_path / name).mkdir()
        found[name] = config.digest(sflam.load(written(tmp_path / name, text)))
    assert found["here"] == found["there"] != found["changed"]
    before = json.loads(json.dumps(config.plain(job := sflam.load(written(tmp_path / "changed", text)))))
    assert config.changes(job, before) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import sflam\n\nimport nowhere_to_be_found\n",
            r"mine\.py, line 3: ModuleNotFoundError: No module named",
        ),
        ("x = 1\ny = (\n", r"mine\.py, line 2: SyntaxError: '\(' was never closed"),
        ("def f():\n    return 1 / 0\nf()\n", r"mine\.py, line 2: ZeroDivisionError: division by zero"),
        ("import json\njson.loads('{')\n", r"mine\.py, line 2: JSONDecodeError: Expecting property"),
        ("raise SystemExit(3)\n", r"mine\.py, line 1: SystemExit: 3"),
        ("x = 1\n", r"mine\.py registers nothing; it must call one of the functions sflam\.register_"),
        (
            MINE.replace('name = "halved"', 'name = "uniform"'),
            r"mine\.py, line 14: quantizer 'uniform' exists already; choose another name",
        ),
        (MINE + "\nsflam.register_policy('Ä', len)\n", r"mine\.py, line 17: policy name 'Ä'; use at most 32"),
    ],
    ids=["import", "syntax", "error", "deep error", "exit", "nothing", "taken", "bad name"],
)
def test_what_is_wrong_with_a_file_is_one_line(
    cli: Cli, tmp_path: Path, forget: Forget, text: str, message: str
) -> None:
    job = written(tmp_path, text)
    for _ in range(2):  # nothing of the first try is left
        assert_refused(cli("train", job), f"plug-in .*{message}")
    assert not any(OWN.values()) and not plugins.LOADED
    assert not [name for name in sys.modules if name.startswith("sflam_plugin")]


def test_every_kind_is_taken_back_where_the_file_fails(tmp_path: Path, forget: Forget) -> None:
    method = "from dataclasses import replace\nsflam.register_method(replace(METHODS['sflam'], name='own'))\n"
    job = written(tmp_path, ALL + method + MINE + "\nraise ValueError('late')\n")
    with pytest.raises(ConfigError, match="ValueError: late"):
        sflam.load(job)
    for wrong in (
        "data.partition=own",
        "plan.method=even",
        "learn.loss=own",
        "learn.metric=own",
        "fleet.policy=own",
        "learn.method=own",
    ):
        with pytest.raises(ConfigError, match=rf"{wrong.partition('=')[0]} is '\w+'; choose one of"):
            sflam.load(None, [wrong])


def test_a_file_that_is_not_there_and_lists_that_are_none(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('plugins = ["gone.py"]\n')
    assert_refused(cli("train", tmp_path / "job.toml"), r"plug-in .*gone\.py cannot be read \(No such file")
    assert_refused(cli("train", *sets("plugins=mine.py")), r'plugins is "mine\.py"; it must be a list')
    assert_refused(cli("train", *sets('plugins=[""]')), "plugins lists an empty name")
    assert_refused(cli("train", *sets("plugins=[1]")), r"plugins is \[1\]; it must be a list")
    assert_refused(
        cli("train", *sets('plugins=["entry"]')), r"no installed package declares .*\(declared: none\)"
    )
    with pytest.raises(ConfigError, match=r"plug-in mine\.py is not loaded; list it in the job file"):
        sflam.Job(plugins=("mine.py",))


def test_two_files_of_one_name_are_refused(tmp_path: Path, forget: Forget) -> None:
    first, second = written(tmp_path).parent / "plugs/mine.py", tmp_path / "mine.py"
    second.write_text(MINE.replace("halved", "other").replace("firsts", "others"))
    with pytest.raises(ConfigError, match=r"plugins lists mine\.py twice"):
        sflam.load(None, [f'plugins=["{first}", "{second}"]'])


def test_a_changed_file_in_the_same_process_names_what_took_the_name(tmp_path: Path, forget: Forget) -> None:
    sflam.load(written(tmp_path))
    with pytest.raises(ConfigError, match="'halved' exists already, registered by sflam_plugin_mine_"):
        sflam.load(written(tmp_path, MINE + "\n"))


def test_a_run_goes_on_predicts_and_reports_when_the_original_is_gone(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, forget: Forget
) -> None:
    job, folder = written(tmp_path), tmp_path / "run"
    begun = sflam.start(sflam.load(job, small), folder)
    next(begun.rounds())
    pinned = config.plain(begun.job)["plugins"]
    assert history.read(RunFolder(folder).history)[0]["config"]["plugins"] == pinned
    (tmp_path / "plugs/mine.py").unlink()
    folder = folder.rename(tmp_path / "moved")

    forget()
    done = cli("train", "--resume", folder, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out[-1])["rounds"] == 2
    assert f"| Plug-in | {pinned[0]} |" in (folder / "adapter/README.md").read_text()

    forget()
    assert cli("predict", folder).code == 0
    forget()
    assert cli("report", folder).code == 0
    assert pinned[0][-64:] in (folder / "report.html").read_text()

    forget()
    copy = folder / "plugins/mine.py"
    copy.write_text(copy.read_text() + "\n# one more line\n")
    for command in (["train", "--resume", folder], ["predict", folder], ["report", folder]):
        assert_refused(
            cli(*command), r"plug-in .*plugins/mine\.py was changed: its sha256 is .* is listed; put"
        )
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace(pinned[0], "mine.py"))  # the pin taken out as well
    with pytest.raises(RunError, match=r"was changed since the run began with plugins = "):
        sflam.resume(folder)


PARTITION = """
import numpy as np
import sflam
from sflam.data.partitions.contract import Division

def odd(request):
    order = request.rng.permutation(len(request.train))
    return Division([np.sort(order[:5]), np.sort(order[5:])])

sflam.register_partition("odd", odd)
sflam.register_partition("twice", lambda request: Division([np.arange(3)] * 2))
"""


def test_a_partition_of_ones_own(small: tuple[str, ...], tmp_path: Path, forget: Forget) -> None:
    (tmp_path / "parts.py").write_text(PARTITION)
    settings = [*small, f'plugins=["{tmp_path}/parts.py"]', "fleet.devices=2"]
    run = sflam.start(sflam.load(None, [*settings, "data.partition=odd"]), tmp_path / "run")
    parts = run.assembly.parts
    assert len(parts[0]) == 5
    assert sorted([*parts[0], *parts[1]]) == list(range(len(run.assembly.splits.train)))
    with pytest.raises(sflam.SflamError, match=r"data\.partition = twice gave 2 parts of 6 samples; it must"):
        sflam.start(sflam.load(None, [*settings, "data.partition=twice"]), tmp_path / "wrong")


def test_runs_of_a_comparison_load_the_file_in_their_processes(
    cli: Cli, small: tuple[str, ...], tmp_path: Path, forget: Forget
) -> None:
    settings = sets(*small, "learn.rounds=1", "fleet.selected=2", "fleet.policy=firsts")
    asked = ["--methods", "sflam,sfl-v2", "--jobs", "2", "--json", "--out", tmp_path / "out"]
    done = cli("compare", written(tmp_path), *settings, *asked)
    assert done.code == 0, done.err
    assert list(json.loads(done.out[-1])["methods"]) == ["sflam", "sfl-v2"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Forget) -> Path:
    """An installed package with two entry points: a module that registers, and a function to call."""
    folder = tmp_path / "site"
    (folder / "halving_plugin").mkdir(parents=True)
    (folder / "halving_plugin/__init__.py").write_text(MINE)
    (folder / "halving_plugin/later.py").write_text(
        "import sflam\ndef register():\n    sflam.register_policy('later', len)\n"
    )
    info = folder / "halving-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: halving\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        f"[{plugins.GROUP}]\nhalving = halving_plugin\nlater = halving_plugin.later:register\n"
    )
    monkeypatch.syspath_prepend(folder)
    return folder


def test_an_entry_point_is_loaded_where_it_is_listed_and_nowhere_else(package: Path, forget: Forget) -> None:
    assert {entry.name for entry in metadata.entry_points(group=plugins.GROUP)} >= {"halving", "later"}
    with pytest.raises(ConfigError, match="unknown scheme 'halved'"):
        sflam.load(None, ["quant.scheme=halved"])
    job = sflam.load(None, ['plugins=["halving"]', "quant.scheme=halved"])
    assert job.plugins == ("halving#version=1.2",) == tuple(config.plain(job)["plugins"])
    both = sflam.load(None, ['plugins=["later", "halving#version=1.2"]', "fleet.policy=later"])
    assert both.plugins == ("later#version=1.2", "halving#version=1.2") and own_modules() == {}
    with pytest.raises(ConfigError, match=r"version 1\.2 of halving, 1\.1 is listed; install that one"):
        sflam.load(None, ['plugins=["halving#version=1.1"]'])


def test_a_run_with_an_entry_point_wants_the_same_version_again(
    package: Path, small: tuple[str, ...], tmp_path: Path, forget: Forget
) -> None:
    sflam.start(sflam.load(None, [*small, 'plugins=["halving"]', "quant.scheme=halved"]), tmp_path / "run")
    (package / "halving-1.2.dist-info").rename(package / "halving-1.3.dist-info")
    (package / "halving-1.3.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: halving\nVersion: 1.3\n"
    )
    forget()
    with pytest.raises(ConfigError, match=r"version 1\.3 of halving, 1\.2 is listed"):
        sflam.resume(tmp_path / "run")


def test_a_device_runs_no_code_that_a_server_names(tmp_path: Path, forget: Forget) -> None:
    hostile = written(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\n" + MINE)
    with pytest.raises(ConfigError, match=r"lists plug-ins .* is not trusted to name code"):
        config.load(hostile, run_plugins=False)
    assert not (tmp_path / "ran").exists()

    pin = f"#sha256={hashlib.sha256(MINE.encode()).hexdigest()}"
    own = plugins.load_plugins([str(written(tmp_path).parent / "plugs/mine.py")])
    expect_plugins([f"servers-name.py{pin}"], own)
    for named in ([f"mine.py{pin[:-1]}"], ["halving#version=1.2"], ["mine.py"]):
        with pytest.raises(ServeError, match=r"needs the plug-in .* no code that a server names.*--plugin"):
            expect_plugins(named, own)
    with pytest.raises(ServeError, match="malformed"):
        expect_plugins([1], own)


FAMILY = """
from dataclasses import replace

import sflam
from sflam.model.families import FAMILIES, SEQUENCE

roberta = FAMILIES["roberta"]
task = replace(roberta.tasks[SEQUENCE], architecture="XLMRobertaForSequenceClassification")
sflam.register_family(replace(roberta, name="xlm-roberta", tasks={SEQUENCE: task}), like="LIKE")
"""


@pytest.fixture
def multilingual(tmp_path: Path) -> Path:
    """A tiny model of a family that is not bundled, as a folder."""
    import transformers

    from sflam.model.backbone import quiet
    from tests.tiny import ENCODER

    settings = transformers.XLMRobertaConfig(**ENCODER, num_labels=3)
    with quiet():
        transformers.XLMRobertaForSequenceClassification(settings).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_family_of_ones_own_is_cut_by_its_row_and_counted_like_another(
    cli: Cli, tmp_path: Path, multilingual: Path, forget: Forget
) -> None:
    from sflam.cost.measure import measure
    from sflam.run.job_model import open_model

    (tmp_path / "family.py").write_text(FAMILY.replace("LIKE", "roberta"))
    by_structure = open_model(str(multilingual)).family
    assert by_structure.gates is not None, "without the row it is cut by its structure"
    with pytest.raises(ModelError, match="xlm-roberta"):
        measure(str(multilingual))
    output = cli("verify", multilingual, "--plugin", tmp_path / "family.py", "--json")
    assert output.code == 0 and json.loads(output.out[-1])["equal"] is True
    family = open_model(str(multilingual)).family
    assert family.gates is None and family.name == "xlm-roberta"
    read = json.loads((multilingual / "config.json").read_text())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps(read | {"model_type": "roberta"}))
    mine, theirs = (replace(measure(str(path)), name="") for path in (multilingual, tmp_path / "other"))
    assert mine == theirs
    forget()
    assert open_model(str(multilingual)).family.gates is not None


def test_a_family_is_like_a_bundled_one(cli: Cli, tmp_path: Path, multilingual: Path, forget: Forget) -> None:
    (tmp_path / "family.py").write_text(FAMILY.replace("LIKE", "robert"))
    output = cli("verify", multilingual, "--plugin", tmp_path / "family.py")
    assert_refused(output, r"family\.py, line 9: .*robert.*roberta")
    assert not OWN["family"]
