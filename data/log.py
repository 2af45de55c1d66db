"""A correctness log as a value: what a log says, wherever it was read from.

`data.queries` reads one from SQL and `data.importers.long` one from a folder; `training.dataset` turns it into
arrays. It holds plain tables and does not know how they will be used.
"""

from dataclasses import dataclass

import pandas as pd

QUESTION_COLUMNS = ("key", "question_id", "prompt", "benchmark", "group", "split")
MODEL_COLUMNS = ("model_name", "usd_per_1m_input", "usd_per_1m_output")
CELL_COLUMNS = ("question", "model", "label", "n_observations", "output_tokens")


@dataclass(frozen=True)
class CorrectnessLog:
    """Questions, models and the cells between them, repeated observations aggregated.

    questions: one row a question: `key` (int: its id in SQL, or its position in the folder), `question_id` (the
        log's own), `prompt`, `benchmark`, `group` (int: near-duplicates share one), `split` (train, val or test).
    models: one row a model: `model_name`, `usd_per_1m_input`, `usd_per_1m_output` (NaN is unknown).
    cells: one row an observed pair: `question` and `model` (row positions in the tables above), `label` (mean of
        its observations, in [0, 1]), `n_observations`, `output_tokens` (mean; NaN is unknown); where it is known,
        `tokens_estimated` (1 where some of these tokens were taken from characters, else 0).
    watermark: the last outcome id that was visible in SQL; 0 for a folder.
    """

    questions: pd.DataFrame
    models: pd.DataFrame
    cells: pd.DataFrame
    watermark: int = 0

    def __post_init__(self) -> None:
        for name, table, columns in (
            ("questions", self.questions, QUESTION_COLUMNS),
            ("models", self.models, MODEL_COLUMNS),
            ("cells", self.cells, CELL_COLUMNS),
        ):
            missing = [column for column in columns if column not in table.columns]
            if missing:
                raise ValueError(f"a correctness log's {name} lack {', '.join(missing)}")
