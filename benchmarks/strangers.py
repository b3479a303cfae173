"""What idle strangers cost a served job: ``python benchmarks/strangers.py [--strangers 5000] [--json]``.

Eight devices send ready-made steps over TLS, as in ``served.py``, with nobody else there and with thousands of
connections that never send a byte, in turns. What is reported is steps a second and CPU time a step of the
server, and the ratios of each turn: those of CPU time hold on a busy machine, too.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from served import PLAIN, measure, null_trunk

from sflam.serve.admission import raise_file_limit

HOLD = """
import resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(int(sys.argv[2]))]
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def idle(port: int, count: int) -> Iterator[None]:
    """Hold so many connections meanwhile, in a process of their own."""
    pipe = subprocess.PIPE
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(port), str(count)], stdin=pipe, stdout=pipe)
    assert holder.stdin is not None and holder.stdout is not None
    try:
        if count and holder.stdout.readline() != b"held\n":
            raise RuntimeError(f"{count} connections cannot be held; raise ulimit -n")
        yield
    finally:
        holder.stdin.close()
        holder.wait(30)


def main() -> None:
    """Measure in turns."""
    from common import parser, set_up, show

    one = parser(__doc__)
    one.add_argument("--strangers", type=int, default=5000, help="idle connections, 5000 by default")
    one.add_argument("--devices", type=int, default=8, help="devices, 8 by default")
    one.add_argument("--tokens", type=int, default=258, help="tokens of a step, 258 by default: 0.1 MB")
    one.add_argument("--steps", type=int, default=200, help="steps of a device, 200 by default")
    one.add_argument("--turns", type=int, default=5, help="5 by default")
    args = one.parse_args()
    set_up(args)
    raise_file_limit()
    contracts = {n: replace(PLAIN, device=n, tokens=args.tokens) for n in range(args.devices)}
    found: dict[int, list[dict[str, float]]] = {0: [], args.strangers: []}
    for turn in range(args.turns):
        for count in sorted(found, reverse=bool(turn % 2)):
            among = partial(idle, count=count)
            found[count].append(measure(contracts, args.steps, null_trunk, around=among))
    turns = list(zip(found[0], found[args.strangers], strict=True))

    def ratios(name: str) -> str:
        each = sorted(among[name] / alone[name] for alone, among in turns)
        return f"{statistics.median(each):.3f} ({each[0]:.3f} to {each[-1]:.3f})"

    def median(count: int, name: str) -> float:
        return statistics.median(one[name] for one in found[count])

    show(
        [
            {
                "devices": args.devices,
                "strangers": args.strangers,
                "steps/s alone": median(0, "steps/s"),
                "among them": median(args.strangers, "steps/s"),
                "ratio": ratios("steps/s"),
                "CPU ms/step alone": median(0, "CPU ms/step"),
                "among": median(args.strangers, "CPU ms/step"),
                "CPU ratio": ratios("CPU ms/step"),
            }
        ],
        as_json=args.json,
        title="steps over TLS among idle strangers",
    )


if __name__ == "__main__":
    main()
