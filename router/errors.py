"""What serving adds to the tree of errors.

data.errors.EmbedRouterError
├── ConfigError             config.yaml or the environment says something that cannot be
├── ArtifactError           an artifact is absent, of another format, or not what its name says
└── EncoderError            an encoder cannot be loaded, or is not what it claims
"""

from data.errors import EmbedRouterError


class ConfigError(EmbedRouterError):
    """config.yaml or the environment says something that cannot be."""


class ArtifactError(EmbedRouterError):
    """An artifact is absent, of another format, or not what its name says."""


class EncoderError(EmbedRouterError):
    """An encoder cannot be loaded, or is not what it claims."""
