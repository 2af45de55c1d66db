"""What the tables themselves hold to."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from data.tables import Model, ModelAlias, Outcome, Question


def test_times_come_back_in_utc_from_every_database(engine: Engine) -> None:
    noon_in_tokyo = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=9)))
    with Session(engine) as session:
        session.add(Model(name="m", created_at=noon_in_tokyo))
        session.commit()
        assert session.scalars(select(Model.created_at)).one() == datetime(2026, 3, 1, 3, tzinfo=UTC)


def test_the_same_id_with_another_prompt_is_another_question(engine: Engine) -> None:
    with Session(engine) as session:
        session.add_all(Question(external_id="q", prompt=text, prompt_sha256=text * 64) for text in "ab")
        session.commit()
        session.add(Question(external_id="q", prompt="a", prompt_sha256="a" * 64))
        with pytest.raises(IntegrityError):
            session.commit()


@pytest.mark.parametrize("values", [{"split": "spare"}, {"prompt": None}])
def test_a_question_cannot_be_stored_wrong(engine: Engine, values: dict[str, object]) -> None:
    row = {"external_id": "q", "prompt": "p", "prompt_sha256": "0" * 64, "benchmark": "", **values}
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(insert(Question), [row])


def test_a_label_is_0_or_1(engine: Engine) -> None:
    with Session(engine) as session:
        session.add_all([Model(name="m"), Question(external_id="q", prompt="p", prompt_sha256="0" * 64)])
        session.commit()
        session.add(Outcome(question_id=1, model_id=1, source="s", observation_key="k", label=2))
        with pytest.raises(IntegrityError):
            session.commit()


def test_aliases_go_with_their_model(engine: Engine) -> None:
    with Session(engine) as session:
        model = Model(name="m")
        session.add(model)
        session.flush()
        session.add(ModelAlias(alias="other", model_id=model.id))
        session.flush()
        session.delete(model)
        session.commit()
        assert session.scalars(select(ModelAlias)).all() == []
