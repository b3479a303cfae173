"""What ``/metrics`` says of the trunk servers of a run: series by number or, for operators, name."""

from __future__ import annotations

from collections.abc import Sequence

from sflam.serve.device_metrics import escaped
from sflam.serve.trunks.trunk_hosts import TrunkSeen

HELP = {
    "present": "Whether it was heard of lately.",
    "devices": "Devices that it serves in the open round.",
    "silent_seconds": "Seconds since it was heard of.",
}


def trunk_metrics(seen: Sequence[TrunkSeen], *, named: bool) -> list[str]:
    """Return the lines; none where the run has no trunk servers. ``named`` gives their names, and not numbers."""
    lines = []
    for key, text in HELP.items() if seen else ():
        name = f"sflam_trunk_server_{key}"
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        for one in seen:
            value = {"present": one.here, "devices": one.devices, "silent_seconds": one.silent_s}[key]
            label = escaped(one.name) if named else str(one.number)
            lines.append(f'{name}{{server="{label}"}} {float(value):.17g}')
    return lines
