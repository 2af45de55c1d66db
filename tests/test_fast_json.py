"""What goes through the fast writer and reader is what the standard library makes of it."""

import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import fast_json

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=[]))  # half surrogate pairs too
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_reads_as_it_was(value: object) -> None:
    written = fast_json.dumps(value)
    assert written.isascii()
    assert json.loads(written) == value
    assert fast_json.text(value) == written.decode()


@given(st.dictionaries(TEXTS, VALUES))
def test_an_object_is_read_as_the_standard_library_reads_it(value: dict[str, object]) -> None:
    for written in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        content = written.encode("utf-8", "surrogatepass")
        assert fast_json.read_object(content) == json.loads(content)


@pytest.mark.parametrize(
    "content",
    [
        b'{"logprob": NaN}',
        b'{"logprob": -Infinity, "text": "\\ud83d"}',
        b'{"id": 123456789012345678901234567890}',
        b'{"id": -9223372036854775809}',
        b'{"a":' + b"[" * 400 + b"1" + b"]" * 400 + b"}",
        b'{"a":' + b"[" * 498 + b"1" + b"]" * 498 + b"}",
    ],
    ids=["NaN", "infinity, half a pair", "long number", "just beyond", "deep", "as deep as can be"],
)
def test_what_an_upstream_answers_oddly_passes_as_it_came(content: bytes) -> None:
    body = fast_json.read_object(content)
    assert body is not None
    assert fast_json.dumps(body) == content.replace(b": ", b":").replace(b", ", b",")


@pytest.mark.parametrize("content", [b"", b"[1]", b"3", b"{", b'{"a":1}x', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_object_reads_as_none(content: bytes) -> None:
    assert fast_json.read_object(content) is None


def test_a_time_is_written_in_iso_8601_and_a_nan_of_ours_as_null() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    for text in ("plain", "\N{SNOWMAN}"):  # each takes another writer
        written = json.loads(fast_json.dumps({"at": at, "text": text}))
        assert datetime.fromisoformat(written["at"]) == at
    assert fast_json.dumps({"novelty": math.nan}) == b'{"novelty":null}'


@pytest.mark.parametrize("content", [b'{"seed": 12345678901234567890123}', b"NaN", b'"\\ud800"', b"\xef\xbb\xbf{}"])
def test_what_only_the_standard_library_reads_right_is_left_to_it(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"64 bits|JSON|unexpected|surrogate|BOM"):
        fast_json.loads(content)


@pytest.mark.parametrize("depth", [*range(480, 520), 900, 960, 1000, 1015, 1030, 5000])
def test_what_is_too_deep_to_write_is_not_read(depth: int) -> None:
    content = b'{"a":' * depth + b"1" + b"}" * depth
    body = fast_json.read_object(content)
    assert (body is None) == (depth > fast_json.MAX_DEPTH)
    if body is not None:
        assert fast_json.dumps(body) == content


def test_brackets_in_a_text_are_no_depth() -> None:
    content = json.dumps({"code": "[{" * 5000, "list": [[]] * 5000}).encode()
    assert fast_json.loads(content) == json.loads(content)
