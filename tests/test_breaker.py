"""The circuit breaker, on a clock that the test turns."""

import pytest

from router.breaker import BreakerRules, Breakers

RULES = BreakerRules(n_failures=3, window_s=30.0, open_s=10.0, max_open_s=25.0, max_retry_after_s=100.0)


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def failing(clock: Clock, n_times: int = 3) -> Breakers:
    breakers = Breakers(RULES, clock)
    for _ in range(n_times):
        breakers.failed("a")
    return breakers


def opening_behind(clock: Clock) -> tuple[Breakers, float]:
    """A circuit that opened while a request was out, and when that was asked."""
    breakers = failing(clock, 1)
    asked_at = breakers.ask("a", within_s=60)
    clock.now += 1
    for _ in range(2):
        breakers.failed("a")
    return breakers, asked_at


def test_enough_failures_within_the_window_open_it_for_its_upstream_alone() -> None:
    assert failing(Clock(), 2).state("a") == "closed"
    breakers = failing(Clock(), 3)
    assert (breakers.state("a"), breakers.state("b")) == ("open", "closed")


def test_failures_that_lie_apart_do_not_open_it() -> None:
    clock = Clock()
    breakers = Breakers(RULES, clock)
    for _ in range(10):
        breakers.failed("a")
        clock.now += 16
    assert breakers.state("a") == "closed"


@pytest.mark.parametrize(("n_between", "state"), [(0, "open"), (1, "open"), (2, "closed"), (9, "closed")])
def test_failures_open_it_where_they_are_half_of_what_was_asked(n_between: int, state: str) -> None:
    clock = Clock()
    breakers = Breakers(RULES, clock)
    for _ in range(100):
        breakers.failed("a")
        if breakers.state("a") == "open":
            break
        for _ in range(n_between):
            breakers.succeeded("a")
        clock.now += 1
    assert breakers.state("a") == state


def test_an_outage_opens_it_at_once_whatever_went_well_before() -> None:
    clock = Clock()
    breakers = Breakers(RULES, clock)
    breakers.failed("a")  # it happens
    for _ in range(1000):
        clock.now += 0.01
        breakers.succeeded("a")
    for _ in range(RULES.n_failures):
        assert breakers.state("a") == "closed"
        breakers.failed("a")
    assert breakers.state("a") == "open"


def test_an_answer_to_who_asked_before_it_opened_does_not_close_it() -> None:
    clock = Clock()
    breakers, asked_at = opening_behind(clock)
    breakers.succeeded("a", asked_at)
    assert breakers.state("a") == "open"
    clock.now += 10
    breakers.succeeded("a", breakers.ask("a", within_s=60))
    assert breakers.state("a") == "closed"


def test_a_failure_of_who_asked_before_it_opened_does_not_spoil_a_probe() -> None:
    clock = Clock()
    breakers, straggler = opening_behind(clock)
    clock.now += 10
    probe = breakers.ask("a", within_s=60)
    clock.now += 1
    breakers.failed("a", asked_at=straggler)
    breakers.succeeded("a", probe)
    assert breakers.state("a") == "closed"


def test_what_failed_once_is_forgotten_with_the_window() -> None:
    clock = Clock()
    breakers = Breakers(RULES, clock)
    breakers.failed("a")
    breakers.succeeded("a")
    assert breakers.has_failures
    clock.now += 31
    breakers.succeeded("a")
    assert not breakers.has_failures


def test_half_open_lets_one_probe_through_which_closes_it() -> None:
    clock = Clock()
    breakers = failing(clock)
    clock.now += 10
    assert breakers.state("a") == "half_open"
    breakers.ask("a", within_s=60)
    assert breakers.state("a") == "open"
    breakers.succeeded("a")
    assert breakers.state("a") == "closed"


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_the_most() -> None:
    clock = Clock()
    breakers = failing(clock)
    for wait_s in (10, 20, 25, 25):
        clock.now += wait_s - 1
        assert breakers.state("a") == "open"
        clock.now += 1
        assert breakers.state("a") == "half_open"
        breakers.ask("a", within_s=60)
        breakers.failed("a")


def test_a_probe_whose_client_left_or_that_never_ended_lets_another_through() -> None:
    clock = Clock()
    breakers = failing(clock)
    clock.now += 10
    breakers.ask("a", within_s=60)
    breakers.abandoned("a")
    assert breakers.state("a") == "half_open"
    breakers.ask("a", within_s=60)
    clock.now += 60
    assert breakers.state("a") == "half_open"


def test_a_retry_after_holds_at_once_and_as_long_as_it_says() -> None:
    clock = Clock()
    breakers = Breakers(RULES, clock)
    breakers.failed("a", retry_after_s=7)
    assert (breakers.state("a"), breakers.retry_after_s("a")) == ("open", 7)
    breakers.succeeded("a")  # a request that was sent before
    clock.now += 3
    assert breakers.retry_after_s("a") == 4
    clock.now += 4
    assert (breakers.state("a"), breakers.retry_after_s("a")) == ("half_open", None)
    breakers.succeeded("a")
    assert breakers.state("a") == "closed"


def test_an_endless_retry_after_is_believed_up_to_the_most() -> None:
    breakers = Breakers(RULES, Clock())
    breakers.failed("a", retry_after_s=80_000)
    assert breakers.retry_after_s("a") == 100


def test_a_success_while_open_closes_it() -> None:
    breakers = failing(Clock())
    breakers.succeeded("a")
    assert breakers.state("a") == "closed"
