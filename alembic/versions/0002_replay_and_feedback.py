"""Decisions keep what a replay reads, a time to the first token and perhaps the prompt; feedback keeps its outcome.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("decisions") as batch:
        batch.add_column(sa.Column("inputs", sa.JSON(), nullable=True))
        batch.add_column(sa.Column("prompt", sa.Text(), nullable=True))
        batch.add_column(sa.Column("prompt_sha256", sa.String(length=64), nullable=True))
        batch.add_column(sa.Column("route_s", sa.Float(), nullable=True))
        batch.add_column(sa.Column("ttft_s", sa.Float(), nullable=True))
    with op.batch_alter_table("feedback") as batch:
        batch.add_column(sa.Column("outcome_id", BigId, nullable=True))
        batch.create_foreign_key(op.f("fk_feedback_outcome_id_outcomes"), "outcomes", ["outcome_id"], ["id"])
        batch.create_unique_constraint(op.f("uq_feedback_decision_id_source"), ["decision_id", "source"])


def downgrade() -> None:
    with op.batch_alter_table("feedback") as batch:
        batch.drop_constraint(op.f("uq_feedback_decision_id_source"), type_="unique")
        batch.drop_constraint(op.f("fk_feedback_outcome_id_outcomes"), type_="foreignkey")
        batch.drop_column("outcome_id")
    with op.batch_alter_table("decisions") as batch:
        for column in ("ttft_s", "route_s", "prompt_sha256", "prompt", "inputs"):
            batch.drop_column(column)
