"""What one request says of its own routing: our object in its body, else our headers, else the configuration."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import unquote

from router.errors import InvalidRequestError, shown
from router.policy import POLICY_NAMES, Policy, PolicyName

EXTENSION = "embedrouter"
KEYS = (
    "policy",
    "min_p_correct",
    "max_error",
    "lambda",
    "usd_per_correct",
    "candidates",
    "max_cost_usd",
    "max_latency_s",
)
HEADER_OF = {key: f"x-embedrouter-{key.replace('_', '-')}" for key in KEYS}
_OUR_HEADERS = frozenset(HEADER_OF.values())
MAX_USD_WEIGHT = 1e12
LEAST_USD = 1 / MAX_USD_WEIGHT


class Overrides(NamedTuple):
    """How this request wants to be routed. None is no limit; `candidates` none is every model."""

    policy: Policy
    candidates: tuple[str, ...] | None = None
    max_cost_usd: float | None = None
    max_latency_s: float | None = None

    @property
    def has_limits(self) -> bool:
        return self.max_cost_usd is not None or self.max_latency_s is not None


@dataclass(frozen=True, slots=True)
class Given:
    """A value, and what to call it in a complaint."""

    param: str
    value: object

    @property
    def in_body(self) -> bool:
        """Whether it came as JSON; a header's value is a text."""
        return self.param.startswith(f"{EXTENSION}.")


def read_overrides(extension: object, headers: Mapping[str, str], default: Policy) -> Overrides:
    """Read what a request says; InvalidRequestError names the key or header that is wrong."""
    if extension is None and _OUR_HEADERS.isdisjoint(headers):  # as nearly always
        return Overrides(default)
    given = _given(extension, headers)
    cost, latency = given.get("max_cost_usd"), given.get("max_latency_s")
    return Overrides(
        _policy(given, default),
        _candidates(given.get("candidates")),
        _number(cost) if cost else None,
        _number(latency) if latency else None,
    )


def _given(extension: object, headers: Mapping[str, str]) -> dict[str, Given]:
    if extension is None:
        extension = {}
    if not isinstance(extension, dict):
        raise InvalidRequestError(f"`{EXTENSION}` must be an object, not {shown(extension)}", param=EXTENSION)
    for key in extension:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"it takes {', '.join(KEYS)}"
            raise InvalidRequestError(f"unknown key `{key}` in `{EXTENSION}`; {hint}", param=f"{EXTENSION}.{key}")
    given: dict[str, Given] = {}
    for key, header in HEADER_OF.items():
        if extension.get(key) is not None:
            given[key] = Given(f"{EXTENSION}.{key}", extension[key])
        elif (value := headers.get(header)) is not None:
            given[key] = Given(header, value)
    return given


def _policy(given: Mapping[str, Given], default: Policy) -> Policy:
    """The configured policy with this request's numbers; a number alone says which policy is meant."""
    policy = default
    bar, weight, worth = given.get("min_p_correct"), given.get("lambda"), given.get("usd_per_correct")
    limit = given.get("max_error")
    if weight and worth:
        message = f"`{weight.param}` and `{worth.param}` say the same thing, 1 / each other: give one of them"
        raise InvalidRequestError(message, param=worth.param)
    if "policy" in given:
        policy = replace(policy, name=_policy_name(given["policy"]))
    else:
        numbers: list[tuple[PolicyName, Given | None]] = [
            ("cheapest", bar),
            ("balanced", weight or worth),
            ("quality", limit),
        ]
        meant = [(name, number.param) for name, number in numbers if number]
        if len(meant) > 1:
            (one, param), (other, also), *_ = meant
            message = f"`{param}` is for policy {one}, `{also}` for {other}: say which, in `policy`"
            raise InvalidRequestError(message, param=param)
        for name, _ in meant:
            policy = replace(policy, name=name)
    if limit:
        if policy.name != "quality":
            message = f"`{limit.param}` bounds the errors of policy quality, not of {policy.name}: drop one of them"
            raise InvalidRequestError(message, param=limit.param)
        policy = replace(policy, max_error=_number(limit, most=1.0))
    if bar:
        policy = replace(policy, min_p_correct=_number(bar, most=1.0))
    if weight:
        policy = replace(policy, usd_weight=_number(weight))
    if worth:
        policy = replace(policy, usd_weight=1 / _number(worth, least=LEAST_USD))
    return policy


def _policy_name(given: Given) -> PolicyName:
    for name in POLICY_NAMES:
        if given.value == name:
            return name
    message = f"`{given.param}` is {shown(given.value)}; it must be one of {', '.join(POLICY_NAMES)}"
    raise InvalidRequestError(message, param=given.param)


def _number(given: Given, least: float = 0.0, most: float = MAX_USD_WEIGHT) -> float:
    value = given.value
    kinds = (int, float) if given.in_body else (int, float, str)
    try:
        number = float(value) if isinstance(value, kinds) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        number = -1.0
    if not least <= number <= most:
        limit = f"between {least:g} and {most:g}" if most == 1 else f"of {least:g} or more"
        raise InvalidRequestError(f"`{given.param}` is {shown(value)}; it must be a number {limit}", param=given.param)
    return number


def _candidates(given: Given | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    value = given.value
    if isinstance(value, str) and not given.in_body:  # a header's list
        value = [unquote(name.strip()) for name in value.split(",") if name.strip()]
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        message = f"`{given.param}` must be a list of model names, not {shown(given.value)}"
        raise InvalidRequestError(message, param=given.param)
    return tuple(value)
