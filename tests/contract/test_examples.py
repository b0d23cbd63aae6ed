"""The examples in docstrings print what they say, on every machine."""

import doctest
import importlib

import pytest
from conftest import ROOT

SOURCE = ROOT / "src"
FILES = [file for file in SOURCE.glob("helpers/**/*.py") if ">>> " in file.read_text("utf-8")]
NAMES = sorted(".".join(file.relative_to(SOURCE).with_suffix("").parts) for file in FILES)


@pytest.mark.parametrize("name", NAMES)
def test_examples_print_what_they_say(name):
    flags = doctest.NORMALIZE_WHITESPACE | doctest.REPORT_ONLY_FIRST_FAILURE
    done = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert done.attempted and not done.failed
