"""The metrics of several jobs as one text: every series gets the label ``job``, every metric is described once."""

from __future__ import annotations

import re
from collections.abc import Mapping

METRIC = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")


def labelled(texts: Mapping[str, str]) -> str:
    """Return the text of all jobs.

    Args:
        texts: name of a job, which needs no escaping -> its metrics, each described before its first series.
    """
    heads: dict[str, list[str]] = {}
    series: dict[str, list[str]] = {}
    for job, text in texts.items():
        described: dict[str, list[str]] = {}
        for line in text.splitlines():
            if line.startswith("# "):
                described.setdefault(line.split(" ", 3)[2], []).append(line)
                continue
            found = METRIC.match(line)
            assert found is not None, f"{line!r} is no series"
            name, rest = found[0], line[found.end() :]
            own = f'{{job="{job}",{rest[1:]}' if rest.startswith("{") else f'{{job="{job}"}}{rest}'
            series.setdefault(name, []).append(name + own)
        for name, lines in described.items():
            heads.setdefault(name, lines)
    return "".join(f"{line}\n" for name, head in heads.items() for line in (*head, *series.get(name, ())))
