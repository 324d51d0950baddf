"""Media that strangers send, or name: looked at before they are decoded, kept in private files, and no others read."""

import base64
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import av
from PIL import Image

from omnihuman.data.media import FORMATS, probe
from omnihuman.data.record import BadSample

SUFFIXES = {"mov": "mp4", "matroska": "webm", "jpeg": "jpg"}
"""FFmpeg's name of a format -> the ending that browsers know it by, where the two differ."""

STILLS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
"""What Pillow may take a file for: those that our decoder reads, and the GIF."""

NOT_ALLOWED = "is neither a data: URL nor a file below the folders that the server was told to read (allow=)"


class Refused(ValueError):
    """What was sent cannot be taken.

    Attributes:
        code: a short name of the reason: ``media_too_large``, ``unreadable_media``, ``url_not_allowed`` ...
        status: of an HTTP answer.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


@dataclass(frozen=True, slots=True)
class Limits:
    """How large one medium may be.

    Attributes:
        bytes: of a file that is sent.
        pixels: of one picture, width times height.
        seconds: of a clip.
    """

    bytes: int = 64 * 2**20
    pixels: int = 4096 * 2304
    seconds: float = 600.0


def plain(said: str, names: Mapping[Path, str]) -> str:
    """A message in words for a stranger: files by these names, no place of the question, no option of training.

    >>> plain("messages (request): /srv/a1.mp4 is odd (data.on_bad_sample=skip ...)", {Path("/srv/a1.mp4"): "it"})
    'it is odd.'
    """
    for file, name in names.items():
        for written in (str(file), str(file.resolve()), file.name):
            said = said.replace(written, name)
    said = re.sub(r" \(data\.[^)]*\)", "", re.sub(r"^(messages|this clip)( \(\w+\))?: ", "", said))
    return said if said.endswith((".", ")", "!", "?")) else f"{said}."


class Uploads:
    """What was sent or named -> files that may be decoded.

    Args:
        limits: of each.
        allow: folders whose files may be named.

    Raises:
        ValueError: one of the folders is none.
    """

    def __init__(self, limits: Limits, allow: Sequence[str | Path] = ()) -> None:
        self.limits = limits
        self.allowed = tuple(Path(folder).expanduser().resolve() for folder in allow)
        if lost := [str(folder) for folder in self.allowed if not folder.is_dir()]:
            raise ValueError(f"allow={lost}: there is no such folder; name folders whose files may be asked about.")

    def take(self, url: str, folder: Path, what: str = "the medium") -> Path:
        """A ``data:`` URL, a ``file://`` URL or an absolute path -> a file that was looked at.

        Args:
            url: what the stranger wrote.
            folder: private, where what was sent is kept.
            what: the medium's name, for messages.

        Raises:
            Refused: the URL is of another kind, the file is not to be read, or not what may be decoded. Whether a file
                exists that may not be read is not told.
        """
        if url[:5].lower() != "data:":
            file = self._local(url, what)
            self.look(file, what)
            return file
        head, comma, content = url.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise Refused(
                "bad_data_url", f"{what}: write data:<type>;base64,<content>; this begins with {head[:40]!r}."
            )
        if any(sign in content for sign in "\n\r \t"):  # lines, as many programs write base64
            content = "".join(content.split())
        size = len(content) * 3 // 4 - content[-2:].count("=")
        if size > self.limits.bytes:  # before it is held a second time
            raise Refused("media_too_large", f"{what}: {size} bytes; at most {self.limits.bytes} are taken.", 413)
        try:
            held = base64.b64decode(content, validate=True)
        except ValueError as error:
            raise Refused("bad_base64", f"{what}: the content is no base64 ({error}).") from None
        return self._keep(held, folder, what)

    def _keep(self, content: bytes, folder: Path, what: str) -> Path:
        """Bytes -> a private file of a random name whose ending says what it is; nothing is left of what is refused."""
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as out:
            file = Path(out.name)
            out.write(content)
        try:
            return file.rename(file.with_suffix(f".{self.look(file, what)}"))
        except BaseException:
            file.unlink(missing_ok=True)
            raise

    def look(self, file: Path, what: str = "the medium") -> str:
        """A file -> the ending that its content deserves; nothing is decoded.

        Raises:
            Refused: it is no medium, is cut off, or has more pixels or seconds than may be decoded.
        """
        width, height, seconds = *_still_size(file), 0.0
        try:
            if width * height <= self.limits.pixels:  # FFmpeg decodes a picture to tell its size
                header = probe(file, timeout=10.0)
                with av.open(
                    str(file), options={"format_whitelist": FORMATS, "protocol_whitelist": "file"}
                ) as container:
                    name = container.format.name.split(",")[0].removesuffix("_pipe")
                    sizes = [(stream.width, stream.height) for stream in container.streams.video]
                    width, height = max([(width, height), *sizes], key=lambda size: size[0] * size[1])
                    told = 0.0 if header.is_still else (container.duration or 0) / av.time_base
                    seconds = max(told, header.frames / header.rate, header.audio[1])
        except (BadSample, av.FFmpegError, OSError) as error:
            raise Refused("unreadable_media", f"{what}: {str(error).replace(f'{file}: ', '')}") from None
        if width * height > self.limits.pixels:
            raise Refused(
                "media_too_large", f"{what}: {width} x {height} pixels; at most {self.limits.pixels} are taken.", 413
            )
        if seconds > self.limits.seconds:
            raise Refused(
                "media_too_long", f"{what}: {seconds:.1f} s; at most {self.limits.seconds:g} s are taken.", 413
            )
        return str(SUFFIXES.get(name, name))

    def _local(self, url: str, what: str) -> Path:
        """The file that a URL names, links resolved; one refusal for all that may not be read, there or not."""
        shown = url if len(url) <= 80 else f"{url[:80]}..."
        refused = Refused("url_not_allowed", f"{what}: {shown!r} {NOT_ALLOWED}.")
        try:
            parts = urlsplit(url)
            if parts.scheme == "file" and parts.netloc in ("", "localhost"):
                url = unquote(parts.path)
            file = Path(url)
            if not file.is_absolute() or not self.allowed:
                raise refused
            file = file.resolve()
            if any(file.is_relative_to(folder) for folder in self.allowed) and file.is_file():
                return file
        except (ValueError, OSError, RuntimeError):  # a null byte, a name too long, a loop of links
            pass
        raise refused


def _still_size(file: Path) -> tuple[int, int]:
    """Width and height of a picture as its header says; 0 of anything else."""
    try:
        with Image.open(file, formats=STILLS) as image:
            return image.width, image.height
    except Image.DecompressionBombError:
        return 2**15, 2**15  # Pillow refuses to tell; it is more than anybody takes
    except (OSError, SyntaxError, ValueError):
        return 0, 0
