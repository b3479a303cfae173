"""Whether a bundle hangs together: every input bound to a source of its role and shape, every output to a place."""

from __future__ import annotations

from collections.abc import Mapping

from sflam.errors import GraphError
from sflam.graph import bundle as roles
from sflam.graph.bundle import Binding, Bundle, Source
from sflam.graph.graph import Graph, Value
from sflam.graph.inference import written
from sflam.graph.size import N, Size, shape_of

SAMPLES = ("input_ids", "pixel_values")
INTO = {
    "embed": {roles.FROZEN, roles.SAMPLE},
    "block": {roles.FROZEN, roles.TRAINED, roles.HIDDEN, roles.GRADIENT, roles.SURROUNDING},
    "head": {roles.FROZEN, roles.TRAINED, roles.HIDDEN, roles.LABELS, roles.SHARE},
}
OUT_OF = {
    "embed": {roles.HIDDEN, roles.SURROUNDING},
    "forward": {roles.HIDDEN},
    "joint": {roles.GRADIENT, roles.TRAINED},
    "head": {roles.LOSS, roles.GRADIENT, roles.TRAINED},
}


def expect_bound(bundle: Bundle) -> None:
    """Raise GraphError, in one line, unless a device can run the bundle from end to end."""
    if len(bundle.blocks) != bundle.cut:
        raise GraphError(f"{len(bundle.blocks)} blocks; the cut is {bundle.cut}")
    around = _expect(bundle, bundle.embed.graph, bundle.embed.binding, "embed", "embed", {})
    surroundings = {s.name: v for s, v in around.items() if s.role == roles.SURROUNDING}
    _expect_one(around, roles.HIDDEN, "embed")
    trained: set[str] = set()
    for index, block in enumerate(bundle.blocks):
        kind, where = bundle.kinds[block.kind], f"block {index}"
        out = _expect(bundle, kind.forward, block.binding, "block", "forward", surroundings, where)
        _expect_one(out, roles.HIDDEN, f"{where}, forward")
        if kind.joint is not None:
            out = _expect(bundle, kind.joint, block.binding, "block", "joint", surroundings, where)
            trained |= _new(out, trained, where)
            if index and any(bundle.kinds[b.kind].joint for b in bundle.blocks[:index]):
                _expect_one(out, roles.GRADIENT, f"{where}, joint")
    if bundle.head is not None:
        out = _expect(bundle, bundle.head.graph, bundle.head.binding, "head", "head", {})
        _expect_one(out, roles.LOSS, "head")
        _expect_one(out, roles.GRADIENT, "head")
        trained |= _new(out, trained, "head")
    if missing := sorted(bundle.trained.keys() - trained):
        raise GraphError(f"no graph gives the gradient of {missing[0]}, which is trained")


def _expect(
    bundle: Bundle,
    graph: Graph,
    binding: Binding,
    into: str,
    out_of: str,
    surroundings: Mapping[str, Value],
    where: str = "",
) -> dict[Source, Value]:
    """Check one graph's binding; return what its outputs are."""
    where = where or into
    for name in graph.inputs:
        source = binding.inputs.get(name)
        if source is None or source.role not in INTO[into]:
            raise GraphError(f"{where}: the input {name} is bound to {_written(source)}")
        if (source.role == roles.FROZEN) != (name in graph.weights):
            raise GraphError(
                f"{where}: the input {name} is bound to {_written(source)}, but its graph differs"
            )
        _expect_source(bundle, source, graph.values[name], surroundings, f"{where}: the input {name}")
    found: dict[Source, Value] = {}
    for name in graph.outputs:
        place = binding.outputs.get(name)
        if place is None or place.role not in OUT_OF[out_of] or place in found:
            raise GraphError(f"{where}: the output {name} is bound to {_written(place)}")
        if place.role != roles.SURROUNDING:
            _expect_source(bundle, place, graph.values[name], {}, f"{where}: the output {name}")
        found[place] = graph.values[name]
    return found


def _expect_source(
    bundle: Bundle, source: Source, value: Value, surroundings: Mapping[str, Value], where: str
) -> None:
    named = source.role in (roles.FROZEN, roles.TRAINED, roles.SAMPLE, roles.SURROUNDING)
    if named != bool(source.name):
        raise GraphError(f"{where} is bound to {_written(source)}, {'without a' if named else 'with a'} name")
    wanted: Value | None = None
    if source.role == roles.TRAINED:
        if source.name not in bundle.trained:
            raise GraphError(f"{where} is bound to {source.name}, which is not trained")
        wanted = Value(shape_of(*bundle.trained[source.name]))
    elif source.role in (roles.HIDDEN, roles.GRADIENT):
        wanted = Value(shape_of(1, N, bundle.dim) if bundle.text else shape_of(N, bundle.tokens, bundle.dim))
    elif source.role in (roles.SHARE, roles.LOSS):
        wanted = Value(())
    elif source.role == roles.SURROUNDING:
        wanted = surroundings.get(source.name)
        if wanted is None:
            raise GraphError(
                f"{where} is bound to the surrounding {source.name}, which the embedding does not give"
            )
    elif source.role == roles.FROZEN:
        if any(size.constant is None for size in value.shape):
            raise GraphError(
                f"{where} is a frozen tensor of the shape {written(value.shape)}, which hangs on n"
            )
    elif source.role == roles.SAMPLE:
        ids = Value(shape_of(1, N), "int")
        wanted = ids if source.name == SAMPLES[0] else None
        pixels = value.numbers == "float" and value.shape[:1] == (N,) and len(value.shape) == 4
        if source.name not in SAMPLES or (source.name == SAMPLES[1] and not pixels):
            raise GraphError(f"{where} is bound to {_written(source)}; samples are {' or '.join(SAMPLES)}")
    elif source.role == roles.LABELS:
        one = Value(shape_of(1), "int")
        wanted = (
            one if bundle.text and value == one else Value((Size((1,)), N) if bundle.text else (N,), "int")
        )
    if wanted is not None and wanted != value:
        raise GraphError(
            f"{where} is {value.numbers} {written(value.shape)}; {_written(source)} is {wanted.numbers} "
            f"{written(wanted.shape)}"
        )


def _expect_one(found: Mapping[Source, Value], role: str, where: str) -> None:
    if not any(source.role == role for source in found):
        raise GraphError(f"{where} gives no {role}")


def _new(found: Mapping[Source, Value], before: set[str], where: str) -> set[str]:
    names = {source.name for source in found if source.role == roles.TRAINED}
    if twice := sorted(names & before):
        raise GraphError(f"{where}: the gradient of {twice[0]} is given twice")
    return names


def _written(source: Source | None) -> str:
    return "nothing" if source is None else f"{source.role} {source.name}".strip()
