"""Alembic's entry: migrates the connection that `data.database` hands over, or the database of the environment."""

from alembic import context
from sqlalchemy import Connection

from data.database import database_url, open_engine, writing
from data.tables import Base


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",  # SQLite alters a table by copying it
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    context.configure(url=database_url(), target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
elif (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    with writing(open_engine(database_url()), lock="migrations") as opened:
        migrate(opened)
