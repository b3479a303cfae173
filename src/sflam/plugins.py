"""Plug-ins: files, and installed packages, that register methods, quantizers, losses and so on of a user's own.

A job lists them, ``plugins = ["mine.py", "package-entry"]``, and reading the job loads them, before its settings are
checked. A name that ends in ``.py`` is one plain Python file, whose path is relative to the job file's folder; any
other is an entry point of the group ``sflam.plugins``, declared by an installed package. Entry points are never loaded
unless listed. What is loaded is pinned: a resolved name ends in ``#sha256=...``, or in ``#version=...`` of the
package, and what was changed since is refused.

A file is read once: the bytes that are hashed are those that run, and those a run folder keeps a copy of. The same
content is loaded once per process, wherever it lies.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from types import ModuleType

from sflam.errors import ConfigError, SflamError
from sflam.files import reading
from sflam.registry import FROM_PLUGINS, OWN, Added, recorded, take_back

GROUP = "sflam.plugins"
SUFFIX = ".py"
PIN = re.compile(r"(?P<name>.+?)(?:#(?P<kind>sha256|version)=(?P<value>[^#]*))?", re.DOTALL)


@dataclass(frozen=True)
class Plugin:
    """A plug-in that is loaded.

    Attributes:
        name: of the file, without its folder; or of the entry point.
        pin: ``sha256=...`` of a file's content, or ``version=...`` of the package of an entry point.
        registers: what it registered, each as kind and name.
        content: of a file.
    """

    name: str
    pin: str
    registers: tuple[tuple[str, str], ...]
    content: bytes = b""

    @property
    def pinned(self) -> str:
        """The name and the pin: equal on every machine for what does the same."""
        return f"{self.name}#{self.pin}"


LOADED: dict[str, Plugin] = {}
"""Pin of a file, or pinned name of an entry point -> what is loaded in this process."""


def anchored(names: Iterable[str], folder: Path) -> list[str]:
    """Return plug-ins as listed, the paths of files relative to ``folder``."""
    return [str(folder / name) if _is_file(name) else name for name in names]


def load_plugins(names: Sequence[str]) -> tuple[str, ...]:
    """Load plug-ins, in order, each unless its content is loaded already; return their resolved names.

    Args:
        names: paths of files, relative to the working directory, and names of entry points, pinned or not.

    Raises:
        ConfigError: one that does not exist, was changed, fails, registers nothing or a name that is taken; or two of
            one name.
    """
    resolved = tuple(_load(name) for name in names)
    known = [portable(name) for name in resolved]
    bare = [name.partition("#")[0] for name in known]
    if twice := [name for name in bare if bare.count(name) > 1]:
        raise ConfigError(
            f"plugins lists {twice[0]} twice; list each once, and give files names of their own"
        )
    return resolved


def expect_loaded(names: Iterable[str]) -> None:
    """Raise ConfigError unless every plug-in is resolved, and loaded in this process."""
    for name in names:
        if _loaded(name) is None:
            raise ConfigError(
                f"plug-in {name} is not loaded; list it in the job file, or load it with sflam.load"
            )


def portable(name: str) -> str:
    """Return a resolved name without its folder: equal on every machine."""
    path, mark, pin = name.rpartition("#")
    return PureWindowsPath(path).name + mark + pin if _is_file(path) else name


def pin_of(name: str) -> str:
    """Return what two resolved names have in common where they do the same: a file's hash, an entry point's name."""
    portable_name = portable(name)
    bare, _, pin = portable_name.rpartition("#")
    return pin if _is_file(bare) else portable_name


def contents(names: Iterable[str]) -> dict[str, bytes]:
    """Return the files among resolved plug-ins: name without folder -> content, as loaded."""
    files = [(portable(name).partition("#")[0], _loaded(name)) for name in names if _is_file(name)]
    return {name: plugin.content for name, plugin in files if plugin is not None}


def _loaded(name: str) -> Plugin | None:
    _, _, pin = name.rpartition("#")
    return LOADED.get(pin) or LOADED.get(name)


def _is_file(name: str) -> bool:
    return name.partition("#")[0].endswith(SUFFIX)


def _load(name: str) -> str:
    match = PIN.fullmatch(name)
    assert match is not None or not name
    if match is None:
        raise ConfigError("plugins lists an empty name; give a file that ends in .py, or an entry point")
    bare, value = match["name"], match["value"]
    if _is_file(bare):
        plugin = _load_file(Path(bare).expanduser(), value if match["kind"] == "sha256" else None)
        return f"{Path(bare).expanduser().absolute()}#{plugin.pin}"
    return _load_entry(bare, value if match["kind"] == "version" else None).pinned


def _load_file(path: Path, wanted: str | None) -> Plugin:
    with reading(f"plug-in {path}", "plugins are paths of .py files, relative to the job file", ConfigError):
        raw = path.read_bytes()
    sha256 = hashlib.sha256(raw).hexdigest()
    if wanted is not None and sha256 != wanted:
        raise ConfigError(
            f"plug-in {path} was changed: its sha256 is {sha256[:12]}, {wanted[:12]} is listed; put the file back, or "
            "start a new run"
        )
    pin = f"sha256={sha256}"
    if pin not in LOADED:
        name = f"sflam_plugin_{re.sub(r'[^0-9a-zA-Z]', '_', path.stem)}_{sha256[:8]}"
        module = ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module  # as an import does, for classes that look their module up

        def load() -> None:
            exec(compile(raw, str(path), "exec", dont_inherit=True), module.__dict__)

        try:
            made = _registered(f"plug-in {path}", name, load)
        except BaseException:
            del sys.modules[name]
            raise
        LOADED[pin] = Plugin(path.name, pin, made, raw)
    return LOADED[pin]


def _load_entry(name: str, wanted: str | None) -> Plugin:
    entries = importlib.metadata.entry_points(group=GROUP)
    found = [entry for entry in entries if entry.name == name]
    if not found:
        known = ", ".join(sorted({entry.name for entry in entries})) or "none"
        raise ConfigError(
            f"plug-in {name!r} is no file that ends in .py, and no installed package declares an entry point of that "
            f"name in the group {GROUP} (declared: {known}); install the package, or give a file"
        )
    packages = {entry.dist.name: entry.dist.version for entry in found if entry.dist is not None}
    if len(packages) != 1:
        raise ConfigError(
            f"plug-in {name!r} is declared by {', '.join(sorted(packages))}; uninstall all but one"
        )
    [(package, version)] = packages.items()
    pinned = f"{name}#version={version}"
    if wanted is not None and version != wanted:
        raise ConfigError(
            f"plug-in {name!r} is version {version} of {package}, {wanted} is listed; install that one, or start a new "
            "run"
        )
    if pinned not in LOADED:
        label = f"plug-in {name!r} of {package} {version}"

        def load() -> None:
            loaded = found[0].load()
            if callable(loaded):
                loaded()

        made = _registered(label, found[0].module, load)
        LOADED[pinned] = Plugin(name, f"version={version}", made)
    return LOADED[pinned]


def _registered(label: str, module: str, load: Callable[[], None]) -> tuple[tuple[str, str], ...]:
    """Run ``load``, which runs a module; return what it registered, of which nothing is left where it fails.

    Raises:
        ConfigError: it fails, or registers nothing.
    """
    made: list[Added] = []
    try:
        with recorded(made):
            load()
    except (Exception, SystemExit) as error:
        take_back(made)
        raise ConfigError(f"{label}{_line(error, module)}: {_reason(error)}") from error
    except BaseException:
        take_back(made)
        raise
    # A program may have imported the module of an entry point itself.
    homes = {each.module for each in made} | {
        home for names in OWN.values() for home in names.values() if _within(home, module)
    }
    if not homes:
        raise ConfigError(f"{label} registers nothing; it must call one of the functions sflam.register_...")
    FROM_PLUGINS.update(homes)
    return tuple((kind, name) for kind, names in OWN.items() for name, home in names.items() if home in homes)


def _within(home: str, module: str) -> bool:
    return home == module or home.startswith(f"{module}.")


def _line(error: BaseException, module: str) -> str:
    """Return the line of ``module`` that an error comes from, or nothing."""
    found, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == module:
            found = trace.tb_lineno
        trace = trace.tb_next
    if not found and isinstance(error, SyntaxError):
        found = error.lineno or 0
    return f", line {found}" if found else ""


def _reason(error: BaseException) -> str:
    """Return an error in one line: its own words where it is one of ours."""
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    if isinstance(error, SflamError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
