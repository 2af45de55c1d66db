"""The first tables: logs, artifacts, promotions, jobs, decisions.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# As data.tables declares them today; a migration never changes with the code.
BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("encoder_fingerprint", sa.String(length=64), nullable=False),
        sa.Column("data_fingerprint", sa.String(length=64), nullable=False),
        sa.Column("outcome_watermark", BigId, nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("gate", sa.JSON(), nullable=True),
        sa.Column("created_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("artifact_id", sa.String(length=64), nullable=True),
        sa.Column("policy", sa.String(length=32), nullable=False),
        sa.Column("policy_settings", sa.JSON(), nullable=False),
        sa.Column("candidates", sa.JSON(), nullable=False),
        sa.Column("first_choice", sa.String(length=256), nullable=False),
        sa.Column("answered_by", sa.String(length=256), nullable=True),
        sa.Column("p_correct", sa.Float(), nullable=True),
        sa.Column("attempts", sa.JSON(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(length=64), nullable=True),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=True),
        sa.Column("output_tokens", sa.Integer(), nullable=True),
        sa.Column("cost_usd", sa.Float(), nullable=True),
        sa.Column("overhead_s", sa.Float(), nullable=True),
        sa.Column("latency_s", sa.Float(), nullable=True),
        sa.Column("created_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
    )
    op.create_index(op.f("ix_decisions_answered_by"), "decisions", ["answered_by"])
    op.create_index(op.f("ix_decisions_created_at"), "decisions", ["created_at"])
    op.create_index(op.f("ix_decisions_request_id"), "decisions", ["request_id"])

    op.create_table(
        "imports",
        sa.Column("id", BigId, nullable=False),
        sa.Column("format", sa.String(length=32), nullable=False),
        sa.Column("source", sa.String(length=256), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("content_sha256", sa.String(length=64), nullable=False),
        sa.Column("started_at", Time, nullable=False),
        sa.Column("finished_at", Time, nullable=True),
        sa.Column("n_new", sa.Integer(), nullable=False),
        sa.Column("n_repeated", sa.Integer(), nullable=False),
        sa.Column("n_conflicting", sa.Integer(), nullable=False),
        sa.Column("n_rejected", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
        sa.UniqueConstraint("format", "source", "content_sha256", name=op.f("uq_imports_format_source_content_sha256")),
    )
    op.create_table(
        "models",
        sa.Column("id", BigId, nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("usd_per_1m_input", sa.Float(), nullable=True),
        sa.Column("usd_per_1m_output", sa.Float(), nullable=True),
        sa.Column("context_window", sa.Integer(), nullable=True),
        sa.Column("capabilities", sa.JSON(), nullable=False),
        sa.Column("upstream_url", sa.String(length=1024), nullable=True),
        sa.Column("upstream_model", sa.String(length=256), nullable=True),
        sa.Column("upstream_key_env", sa.String(length=256), nullable=True),
        sa.Column("retired", sa.Boolean(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("name", name=op.f("uq_models_name")),
    )
    op.create_table(
        "questions",
        sa.Column("id", BigId, nullable=False),
        sa.Column("external_id", sa.String(length=512), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("prompt_sha256", sa.String(length=64), nullable=False),
        sa.Column("benchmark", sa.String(length=256), nullable=False),
        sa.Column("subcategory", sa.String(length=256), nullable=True),
        sa.Column("gold", sa.Text(), nullable=True),
        sa.Column("group_id", BigId, nullable=True),
        sa.Column("split", sa.String(length=5), nullable=True),
        sa.Column("minhash", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", Time, nullable=False),
        sa.CheckConstraint("split IN ('train', 'val', 'test')", name=op.f("ck_questions_split")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_questions")),
        sa.UniqueConstraint("external_id", "prompt_sha256", name=op.f("uq_questions_external_id_prompt_sha256")),
    )
    op.create_index(op.f("ix_questions_benchmark"), "questions", ["benchmark"])
    op.create_index(op.f("ix_questions_group_id"), "questions", ["group_id"])
    op.create_index(op.f("ix_questions_prompt_sha256"), "questions", ["prompt_sha256"])
    op.create_index(op.f("ix_questions_split"), "questions", ["split"])

    op.create_table(
        "feedback",
        sa.Column("id", BigId, nullable=False),
        sa.Column("decision_id", sa.String(length=32), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("correct", sa.Boolean(), nullable=True),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("created_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name=op.f("fk_feedback_decision_id_decisions")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
    )
    op.create_index(op.f("ix_feedback_decision_id"), "feedback", ["decision_id"])

    op.create_table(
        "job_runs",
        sa.Column("id", BigId, nullable=False),
        sa.Column("job", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("artifact_id", sa.String(length=64), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("started_at", Time, nullable=False),
        sa.Column("finished_at", Time, nullable=True),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], name=op.f("fk_job_runs_artifact_id_artifacts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_runs")),
    )
    op.create_table(
        "model_aliases",
        sa.Column("alias", sa.String(length=256), nullable=False),
        sa.Column("model_id", BigId, nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_model_aliases_model_id_models"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("alias", name=op.f("pk_model_aliases")),
    )
    op.create_index(op.f("ix_model_aliases_model_id"), "model_aliases", ["model_id"])

    op.create_table(
        "outcomes",
        sa.Column("id", BigId, nullable=False),
        sa.Column("question_id", BigId, nullable=False),
        sa.Column("model_id", BigId, nullable=False),
        sa.Column("import_id", BigId, nullable=True),
        sa.Column("source", sa.String(length=256), nullable=False),
        sa.Column("observation_key", sa.String(length=32), nullable=False),
        sa.Column("label", sa.SmallInteger(), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("cost_usd", sa.Float(), nullable=True),
        sa.Column("input_tokens", sa.Integer(), nullable=True),
        sa.Column("output_tokens", sa.Integer(), nullable=True),
        sa.Column("output_chars", sa.Integer(), nullable=True),
        sa.Column("latency_s", sa.Float(), nullable=True),
        sa.Column("created_at", Time, nullable=False),
        sa.CheckConstraint("label IN (0, 1)", name=op.f("ck_outcomes_label")),
        sa.ForeignKeyConstraint(["import_id"], ["imports.id"], name=op.f("fk_outcomes_import_id_imports")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_outcomes_model_id_models")),
        sa.ForeignKeyConstraint(["question_id"], ["questions.id"], name=op.f("fk_outcomes_question_id_questions")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outcomes")),
        sa.UniqueConstraint("observation_key", name=op.f("uq_outcomes_observation_key")),
    )
    op.create_index(op.f("ix_outcomes_import_id"), "outcomes", ["import_id"])
    op.create_index(op.f("ix_outcomes_model_id"), "outcomes", ["model_id"])
    op.create_index("ix_outcomes_question_id_model_id", "outcomes", ["question_id", "model_id"])

    op.create_table(
        "promotions",
        sa.Column("id", BigId, nullable=False),
        sa.Column("artifact_id", sa.String(length=64), nullable=False),
        sa.Column("parent_id", BigId, nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], name=op.f("fk_promotions_artifact_id_artifacts")),
        sa.ForeignKeyConstraint(["parent_id"], ["promotions.id"], name=op.f("fk_promotions_parent_id_promotions")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotions")),
    )
    op.create_index(op.f("ix_promotions_artifact_id"), "promotions", ["artifact_id"])

    op.create_table(
        "question_vectors",
        sa.Column("question_id", BigId, nullable=False),
        sa.Column("encoder_fingerprint", sa.String(length=64), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["question_id"],
            ["questions.id"],
            name=op.f("fk_question_vectors_question_id_questions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("question_id", "encoder_fingerprint", name=op.f("pk_question_vectors")),
    )


def downgrade() -> None:
    for table in (
        "question_vectors",
        "promotions",
        "outcomes",
        "model_aliases",
        "job_runs",
        "feedback",
        "questions",
        "models",
        "imports",
        "decisions",
        "artifacts",
    ):
        op.drop_table(table)
