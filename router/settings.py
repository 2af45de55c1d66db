"""Read config.yaml and the environment into settings that were checked once.

It knows nothing of the pool in SQL or of artifacts. Every complaint names the key, its place and what would be right;
a secret's value never stands in one.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from router.errors import ConfigError
from router.policy import Policy, PolicyName

DEFAULT_PATH = Path("config.yaml")
SECRET_KEYS = frozenset({"master_key", "key", "api_key"})
WRONG_SHAPE = frozenset({"missing", "model_type", "tuple_type"})

Seconds = Annotated[float, Field(gt=0)]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Secret = Annotated[SecretStr, Field(min_length=1)]


class Section(BaseModel):
    """A part of config.yaml: unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Server(Section):
    host: str = "127.0.0.1"
    port: int = Field(4141, ge=0, le=65535)
    max_body_bytes: int = Field(32 * 1024 * 1024, gt=0)


class Key(Section):
    """A client's key under a name that may stand in logs."""

    name: str = Field(min_length=1)
    key: Secret


class PolicySection(Section):
    """What decides between models, unless a request says otherwise."""

    name: PolicyName = "quality"
    usd_weight: float = Field(10.0, alias="lambda", ge=0, allow_inf_nan=False)
    min_p_correct: float = Field(0.7, ge=0, le=1)

    def policy(self) -> Policy:
        return Policy(self.name, usd_weight=self.usd_weight, min_p_correct=self.min_p_correct)


class UpstreamSection(Section):
    """An OpenAI-compatible endpoint: `base_url` ends where `/chat/completions` begins."""

    base_url: str = Field(pattern=r"^https?://[^\s/]+")
    api_key: Secret | None = None
    model: str | None = Field(None, description="the model's id there; its pool name where absent")


class PoolSection(Section):
    """One model of the pool. What it leaves out is taken from `embedrouter models`."""

    name: str = Field(min_length=1)
    aliases: tuple[str, ...] = ()
    upstream: UpstreamSection | None = None
    usd_per_1m_input: Usd | None = None
    usd_per_1m_output: Usd | None = None
    context_window: int | None = Field(None, gt=0)
    max_output_tokens: int | None = Field(None, gt=0)


class Timeouts(Section):
    """How long each phase of an upstream call may take; `total_s` holds for all attempts together."""

    connect_s: Seconds = 5.0
    first_byte_s: Seconds = 300.0
    between_chunks_s: Seconds = 120.0
    total_s: Seconds = 900.0


class Recording(Section):
    """How decisions reach SQL: at most a flush interval and a queue's length can be lost."""

    flush_interval_s: Seconds = 0.5
    queue_size: int = Field(20_000, gt=0)


