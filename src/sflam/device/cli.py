"""The command line of a device without torch: ``sflam-device``, and ``sflam device``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sflam.errors import ConfigError, SflamError
from sflam.printable import printable

EPILOG = "Example: sflam-device my-laptop.local:8443 --token-file phone.token --ca ca.pem --data mine.npz --memory 100"


THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""What the libraries beneath NumPy read."""


class _Parser(argparse.ArgumentParser):
    """Reports what is wrong in one line, as every command here does."""

    def error(self, message: str) -> None:  # type: ignore[override]
        print(f"sflam: {' '.join(message.split())}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    made = _Parser(
        prog="sflam-device",
        description="Take part in a served job with this machine's own data, in NumPy and the standard library alone.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("server", metavar="SERVER", help="HOST, HOST:PORT or https://HOST:PORT")
    add(
        "--token-file",
        type=Path,
        metavar="PATH",
        help="file with the token that sflam enrol printed; else the folder's own",
    )
    add(
        "--join-secret-file",
        type=Path,
        metavar="PATH",
        help="file with the server's join secret: the device enrols itself, and keeps its token in its folder",
    )
    add("--name", default="", metavar="NAME", help="name to enrol by; else this machine's")
    add("--data", metavar="PATH", help="own data: .npz, .csv, .jsonl or a folder of images")
    share = (
        "take this device's share of the job's data: of the copy that --data names, or of a public data set"
    )
    add("--share", action="store_true", help=share)
    add("--input", default="", metavar="NAME", help="array or column that holds the inputs")
    add("--label", default="", metavar="NAME", help="array or column that holds the labels")
    add(
        "--folder",
        type=Path,
        default=Path("device"),
        metavar="PATH",
        help="downloads and state of this device",
    )
    add("--ca", type=Path, metavar="PATH", help="authority that signed the server's certificate")
    add("--cert", type=Path, metavar="PATH", help="this device's certificate, where required")
    add("--key", type=Path, metavar="PATH", help="its private key")
    add(
        "--patience",
        type=_positive,
        default=600.0,
        metavar="SECONDS",
        help="seconds without an answer before it ends",
    )
    add(
        "--memory",
        type=_positive,
        metavar="MB",
        help="most megabytes of this process; else 100, or what it needs",
    )
    add(
        "--most-memory",
        type=_positive,
        metavar="MB",
        help="most megabytes that a job may ask for; else all there is",
    )
    add(
        "--most-disk",
        type=_positive,
        metavar="MB",
        help="most megabytes that a job may store; else what is free",
    )
    every = (
        "steps between two states on disk, 0 for one a round; who dies in between may have to sit a round out"
    )
    add("--state-every", type=_count, default=1, metavar="STEPS", help=every)
    add("--threads", type=_number, metavar="N", help="threads that compute; else as NumPy chooses")
    add("--nice", type=_niceness, default=0, metavar="N", help="lower the priority by N, 0 to 19")
    add("--insecure", action="store_true", help="allow plain HTTP beyond this machine")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 2 for what a user can correct, with one line for each problem."""
    options = parser().parse_args(arguments)
    try:
        return _run(options)
    except SflamError as error:
        for problem in error.problems if isinstance(error, ConfigError) else [str(error)]:
            print(f"sflam: {printable(' '.join(problem.split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where this device was", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    os.environ.setdefault(
        "NUMPY_MADVISE_HUGEPAGE", "0"
    )  # read as NumPy is imported, as is the number of threads
    if options.threads:
        os.environ |= {name: str(options.threads) for name in THREADS}
    if options.nice:
        os.nice(options.nice)
    from sflam.device.agent import Bringing, take_part
    from sflam.device.memory import settle
    from sflam.lean_memory import MEGABYTE
    from sflam.link.enrolment import credentials, enrol
    from sflam.link.https_client import Link
    from sflam.link.limits import Limits
    from sflam.link.own_token import OwnToken

    settle()
    own = credentials(options.token_file, options.join_secret_file, options.name, options.folder)
    link = Link(
        options.server,
        own.token,
        ca=options.ca,
        certificate=options.cert,
        key=options.key,
        insecure=options.insecure,
        own=OwnToken(own.file, own.token, _remark),
        patience=options.patience,
        notify=_remark,
    )
    memory = options.most_memory or options.memory
    limits = Limits(
        None if memory is None else int(memory * MEGABYTE),
        None if options.most_disk is None else int(options.most_disk * MEGABYTE),
    )
    bringing = Bringing(
        data=options.data,
        share=options.share,
        column=options.input,
        label=options.label,
        folder=options.folder,
        memory=None if options.memory is None else int(options.memory * MEGABYTE),
        limits=limits,
        state_every=options.state_every,
    )
    enrol(link, own, _remark)
    rounds = take_part(link, bringing, _remark)
    _remark(f"the job has ended; this device trained {rounds} rounds")
    return 0


def _remark(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _number(text: str) -> int:
    if not _count(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return _count(text)


def _niceness(text: str) -> int:
    if _count(text) > 19:
        raise argparse.ArgumentTypeError(f"{text!r} is more than 19, the lowest priority there is")
    return _count(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 0 or more")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
