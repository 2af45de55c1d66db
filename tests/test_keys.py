"""Who may ask."""

import pytest

from router.errors import InvalidApiKeyError
from router.keys import Keys
from router.settings import Settings

KEYS = Keys(Settings.model_validate({"master_key": "m", "keys": [{"name": "app", "key": "a b"}]}))


def test_each_key_has_its_name() -> None:
    assert KEYS.identify("Bearer m") == "master"
    assert KEYS.identify("bearer a b") == "app"


@pytest.mark.parametrize("header", [None, "", "m", "Bearer", "Bearer ", "Bearer M", "Basic m", "Bearer \udcff"])
def test_anything_else_is_refused_without_repeating_it(header: str | None) -> None:
    with pytest.raises(InvalidApiKeyError) as raised:
        KEYS.identify(header)
    assert raised.value.status == 401
    assert not header or header not in str(raised.value) or header in "Bearer "


def test_without_any_key_everyone_may_ask() -> None:
    assert Keys(Settings()).identify(None) == "anonymous"
    assert Keys(Settings()).identify("Bearer whatever") == "anonymous"
