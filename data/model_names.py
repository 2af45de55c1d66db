"""What a model can be called, and where it can be called: names and upstream URLs that are refused everywhere alike."""

import re
from urllib.parse import urlsplit

AUTO = "auto"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def name_fault(name: str) -> str | None:
    """Why no model can have this name; none where one can."""
    if not name.strip():
        return "no model can have a blank name"
    if name.strip() == AUTO:
        return f"no model can be called {AUTO}: that name asks the router to choose"
    return None


def url_fault(url: str) -> str | None:
    """Why no upstream can be called at this URL; none where one can. The URL itself does not stand in it."""
    try:
        parts = urlsplit(url)
        callable_there = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        callable_there = False
    if not callable_there:
        return "it starts with http:// or https:// and a host"
    if "@" in parts.netloc + parts.query + parts.fragment:
        return "it holds a user name or a password, which would be printed and logged"
    return None


def shown_url(url: str) -> str:
    """A URL as it may be printed: without what stands before an @, which may be a password."""
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@", r"\1***@", url, flags=re.DOTALL)


def variable_fault(name: str) -> str | None:
    """Why no environment variable has this name; it is not repeated, as it may be the key itself."""
    if VARIABLE.fullmatch(name):
        return None
    return "it is the name of the environment variable that holds the key (letters, digits and _), never the key itself"
