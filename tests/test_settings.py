"""config.yaml and the environment: what is read, what is refused, and in which words."""

from pathlib import Path

import pytest

from router.errors import ConfigError
from router.settings import Settings, is_loopback, load_settings


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        load_settings(write(tmp_path, text), environ or {})
    return str(raised.value)


FULL = """
version: 1
server: {host: 0.0.0.0, port: 8080}
database_url: postgresql+psycopg://db/logs
artifacts_dir: /srv/artifacts
master_key: ${MASTER}
keys:
  - {name: app, key: "${APP_KEY:-app-key}"}
policy: {name: balanced, lambda: 25, min_p_correct: 0.6}
pool:
  - name: large
    aliases: [large-2026]
    upstream: {base_url: "https://api.example.com/v1", api_key: "${LARGE_KEY}", model: vendor/large}
    usd_per_1m_input: 2.5
    usd_per_1m_output: 10
    context_window: 128000
    max_output_tokens: 4096
timeouts: {connect_s: 1, first_token_s: 2, between_chunks_s: 3, total_s: 4}
recording: {flush_interval_s: 0.1, queue_size: 10}
champion_poll_s: 0.5
"""


def test_an_empty_section_is_as_one_left_out_and_off_is_a_word(tmp_path: Path) -> None:
    text = "pool:\nserver:\nkeys:\npolicy:\n  default_model:\nrecording: {prompts: off}\n"
    settings = load_settings(write(tmp_path, text), {})
    assert settings == Settings()
    assert settings.recording.prompts == "off"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pool: 3", "`pool`: it should be a list"),
        ("server: 4", "`server`: it should hold keys, each with a value"),
        ("pool: [{name: }]", "`pool.0.name`: it is missing"),
        ('master_key: "  "', "`master_key`: it is blank"),
        ("timeouts: {connect_s: .inf}", "`timeouts.connect_s`: Input should be less than or equal to 1000000"),
        ("champion_poll_s: .nan", "`champion_poll_s`: Input should be less than or equal to 1000000"),
    ],
)
def test_what_has_the_wrong_shape_is_told_in_plain_words(tmp_path: Path, text: str, says: str) -> None:
    assert says in refusal(tmp_path, text)


def test_a_full_file_is_read_with_its_secrets_from_the_environment(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, FULL), {"MASTER": "m", "LARGE_KEY": "sk-1"})
    assert settings.server.port == 8080
    assert settings.master_key is not None
    assert settings.master_key.get_secret_value() == "m"
    assert settings.keys[0].key.get_secret_value() == "app-key"
    assert settings.policy.policy.usd_weight == 25
    entry = settings.pool[0]
    assert entry.upstream is not None
    assert entry.upstream.api_key is not None
    assert entry.upstream.api_key.get_secret_value() == "sk-1"
    assert entry.upstream.model == "vendor/large"
    assert "sk-1" not in repr(settings)


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(None, {}) == Settings()
    assert (Settings().server.host, Settings().server.port) == ("127.0.0.1", 4141)


def test_the_file_is_the_option_then_the_variable_then_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "server: {port: 1}")
    for name, port in (("two", 2), ("three", 3)):
        (tmp_path / f"{name}.yaml").write_text(f"server: {{port: {port}}}")
    environ = {"EMBEDROUTER_CONFIG": str(tmp_path / "two.yaml")}
    assert load_settings(None, {}).server.port == 1
    assert load_settings(None, environ).server.port == 2
    assert load_settings(tmp_path / "three.yaml", environ).server.port == 3


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "database_url: sqlite:///file.db\nmaster_key: file")
    environ = {"EMBEDROUTER_DATABASE_URL": "sqlite:///env.db", "EMBEDROUTER_MASTER_KEY": "env"}
    settings = load_settings(path, environ)
    assert settings.database_url == "sqlite:///env.db"
    assert settings.master_key is not None
    assert settings.master_key.get_secret_value() == "env"


