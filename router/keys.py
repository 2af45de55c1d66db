"""Who may ask: the master key and the keys of the configuration.

Keys are held as digests, so that finding one takes the same time whatever was guessed right.
"""

from hashlib import sha256

from router.errors import InvalidApiKeyError
from router.settings import Settings

MASTER = "master"
ANONYMOUS = "anonymous"


class Keys:
    """The keys that this service accepts, each with the name that may stand in logs."""

    def __init__(self, settings: Settings) -> None:
        named = [(key.name, key.key) for key in settings.keys]
        if settings.master_key is not None:
            named.append((MASTER, settings.master_key))
        self._name_of = {_digest(key.get_secret_value().encode()): name for name, key in named}

    def identify(self, authorization: str | None) -> str:
        """The name of the key in an Authorization header; InvalidApiKeyError where it is none of ours."""
        if not self._name_of:
            return ANONYMOUS
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise InvalidApiKeyError("no API key; send it as `Authorization: Bearer KEY`")
        name = self._name_of.get(_digest(key.strip().encode("latin-1", "replace")))  # the bytes that came
        if name is None:
            raise InvalidApiKeyError("this API key is not one of this router's")
        return name


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()
