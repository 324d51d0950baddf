"""Every package that the code imports is declared, and every declared one is used."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

from omnihuman.verb import EXTRAS, PLUGINS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-contrib-python",
    "hydra": "hydra-core",
    "scenedetect": "scenedetect-headless",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Module -> distribution, where the names differ by more than a dash."""

ALTERNATIVES = {
    "pytorch_lightning": "lightning",
    "lmms_eval": "evaluate",
    "decord": "av",
    "facenet_pytorch": "torch",
}
"""Module -> a declared distribution that stands for it: the other Lightning. Installed by hand are lmms-eval, a reader
of videos of the official code, which ``bench`` measures where it is, and the detector MTCNN, whose package asks for
older releases than it needs."""

CLIENTS = dict.fromkeys(("aiohttp", "gcsfs", "s3fs"), "src/omnihuman/data/shards.py")
WITHOUT_IMPORT = {"tensorboard": "conf/logger/tensorboard.yaml"} | CLIENTS
"""Distribution -> the file that needs it, through another package."""


def list_names(requirements: list[str]) -> set[str]:
    """Return the names of the distributions of requirements, normalized."""
    return {re.split(r"[\[<>=!~; ]", requirement)[0].lower() for requirement in requirements}


CORE = list_names(PROJECT["dependencies"])
OPTIONAL = {extra: list_names(names) for extra, names in PROJECT["optional-dependencies"].items()}


def find_distribution(module: str) -> str:
    return DISTRIBUTIONS.get(module) or ALTERNATIVES.get(module) or module.replace("_", "-")


@cache
def find_imports() -> dict[str, set[Path]]:
    """Return the third-party modules that the package imports, anywhere in its files, with these files."""
    modules: dict[str, set[Path]] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            for name in names:
                modules.setdefault(name.partition(".")[0], set()).add(path)
    return {name: files for name, files in modules.items() if name not in {*sys.stdlib_module_names, "omnihuman"}}


def test_an_imported_module_is_declared() -> None:
    for module, files in find_imports().items():
        declared = set(CORE)
        for extra, modules in EXTRAS.items():
            if module in modules.split():
                declared |= OPTIONAL[extra]
        if all("integrations" in path.parts for path in files):
            declared |= OPTIONAL["lmms-eval"]
        assert find_distribution(module) in declared, f"{module} of {[str(path) for path in files]}"


def test_a_declared_package_is_used() -> None:
    used = {find_distribution(module) for module in find_imports()}
    declared = CORE.union(*(OPTIONAL[extra] for extra in EXTRAS))
    assert declared - used == set(WITHOUT_IMPORT)
    assert all((ROOT / file).is_file() for file in WITHOUT_IMPORT.values())


def test_plugins_are_declared() -> None:
    for module, extra in PLUGINS.values():
        assert module.replace("_", "-") in OPTIONAL[extra]


def test_all_has_every_extra_of_the_verbs() -> None:
    (requirement,) = PROJECT["optional-dependencies"]["all"]
    named = set(requirement.partition("[")[2].rstrip("]").split(","))
    # the detectors need model files as well, and Ray is for clusters
    assert named == {*EXTRAS, *(extra for _, extra in PLUGINS.values())} - {"faces", "ray"}


def show_recipe(*arguments: str) -> str:
    """Return the commands that make would run on a fresh clone."""
    command = ["make", "--dry-run", "--always-make", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_torch_alone_comes_from_another_index() -> None:
    recipe = show_recipe("setup", "INDEX=https://index.example/whl", "EXTRAS=").splitlines()
    (line,) = [line for line in recipe if "index.example" in line]
    packages = line.partition('"https://index.example/whl" ')[2].split()
    assert [package.partition("==")[0] for package in packages] == ["torch", "torchaudio", "torchvision"]
    assert "--no-deps" in line and set(packages) <= set((ROOT / "requirements.txt").read_text().splitlines())
    assert recipe.index(line) + 1 == recipe.index(next(line for line in recipe if "--editable" in line))
    assert not any("index-url" in line for line in show_recipe("setup").splitlines())


def test_tools_of_development_are_installed_for_checks_alone() -> None:
    tools = "--requirement requirements.txt"
    assert tools in show_recipe("check") and tools in show_recipe("test") and tools in show_recipe("docs")
    assert tools not in show_recipe("train") and tools not in show_recipe("reproduce")
