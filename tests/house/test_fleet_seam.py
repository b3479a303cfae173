"""The seam of a fleet does not leak: nothing asks of which class a fleet is, and every class answers every question."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "sflam"
SEAM = "Fleet"


def classes() -> dict[str, ast.ClassDef]:
    """Return every class of the package by name."""
    return {
        node.name: node
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }


def fleets() -> dict[str, ast.ClassDef]:
    """Return the classes that derive from the seam, at whatever distance, and the seam itself."""
    every, found = classes(), {SEAM}
    while True:
        more = {
            name
            for name, node in every.items()
            if found & {base.id for base in node.bases if isinstance(base, ast.Name)}
        } - found
        if not more:
            return {name: every[name] for name in found}
        found |= more


def class_tests(tree: ast.AST) -> Iterator[tuple[int, set[str]]]:
    """Yield (line, names of classes) of every test of an object's class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            yield node.lineno, {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name):
            yield node.cls.lineno, {node.cls.id}


def test_the_fleets_are_found() -> None:
    assert {
        "LocalFleet",
        "Relay",
        "Federated",
        "Local",
        "Central",
        "FleetAround",
        "SimulatedFleet",
        "RemoteFleet",
    } < set(fleets())


def test_nothing_asks_of_which_class_a_fleet_is() -> None:
    names = set(fleets())
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line, tested in class_tests(ast.parse(path.read_text(encoding="utf-8")))
        if tested & names
    ]
    assert found == []


def test_a_fleet_around_another_passes_every_question_on() -> None:
    """A question the wrapper does not pass on would be answered by the seam's default, not by the wrapped fleet."""
    own = {
        name: {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
        for name, node in fleets().items()
    }
    asked = {name for name in own[SEAM] if not name.startswith("_")}
    assert asked - {"name"} <= own["FleetAround"]


def test_a_test_of_a_class_is_caught() -> None:
    tree = ast.parse(
        "if isinstance(fleet, (Central | LocalFleet)):\n    pass\nmatch fleet:\n    case Relay():\n        pass"
    )
    assert list(class_tests(tree)) == [(1, {"Central", "LocalFleet"}), (4, {"Relay"})]
