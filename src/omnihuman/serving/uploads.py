"""Media of requests: checked before they are decoded, saved in private files, and no other file is read."""

import base64
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import av

from omnihuman.data.media import FORMATS, probe
from omnihuman.data.record import BadSample

SUFFIXES = {"mov": "mp4", "matroska": "webm", "jpeg": "jpg"}
"""FFmpeg's name of a format -> the suffix that browsers expect, where the two differ."""

NOT_ALLOWED = "is neither a data: URL nor a file below one of the allowed folders (allow=)"


MAX_HEAD = 4096
"""Characters of a ``data:`` URL in which its content must begin."""


def is_data_url(url: str) -> bool:
    """Return whether a URL holds its content.

    >>> is_data_url("DATA:image/png;base64,AA=="), is_data_url("file:///a.png")
    (True, False)
    """
    return url[:5].lower() == "data:"


class RequestError(ValueError):
    """A request that is not answered.

    Attributes:
        code: a short name of the reason: ``media_too_large``, ``unreadable_media``, ``url_not_allowed`` ...
        status: HTTP status.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest size of one medium.

    Attributes:
        bytes: size of a file.
        pixels: width times height of a frame.
        seconds: duration of a clip.
    """

    bytes: int = 64 * 2**20
    pixels: int = 1 << 25
    seconds: float = 600.0


def clean_message(message: str, names: Mapping[Path, str]) -> str:
    """Return a message for a client: files under other names, without the source and without training options.

    >>> clean_message("messages (request): /srv/a1.mp4 is cut off (data.root=...)", {Path("/srv/a1.mp4"): "a.mp4"})
    'a.mp4 is cut off.'
    """
    for file, name in names.items():
        for path in (str(file), str(file.resolve()), file.name):
            message = message.replace(path, name)
    message = re.sub(r"^(messages|this clip)( \(\w+\))?: ", "", message)
    message = re.sub(r" \(data\.[^)]*\)", "", message)
    return message if message.endswith((".", ")", "!", "?")) else f"{message}."


class Uploads:
    """Turn data URLs and file names of requests into files that are safe to decode.

    Args:
        limits: largest size of each medium.
        allow: folders with files that requests may name.

    Raises:
        ValueError: one of the folders does not exist.
    """

    def __init__(self, limits: Limits, allow: Sequence[str | Path] = ()) -> None:
        self.limits = limits
        self.allowed = tuple(Path(folder).expanduser().resolve() for folder in allow)
        missing = [str(folder) for folder in self.allowed if not folder.is_dir()]
        if missing:
            raise ValueError(f"allow={missing}: no such folder; name folders with files that requests may use.")

    def fetch(self, url: str, folder: Path, label: str = "the medium") -> Path:
        """Return the checked file of a ``data:`` URL, a ``file://`` URL or an absolute path.

        Args:
            url: as the client wrote it.
            folder: private folder for the content of a data URL.
            label: name of the medium in messages.

        Raises:
            RequestError: the URL is of another kind, the file is not allowed, or its content must not be decoded. The
                message does not reveal whether a file exists that is not allowed.
        """
        url = url.strip()
        if not is_data_url(url):
            file = self._find_allowed(url, label)
            self.check(file, label)
            return file
        return self._save(self._decode_data_url(url, label), folder, label)

    def _decode_data_url(self, url: str, label: str) -> bytes:
        # The type may have commas: data:video/webm;codecs=vp8,opus;base64,<content>.
        head = re.search(r"[;:]\s*base64\s*,", url[:MAX_HEAD], re.IGNORECASE)
        if head is None:
            message = f"{label}: expected data:<type>;base64,<content>, got {url[:40]!r}."
            raise RequestError("bad_data_url", message)
        content = url[head.end() :]
        if "%" in content:
            content = unquote(content)
        if any(space in content for space in "\n\r \t"):  # many programs break base64 into lines
            content = "".join(content.split())
        content += "=" * (-len(content) % 4)  # browsers take content without padding
        size = len(content) * 3 // 4 - content[-2:].count("=")
        if size > self.limits.bytes:  # checked first: decoding holds the content in memory a second time
            message = f"{label}: {size} bytes; at most {self.limits.bytes} are accepted."
            raise RequestError("media_too_large", message, 413)
        try:
            return base64.b64decode(content, validate=True)
        except ValueError as error:
            raise RequestError("bad_base64", f"{label}: the content is not base64 ({error}).") from None

    def _save(self, content: bytes, folder: Path, label: str) -> Path:
        """Save bytes to a private file with a random name and the suffix of the content; delete invalid content."""
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as out:
            file = Path(out.name)
            out.write(content)
        try:
            return file.rename(file.with_suffix(f".{self.check(file, label)}"))
        except BaseException:
            file.unlink(missing_ok=True)
            raise

    def check(self, file: Path, label: str = "the medium") -> str:
        """Check a file without decoding it, and return the suffix of its content.

        Raises:
            RequestError: it is no medium, is cut off, or exceeds a limit.
        """
        try:
            header = probe(file, timeout=10.0, max_pixels=self.limits.pixels)
            seconds = max(header.num_frames / header.fps, header.audio[1])
            options = {"format_whitelist": FORMATS, "protocol_whitelist": "file", "max_pixels": str(self.limits.pixels)}
            with av.open(str(file), options=options, metadata_errors="replace") as container:
                name = str(container.format.name).split(",")[0].removesuffix("_pipe")
                if not header.is_still:
                    seconds = max(seconds, (container.duration or 0) / av.time_base)
        except (BadSample, av.FFmpegError, OSError) as error:
            message = f"{label}: " + str(error).replace(f"{file}: ", "")
            if isinstance(error, BadSample) and error.reason == "too_large":
                raise RequestError("media_too_large", message, 413) from None
            raise RequestError("unreadable_media", message) from None
        if seconds > self.limits.seconds:
            message = f"{label}: {seconds:.1f} s; at most {self.limits.seconds:g} s are accepted."
            raise RequestError("media_too_long", message, 413)
        return SUFFIXES.get(name, name)

    def _find_allowed(self, url: str, label: str) -> Path:
        """Return the file of a URL, links resolved; the error is the same for every file that is not allowed."""
        quoted = repr(url if len(url) <= 80 else f"{url[:80]}...")
        not_allowed = RequestError("url_not_allowed", f"{label}: {quoted} {NOT_ALLOWED}.")
        try:
            parts = urlsplit(url)
            if parts.scheme == "file" and parts.netloc in ("", "localhost"):
                url = unquote(parts.path)
            file = Path(url)
            if not file.is_absolute() or not self.allowed:
                raise not_allowed
            file = file.resolve()
            if any(file.is_relative_to(folder) for folder in self.allowed) and file.is_file():
                return file
        except (ValueError, OSError, RuntimeError):  # a null byte, a name too long, a loop of links
            pass
        raise not_allowed
