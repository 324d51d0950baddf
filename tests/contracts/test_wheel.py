"""The wheel contains everything that a clone reads at run time."""

from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]


def test_wheel_has_the_package_its_configs_and_its_studies() -> None:
    files = {path.distribution_path: Path(path.path) for path in WheelBuilder(str(ROOT)).recurse_included_files()}
    expected = {}
    for source, target, pattern in (
        ("src/omnihuman", "omnihuman", "**/*"),
        ("conf", "omnihuman/conf", "**/*.yaml"),
        ("experiments", "omnihuman/experiments", "*/sweep.yaml"),
        ("experiments", "omnihuman/experiments", "*/sweep/*.yaml"),
    ):
        for path in (ROOT / source).glob(pattern):
            if path.is_file() and "__pycache__" not in path.parts:
                expected[f"{target}/{path.relative_to(ROOT / source)}"] = path
    assert files == expected


def test_program_is_installed() -> None:
    scripts = WheelBuilder(str(ROOT)).metadata.core.scripts
    assert scripts == {"omnihuman": "omnihuman.__main__:main"}
