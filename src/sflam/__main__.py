"""Where ``sflam`` and ``python -m sflam`` begin: before the command line's own libraries are known to be there."""

from __future__ import annotations

import sys
from importlib import import_module

EXTRAS = {
    "cli": ("typer", "rich"),
    "plan": ("scipy", "matplotlib", "jinja2"),
    "train": (
        "torch",
        "transformers",
        "datasets",
        "peft",
        "accelerate",
        "safetensors",
        "sklearn",
        "PIL",
        "tensorboardX",
    ),
    "serve": ("starlette", "uvicorn", "cryptography"),
    "oracle": ("cvxpy", "clarabel"),
    "flower": ("flwr",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
}
"""The libraries of each extra, by the names they are imported by; one of several extras stands with the first."""
CHOICE = (
    "pip install 'sflam[train]' to train or join, 'sflam[plan]' to plan, 'sflam[serve]' to serve; "
    "sflam device runs without it"
)
"""The fix where nothing but the base is installed: what to install depends on the command."""


def main() -> None:
    """Run a command; a library that is not installed is one line that names the extra, and exit code 2."""
    try:
        if sys.argv[1:2] == ["device"]:  # a lean device has none of the command line's libraries
            raise SystemExit(import_module("sflam.device.cli").main(sys.argv[2:]))
        from sflam.cli import main as commands

        commands()
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "")
        if extra is None:
            raise
        fix = CHOICE if extra == "cli" else f"pip install 'sflam[{extra}]'"
        print(f"sflam: {error.name} is not installed; {fix}", file=sys.stderr)
        raise SystemExit(2) from None


def extra_of(module: str) -> str | None:
    """Return the extra that installs a module, or None where no extra does."""
    top = module.partition(".")[0]
    return next((extra for extra, libraries in EXTRAS.items() if top in libraries), None)


if __name__ == "__main__":
    main()
