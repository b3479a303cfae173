"""One process at a time in a folder, whichever way the one before ended."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sflam.errors import RunError, ServeError
from sflam.locks import alone, hold
from tests.held import held_elsewhere

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no locks there")


def test_a_held_folder_is_refused_until_its_process_is_gone(tmp_path):
    with held_elsewhere(tmp_path) as holder:
        with pytest.raises(ServeError, match="it is busy"):
            hold(tmp_path, "it is busy", error=ServeError)
        holder.kill()
        holder.wait()
        hold(tmp_path, "it is busy").release()


def test_the_same_process_shares_it_and_lets_it_go_with_the_last_reference(tmp_path):
    first = hold(tmp_path, "busy")
    assert hold(tmp_path, "busy") is first
    first.release()
    second = hold(tmp_path, "busy")
    assert second.held and second is not first
    del second
    with held_elsewhere(tmp_path):
        pass


def test_threads_of_one_process_share_it(tmp_path):
    for _ in range(20):
        with ThreadPoolExecutor(8) as pool:
            held = list(pool.map(lambda _: hold(tmp_path, "busy"), range(8)))
        assert len(set(map(id, held))) == 1
        held[0].release()


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(RunError, match="No such file or directory"):
        hold(tmp_path / "nowhere", "busy")


def test_a_file_is_changed_by_one_thread_at_a_time(tmp_path):
    path = tmp_path / "count"
    path.write_text("0")

    def add() -> None:
        for _ in range(20):
            with alone(path, "busy", patience=60):
                path.write_text(str(int(path.read_text()) + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() == "80"


def test_who_waits_too_long_is_refused(tmp_path):
    with (
        alone(tmp_path / "file", "busy", patience=1),
        pytest.raises(ServeError, match=r"^busy$"),
        alone(tmp_path / "file", "busy", patience=0, error=ServeError),
    ):
        raise AssertionError("unreachable")
