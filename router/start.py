"""What a server needs to start, with the database or, where it was seen before, without it."""

import logging

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from data.database import database_url, engine_of, ready_engine
from data.errors import DatabaseAwayError
from data.queries import pool_models
from router.settings import Settings
from router.state import read_last_seen, state_folder

logger = logging.getLogger(__name__)


def serving_engine(settings: Settings, explicit: str | None = None) -> Engine:
    """Open the database; one that is away will do where this machine knows its champion and pool from before."""
    url = database_url(explicit or settings.database_url)
    try:
        return ready_engine(url)
    except DatabaseAwayError as error:
        engine = engine_of(url)
        if read_last_seen(state_folder(settings.state_dir, engine.url)) is None:
            engine.dispose()
            raise
        logger.warning("%s; serving what was known of it last", error)
        return engine


def simulated_models(settings: Settings, engine: Engine) -> list[str]:
    """Every model of the pool, by name, for simulated upstreams to stand in for."""
    try:
        rows = pool_models(engine)
    except SQLAlchemyError:
        seen = read_last_seen(state_folder(settings.state_dir, engine.url))
        rows = list(seen.models) if seen else []
    return list(dict.fromkeys([*(entry.name for entry in settings.pool), *(row.name for row in rows)]))
