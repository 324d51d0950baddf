"""Upload of an exported folder to the Hugging Face hub."""

import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]  # httpx's or httpx2's

from omnihuman import __version__

TOKEN = "HF_TOKEN"
"""Environment variable of the token. No key of a config has it: a config is printed and saved."""

FILES = (
    "README.md",
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "adapter_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
    "tokenizer*",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""Patterns of the files that an export consists of; all others, such as those of a run, are refused."""

FOLDERS = (".", "instruction_tokenizer", "adapter")


def read_token(repository: str) -> str:
    """Return the token of the environment, after a check of the repository's name: before any work is done.

    Raises:
        ValueError: the name is no ``owner/name``, or the environment has no token.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repository):
        raise ValueError(f"push={repository}: expected owner/name, a repository of the hub.")
    token = os.environ.get(TOKEN)
    if not token:
        raise ValueError(
            f"push={repository}: the environment has no {TOKEN}; set it to a token with the right to write "
            "(https://huggingface.co/settings/tokens)."
        )
    return token


def list_files(folder: Path) -> Mapping[str, int]:
    """Return the bytes of every file of an exported folder by its path in the repository.

    Raises:
        ValueError: the folder is no export, or it has a file that no export has.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"out={folder} is no exported folder, which has a config.json: add run=<run> to export one.")
    sizes = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_dir() and not path.is_symlink():
            continue
        is_exported = any(fnmatchcase(path.name, pattern) for pattern in FILES) and str(name.parent) in FOLDERS
        if not is_exported or path.is_symlink():
            raise ValueError(f"out={folder}: {name} is no file of an export, and nothing else is pushed; remove it.")
        sizes[name.as_posix()] = path.stat().st_size
    return sizes


def push(folder: Path, repository: str, *, token: str, private: bool = True) -> str:
    """Upload an exported folder to a repository, which is created where it does not exist; return its URL.

    A repeated upload continues an interrupted one: files that are there already are not sent again.

    Args:
        folder: as ``export`` has written it.
        repository: ``owner/name``.
        token: with the right to write there.
        private: only the owner and the members of the organisation see the repository.

    Raises:
        ValueError: the hub cannot be reached or refuses, the repository is public though ``private`` is true, or the
            folder has a file that no export has.
    """
    files = list_files(folder)
    api = HfApi(token=token, library_name="omnihuman", library_version=__version__)
    try:
        url = str(api.create_repo(repository, private=private, exist_ok=True))
        if private and not api.repo_info(repository).private:
            raise ValueError(f"push={repository} exists and is public: add private=false, or choose another name.")
        message = f"Export of omnihuman {__version__}"
        api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=list(files), commit_message=message)
    except (HTTPError, OSError, RuntimeError) as error:  # the last one of hf_xet
        command = f"omnihuman export out={folder} push={repository}" + ("" if private else " private=false")
        raise ValueError(
            f"push={repository}: {_explain(error)}. The export is complete; push it again: {command}"
        ) from error
    return url


def _explain(error: Exception) -> str:
    if not isinstance(error, HfHubHTTPError):
        return f"the hub cannot be reached ({error})"
    status = error.response.status_code
    reason = str(error.server_message or error.response.reason_phrase).partition("\n")[0].rstrip(". ")
    cure = ""
    if status in (401, 403, 404):  # the hub answers 404 as well where a token may not see a repository
        cure = f"; the token of {TOKEN} must have the right to write there"
    return f"the hub refuses with status {status} ({reason}){cure}"
