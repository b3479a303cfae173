"""The configuration of a Flower run as a job, and as what the ServerApp needs beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from sflam import config
from sflam.config import Job
from sflam.errors import ConfigError
from sflam.link.address import server_address

OWN = "flower."
"""Keys that begin so are the app's own; all others are those of a job."""


KINDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}
EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, kw_only=True)
class AppConfig:
    """The keys ``flower.*`` of ``[tool.flwr.app.config]``.

    Attributes:
        job: job file; "" starts from the defaults. This path and all others of the run begin where the SuperLink was
            started.
        folder: where the run, its certificate and its roster go; "" for a new one in ``runs``.
        resume: whether to go on with the run in ``folder``.
        host: address that the trunk listens on.
        port: of it; 0 takes any that is free.
        address: HOST:PORT by which nodes reach the trunk; "" for where it listens.
        gather: seconds that nodes which never came are waited for.
        patience: seconds of silence after which a device counts as absent; its process has to start in it.
        quorum: fewest devices whose result a round needs; 0 wants all.
    """

    job: str = ""
    folder: str = ""
    resume: bool = False
    host: str = "127.0.0.1"
    port: int = 8443
    address: str = ""
    gather: float = 300.0
    patience: float = 120.0
    quorum: int = 0

    @property
    def name(self) -> str:
        """The host by which nodes reach the trunk."""
        return server_address(self.address)[1] if self.address else self.host

    def check(self) -> None:
        """Raise ConfigError where nodes could not reach the trunk."""
        if not self.address and self.host in EVERYWHERE:
            raise ConfigError(
                f"flower.host is {self.host!r}, which is no address to call; set flower.address to the HOST:PORT by "
                "which nodes reach this machine"
            )


def read(run_config: Mapping[str, bool | float | int | str]) -> tuple[AppConfig, Job]:
    """Return what a run's flat configuration holds: the app's own keys, and the job.

    Args:
        run_config: of the run, as Flower merged it: a key ``section.name`` of a job, or ``flower.name``.

    Raises:
        ConfigError: unknown keys, or values that cannot be.
    """
    own, problems = {}, []
    kinds = {field.name: type(getattr(AppConfig(), field.name)) for field in fields(AppConfig)}
    for key, value in run_config.items():
        if not key.startswith(OWN):
            continue
        name = key.removeprefix(OWN)
        kind = kinds.get(name)
        if kind is None:
            problems.append(
                f"{key} is no setting of the app; it has {', '.join(OWN + known for known in kinds)}"
            )
        elif type(value) is not kind and not (kind is float and type(value) is int):
            problems.append(f"{key} is {value!r}; it must be {KINDS[kind]}")
        else:
            own[name] = value
    if problems:
        raise ConfigError(problems)
    found = AppConfig(**own)  # type: ignore[arg-type]
    found.check()
    settings = [f"{key}={_toml(value)}" for key, value in run_config.items() if not key.startswith(OWN)]
    return found, config.load(found.job or None, settings)


def _toml(value: bool | float | int | str) -> str:
    """Return a value as an override has it; a text that is a list or a table of TOML stays one."""
    if isinstance(value, str) and not value.startswith(("[", "{")):
        return config.toml_value(value)
    return value if isinstance(value, str) else config.toml_value(value)
