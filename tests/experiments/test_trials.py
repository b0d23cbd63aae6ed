"""The trials of recipes: resumed after a kill, the first seed of every row before the second of
any."""

import base64
from pathlib import Path

import pytest
import torch

from helpers import looks, recorded
from helpers.data.images import ImageSet

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def trials(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import record
    import trials

    monkeypatch.setattr(record, "path", lambda name: tmp_path / f"{name}.json")
    monkeypatch.setattr(trials, "SHEETS", tmp_path)
    return trials


def test_a_killed_run_goes_on_with_the_trial_it_was_at(trials, monkeypatch):
    rows, asked = {"a": {"steps": 1}, "b": {"steps": 2}}, []
    monkeypatch.setattr(trials, "load", lambda *_: None)
    monkeypatch.setattr(trials, "plan", lambda data: {"rows": rows})
    monkeypatch.setattr(trials, "controls", lambda *_: {})
    monkeypatch.setattr(trials, "webp", lambda row: row)

    def trial(row, steps, seed, data, test):
        asked.append((seed, row))
        if len(asked) in (2, 5):
            raise KeyboardInterrupt
        return {row: {"seed": seed, "steps": steps}}

    monkeypatch.setattr(trials, "trial", trial)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            trials.main()
    trials.main()
    assert asked == [(0, "a"), (0, "b"), (0, "b"), (1, "a"), (1, "b"), (1, "b"), (2, "a"), (2, "b")]
    kept = trials.record.read("trials")
    assert kept["trials"]["rows"] == {
        row: [{"seed": seed, **planned} for seed in range(3)] for row, planned in rows.items()
    }
    trials.main()
    assert len(asked) == 8


def test_a_trial_judges_both_ends_of_the_reference(trials, monkeypatch):
    images = torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    data = ImageSet(images, "celeba", "test", 64, "rgb", "random")
    for name, value in {"MADE": 8, "BY_HEUN": 8, "TESTED": 4, "HEUN": 2}.items():
        monkeypatch.setattr(trials, name, value)
    monkeypatch.setattr(looks, "STEPS", 3)
    found = trials.trial("reference", 3, 0, data, data)
    assert list(found) == ["reference", trials.RAW]
    assert found["reference"]["psnr"] != found[trials.RAW]["psnr"]
    shown = recorded.strip(trials.webp("reference"))
    assert shown.shape == (64, 64 * looks.SHOWN, 3) and 0 <= shown.min() and shown.max() <= 1


def test_a_strip_is_what_was_drawn(tmp_path):
    flat = torch.linspace(0, 1, looks.SHOWN)[:, None, None, None].expand(-1, 3, 16, 16)
    looks.add_row(tmp_path / "row.png", flat, 0)
    webp = base64.b64encode(looks.as_webp((tmp_path / "row.png").read_bytes())).decode()
    shown = recorded.strip(webp)[8, 8::16, 1]
    assert (shown - torch.linspace(0, 1, looks.SHOWN)).abs().max() < 0.03