class Settings(Section):
    """All of config.yaml."""

    version: Literal[1] = 1
    server: Server = Server()
    database_url: str | None = None
    artifacts_dir: Path = Path("var/artifacts")
    master_key: Secret | None = None
    keys: tuple[Key, ...] = ()
    policy: PolicySection = PolicySection()
    pool: tuple[PoolSection, ...] = ()
    timeouts: Timeouts = Timeouts()
    recording: Recording = Recording()
    champion_poll_s: Seconds = 1.0

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Settings":
        seen: dict[str, str] = {"auto": "the router itself"}
        for entry in self.pool:
            for name in (entry.name, *entry.aliases):
                if seen.setdefault(name, entry.name) != entry.name or (name == entry.name and name in entry.aliases):
                    raise ValueError(f"pool entry {entry.name!r}: the name {name!r} already belongs to {seen[name]!r}")
        names = [entry.name for entry in self.pool]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"pool: {min(twice)!r} is listed twice")
        return self

    @property
    def has_keys(self) -> bool:
        return self.master_key is not None or bool(self.keys)

    def check_exposure(self, host: str) -> None:
        """Refuse to serve without a key beyond this machine."""
        if not self.has_keys and not is_loopback(host):
            raise ConfigError(
                f"refusing to serve on {host} without a key: set EMBEDROUTER_MASTER_KEY or `master_key`, "
                "or bind to 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings: `path`, else EMBEDROUTER_CONFIG, else ./config.yaml if it is there, else the defaults.

    EMBEDROUTER_DATABASE_URL and EMBEDROUTER_MASTER_KEY win over the file.
    """
    found = path or _file(environ)
    content = expand(_read(found), environ, found.name) if found else {}
    for key, variable in (("database_url", "EMBEDROUTER_DATABASE_URL"), ("master_key", "EMBEDROUTER_MASTER_KEY")):
        if environ.get(variable):
            content[key] = environ[variable]
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        place = found or "the environment"
        lines = [complaint(details["loc"], details["type"], details) for details in error.errors(include_url=False)]
        raise ConfigError(f"{place}: " + "; ".join(lines)) from None  # the cause would print the values


def configured_database_url(environ: Mapping[str, str] = os.environ) -> str | None:
    """What the configuration says of the database, for verbs that need nothing else of it: no secret need be set."""
    found = _file(environ)
    if found is None:
        return None
    content = _read(found)
    for key in content:
        if str(key) not in Settings.model_fields:
            raise ConfigError(f"{found}: {complaint((str(key),), 'extra_forbidden', {})}")
    url = expand({"database_url": content.get("database_url")}, environ, found.name)["database_url"]
    if not isinstance(url, str | None):
        raise ConfigError(f"{found}: `database_url`: Input should be a valid string")
    return url


def _file(environ: Mapping[str, str]) -> Path | None:
    """The configuration that is meant where none is named: EMBEDROUTER_CONFIG, else ./config.yaml if it is there."""
    if environ.get("EMBEDROUTER_CONFIG"):
        return Path(environ["EMBEDROUTER_CONFIG"])
    return DEFAULT_PATH if DEFAULT_PATH.is_file() else None


def _read(path: Path) -> dict[str, object]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), UniqueKeyLoader)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}; it should hold keys such as `version: 1`")
    return content


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML where a key given twice is a mistake, not the last one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            key = key_node.value
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"`{key}` stands twice", key_node.start_mark)
            seen.add(key)
        return dict(super().construct_mapping(node, deep))


VARIABLE = re.compile(r"\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")


def expand(content: dict[str, object], environ: Mapping[str, str], where: str) -> dict[str, object]:
    """Replace `${NAME}` and `${NAME:-default}` in every text value."""

    def value(node: object, place: str) -> object:
        if isinstance(node, dict):
            return {key: value(child, f"{place}.{key}" if place else str(key)) for key, child in node.items()}
        if isinstance(node, list):
            return [value(child, f"{place}.{position}") for position, child in enumerate(node)]
        return VARIABLE.sub(lambda match: replacement(match, place), node) if isinstance(node, str) else node

    def replacement(match: re.Match[str], place: str) -> str:
        name, default = match.groups()
        if name is None:
            raise ConfigError(f"{where}: {place}: `${{` opens no variable; write ${{NAME}} or ${{NAME:-default}}")
        found = environ.get(name) or default
        if found is None:
            raise ConfigError(
                f"{where}: {place}: the environment variable {name} is not set; "
                f"set it, or write ${{{name}:-default}} for a default"
            )
        return found

    return {str(key): value(child, str(key)) for key, child in content.items()}


def complaint(loc: tuple[int | str, ...], kind: str, details: Mapping[str, object]) -> str:
    """Say what is wrong with one key, where, and what would be right."""
    *parents, last = loc or ("",)
    place = ".".join(str(part) for part in parents)
    if kind == "extra_forbidden":
        valid = sorted(valid_keys(tuple(parents)))
        near = difflib.get_close_matches(str(last), valid, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"valid keys: {', '.join(valid)}"
        return f"unknown key `{last}` {'in `' + place + '`' if place else 'at the top level'}; {hint}"
    message = str(details["msg"]).removeprefix("Value error, ")
    if not loc:
        return message
    value = details["input"]  # a secret may stand in whatever has the wrong shape
    shown = isinstance(value, str | int | float) and kind not in WRONG_SHAPE and not SECRET_KEYS & set(loc)
    given = f" (given: {value!r})" if shown else ""
    return f"`{'.'.join(str(part) for part in loc)}`: {message}{given}"


def valid_keys(place: tuple[int | str, ...]) -> Iterator[str]:
    """The keys that the section at a place of config.yaml may hold."""
    section: type[Section] = Settings
    for part in place:
        if isinstance(part, str):
            field = next(f for name, f in section.model_fields.items() if part in (name, f.alias))
            section = next(sections(field.annotation))
    for name, field in section.model_fields.items():
        yield field.alias or name


def sections(annotation: object) -> Iterator[type[Section]]:
    """The sections that stand in an annotation such as `tuple[Key, ...]` or `UpstreamSection | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from sections(argument)
