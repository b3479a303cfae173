"""One thread computes at a time, in the order in which they asked, and torch's generator is its alone meanwhile."""

from __future__ import annotations

import threading
import time

import torch

from sflam.learn.precision import reseeded
from sflam.serve.several.turns import Turns


def drawn(seed, turns, found, meanwhile):
    """Draw within a seeded pass, slowly, as a step does; let others compute between two passes."""
    with turns.mine():
        for number in range(4):
            with reseeded(seed + number):
                for _ in range(5):
                    found.append(torch.rand(3))
                    time.sleep(0.001)  # whoever computes now would draw from the same generator
            with turns.others():
                meanwhile()


def test_what_a_thread_draws_is_what_it_draws_alone():
    alone, together = [[], []], [[], []]
    for seed in (0, 1):
        drawn(100 * seed, Turns(), alone[seed], lambda: None)
    turns = Turns()
    threads = [
        threading.Thread(target=drawn, args=(100 * seed, turns, together[seed], lambda: time.sleep(0.001)))
        for seed in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for one, other in zip(alone, together, strict=True):
        assert len(one) == 20 and torch.equal(torch.stack(one), torch.stack(other))


def test_turns_go_around_in_the_order_in_which_they_were_asked_for():
    turns, order, asked = Turns(), [], threading.Semaphore(0)

    def take(name):
        asked.release()
        with turns.mine():
            order.append(name)

    threads = []
    with turns.mine():
        for name in "abcd":
            thread = threading.Thread(target=take, args=(name,))
            thread.start()
            threads.append(thread)
            asked.acquire(timeout=10)
            while len(turns._queue) < len(threads):
                time.sleep(0.001)
        with turns.others():  # those before this thread's second turn
            pass
        assert order == list("abcd")
    for thread in threads:
        thread.join(10)


def test_a_thread_without_the_turn_waits_without_giving_anything_up():
    turns, inside, over = Turns(), threading.Event(), threading.Event()

    def wait():
        with turns.others():
            inside.set()
            over.wait(10)

    with turns.mine():
        thread = threading.Thread(target=wait)
        thread.start()
        assert inside.wait(10)  # it has none to wait for
        over.set()
        thread.join(10)
    with turns.mine():
        pass
