"""What no file of the repository may hold, and what the list of files must name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPED = {".git", ".venv", "dist", "build", "runs", "__pycache__"}

# Written in pieces, so that this file passes its own test.
FORBIDDEN = {
    "a package registry (the user's own settings name it)": "|".join(
        re.escape(a + b)
        for a, b in [
            ("py", "pi.org"),
            ("python", "hosted.org"),
            ("download.py", "torch.org"),
            ("registry.", "npmjs"),
            ("conda.", "anaconda.org"),
            ("arti", "factory"),
            ("dev", "pi/"),
            ("--index", "-url"),
            ("--extra-index", "-url"),
            ("--trusted", "-host"),
        ]
    ),
    "a path of one machine": r"(?<![\w.~/:*$}<-])/(?:home|Users|root|work|mnt|scratch)/\w|\b[A-Z]:\\"
    + "Users",
    "an unfinished note": r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE" + r" KEY-----",
}
UNSEARCHABLE = ("said", "told", "nobody", "somebody", "everybody", "whoever")
"""Words that no reader greps for: "report", "value", "no device", "every device" are searchable."""
UNSEARCHABLE_WORD = re.compile(rf"(?<![a-z])(?:{'|'.join(UNSEARCHABLE)})(?![a-z])", re.IGNORECASE)
VAGUE_NAMES = re.compile(r"(?:^|_)(?:utils?|managers?|helpers?|misc)(?:_|$)")


def repository() -> list[Path]:
    """Return every file that git tracks or would add; every file but build output where there is no git."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
        paths = [ROOT / name for name in done.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if not SKIPPED & set(path.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file()]


def wrong_text(text: str) -> list[str]:
    """Return what a text holds and may not, with line numbers."""
    lines = list(enumerate(text.splitlines(), start=1))
    return [
        f"{number}: {name}: {found[0]!r}"
        for name, pattern in FORBIDDEN.items()
        for number, line in lines
        if (found := re.search(pattern, line))
    ]


def listed(page: str) -> set[str] | None:
    """Return the files in the fenced block after ``<!-- tree -->``, or None when there is no such block.

    A line is a name and a remark; a name ending in a slash opens a folder for the deeper lines below it;
    ``src/sflam/`` is the root.
    """
    block = re.search(r"<!-- tree -->\s*```\w*\n(.*?)\n```", page, re.DOTALL)
    if block is None:
        return None
    files: set[str] = set()
    folders: list[tuple[int, str]] = []
    for line in block[1].splitlines():
        bare = re.sub(r"[│├└─|`]", " ", line)
        indent = len(bare) - len(bare.lstrip())
        name = bare.split()[0] if bare.split() else ""
        folders = [(depth, folder) for depth, folder in folders if depth < indent]
        if name.endswith("/"):
            folders.append((indent, "" if name.rstrip("/") in ("src/sflam", "sflam") else name))
        elif name.endswith(".py"):
            files.add("".join(folder for _, folder in folders) + name.removeprefix("src/sflam/"))
    return files


def test_no_file_holds_what_it_may_not() -> None:
    found = []
    for path in repository():
        raw = path.read_bytes()
        if b"\0" not in raw:
            found += [
                f"{path.relative_to(ROOT)}:{line}"
                for line in wrong_text(raw.decode("utf-8", errors="replace"))
            ]
    assert found == []


def unsearchable_words(folder: Path) -> list[str]:
    """Return ``file:line: word`` for every unsearchable word in names, docstrings, comments and messages."""
    return [
        f"{path.relative_to(folder)}:{number}: {word}"
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".py", ".jinja", ".toml")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for word in UNSEARCHABLE_WORD.findall(line)
    ]


def test_the_source_uses_searchable_words() -> None:
    assert unsearchable_words(ROOT / "src" / "sflam") == []


def test_unsearchable_words_are_found(tmp_path: Path) -> None:
    text = "def told_all(said): ...\n# Nobody knows\nretold = aforesaid\n"
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    assert unsearchable_words(tmp_path) == ["a.py:1: told", "a.py:1: said", "a.py:2: Nobody"]


def test_file_names_say_what_is_inside() -> None:
    parts = {part for path in repository() for part in path.relative_to(ROOT).with_suffix("").parts}
    assert [part for part in sorted(parts) if VAGUE_NAMES.search(part.lower())] == []


def test_keys_and_pickles_are_not_stored() -> None:
    suffixes = {".pem", ".key", ".p12", ".pfx", ".pkl", ".pickle", ".pt", ".pth", ".env"}
    assert [str(path) for path in repository() if path.suffix in suffixes] == []


def test_the_page_of_files_lists_every_file() -> None:
    files = listed((ROOT / "docs" / "reference" / "files.md").read_text(encoding="utf-8"))
    assert files is not None
    source = ROOT / "src" / "sflam"
    there = {
        path.relative_to(source).as_posix() for path in source.rglob("*.py") if path.name != "__init__.py"
    }
    assert sorted(files - {"__init__.py"}) == sorted(there)


@pytest.mark.parametrize(
    "line",
    [
        "pip install --index" + "-url=https://example.org/simple x",
        "see https://download.py" + "torch.org/whl/cpu",
        'PATH = "/ho' + 'me/someone/data"',
        "cd /wo" + "rk/main",
        "# TO" + "DO: later",
        "-----BEGIN RSA PRIVATE" + " KEY-----",
        "-----BEGIN PRIVATE" + " KEY-----",
    ],
)
def test_forbidden_text_is_caught(line: str) -> None:
    assert len(wrong_text("fine\n" + line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "#!/usr/bin/env bash",
        "https://example.org/home/page",
        "runs/tmp/x",
        "https://arxiv.org/abs/2504.09114",
        "a/work/b",
    ],
)
def test_innocent_text_passes(line: str) -> None:
    assert wrong_text(line) == []


@pytest.mark.parametrize("name", ["utils", "train_utils", "run_manager", "helper"])
def test_vague_names_are_caught(name: str) -> None:
    assert VAGUE_NAMES.search(name) and not VAGUE_NAMES.search("futile")


def test_a_tree_is_read() -> None:
    tree = """
<!-- tree -->
```
src/sflam/
├── errors.py       everything raised on purpose
├── learn/          how a round is run
│   ├── round.py    THE algorithm
│   └── server.py    the server half
└── units.py        dB and bytes, e.g. in history.py
```
"""
    assert listed(tree) == {"errors.py", "learn/round.py", "learn/server.py", "units.py"}
    plain = (
        "<!-- tree -->\n```text\nerrors.py  all\nlearn/\n  round.py  one\nsrc/sflam/data/local.py  files\n```"
    )
    assert listed(plain) == {"errors.py", "learn/round.py", "data/local.py"}
    assert listed("```\nerrors.py\n```") is None
