"""What serving adds to the tree of errors.

data.errors.EmbedRouterError
├── ConfigError                   config.yaml or the environment says something that cannot be
├── ArtifactError                 an artifact is absent, of another format, or not what its name says
│   └── ArtifactFormatError       it is of a format that another release wrote
├── EncoderError                  an encoder cannot be loaded, or is not what it claims
├── UpstreamError                 one attempt at one upstream failed; the service may try the next candidate
└── ApiError                      what a client is told, with its HTTP status and OpenAI's words for it
    ├── InvalidRequestError       400 (or 404, 405, 408, 413): the request is not one
    ├── InvalidApiKeyError        401: no key, or one that is not ours
    ├── ModelNotFoundError        404: no pool entry has this name
    ├── NoEligibleModelError      400: no routable model fits this request; each model's reason
    ├── NoModelReliableError      400: no model is sure enough for the limit on errors; each model's reason
    ├── NoArtifactError           503: nothing was trained and promoted yet
    ├── NoRoutableModelError      503: the pool has no model with both an upstream and logs
    ├── UpstreamsFailedError      429, 502, 504: every candidate was tried
    └── InternalError             500: a defect of ours

`router.app` turns an ApiError into a response, at one place, through `body` and `headers`.
"""

import json
from collections.abc import Mapping
from math import ceil
from typing import ClassVar, NamedTuple

from data.errors import EmbedRouterError


def shown(value: object) -> str:
    """A value as JSON writes it, cut short, to stand in a complaint."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class ConfigError(EmbedRouterError):
    """config.yaml or the environment says something that cannot be."""


class ArtifactError(EmbedRouterError):
    """An artifact is absent, of another format, or not what its name says."""


class ArtifactFormatError(ArtifactError):
    """An artifact is of a format that another release wrote. `encoder` is its encoder's, where it says."""

    def __init__(self, message: str, encoder: str | None = None) -> None:
        super().__init__(message)
        self.encoder = encoder


class EncoderError(EmbedRouterError):
    """An encoder cannot be loaded, or is not what it claims."""


class Attempt(NamedTuple):
    """One try at one upstream. `error` is none where it answered; `status` where it never sent one."""

    model: str
    status: int | None
    error: str | None
    latency_s: float

    def as_json(self) -> dict[str, object]:
        return {
            "model": self.model,
            "status": self.status,
            "error": self.error,
            "latency_s": round(self.latency_s, 6),
        }


class UpstreamError(EmbedRouterError):
    """One attempt at one upstream failed.

    `code` is a short word for records (refused, reset, timeout, http_status, not_json, ...). The message never holds
    an upstream's key: `router.upstream` takes it out.
    """

    def __init__(self, code: str, message: str, *, status: int | None = None, retry_after_s: float | None = None):
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s


class ApiError(EmbedRouterError):
    """What a client is told: OpenAI's error object and an HTTP status."""

    status: int = 500
    type: ClassVar[str] = "server_error"
    code: str = "internal_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.decision_headers: dict[str, str] = {}

    def details(self) -> Mapping[str, object]:
        """Further members of the error object."""
        return {}

    def headers(self) -> dict[str, str]:
        return dict(self.decision_headers)

    def body(self) -> dict[str, object]:
        """The error object as OpenAI's clients read it."""
        error = {"message": str(self), "type": self.type, "param": self.param, "code": self.code}
        return {"error": {**error, **self.details()}}


class InvalidRequestError(ApiError):
    """The request is not one that this service can read; `param` names the part of it."""

    type = "invalid_request_error"

    def __init__(
        self, message: str, *, param: str | None = None, status: int = 400, code: str = "invalid_request"
    ) -> None:
        super().__init__(message, param=param)
        self.status = status
        self.code = code


class InvalidApiKeyError(ApiError):
    """No key, or one that is not ours."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "www-authenticate": "Bearer"}


class ModelNotFoundError(ApiError):
    """No pool entry that can be called has this name."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="model")


class NoModelError(ApiError):
    """No model can take the request; says each one's reason."""

    def __init__(self, message: str, reasons: Mapping[str, str]) -> None:
        super().__init__(message, param="model")
        self.reasons = dict(reasons)

    def details(self) -> Mapping[str, object]:
        return {"models": [{"model": model, "reason": reason} for model, reason in self.reasons.items()]}


class NoEligibleModelError(NoModelError):
    """No routable model fits this request."""

    status = 400
    type = "invalid_request_error"
    code = "no_eligible_model"


class NoModelReliableError(NoModelError):
    """No model that can take the request is sure enough for the limit on errors."""

    status = 400
    type = "invalid_request_error"
    code = "no_model_reliable_enough"


class NoRoutableModelError(NoModelError):
    """The pool has no model with both an upstream and logs."""

    status = 503
    code = "no_routable_model"


class NoArtifactError(ApiError):
    """Nothing was trained and promoted yet."""

    status = 503
    code = "no_artifact"


class UpstreamsFailedError(ApiError):
    """Every candidate was tried and none answered.

    504 where all timed out, 429 where all were out of quota (with the least wait they asked for), else 502.
    """

    type = "upstream_error"
    code = "upstream_failed"

    def __init__(self, errors: list[UpstreamError], attempts: list[Attempt]) -> None:
        super().__init__(f"no upstream answered, {len(attempts)} tried; the last said: {errors[-1]}")
        self.attempts = attempts
        self.retry_after_s: float | None = None
        if all(error.code.endswith("timeout") for error in errors):
            self.status, self.code = 504, "upstream_timeout"
        elif all(error.status == 429 for error in errors):
            self.status, self.code = 429, "upstream_rate_limited"
            waits = [error.retry_after_s for error in errors if error.retry_after_s is not None]
            self.retry_after_s = min(waits, default=None)
        else:
            self.status = 502

    def details(self) -> Mapping[str, object]:
        return {"attempts": [attempt.as_json() for attempt in self.attempts]}

    def headers(self) -> dict[str, str]:
        headers = {**super().headers(), "x-should-retry": "false"}  # our own fallbacks are spent
        if self.retry_after_s is not None:
            headers["retry-after"] = str(ceil(self.retry_after_s))  # whole seconds (RFC 9110, 10.2.3)
            headers["retry-after-ms"] = str(ceil(self.retry_after_s * 1e3))
        return headers


class InternalError(ApiError):
    """A defect of ours; the log has the traceback, the client the request id."""
