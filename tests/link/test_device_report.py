"""What devices report: there and back, and nothing that is out of range."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.errors import Refused
from sflam.link.device_report import LIMITS, LONGEST, DeviceReport, report_from

REPORT = DeviceReport(
    steps=3, compute_s=1.25, receive_s=0.5, fetch_s=0.125, memory=1 << 30,
    temperature=61.5, throttled=True, battery=0.75,
)  # fmt: skip


@pytest.mark.parametrize("report", [REPORT, DeviceReport()])
def test_there_and_back(report):
    assert report_from(report.to_header()) == report and len(report.to_header()) < LONGEST


def test_what_is_not_known_is_left_alone():
    assert report_from('{"steps": 2, "later": [1, 2]}') == DeviceReport(steps=2)
    assert report_from(None) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "[]", "1", "null", '{"steps": 1.5}', '{"steps": true}', '{"steps": -1}', '{"memory": 1e9}',
        '{"compute_s": "1"}', '{"compute_s": NaN}', '{"compute_s": Infinity}', '{"compute_s": 1e400}',
        '{"throttled": 1}', '{"battery": 1.01}', '{"temperature": 1000}', '{"memory": 99999999999999999999}',
        "[" * 900, '{"steps": 1' + " " * LONGEST + "}",
    ],
)  # fmt: skip
def test_what_is_no_report_is_refused(text):
    with pytest.raises(Refused) as refused:
        report_from(text)
    assert refused.value.status == 422 and len(str(refused.value)) < 300


VALUES = st.floats() | st.integers() | st.text()
OBJECTS = st.dictionaries(st.sampled_from([*LIMITS, "throttled"]), VALUES).map(json.dumps)


@given(st.text(max_size=60) | OBJECTS)
def test_no_header_is_a_traceback(text):
    try:
        report = report_from(text)
    except Refused:
        return
    assert report is not None
    for name, (least, most) in LIMITS.items():
        value = getattr(report, name)
        assert value is None or least <= value <= most
