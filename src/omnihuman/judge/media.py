"""Media in messages to a judge: images, videos and audio, as parts of OpenAI's chat format."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MIME_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
}

Delivery = Literal["data", "file"]
"""Media in the request itself, or by ``file://``, for servers that read the same disk (vLLM:
``--allowed-local-media-path``)."""


@dataclass(frozen=True)
class Media:
    """An image, a video or audio that a judge looks at or listens to.

    Attributes:
        kind: ``image``, ``video`` or ``audio``.
        content: bytes of the file, ``None`` where ``path`` names it.
        path: of the file, ``None`` where its bytes are here.
        digest: of the source that it was cut out of; empty: that of the bytes.
        cut: how it was cut out of the source: seconds, side, quality.
        suffix: of the file, which tells its format.
    """

    kind: Literal["image", "video", "audio"]
    content: bytes | None = field(default=None, repr=False)
    path: Path | None = None
    digest: str = ""
    cut: Mapping[str, Any] = field(default_factory=dict)
    suffix: str = ".jpg"

    def read(self) -> bytes:
        """Return the bytes of the file."""
        if self.content is not None:
            return self.content
        assert self.path is not None
        return self.path.read_bytes()

    def describe(self) -> dict[str, Any]:
        """Return what a cache key has of it: the same media has the same key, wherever and however it is delivered."""
        digest = self.digest or hashlib.sha256(self.read()).hexdigest()
        return {"type": self.kind, "digest": digest, "cut": dict(self.cut)}

    def build_part(self, delivery: Delivery = "data") -> dict[str, Any]:
        """Return its part of a message.

        Raises:
            ValueError: the format is unknown.
        """
        suffix = self.path.suffix.lower() if self.path else self.suffix
        if suffix not in MIME_TYPES:
            raise ValueError(f"{self.path or suffix}: no format of a message; expected {', '.join(MIME_TYPES)}.")
        if delivery == "file" and self.path is not None:
            url = self.path.resolve().as_uri()
            return {"type": f"{self.kind}_url", f"{self.kind}_url": {"url": url}}
        data = base64.b64encode(self.read()).decode()
        if self.kind == "audio":
            return {"type": "input_audio", "input_audio": {"data": data, "format": suffix[1:]}}
        return {"type": f"{self.kind}_url", f"{self.kind}_url": {"url": f"data:{MIME_TYPES[suffix]};base64,{data}"}}


Show = Callable[[Media], dict[str, Any]]
"""Media -> its part of a message."""
