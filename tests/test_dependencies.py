"""Every dependency is listed with its reason and its licence, pinned, and locked."""

import json
import re
from importlib.metadata import distribution, metadata

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

LISTED = dict(
    re.findall(
        r"(?m)^\| ([\w.-]+) \| [^|]{6,} \| ([^|]+) \|$",
        (ROOT / "DEPENDENCIES.md").read_text("utf-8"),
    )
)
PINNED = [
    Requirement(line)
    for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
SCRIPTS = json.loads((ROOT / "package.json").read_text("utf-8"))


def stated(name: str) -> str:
    """The licence that an installed package states of itself, in the first of four places that
    says something."""
    about = metadata(name)
    classifiers = [
        c.split(" :: ")[-1]
        for c in about.get_all("Classifier") or []
        if c.startswith("License :: ")
    ]
    return (
        about.get("License-Expression")
        or "; ".join(c for c in classifiers if c != "OSI Approved")
        or about["License"]
        or (distribution(name).read_text(f"licenses/{about['License-File']}") or "").split("\n")[0]
    )


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_listed_is_what_is_pinned():
    scripts = [*SCRIPTS["dependencies"], *SCRIPTS["devDependencies"]]
    assert sorted(LISTED) == sorted([r.name for r in PINNED] + scripts)


@pytest.mark.parametrize("requirement", PINNED, ids=lambda r: r.name)
def test_the_licence_is_that_of_the_package(requirement):
    if requirement.marker and not requirement.marker.evaluate():
        pytest.skip(f"{requirement.name} is not for this system")
    assert LISTED[requirement.name] == stated(requirement.name)


def test_the_licences_of_scripts_are_those_of_the_lock():
    lock = json.loads((ROOT / "package-lock.json").read_text("utf-8"))["packages"]
    for name in [*SCRIPTS["dependencies"], *SCRIPTS["devDependencies"]]:
        assert LISTED[name] == lock[f"node_modules/{name}"]["license"]


def test_the_lock_holds_every_pin_with_checksums_and_names_no_registry():
    """But torch and what must match it, whose builds and so checksums depend on the machine."""
    locked = dict(re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", LOCK))
    by_build = {"torch", "torchvision", "triton"}
    pins = {
        normal(r.name): str(r.specifier).removeprefix("==")
        for r in PINNED
        if r.name not in by_build
    }
    assert {name: locked.get(name) for name in pins} == pins
    assert not by_build & set(locked)
    entries = re.split(r"(?m)^(?=\S)", LOCK)[1:]
    assert [e for e in entries if "--hash=sha256:" not in e and not e.startswith("#")] == []
    assert not re.search(r"https?://|file:|--(extra-)?index-url|--find-links", LOCK)