def test_a_number_may_come_from_the_environment(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, "server: {port: '${PORT:-5000}'}"), {}).server.port == 5000
    assert load_settings(write(tmp_path, "server: {port: '${PORT:-5000}'}"), {"PORT": "5001"}).server.port == 5001


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("polcy: {}", "unknown key `polcy` at the top level; did you mean `policy`?"),
        ("policy: {lamda: 1}", "unknown key `lamda` in `policy`; did you mean `lambda`?"),
        (
            "pool: [{name: a, upstream: {base_url: 'http://x/v1', api_kee: k}}]",
            "unknown key `api_kee` in `pool.0.upstream`; did you mean `api_key`?",
        ),
        ("timeouts: {zzz: 1}", "valid keys: between_chunks_s, connect_s, first_token_s, keep_alive_s, total_s"),
        ("version: 2", "`version`: Input should be 1 (given: 2)"),
        ("policy: {name: best}", "Input should be 'quality', 'balanced', 'cheapest' or 'fixed' (given: 'best')"),
        (
            "policy: {name: cheapest, max_error: 0.1}",
            "`max_error` bounds the errors of policy `quality`, not of `cheapest`",
        ),
        ("policy: {abstain: default_model}", "`abstain: default_model` asks the `default_model`, and there is none"),
        ("server: {port: 70000}", "`server.port`: Input should be less than or equal to 65535 (given: 70000)"),
        ("master_key: ${NOPE}", "master_key: the environment variable NOPE is not set"),
        ("database_url: 'x${'", "database_url: `${` opens no variable"),
        ("server: {port: 1", "line 1"),
        ("server: {port: 1}\nserver: {port: 2}", "line 2: `server` stands twice"),
        ("? [a]\n: 1", "line 1: a key must be a word"),
        ("- 1", "holds a list; it should hold keys such as `version: 1`"),
        ("pool: [{name: auto}]", "the name 'auto' already belongs to 'the router itself'"),
        ("pool: [{name: ' '}]", "' ' is blank"),
        ("pool: [{name: a, aliases: ['']}]", "'' is blank"),
        ("pool: [{name: a}, {name: b, aliases: [a]}]", "the name 'a' already belongs to 'a'"),
        ("pool: [{name: a}, {name: a}]", "'a' is listed twice"),
        ("pool: [{name: a, upstream: {base_url: example.com}}]", "`pool.0.upstream.base_url`"),
        ("pool: &a\n- *a", "config.yaml: pool.0: a YAML alias (`*name`) repeats the part that it stands in"),
        ("policy: &a {name: *a}", "config.yaml: policy.name: a YAML alias"),
        ("&a\nserver: *a", "config.yaml: server: a YAML alias"),
        ("pool: " + "[" * 5000, "nested too deeply"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(tmp_path: Path, text: str, says: str) -> None:
    assert says in refusal(tmp_path, text)


def test_a_bad_secret_is_refused_without_its_value(tmp_path: Path) -> None:
    message = refusal(tmp_path, "master_key: {sekret-value: 1}\nkeys: [{name: a, key: 99887766}]")
    assert "`master_key`" in message
    assert "sekret-value" not in message
    assert "99887766" not in message


@pytest.mark.parametrize(
    "text", ["keys: [sk-secret]", "keys: {sk-secret: 1}", "keys: sk-secret", "pool: [{name: a, upstream: sk-secret}]"]
)
def test_a_secret_in_the_wrong_place_is_refused_without_its_value(tmp_path: Path, text: str) -> None:
    assert "sk-secret" not in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "url", ["https://user:hunter2@api.example.com/v1", "ftp://user:hunter2@host", "user:hunter2@host", "//:hunter2@h"]
)
def test_credentials_in_an_upstreams_url_are_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    said = refusal(tmp_path, f"pool: [{{name: a, upstream: {{base_url: '{url}'}}}}]")
    assert "`pool.0.upstream.base_url`" in said
    assert "hunter2" not in said
    assert "user" not in said.replace("a user name", "")


def test_credentials_are_pointed_at_the_key(tmp_path: Path) -> None:
    said = refusal(tmp_path, "pool: [{name: a, upstream: {base_url: 'https://me:hunter2@host/v1'}}]")
    assert "it holds a user name or a password" in said
    assert "`api_key: ${NAME}`" in said


def test_a_part_that_an_alias_repeats_is_read_as_often_as_it_stands_there(tmp_path: Path) -> None:
    text = "pool:\n- {name: a, upstream: &u {base_url: 'http://${HOST}/v1'}}\n- {name: b, upstream: *u}\n"
    pool = load_settings(write(tmp_path, text), {"HOST": "h"}).pool
    assert [section.upstream.base_url for section in pool if section.upstream] == ["http://h/v1"] * 2


def test_aliases_of_aliases_do_not_fill_the_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30))]
    assert "unknown key `a0`" in refusal(tmp_path, "\n".join(lines))


def test_an_empty_key_is_refused(tmp_path: Path) -> None:
    assert "`master_key`" in refusal(tmp_path, "master_key: ''")


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_settings(tmp_path / "absent.yaml", {})


def test_beyond_loopback_a_key_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"refusing to serve on 0\.0\.0\.0 without a key"):
        Settings().check_exposure("0.0.0.0")
    Settings().check_exposure("127.0.0.1")
    Settings.model_validate({"master_key": "k"}).check_exposure("0.0.0.0")


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)]
)
def test_loopback_is_known(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
