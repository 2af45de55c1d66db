"""Read config.yaml and the environment into settings that were checked once.

It knows nothing of the pool in SQL or of artifacts. Every complaint names the key, its place and what would be right;
a secret's value never stands in one.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from data.model_names import AUTO, shown_url, url_fault
from router.breaker import BreakerRules
from router.errors import ConfigError
from router.needs import Capability
from router.parameters import AS_IT_COMES, FIXED, ParameterRules
from router.policy import Abstain, Policy, PolicyName

DEFAULT_PATH = Path("config.yaml")
SECRET_KEYS = frozenset({"master_key", "key", "api_key"})
WRONG_SHAPE = {
    "missing": "it is missing",
    "tuple_type": "it should be a list",
    "model_type": "it should hold keys, each with a value",
    "dict_type": "it should hold keys, each with a value",
}

Seconds = Annotated[float, Field(gt=0, le=1e6)]  # twelve days: nobody waits longer, and timers take no infinity
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _stripped(secret: SecretStr) -> SecretStr:
    """A secret without what files and shells leave around it."""
    found = secret.get_secret_value().strip()
    if not found:
        raise ValueError("it is blank; leave it out where there is none")
    return SecretStr(found)


Secret = Annotated[SecretStr, AfterValidator(_stripped)]


def _without_credentials(url: str) -> str:
    if fault := url_fault(url):
        raise ValueError(f"{fault}; the key has a place of its own: `api_key: ${{NAME}}`" if "@" in url else fault)
    return url


class Section(BaseModel):
    """A part of config.yaml: unknown keys are mistakes, and a key with nothing behind it is as one left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, content: object) -> object:
        if not isinstance(content, dict):
            return content
        known = {name for key, field in cls.model_fields.items() for name in (key, field.alias)}
        return {key: value for key, value in content.items() if value is not None or key not in known}


class Server(Section):
    host: str = "127.0.0.1"
    port: int = Field(4141, ge=0, le=65535)
    admin_port: int | None = Field(None, ge=0, le=65535, description="of /metrics, on loopback; default: port + 1")
    max_body_bytes: int = Field(32 * 1024 * 1024, gt=0)
    body_timeout_s: Seconds = Field(30.0, description="how long a request's body may pause")


class Key(Section):
    """A client's key under a name that may stand in logs."""

    name: str = Field(min_length=1)
    key: Secret


class PolicySection(Section):
    """What decides between models, unless a request says otherwise."""

    name: PolicyName = "quality"
    usd_weight: float = Field(10.0, alias="lambda", ge=0, allow_inf_nan=False)
    min_p_correct: float = Field(0.7, ge=0, le=1)
    default_model: str | None = Field(None, description="asked where no forecast can be made, and by policy fixed")
    max_error: float | None = Field(None, ge=0, le=1, description="of the answers of policy quality")
    abstain: Abstain = "refuse"
    max_novelty: float | None = Field(
        None, ge=0, le=1, description="a prompt more novel than this is not forecast; default: as the artifact says"
    )

    @model_validator(mode="after")
    def _fixed_has_a_model(self) -> "PolicySection":
        if self.name == "fixed" and self.default_model is None:
            raise ValueError("policy `fixed` asks the `default_model`, and there is none: name one")
        return self

    @model_validator(mode="after")
    def _a_limit_on_errors_can_be_kept(self) -> "PolicySection":
        if self.max_error is not None and self.name != "quality":
            raise ValueError(
                f"`max_error` bounds the errors of policy `quality`, not of `{self.name}`: drop one of them"
            )
        if self.abstain == "default_model" and self.default_model is None:
            raise ValueError("`abstain: default_model` asks the `default_model`, and there is none: name one")
        return self

    @cached_property
    def policy(self) -> Policy:
        limits = (self.max_error, self.abstain, self.max_novelty)
        return Policy(self.name, self.usd_weight, self.min_p_correct, self.default_model, *limits)


class UpstreamSection(Section):
    """An OpenAI-compatible endpoint: `base_url` ends where `/chat/completions` begins."""

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/]+"), AfterValidator(_without_credentials)]
    api_key: Secret | None = None
    model: str | None = Field(None, description="the model's id there; its pool name where absent")


class ParametersSection(Section):
    """What one model's upstream takes otherwise: renamed first, then dropped, then added where it is absent."""

    rename: dict[str, str] = {}
    drop: tuple[str, ...] = ()
    require: dict[str, object] = {}

    @model_validator(mode="after")
    def _rules_spare_the_prompt(self) -> "ParametersSection":
        for name in (*self.rename, *self.rename.values(), *self.drop, *self.require):
            if name in FIXED:
                raise ValueError(f"`{name}` is what a request is made of; rules are for other parameters")
        return self

    def rules(self) -> ParameterRules:
        if not (self.rename or self.drop or self.require):
            return AS_IT_COMES
        return ParameterRules(tuple(self.rename.items()), frozenset(self.drop), tuple(self.require.items()))


