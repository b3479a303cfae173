"""The command line of a device without torch: strict, one line for each error, exit code 2."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from sflam import __main__ as program
from sflam.device import cli


@pytest.fixture
def token(tmp_path):
    (tmp_path / "token").write_text("sflam_abc\n")
    return tmp_path / "token"


def left(capsys, *arguments):
    """Return exit code and lines of stderr."""
    try:
        code = cli.main([*map(str, arguments)])
    except SystemExit as ended:
        code = ended.code
    return code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "required: SERVER"),
        (("h",), "give --token-file with the token that sflam enrol printed"),
        (("h", "--token-file", "none"), "token file none cannot be read"),
        (("h", "--token-file", "TOKEN", "--memory", "0"), "'0' is no number above 0"),
        (("h", "--token-file", "TOKEN", "--memory", "inf"), "'inf' is no number above 0"),
        (("h", "--token-file", "TOKEN", "--memory", "lots"), "'lots' is no number above 0"),
        (("h", "--token-file", "TOKEN", "--state-every", "-1"), "--state-every"),
        (("h", "--token-file", "TOKEN", "--state-every", "1.5"), "'1.5' is no whole number"),
        (("h", "--token-file", "TOKEN", "--threads", "0"), "'0' is no whole number of 1 or more"),
        (("h", "--token-file", "TOKEN", "--nice", "20"), "'20' is more than 19"),
        (("h", "--token-file", "TOKEN", "--mem", "50"), "unrecognized arguments: --mem 50"),
        (("h", "--token-file", "TOKEN", "--device", "cpu"), "unrecognized arguments: --device cpu"),
        (("h", "x", "--token-file", "TOKEN"), "unrecognized arguments: x"),
        (("ftp://h", "--token-file", "TOKEN"), "write HOST, HOST:PORT or https://HOST:PORT"),
        (("http://far.example", "--token-file", "TOKEN"), "would send the token in the clear"),
        (("h", "--token-file", "TOKEN", "--ca", "none.pem"), "certificates given cannot be used"),
        (("127.0.0.1:9", "--token-file", "TOKEN", "--patience", "0.01"), r"no answer from 127\.0\.0\.1:9"),
    ],
)
def test_what_is_wrong_is_one_line(capsys, token, arguments, reason):
    code, lines = left(capsys, *(token if word == "TOKEN" else word for word in arguments))
    errors = [line for line in lines if not line.startswith("no answer")]
    assert code == 2 and len(errors) == 1, lines
    assert errors[0].startswith("sflam: ") and re.search(reason, errors[0])


def test_threads_and_priority_are_set_before_numpy_is_imported(token):
    code = (
        "import os, sys\n"
        "from sflam.device import cli\n"
        f"words = ['127.0.0.1:9', '--token-file', {str(token)!r}, '--patience', '0.01']\n"
        "words += ['--threads', '1', '--nice', '3']\n"
        "before = os.nice(0)\n"
        "assert 'numpy' not in sys.modules and cli.main(words) == 2\n"
        "print(os.nice(0) - before, os.environ['OPENBLAS_NUM_THREADS'], 'numpy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["3", "1", "True"], done.stderr


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for (
        option
    ) in "token-file data input label folder ca cert key patience memory state-every insecure".split():
        assert f"--{option} " in shown


def test_sflam_device_starts_it(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sflam", "device", "h", "--token-file", "none"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    assert "token file none cannot be read" in capsys.readouterr().err


def test_nothing_but_numpy_is_loaded_by_all_of_it():
    code = (
        "import sys, sflam.device.cli, sflam.device.agent, sflam.link.https_client, sflam.link.token\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import site; site.main()\n" + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    own = {name for name in done.stdout.split() if not name.startswith(("_", "sitecustomize"))}
    assert own <= {"numpy", "sflam"}
