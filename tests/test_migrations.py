"""The migrations and the declared tables are one thing."""

import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from data.database import check, downgrade, upgrade
from data.errors import DatabaseError
from data.tables import Base

TABLES = set(Base.metadata.tables)


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return list(compare_metadata(context, Base.metadata))


def test_the_migrations_make_exactly_the_declared_tables(empty_engine: Engine) -> None:
    upgrade(empty_engine)
    assert differences(empty_engine) == []
    assert set(inspect(empty_engine).get_table_names()) == TABLES | {"alembic_version"}


def test_the_comparison_would_notice_a_missing_column(empty_engine: Engine) -> None:
    upgrade(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text("ALTER TABLE imports DROP COLUMN n_rejected"))
    assert [difference[0] for difference in differences(empty_engine)] == ["add_column"]  # type: ignore[index]


def test_checks_and_keys_that_a_comparison_does_not_see_are_there(engine: Engine) -> None:
    schema = inspect(engine)
    assert {check["name"] for check in schema.get_check_constraints("questions")} == {"ck_questions_split"}
    assert {check["name"] for check in schema.get_check_constraints("outcomes")} == {"ck_outcomes_label"}
    for table in Base.metadata.sorted_tables:
        assert schema.get_pk_constraint(table.name)["constrained_columns"] == [c.name for c in table.primary_key]


def test_down_leaves_nothing_and_up_again_leaves_everything(engine: Engine) -> None:
    downgrade(engine, "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    upgrade(engine)
    assert differences(engine) == []
    check(engine)


def test_an_upgrade_twice_changes_nothing(engine: Engine) -> None:
    upgrade(engine)
    check(engine)


def test_check_says_what_to_run_on_an_empty_database(empty_engine: Engine) -> None:
    with pytest.raises(DatabaseError, match=r"has no tables yet: run `embedrouter db upgrade`"):
        check(empty_engine)


def test_check_says_that_a_newer_release_wrote_the_database(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match=r"at migration 9999, which a newer release made"):
        check(engine)


def test_migrations_are_found_from_any_folder(
    empty_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    upgrade(empty_engine)
    check(empty_engine)


def test_alembic_needs_no_package_marker_beside_the_migrations() -> None:
    import alembic

    assert "site-packages" in str(alembic.__file__), sys.path
