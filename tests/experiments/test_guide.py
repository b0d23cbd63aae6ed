"""The guides in CONTRIBUTING.md: their files, rows and code do what they say."""

import os
import re
import subprocess
import sys

import torch
from conftest import ROOT

from helpers import models
from helpers.models import MODELS


def test_the_guide_to_a_new_architecture(tmp_path):
    guide = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## A new architecture")[1]
    file, row, cell = re.findall(r"```python\n(.*?)```", guide.split("\n## ")[0], re.DOTALL)
    smaller = {"steps=500": "steps=20", '"fashion-mnist", "size": 32': '"disks", "size": 8'}
    assert "from ..base import" in file and all(words in cell for words in smaller)
    for words, fewer in smaller.items():
        cell = cell.replace(words, fewer)
    script = [
        file.replace("from ..base", "from helpers.denoisers.base"),
        cell,
        "assert type(network) is Mine and network.arguments == {'width': 16, 'seed': 0}",
        "channels = 8",
        f"name, options, changed = {{{row}}}['mine']",
        "changed = replace(zoo.BASE, **changed)",
        "data = runner.source(**clothes)",
        "assert type(runner.untrained(zoo.Entry(name, options, clothes, changed), data)) is Mine",
    ]
    command = [sys.executable, "-c", "\n".join(script)]
    environment = os.environ | {MODELS: str(tmp_path / "models")}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "models/mine.safetensors").exists()


def test_the_forward_pass_of_the_guide_needs_no_package(monkeypatch):
    """The code in CONTRIBUTING, by torch alone."""
    guide = (ROOT / "CONTRIBUTING.md").read_text().split("## Weights without the package")[1]
    code = guide.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(ROOT)
    named: dict = {}
    exec(code, named)
    y = torch.randn(2, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    assert "helpers" not in code
    want = models.load("faces-n9442-a")(y[:, 0], 0.5)[:, None]
    torch.testing.assert_close(named["denoised"](y), want)
