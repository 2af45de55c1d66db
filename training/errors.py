"""What learning adds to the tree of errors.

data.errors.EmbedRouterError
└── TrainingError           the logs do not hold what a training needs
"""

from data.errors import EmbedRouterError


class TrainingError(EmbedRouterError):
    """The logs do not hold what a training needs."""
