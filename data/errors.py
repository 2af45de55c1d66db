"""The errors that a user can cause and mend; every message says what, which value, and what would be right.

EmbedRouterError
├── DatabaseError           the database cannot be reached, or is not at this release's migration
│   └── DatabaseAwayError   it does not answer now; it may later
├── LogFormatError          a log's files are not what their format says
└── router.errors           what serving adds

The command line prints the message and exits with 1; anything else is a defect and shows its traceback.
"""


class EmbedRouterError(Exception):
    """The root: catch this to catch all that is the user's to mend."""


class DatabaseError(EmbedRouterError):
    """The database cannot be reached, or is not at this release's migration."""


class DatabaseAwayError(DatabaseError):
    """The database does not answer now; it may later."""


class LogFormatError(EmbedRouterError):
    """A log's files are not what their format says."""
