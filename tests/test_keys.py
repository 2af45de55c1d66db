"""Who may ask."""

import pytest

from router.errors import InvalidApiKeyError
from router.keys import Keys
from router.settings import Settings

KEYS = Keys(Settings.model_validate({"master_key": "m", "keys": [{"name": "app", "key": "a b"}]}))


def test_each_key_has_its_name() -> None:
    assert KEYS.identify("Bearer m") == "master"
    assert KEYS.identify("bearer a b") == "app"


def test_space_around_a_key_is_none_of_it_and_any_script_will_do() -> None:
    keys = Keys(Settings.model_validate({"master_key": " m\r\n", "keys": [{"name": "app", "key": "clé-秘密"}]}))
    assert keys.identify("Bearer m") == "master"
    assert keys.identify("Bearer " + "clé-秘密".encode().decode("latin-1")) == "app"  # as a header is read


@pytest.mark.parametrize("header", [None, "", "m", "Bearer", "Bearer ", "Bearer M", "Basic m", "Bearer \udcff"])
def test_anything_else_is_refused_without_repeating_it(header: str | None) -> None:
    with pytest.raises(InvalidApiKeyError) as raised:
        KEYS.identify(header)
    assert raised.value.status == 401
    assert not header or header not in str(raised.value) or header in "Bearer "


def test_without_any_key_everyone_may_ask() -> None:
    assert Keys(Settings()).identify(None) == "anonymous"
    assert Keys(Settings()).identify("Bearer whatever") == "anonymous"
