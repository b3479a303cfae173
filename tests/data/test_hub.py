"""Datasets of the hub, with a loader in its place: names, configurations, splits, and what cannot be reached."""

from __future__ import annotations

from typing import Any

import datasets
import pyarrow
import pytest

from sflam.data.partition import share_out
from sflam.data.settings import DataSettings
from sflam.data.sources import is_path, load
from sflam.errors import DataError
from tests.data.preprocessors import preprocessor

NAMES = datasets.ClassLabel(names=["no", "yes"])
FEATURES = datasets.Features({"sentence": datasets.Value("string"), "label": NAMES})


def table(count: int, label: int | None = None) -> datasets.Dataset:
    labels = [index % 2 if label is None else label for index in range(count)]
    texts = [f"sentence {index}" for index in range(count)]
    rows = pyarrow.table({"sentence": texts, "label": labels}, FEATURES.arrow_schema)
    return datasets.Dataset(
        datasets.table.InMemoryTable(rows), fingerprint="none"
    )  # it would pickle to make one


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the loader gives, and, under ``asked``, what it was asked for."""
    shelf: dict[str, Any] = {}

    def load_dataset(name: str, config: str | None) -> Any:
        shelf["asked"] = (name, config)
        return datasets.DatasetDict(shelf["tables"])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return shelf


def test_a_name_with_a_configuration(hub: dict[str, Any]) -> None:
    hub["tables"] = {"train": table(10), "validation": table(4), "test": table(6, label=-1)}
    splits = load(DataSettings(name="owner/name", config="sst2"), 0, preprocessor())
    assert hub["asked"] == ("owner/name", "sst2")
    assert (len(splits.train), len(splits.test)) == (10, 4) and splits.train.classes == ("no", "yes")
    notes = " | ".join(splits.notes)
    assert (
        "(test) are hidden" in notes and "the split validation of owner/name serves as its test part" in notes
    )


def test_a_column_says_whose_a_sample_is(hub: dict[str, Any]) -> None:
    writers = [f"w{index % 3}" for index in range(12)]
    hub["tables"] = {
        "train": table(12).add_column("writer", writers, new_fingerprint="some"),
        "test": table(4),
    }
    chosen = DataSettings(name="owner/name", partition="column", column="writer", label="label")
    splits = load(chosen, 0, preprocessor())
    parts = share_out(chosen, splits.train, 3, 0).parts
    assert [part.tolist() for part in parts] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


def test_a_name_alone(hub: dict[str, Any]) -> None:
    hub["tables"] = {"train": table(20)}
    splits = load(DataSettings(name="imdb"), 0, preprocessor())
    assert hub["asked"] == ("imdb", None) and (len(splits.train), len(splits.test)) == (16, 4)


def test_splits_of_other_names(hub: dict[str, Any]) -> None:
    hub["tables"] = {"left": table(4), "right": table(4)}
    with pytest.raises(DataError, match="has the splits left, right, but none is called train"):
        load(DataSettings(name="owner/name"), 0, preprocessor())
    hub["tables"] = {"train": table(4), "test": table(0)}
    with pytest.raises(DataError, match=r"test.* holds no samples"):
        load(DataSettings(name="owner/name"), 0, preprocessor())


def test_without_a_network_one_line_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for name in ("nobody/nothing", "nothing"):
        with pytest.raises(
            DataError, match=f"data '{name}' cannot be loaded: it is neither .*check data.name"
        ) as e:
            load(DataSettings(name=name), 0, preprocessor())
        assert "\n" not in str(e.value)


def test_what_a_loader_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, config: str | None) -> None:
        raise ValueError("Config name is missing.\nPlease pick one among ['cola', 'sst2']")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        DataError, match=r"missing\. Please pick one among .*sst2.*check data.name, data.config"
    ):
        load(DataSettings(name="glue"), 0, preprocessor())


@pytest.mark.parametrize("name", ["a.csv", "./a", "a/b/c", "~/a", "no/such.npz", "b\\c", "notes.txt", "/a"])
def test_a_path_is_no_hub_name(name: str) -> None:
    assert is_path(name)


@pytest.mark.parametrize("name", ["imdb", "owner/name", "ag_news", "allenai/c4.en"])
def test_a_hub_name_is_no_path(name: str) -> None:
    assert not is_path(name)
