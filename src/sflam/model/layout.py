"""Where the parts of a model are that was split by its structure: plain names, which a server can send to devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sflam.errors import ModelError

LONGEST = 500
"""Characters of the name of a part."""
WIDEST = 64
LISTS = ("front", "back", "head")


@dataclass(frozen=True)
class PartLayout:
    """The names that a known family's row has, as a trial pass of the model shows them.

    Attributes:
        base: name of the backbone inside the whole model.
        blocks: path, inside the backbone, of the list of blocks.
        front: names, inside the backbone, of what runs before the blocks.
        back: names, inside the backbone, of what runs after the blocks.
        head: names, inside the whole model, of what else runs after them.
        width: entries of the tuple a block returns; 0 when it returns a tensor.
    """

    base: str
    blocks: str
    front: tuple[str, ...]
    back: tuple[str, ...]
    head: tuple[str, ...]
    width: int

    def as_json(self) -> dict[str, Any]:
        """Return what :func:`layout_from` reads."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }


def layout_from(found: Any) -> PartLayout | None:
    """Return the layout that a server names; None where it names none. Raises ModelError for anything else."""
    if found is None:
        return None
    if (
        not isinstance(found, Mapping)
        or found.keys() != {field.name for field in fields(PartLayout)}
        or not all(isinstance(found[key], list) and all(map(_is_name, found[key])) for key in LISTS)
        or not all(map(_is_name, (found["base"], found["blocks"])))
        or type(found["width"]) is not int
        or not 0 <= found["width"] <= WIDEST
    ):
        raise ModelError(
            f"the server's layout of the model is {str(found)[:100]}, which is none; use the same version on both sides"
        )
    named: dict[str, Any] = {key: tuple(found[key]) if key in LISTS else found[key] for key in found}
    return PartLayout(**named)


def _is_name(found: Any) -> bool:
    return isinstance(found, str) and len(found) <= LONGEST and "__" not in found
