"""The Dockerfile, read without Docker: what an image is built from, and who runs in it."""

import re
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker" / "Dockerfile").read_text()


def read_stages() -> dict[str, list[tuple[str, str]]]:
    """Return the instructions of every stage by its name."""
    stages: dict[str, list[tuple[str, str]]] = {}
    lines = [line for line in TEXT.splitlines() if line and not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, argument = line.partition(" ")
        if name == "FROM":
            stages[argument.rpartition(" ")[2]] = []
        if stages:
            list(stages.values())[-1].append((name, argument.strip()))
    return stages


STAGES = read_stages()


def list_values(stage: str, name: str) -> list[str]:
    return [argument for instruction, argument in STAGES[stage] if instruction == name]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    first, *patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] in "*!"][:-1]
    assert first == "*"
    copied = set()
    for argument in list_values("build", "COPY"):
        copied.update(argument.split()[:-1])
    assert all((ROOT / name).exists() for name in copied)
    assert copied == {pattern.removeprefix("!").partition("/")[0] for pattern in patterns}
    for file in ("sweep.yaml", "sweep/nano.yaml"):
        assert any(fnmatch(f"experiments/x/{file}", pattern[1:]) for pattern in patterns)


def test_versions_are_those_of_the_tested_set() -> None:
    installs = [argument for argument in list_values("build", "RUN") if "pip install" in argument]
    assert len(installs) == 2
    assert all("--constraint requirements.txt" in argument or "requirements.txt |" in argument for argument in installs)
    assert not re.search(r"https?://(?!127\.0\.0\.1)", TEXT), "the index of torch is an argument"


def test_no_program_runs_as_root() -> None:
    assert list_values("base", "USER") == ["1000"]
    for stage in ("serve", "omnihuman"):
        assert list_values(stage, "FROM")[0].split()[0] == "base" and not list_values(stage, "USER")


def test_a_server_has_a_health_check_at_its_port() -> None:
    (check,), (entry,) = list_values("serve", "HEALTHCHECK"), list_values("serve", "ENTRYPOINT")
    (port,) = list_values("serve", "EXPOSE")
    assert f"127.0.0.1:{port}/health" in check and f'"port={port}"' in entry
    assert list(STAGES)[-1] == "omnihuman" and not list_values("omnihuman", "HEALTHCHECK")
