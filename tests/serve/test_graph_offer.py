"""Graphs are offered with a served job, named by their hash, or refused in a line while the job goes on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

from sflam import config
from sflam.errors import GraphError
from sflam.graph.reading import read_bundle
from sflam.model import aten, device_graphs
from sflam.run.assemble import Assembly, assemble
from sflam.serve import graph_offer
from sflam.serve.announcement import bundle, describe
from sflam.serve.contracts import contracts_of
from sflam.serve.graph_offer import GraphOffer, HalfKind, graphs_name, offer_graphs
from tests.conftest import Cli
from tests.learn.builders import adapted, local_fleet


def assembled(small: tuple[str, ...], *settings: str) -> Assembly:
    return assemble(config.load(None, [*small, *settings]))


def offered(assembly: Assembly, folder: Path) -> GraphOffer:
    assert assembly.halves is not None
    return offer_graphs(assembly, assembly.halves, folder, contracts_of(assembly, assembly.halves)[0].tokens)


def test_each_cut_has_graphs_that_the_job_names(small: tuple[str, ...], tmp_path: Path) -> None:
    assembly = assembled(small, "fleet.cuts=[0, 1, 2]")
    assert assembly.halves is not None
    offer = offered(assembly, tmp_path)
    files = bundle(assembly, assembly.halves, tmp_path)
    tell = describe(assembly, assembly.halves, "run", files, offer)
    for device, cut in enumerate((0, 1, 2)):
        described = tell(device)
        body = (tmp_path / described["graphs"]["name"]).read_bytes()
        assert hashlib.sha256(body).hexdigest() == described["graphs"]["sha256"]
        assert described["graphs_refused"] is None and described["graphs"]["name"] not in described["files"]
        graphs = read_bundle(body)
        held = safetensors.numpy.load_file(tmp_path / described["segment"])
        frozen = {
            source.name
            for piece in (graphs.embed, *graphs.blocks)
            for source in piece.binding.inputs.values()
            if source.role == "frozen"
        }
        assert frozen <= set(held) and graphs.cut == cut
        segment = assembly.halves.devices.segment
        assert list(graphs.trained) == segment.names(cut)


def test_a_shorter_half_is_traced_as_if_alone(small: tuple[str, ...], tmp_path: Path) -> None:
    offered(assembled(small, "fleet.cuts=[0, 1, 2]"), tmp_path)
    shorter = (tmp_path / "cut-1.graphs.json").read_bytes()
    offered(assembled(small, "model.cut=1"), tmp_path)
    assert (tmp_path / "cut-1.graphs.json").read_bytes() == shorter
    assert not (tmp_path / "cut-2.graphs.json").exists(), "what an earlier start wrote is gone"


def test_an_operator_outside_the_list_refuses_by_name(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph_offer._traced.clear()
    monkeypatch.setattr(aten, "LOWERED", {k: v for k, v in aten.LOWERED.items() if "gelu" not in k})
    offer = offered(assembled(small), tmp_path)
    assert offer.described(HalfKind(cut=1))["graphs"] is None
    assert "aten.gelu.default" in offer.described(HalfKind(cut=1))["graphs_refused"]


def test_graphs_that_differ_from_torch_are_not_offered(
    small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = device_graphs.bundle_of

    def wrong(half: device_graphs.DeviceHalf) -> object:
        found = true(half)
        kind = found.kinds[0]
        operations = [
            replace(each, attributes={"approximate": "tanh"}) if each.kind == "gelu" else each
            for each in kind.forward.operations
        ]
        forward = replace(kind.forward, operations=tuple(operations))
        return replace(found, kinds=(replace(kind, forward=forward), *found.kinds[1:]))

    graph_offer._traced.clear()
    monkeypatch.setattr(graph_offer, "bundle_of", wrong)
    assembly = assembled(small)
    refused = offered(assembly, tmp_path).refused
    assert "activations for n = " in refused and "differs from torch" in refused
    with pytest.raises(GraphError, match="differs"):
        graph_offer.compared(assembly, HalfKind(cut=1), 17)
    graph_offer._traced.clear()


def test_a_half_is_exported_with_vectors(cli: Cli, small: tuple[str, ...], tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(config.to_toml(config.load(None, small)))
    done = cli("export", "--device", job, "--cut", 1, "--out", tmp_path / "out")
    assert done.code == 0, done
    about = json.loads((tmp_path / "out/vectors.json").read_text())
    arrays = safetensors.numpy.load_file(tmp_path / "out/vectors.safetensors")
    graphs = read_bundle((tmp_path / "out/cut-1.graphs.json").read_bytes())
    kinds = {operation.kind for operation in graphs.kinds[0].forward.operations}
    assert kinds <= set(about["operations"])
    product = about["operations"]["addmm"]
    x, a, b = (arrays[name] for name in product["inputs"])
    np.testing.assert_allclose(arrays[product["outputs"][0]], x + a @ b, rtol=1e-6)
    assert arrays["run.result.activations"].shape == (about["n"], graphs.tokens, graphs.dim)
    assert (tmp_path / "out/cut-1.safetensors").exists() and (tmp_path / "out/config.json").exists()


@pytest.mark.parametrize("more", [(), ("learn.aggregation=freeze-a",)], ids=["both", "B alone"])
def test_devices_of_their_own_ranks_have_graphs_of_them(
    small: tuple[str, ...], tmp_path: Path, more: tuple[str, ...]
) -> None:
    assembly = assembled(small, "fleet.cuts=[1, 2, 2]", "fleet.ranks=[1, 4, 2]", "model.rank=4", *more)
    assert assembly.halves is not None
    offer = offered(assembly, tmp_path)
    tell = describe(assembly, assembly.halves, "run", bundle(assembly, assembly.halves, tmp_path), offer)
    for device, rank in enumerate((1, 4, 2)):
        described = tell(device)
        graphs = read_bundle((tmp_path / described["graphs"]["name"]).read_bytes())
        held = safetensors.numpy.load_file(tmp_path / described["segment"])
        factors = {name: shape for name, shape in graphs.trained.items() if "lora_" in name}
        factors |= {name: array.shape for name, array in held.items() if "lora_" in name}
        assert factors and all(shape["lora_B" in name] == rank for name, shape in factors.items())
        assert sum("lora_B" in name for name in factors) == sum("lora_A" in name for name in factors)
    assert len(set(offer.files)) == 3 and graphs_name(HalfKind(cut=1, rank=1)) != graphs_name(HalfKind(cut=1))


@pytest.mark.parametrize(
    ("kind", "labels", "why"),
    [("gpt2", "server", "last"), ("dinov2", "device", "first and mean"), ("dinov2", "server", "")],
)
def test_a_head_that_reads_more_than_the_first_token_has_no_graphs_where_tokens_are_dropped(
    tmp_path: Path, kind: str, labels: str, why: str
) -> None:
    backbone, model, examples = adapted(kind)
    job = config.load(None, ["privacy.drop_tokens=0.5", f"model.labels={labels}", "model.rank=2"])
    assembly = SimpleNamespace(job=job, backbone=backbone, model=model)
    local = local_fleet(backbone, model, examples, [np.arange(8)], labels=labels)
    offer = offer_graphs(assembly, local, tmp_path, 17 if kind == "dinov2" else 10)  # type: ignore[arg-type]
    found = offer.described(HalfKind(cut=1))
    assert (found["graphs"] is None) == bool(why)
    if why:
        assert f"reads the {why} of the tokens" in found["graphs_refused"]
        assert "privacy.drop_tokens = 0.5" in found["graphs_refused"]
