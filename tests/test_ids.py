"""Ids are unique, in the order of time, and of no use for guessing others."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from router.ids import new_id


def test_ids_of_many_threads_differ() -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda _: new_id(), range(20_000)))
    assert len(set(ids)) == len(ids)
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in ids)


def test_later_ids_sort_behind_earlier_ones() -> None:
    earlier = [new_id() for _ in range(100)]
    time.sleep(0.005)
    assert max(earlier) < min(new_id() for _ in range(100))


def test_a_forked_process_gives_out_none_of_its_parents() -> None:
    program = (
        "import os; from router.ids import new_id; new_id(); child = os.fork(); "  # the first draws for others too
        "child and os.waitpid(child, 0); print(*(new_id()[12:] for _ in range(100)), flush=True)"
    )
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=Path(__file__).parents[1])
    of_the_child, of_the_parent = (set(line.split()) for line in ran.stdout.splitlines())
    assert len(of_the_child) == len(of_the_parent) == 100
    assert of_the_child.isdisjoint(of_the_parent)