class PoolSection(Section):
    """One model of the pool. What it leaves out is taken from `embedrouter models`."""

    name: str = Field(min_length=1)
    aliases: tuple[str, ...] = ()
    upstream: UpstreamSection | None = None
    usd_per_1m_input: Usd | None = None
    usd_per_1m_output: Usd | None = None
    context_window: int | None = Field(None, gt=0)
    max_output_tokens: int | None = Field(None, gt=0)
    capabilities: tuple[Capability, ...] | None = Field(None, description="all that it can; absent is unknown")
    parameters: ParametersSection = ParametersSection()


class Timeouts(Section):
    """How long each phase of an upstream call may take; `total_s` holds for all attempts together.

    `first_token_s` ends with the first content of a stream, or with the headers of a whole answer. A client whose
    stream is silent for `keep_alive_s` gets a comment, so that no proxy takes the connection for dead; before the first
    content its headers too, and then a failure comes as an event, its status being 200.
    """

    connect_s: Seconds = 5.0
    first_token_s: Seconds = 300.0
    between_chunks_s: Seconds = 120.0
    total_s: Seconds = 900.0
    keep_alive_s: Seconds = 15.0


BREAKER = BreakerRules()


class Breaker(Section):
    """When an upstream that fails is left alone, and for how long; each probe that fails doubles `open_s`."""

    n_failures: int = Field(BREAKER.n_failures, gt=0)
    failure_share: float = Field(BREAKER.failure_share, gt=0, le=1)
    window_s: Seconds = BREAKER.window_s
    open_s: Seconds = BREAKER.open_s
    max_open_s: Seconds = BREAKER.max_open_s
    max_retry_after_s: Seconds = BREAKER.max_retry_after_s

    def rules(self) -> BreakerRules:
        return BreakerRules(**self.model_dump())


def _as_written(word: object) -> object:
    """YAML takes the word `off` for a false."""
    return "off" if word is False else word


class Recording(Section):
    """How decisions reach SQL: every flush interval from memory to disk, and from there to the database.

    A process that is killed loses what the last flush interval brought. `prompts` says what is kept of them: nothing,
    a digest that finds a question of the logs again, or the text, which feedback turns into a question.
    """

    flush_interval_s: Seconds = 0.5
    queue_size: int = Field(20_000, gt=0)
    max_spool_bytes: int = Field(4 * 1024**3, gt=0)
    prompts: Annotated[Literal["off", "hashed", "full"], BeforeValidator(_as_written)] = "off"


class EncoderSection(Section):
    """How long a prompt may take to be encoded and scored; a late one goes to the default model."""

    deadline_s: Seconds = 1.0


class EvidenceSection(Section):
    """The index of labelled questions that explains choices: it holds excerpts of your logs' prompts."""

    enabled: bool = True
    max_questions: int = Field(
        200_000,
        gt=0,
        description="searched exactly; where there are more, faiss indexes all, and without it the newest are",
    )


class Logs(Section):
    """What goes to stderr, and how. `requests: false` leaves out the requests that went well."""

    format: Literal["json", "text"] = "json"
    requests: bool = True


class Settings(Section):
    """All of config.yaml."""

    version: Literal[1] = 1
    server: Server = Server()
    database_url: str | None = None
    artifacts_dir: Path = Path("var/artifacts")
    state_dir: Path | None = Field(None, description="default: beside an SQLite database, else var/state")
    master_key: Secret | None = None
    keys: tuple[Key, ...] = ()
    policy: PolicySection = PolicySection()
    pool: tuple[PoolSection, ...] = ()
    timeouts: Timeouts = Timeouts()
    breaker: Breaker = Breaker()
    recording: Recording = Recording()
    logs: Logs = Logs()
    encoder: EncoderSection = EncoderSection()
    evidence: EvidenceSection = EvidenceSection()
    champion_poll_s: Seconds = 1.0

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Settings":
        seen: dict[str, str] = {AUTO: "the router itself"}
        for entry in self.pool:
            for name in (entry.name, *entry.aliases):
                if not name.strip():
                    raise ValueError(f"pool entry {entry.name!r}: {name!r} is blank, and no name of a model")
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
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply, or a YAML alias repeats the part that it stands in") from None
    except yaml.YAMLError as error:
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
    open_nodes = [id(content)]
    expanded: dict[int, object] = {}  # what an alias repeats is expanded once, however often it stands there

    def value(node: object, place: str) -> object:
        if isinstance(node, str):
            return VARIABLE.sub(lambda match: replacement(match, place), node)
        if not isinstance(node, dict | list):
            return node
        if id(node) in open_nodes:
            raise ConfigError(f"{where}: {place}: a YAML alias (`*name`) repeats the part that it stands in")
        if id(node) not in expanded:
            open_nodes.append(id(node))
            if isinstance(node, dict):
                expanded[id(node)] = {key: value(child, f"{place}.{key}") for key, child in node.items()}
            else:
                expanded[id(node)] = [value(child, f"{place}.{position}") for position, child in enumerate(node)]
            open_nodes.pop()
        return expanded[id(node)]

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
    message = WRONG_SHAPE.get(kind) or str(details["msg"]).removeprefix("Value error, ")
    if not loc:
        return message
    value = details["input"]  # a secret may stand in whatever has the wrong shape
    shown = isinstance(value, str | int | float) and kind not in WRONG_SHAPE and not SECRET_KEYS & set(loc)
    given = f" (given: {(shown_url(value) if isinstance(value, str) else value)!r})" if shown else ""
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
