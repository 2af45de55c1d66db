"""An encoder behind an OpenAI-compatible /v1/embeddings endpoint, such as text-embeddings-inference or vLLM.

For encoders that outgrow the router's machine. The endpoint's key, where it wants one, comes from the environment and
is saved nowhere.
"""

import hashlib
import json
import os
import time
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import numpy as np

from router.encoder.base import Vectors
from router.encoder.text import readable
from router.errors import EncoderError, shown

KEY_VARIABLE = "EMBEDROUTER_ENCODER_KEY"
USAGE = "remote:URL#MODEL"
MAX_TOKENS = 512
CHARS_PER_TOKEN = 4  # the endpoint's tokenizer is unknown: a longer prompt loses its middle here
PER_REQUEST = 32  # prompts: what text-embeddings-inference takes by default
PATIENT = 4  # tries where nobody waits for an answer,
PAUSE_S = 1.0  # so far apart, and then twice as far,
PATIENCE = httpx.Timeout(30.0, connect=5.0)
TIMEOUT = httpx.Timeout(5.0, connect=1.0)  # where requests wait: they are past their deadline long before
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
PROBE = "How many of the numbers from 1 to 20 are prime?"
SAME = 0.98  # cosine of the probe's vectors, then and now; hardware and precision move it by less


class RemoteEncoder:
    """Encodes prompts by asking an endpoint; a prompt of white space alone is all zeros and never sent.

    probe: the vector of PROBE when the encoder was made, by which another model under the same name is noticed.
    """

    depends_on_logs = False
    is_light = False
    is_serial = False
    max_tokens = MAX_TOKENS

    def __init__(self, url: str, model: str, probe: Sequence[float] = (), tries: int = 1) -> None:
        self.url, self.model = url, model
        self._tries = tries
        self._probe = np.array(probe, dtype=np.float32)
        self._checked = False
        key = os.environ.get(KEY_VARIABLE, "")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(timeout=TIMEOUT if tries == 1 else PATIENCE, headers=headers)
        weakref.finalize(self, self._client.close)  # nobody closes an encoder

    @classmethod
    def load(cls, argument: str) -> "RemoteEncoder":
        """Ask the endpoint that URL#MODEL names for a first vector; EncoderError where it has none to give."""
        url, model = _parse(argument)
        encoder = cls(url, model, tries=PATIENT)
        (encoder._probe,) = encoder._ask([PROBE])
        encoder._checked = True
        return encoder

    @classmethod
    def open(cls, folder: Path) -> "RemoteEncoder":
        """Bring a saved one back, without asking: a router starts while its encoder is away."""
        path = folder / "encoder.json"
        saved = json.loads(path.read_text(encoding="utf-8"))
        try:
            encoder = cls(str(saved["url"]), str(saved["model"]), [float(x) for x in saved["probe"]])
            if encoder.fingerprint != saved["fingerprint"]:
                raise EncoderError(f"{path} was changed since the artifact was trained; train again")
        except (KeyError, TypeError, ValueError) as error:
            raise EncoderError(f"{path} is no remote encoder's: {error!r}; train again") from error
        return encoder

    def save(self, folder: Path) -> None:
        """Write encoder.json: where the endpoint is, and what it said to the probe."""
        saved = {
            "kind": "remote",
            "url": self.url,
            "model": self.model,
            "probe": [float(x) for x in self._probe],
            "fingerprint": self.fingerprint,
        }
        (folder / "encoder.json").write_text(json.dumps(saved) + "\n", encoding="utf-8")

    @property
    def dim(self) -> int:
        return len(self._probe)

    @cached_property
    def fingerprint(self) -> str:
        """Name the encoder by where it is asked, for what, and how long prompts may be: 16 hexadecimal digits."""
        named = f"remote 1, {self.url}, {self.model}, {self.dim}, {self.max_tokens * CHARS_PER_TOKEN} characters"
        return hashlib.sha256(named.encode()).hexdigest()[:16]

    def encode(self, prompts: Sequence[str]) -> Vectors:
        """Encode prompts as an array of shape (n_prompts, dim); EncoderError where the endpoint gives no vectors."""
        vectors = np.zeros((len(prompts), self.dim), dtype=np.float32)
        texts = [readable(prompt, self.max_tokens * CHARS_PER_TOKEN) for prompt in prompts]
        said = [row for row, text in enumerate(texts) if text.strip()]
        for start in range(0, len(said), PER_REQUEST):
            rows = said[start : start + PER_REQUEST]
            vectors[rows] = self._encode([texts[row] for row in rows])
        return vectors

    def _encode(self, texts: list[str]) -> Vectors:
        if self._checked:
            return self._ask(texts)
        probe, *vectors = self._ask([PROBE, *texts])
        cosine = float(probe @ self._probe / max(float(np.linalg.norm(probe) * np.linalg.norm(self._probe)), 1e-12))
        if cosine < SAME:
            raise EncoderError(
                f"{self.model} at {self.url} is not the encoder that was trained with: the same text's vectors have "
                f"a cosine of {cosine:.2f}; serve the old one or train again"
            )
        self._checked = True
        return np.array(vectors, dtype=np.float32)

    def _ask(self, texts: list[str]) -> Vectors:
        """Ask for the vectors of texts, again where that may help, (n_texts, dim)."""
        for n_left in range(self._tries - 1, -1, -1):
            try:
                reply = self._client.post(f"{self.url}/embeddings", json={"model": self.model, "input": texts})
            except httpx.HTTPError as error:
                failure = f"{self.url} does not answer: {error or type(error).__name__}"
            else:
                if reply.is_success:
                    return self._read(reply, len(texts))
                failure = f"{self.url} answered {reply.status_code} for {self.model}: {shown(reply.text[:200])}"
                if reply.status_code not in RETRIED:
                    break
            if n_left:
                time.sleep(PAUSE_S * 2 ** (self._tries - 1 - n_left))
        raise EncoderError(failure)

    def _read(self, reply: httpx.Response, n: int) -> Vectors:
        try:
            entries: list[dict[str, Any]] = sorted(reply.json()["data"], key=lambda entry: int(entry["index"]))
            vectors = np.array([entry["embedding"] for entry in entries], dtype=np.float32)
        except (ValueError, TypeError, KeyError) as error:
            raise EncoderError(f"{self.url} answered without embeddings: {shown(reply.text[:200])}") from error
        dim = self.dim or vectors.shape[-1]
        if vectors.shape != (n, dim) or not dim or not np.isfinite(vectors).all():
            raise EncoderError(f"{self.url} answered {n} texts with numbers of shape {vectors.shape}, not {(n, dim)}")
        return vectors


def _parse(argument: str) -> tuple[str, str]:
    """Take URL#MODEL apart."""
    try:
        parts = urlsplit(argument)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.fragment or parts.query:
        raise EncoderError(
            f"no endpoint and model in {argument!r}: say `{USAGE}`, such as remote:http://127.0.0.1:8080/v1#my-encoder"
        )
    if parts.username or parts.password:
        raise EncoderError(f"the encoder's URL holds a name or password, and would be saved: set {KEY_VARIABLE}")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", "")), parts.fragment
