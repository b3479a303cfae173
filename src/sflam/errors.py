"""Everything sflam raises on purpose.

    SflamError                 shown as one line; exit code 2 on the command line
    ├── ConfigError            a job or network file, or a --set, has an impossible value
    ├── ModelError             a model cannot be loaded, cut or adapted
    ├── DataError              a dataset, column, file or partition cannot be used
    ├── GraphError             a graph for a device without torch cannot be made, read or run
    ├── QuantizerError         a tensor cannot be encoded, or packed bytes cannot be decoded
    ├── WireError              a body is malformed, too large, or not what was agreed
    │   └── NotFiniteError     NaN, infinity or a value beyond float32 (a QuantizerError as well)
    ├── RunError               a run folder cannot be written, read or resumed
    │   ├── DivergedError      training left the finite numbers
    │   ├── RanksError         a process of a run on several ranks is gone
    │   └── RunsError          no run of several was completed
    ├── AllocationError        a network, workload or limit no plan can be made for
    ├── SecureSumError         too few devices remain for a sum of masked numbers, or its limits do not hold it
    └── ServeError             a server or a device cannot go on over the network
        ├── Refused            a request that changes nothing, with its status code
        ├── OtherJob           the server has another job than the device took up
        ├── BrokenOff          an answer that ended early; what was asked is to be asked again
        └── TrunkAway          the trunk server that a round named does not answer; the coordinator is asked again

Every message names the value, the limit and the fix. Each class is also a ``ValueError``: these are
things a user can cause. Broken invariants of our own are ``assert``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SflamError(ValueError):
    """Base of every error a user can cause."""


class ConfigError(SflamError):
    """One or several settings are wrong; ``problems`` lists them all."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("; ".join(self.problems))


class ModelError(SflamError):
    """A model cannot be loaded, cut or adapted."""


class DataError(SflamError):
    """A dataset, column, file or partition cannot be used."""


class GraphError(SflamError):
    """A graph for a device without torch cannot be made, read or run."""


class QuantizerError(SflamError):
    """A tensor cannot be encoded, or packed bytes cannot be decoded."""


class WireError(SflamError):
    """A body is malformed, too large, or not what was agreed."""


class NotFiniteError(QuantizerError, WireError):
    """NaN, infinity, or a value beyond float32: it can neither be encoded nor sent."""


class RunError(SflamError):
    """A run folder cannot be written, read or resumed."""


class DivergedError(RunError):
    """Training left the finite numbers; the same settings would do so again."""


class RanksError(RunError):
    """A process of a run on several ranks is gone.

    Attributes:
        ended: the ranks that left no reason.
    """

    def __init__(self, reason: str, ended: Iterable[int] = ()) -> None:
        self.ended = tuple(ended)
        super().__init__(reason)


class RunsError(RunError):
    """No run of several was completed; ``problems`` lists why."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))


class AllocationError(SflamError):
    """A network, workload or limit for which no plan can be made, or an unknown method."""


class SecureSumError(SflamError):
    """A sum of masked numbers cannot be had: too few devices remain, numbers are too large, or a library is missing."""


class ServeError(SflamError):
    """A server or a device cannot go on over the network: an address, a certificate, a token, a refusal."""


class Refused(ServeError):
    """A request that changes nothing, with the status code it is answered by.

    Attributes:
        status: 400, 401, 403, 404, 408, 409, 411, 413, 422, 429 or 503.
        retry: seconds after which to come again; None where coming again is of no use.
    """

    def __init__(self, status: int, reason: str, retry: float | None = None) -> None:
        self.status, self.retry = status, retry
        super().__init__(reason)


class OtherJob(ServeError):
    """The server has another job, or run, than the one a device took up: the device takes it up anew."""


class TrunkAway(ServeError):
    """The trunk server that a round named does not answer, or does not know the device: the coordinator is asked."""


class BrokenOff(ServeError):
    """An answer that ended before all of it was read."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for a name that is not known, with the nearest known one when there is one."""
    names = sorted(known)
    nearest = [each for each in names if each.lower() == name.lower()]
    nearest = nearest or difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})"
