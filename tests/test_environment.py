"""The pins say the same thing in every file that holds them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def pins(lines: list[str]) -> dict[str, Version]:
    """``name==version`` lines by canonical name; anything else is an error."""
    found: dict[str, Version] = {}
    for line in lines:
        name, version = line.split("==")
        assert canonicalize_name(name) not in found, f"{name} is pinned twice"
        found[canonicalize_name(name)] = Version(version)
    return found


@pytest.fixture(scope="module")
def lock() -> dict[str, Version]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return pins([line for line in lines if not line.startswith("#")])


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_conda_environment_has_the_pins_of_the_lock(lock):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "uepo"
    *packages, nested = environment["dependencies"]
    assert packages == ["python=3.11", "pip"]
    *pinned, package = nested["pip"]
    assert package == "-e ."
    assert pins(pinned) == lock


def test_pins_are_public_versions(lock):
    """A pin of one build, as 2.13.0+cpu, is found on one index only."""
    assert not {name for name, version in lock.items() if version.local}


def test_mujoco_still_has_the_kitchen(lock):
    assert lock["mujoco"] <= Version("3.11.0")


def test_lock_satisfies_the_project(lock, project):
    requirements = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, requirements):
        name = canonicalize_name(requirement.name)
        assert name in lock, f"{name} is not in requirements.lock"
        assert lock[name] in requirement.specifier, f"{name}=={lock[name]} is not {requirement}"


def test_no_pin_names_a_place():
    """Neither a host nor a folder of one machine belongs in what others install from."""
    for name in ("requirements.lock", "environment.yml", "pyproject.toml"):
        text = (ROOT / name).read_text()
        assert "://" not in text and "@ file" not in text, name
