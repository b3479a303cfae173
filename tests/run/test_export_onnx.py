"""A finished run's whole model in ONNX Runtime predicts what the run predicts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import sflam
from sflam.run.assemble import examples_of, preprocessor_of
from sflam.run.export_onnx import export_onnx
from tests.conftest import Cli, assert_refused

runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


def test_the_file_predicts_what_the_run_predicts(finished: Path, run: Path) -> None:
    from sflam.data.sources import load_held_out
    from sflam.records.run_folder import RunFolder
    from sflam.run.saved_model import saved_model

    found = export_onnx(run)
    assert "model.onnx" in found.files and found.difference < 1e-5
    session = runtime.InferenceSession(found.file, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    expected = sflam.predict(finished)
    assert tuple(json.loads(facts["classes"])) == expected.classes
    folder = RunFolder(run)
    job = folder.read_job()
    data, _ = load_held_out(job.data, job.seed, preprocessor_of(job))
    backbone, _, _ = saved_model(folder, job, data.kind, len(expected.classes))
    batch = examples_of(data, backbone, job.model.name).take(np.arange(len(data)))
    (logits,) = session.run(None, {"pixel_values": batch.inputs["pixel_values"].numpy()})
    shares = np.exp(logits - logits.max(1, keepdims=True))
    assert shares / shares.sum(1, keepdims=True) == pytest.approx(expected.probabilities, abs=1e-5)


def test_one_file_alone_goes_where_it_is_wanted(run: Path, tmp_path: Path, cli: Cli) -> None:
    done = cli("export", "--onnx", run, "--out", tmp_path / "here" / "digits.onnx", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out[-1])["files"] == ["digits.onnx"]
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["digits.onnx"]


def test_what_cannot_be_exported_is_one_line(run: Path, tmp_path: Path, cli: Cli) -> None:
    assert_refused(cli("export"), "one of --onnx RUN and --device RUN|JOB")
    assert_refused(cli("export", "--onnx", run, "--cut", 2), "--cut and --set go with --device")
    assert_refused(cli("export", "--device", run), "--device needs --out")
    assert_refused(cli("export", "--onnx", run, "--whose", 3), "no model of its own")
    shutil.rmtree(run / "adapter")
    assert_refused(cli("export", "--onnx", run), "adapter")
    (run / "result.json").unlink()
    assert_refused(cli("export", "--onnx", run), "no finished run")
