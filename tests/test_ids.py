"""Ids are unique, in the order of time, and of no use for guessing others."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

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
    new_id()  # draws for the next ones too
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        os.write(writes, "".join(new_id()[12:] for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    digits = os.read(reads, 20 * 50).decode()
    os.close(reads)
    os.close(writes)
    theirs = {digits[start : start + 20] for start in range(0, len(digits), 20)}
    assert len(theirs) == 50
    assert theirs.isdisjoint(new_id()[12:] for _ in range(400))
