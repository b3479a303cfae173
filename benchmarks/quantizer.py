"""Time and memory of the quantizer: ``python benchmarks/quantizer.py [--json]``.

One mini-batch of ViT-base activations, [32 x 197, 768] float32 unless told otherwise, per width:

    numpy    ``quantizer("uniform")``: what devices and CPU servers run
    torch    the torch operations that run on an accelerator, here on ``--device``
    naive    the textbook version: whole-array NumPy, a generator's noise, ``packbits``

Times are medians of ``--repeats`` runs, taken in turns: CPU time where everything runs on one core, else wall
time. Memory is the peak of what NumPy (tracemalloc) and torch (its profiler; on CUDA its allocator) allocate
during a run, less the result. On a shared machine compare columns of one run, not days.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler announces itself on stderr

import numpy as np
import torch

from sflam.codec.packing import LANES, code_lane
from sflam.codec.quantizer import Packed
from sflam.codec.quantizers import quantizer
from sflam.codec.torch_uniform import decode_on_device, encode_on_device

UNIFORM = quantizer("uniform")


def naive_encode(x: Any, bits: int) -> tuple[Any, Any, Any]:
    """Return packed codes, minimum and step; nothing is reused and nothing is split into chunks."""
    low = x.min(axis=1, keepdims=True)
    step = (x.max(axis=1, keepdims=True) - low) / (2**bits - 1)
    noise = np.random.default_rng(0).random(x.shape, np.float32)
    codes = np.clip(np.floor((x - low) / step + noise), 0, 2**bits - 1).astype(LANES[code_lane(bits)])
    stream = np.unpackbits(codes.reshape(-1, 1).view(np.uint8), axis=1, count=bits, bitorder="little")
    return np.packbits(stream, bitorder="little"), low, step


def naive_decode(packed: Any, low: Any, step: Any, bits: int, dim: int) -> Any:
    """Undo ``naive_encode``."""
    stream = np.unpackbits(packed, count=len(low) * dim * bits, bitorder="little").reshape(-1, bits)
    codes = np.packbits(stream, axis=1, bitorder="little")
    if bits > 8:
        codes = codes.view(np.uint16)
    return codes.reshape(-1, dim) * step + low


def median_ms(runs: dict[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, float]:
    """Return each run's median, in milliseconds; runs take turns, so that a busy moment hits all of them."""
    one_core = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if one_core else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append(1e3 * (clock() - start))
    return {name: statistics.median(each[1:]) for name, each in times.items()}  # the first warms up


def peak_mb(run: Callable[[], Any], device: torch.device) -> float:
    """Return the MB that ``run`` allocates at its peak, less its result."""
    tracemalloc.start()
    result_mb = size_mb(run())
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak + torch_peak_mb(run, device) - result_mb


def torch_peak_mb(run: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return float(held.max(initial=0)) / 1e6


def size_mb(result: Any) -> float:
    parts = result if isinstance(result, tuple) else (result,)
    return float(sum(part.nbytes for part in parts)) / 1e6


def measure(tokens: int, dim: int, bits: int, repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """Return one record per direction and implementation."""
    x = np.random.default_rng(0).standard_normal((tokens, dim)).astype(np.float32)
    tensor = torch.from_numpy(x).to(device)
    packed: Packed = UNIFORM.encode(x, bits, 0)
    naive = naive_encode(x, bits)
    directions: dict[str, dict[str, Callable[[], Any]]] = {
        "encode": {
            "numpy": lambda: UNIFORM.encode(x, bits, 0),
            "torch": lambda: encode_on_device(tensor, bits, 0),
            "naive": lambda: naive_encode(x, bits),
        },
        "decode": {
            "numpy": lambda: UNIFORM.decode(packed),
            "torch": lambda: decode_on_device(packed, device),
            "naive": lambda: naive_decode(*naive, bits, dim),
        },
    }
    records = []
    for direction, runs in directions.items():
        times = median_ms(runs, repeats, device)
        for name, run in runs.items():
            record = {"direction": direction, "implementation": name, "bits": bits, "bytes": packed.nbytes}
            records.append(record | {"ms": round(times[name], 2), "extra_mb": round(peak_mb(run, device), 2)})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=32 * 197)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--bits", type=int, nargs="+", default=[1, 2, 4, 6, 8, 16])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="where torch runs")
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.json:
        print(f"[{args.tokens}, {args.dim}] float32, torch on {args.device} with {args.threads} thread(s)")
        print(
            "direction  bits       bytes"
            + "".join(f"  {name:>8} ms / MB" for name in ("numpy", "torch", "naive"))
        )
    for bits in args.bits:
        records = measure(args.tokens, args.dim, bits, args.repeats, args.device)
        if args.json:
            for record in records:
                print(
                    json.dumps({"tokens": args.tokens, "dim": args.dim, "device": str(args.device)} | record)
                )
            continue
        for direction in ("encode", "decode"):
            row = [record for record in records if record["direction"] == direction]
            cells = "".join(f"  {record['ms']:8.1f} /{record['extra_mb']:6.1f}" for record in row)
            print(f"{direction:9}  {bits:4}  {row[0]['bytes']:10}{cells}")


if __name__ == "__main__":
    main()
