"""Damaged files, foreign files and arbitrary values: each works or is refused with a ValueError
that the book words.

Hypothesis draws the cases, always the same ones; SLOW=1 draws twenty times as many. What is refused
must be refused by the book's own words: an error from inside torch, numpy or Python is a failure
here, a ValueError included.
"""

import hashlib
import io
import json
import math
import os
import pickle
import random
import re
import struct
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from faces import JPEGS, archive, packed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes

import helpers
from helpers import data, models, recorded, sampling, training
from helpers.data import celeba
from helpers.denoisers import CNN, MLP, Autoencoder, ImageMLP, PosteriorMean, UNet
from helpers.experiments import ledger
from helpers.lab import Family, Lab
from helpers.lab.widget import Widget
from helpers.released import load_peer, load_released
from helpers.systems.chen import field_training
from helpers.training import Recipe
from press import execute as execution
from press.chapters import Book

MORE = 20 if os.environ.get("SLOW") else 1
HELPERS = Path(helpers.__file__).parent
planned = 3000  # links; and what `fuzz` is asked for


def fuzz(examples: int):
    """`examples` cases, the same in every run."""
    global planned
    planned += examples
    return settings(
        max_examples=MORE * examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def works_or_says(call):
    """The result, or None where the book refused in words of its own: a value and, after a colon,
    what to do."""
    try:
        return call()
    except ValueError as error:
        frame = error.__traceback__
        while frame.tb_next:
            frame = frame.tb_next
        raised_in = Path(frame.tb_frame.f_code.co_filename)
        ours = {HELPERS, HELPERS.with_name("press")} & set(raised_in.parents)
        assert type(error) is ValueError and ours and ": " in str(error), repr(error)


# What values may be -------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-3, 9),
    st.sampled_from(
        [
            10**8,
            2**31,
            2**40,
            2**64,
            10**400,
            -(10**400),
            0.0,
            -0.0,
            1e308,
            1e-308,
            math.inf,
            -math.inf,
            math.nan,
        ]
    ),
    st.floats(-2, 12),
)
WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "../x", "a/b", "\0", "__proto__", "constructor", "²", "x" * 300]),
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


def mostly(value):
    """The value that belongs there, or anything."""
    return st.one_of(st.just(value), st.just(value), JSON)


def damaged(whole: bytes):
    """The bytes cut off, with bits flipped, with bytes put in or left out, or others altogether,
    drawn from a seed."""

    def damage(seed: int) -> bytes:
        draw = random.Random(seed)
        at, some = draw.randrange(len(whole)), draw.randbytes(draw.randint(1, 40))
        flipped = bytearray(whole)
        for place in [at, *draw.choices(range(len(whole)), k=draw.choice([0, 0, 3]))]:
            flipped[place] ^= 1 << draw.randrange(8)
        others = [
            whole[:at],
            whole[:at] + some + whole[at:],
            whole[:at] + whole[at + len(some) :],
            some,
        ]
        return draw.choice([bytes(flipped), bytes(flipped), *others])

    return st.integers(0, 2**32).map(damage)


# Weights ------------------------------------------------------------------------------------------

TINY = CNN(2, 2)
WEIGHTS = tensor_bytes({k: v.half() for k, v in TINY.state_dict().items()})


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A folder of one model, which models.load takes; and its card."""
    folder, patch = tmp_path_factory.mktemp("models"), pytest.MonkeyPatch()
    patch.setenv(models.MODELS, str(folder))
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    card = models.save("tiny", TINY, {"recipe": "by hand"}, torch.rand(2, 4, 4))
    yield folder, card
    patch.undo()


def placed(zoo, weights: bytes, manifest) -> None:
    folder, _ = zoo
    (folder / "tiny.safetensors").write_bytes(weights)
    (folder / "manifest.json").write_text(
        manifest if isinstance(manifest, str) else json.dumps(manifest)
    )


@fuzz(800)
@given(weights=damaged(WEIGHTS))
def test_damaged_weights(zoo, weights):
    placed(zoo, weights, {"tiny": zoo[1]})
    assert works_or_says(lambda: models.load("tiny")) is None or weights == WEIGHTS


@fuzz(500)
@given(weights=damaged(WEIGHTS))
def test_damaged_weights_whose_checksum_was_made_to_fit(zoo, weights):
    placed(zoo, weights, {"tiny": zoo[1] | {"sha256": hashlib.sha256(weights).hexdigest()}})
    works_or_says(lambda: models.load("tiny"))


ARGUMENTS = TINY.arguments | {"blocks": 1, "size": 8, "width": 4, "code": 2, "pooling": "max"}


@fuzz(400)
@given(
    name=mostly("tiny"),
    network=mostly("CNN"),
    changed=st.dictionaries(st.sampled_from(sorted(ARGUMENTS)), JSON, max_size=3),
    card=st.dictionaries(
        st.sampled_from(["class", "arguments", "sha256", "recipe"]), JSON, max_size=1
    ),
)
def test_cards_that_say_something_else(zoo, name, network, changed, card):
    known = {"class": network, "arguments": zoo[1]["arguments"] | changed}
    placed(zoo, WEIGHTS, {name if isinstance(name, str) else "tiny": zoo[1] | known | card})
    works_or_says(lambda: models.load("tiny"))


@fuzz(300)
@given(
    manifest=st.one_of(
        JSON.map(json.dumps), damaged(b'{"tiny": {"class": "CNN", "arguments": {}}}').map(repr)
    )
)
def test_manifests_that_are_none(zoo, manifest):
    placed(zoo, WEIGHTS, manifest)
    works_or_says(lambda: models.load("tiny"))


def test_a_manifest_without_bottom_and_a_name_that_leaves_the_folder(zoo):
    for manifest in (
        "[" * 10**5,
        json.dumps({"../tiny": zoo[1]}),
        json.dumps({"tiny": zoo[1], "": zoo[1]}),
    ):
        placed(zoo, WEIGHTS, manifest)
        with pytest.raises(ValueError, match=r"manifest\.json is damaged: restore it"):
            models.load("tiny")


# Checkpoints --------------------------------------------------------------------------------------

POINTS, SHORT = torch.zeros(4, 2), Recipe(steps=2, batch=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint after one of two steps, and its content."""
    path = tmp_path_factory.mktemp("training") / "state.safetensors"
    next(training.train(MLP(2, 1), POINTS, SHORT, path, 0.0))
    return path, path.read_bytes()


def resumed(path):
    return next(training.train(MLP(2, 1), POINTS, SHORT, path)).step


@fuzz(400)
@given(drawing=st.data())
def test_damaged_checkpoints(checkpoint, drawing):
    path, whole = checkpoint
    content = drawing.draw(damaged(whole))
    path.write_bytes(content)
    assert works_or_says(lambda: resumed(path)) is None or content == whole


@fuzz(200)
@given(
    changed=st.dictionaries(
        st.sampled_from(["card", "step", "loss", "seconds", "sha256"]), WORDS, max_size=2
    )
)
def test_checkpoints_with_other_words_or_numbers(checkpoint, changed):
    path, whole = checkpoint
    about, tensors = (
        json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["__metadata__"],
        read_tensors(whole),
    )
    path.write_bytes(tensor_bytes(tensors, about | changed))
    found = works_or_says(lambda: resumed(path))
    assert found == (None if changed else 1)
    del tensors["means"]
    path.write_bytes(tensor_bytes(tensors, about))
    assert works_or_says(lambda: resumed(path)) is None


# Records ------------------------------------------------------------------------------------------


@fuzz(300)
@given(name=WORDS | st.sampled_from(["../recorded/fields", "fields.json", "fields\0", "__init__"]))
def test_names_of_records(name):
    works_or_says(lambda: recorded.load(name))


@fuzz(200)
@given(content=damaged((HELPERS / "recorded/fields.json").read_bytes()[:2000]))
def test_damaged_records(content, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.getbasetemp() / "records"
        folder.mkdir(exist_ok=True)
        (folder / "fields.json").write_bytes(content)
        patch.setattr(recorded, "__file__", str(folder / "__init__.py"))
        works_or_says(lambda: recorded.load("fields"))


def test_weights_beside_the_records_have_a_checksum(monkeypatch):
    whole = (HELPERS / "recorded/fields.safetensors").read_bytes()
    for content in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        monkeypatch.setattr(Path, "read_bytes", lambda self, content=content: content)
        with pytest.raises(ValueError, match="does not match its checksum: reinstall the package"):
            field_training.shipped("coder")


# Faces --------------------------------------------------------------------------------------------


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """Where faces are looked for, and a cache of its own, which is emptied by `fresh`."""
    monkeypatch.setenv(celeba.ROOT, str(tmp_path / "faces"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "faces"


def gray_faces(root: Path, index: str | None = None, **content: bytes) -> None:
    """A prepared subset, some of whose files hold something else."""
    root.mkdir(exist_ok=True)
    (root / "index.csv").write_bytes(
        (index or "role,rank,file\npool,0,a\npool,1,b\ntest,0,c\n").encode("utf-8", "replace")
    )
    archive(root / "gray80.zip", {f"{name}.png": content.get(name, PNG) for name in "abc"})


PNG = packed(np.random.default_rng(0).integers(0, 256, (80, 80), np.uint8), "PNG")


@fuzz(500)
@given(
    image=st.sampled_from([PNG, JPEGS[0], packed(np.zeros((80, 80), np.uint8), "WEBP")]).flatmap(
        damaged
    )
)
def test_damaged_images(image):
    works_or_says(lambda: list(celeba._decoded(["a"], lambda name: image, True, 80, "gray")))


@fuzz(300)
@given(
    rows=st.lists(
        st.tuples(WORDS, mostly("0"), WORDS | st.sampled_from(["a", "b", "../a", "/etc/a"])),
        max_size=4,
    )
)
def test_indices_of_all_kinds(rows, tmp_path_factory):
    root = tmp_path_factory.getbasetemp() / "index"
    gray_faces(root, "role,rank,file\n" + "\n".join(",".join(map(str, row)) for row in rows))
    works_or_says(lambda: celeba._source(root, True))


@fuzz(500)
@given(drawing=st.data())
def test_damaged_archives(drawing, tmp_path_factory):
    root = tmp_path_factory.getbasetemp() / "zip"
    gray_faces(root)
    (root / "gray80.zip").write_bytes(drawing.draw(damaged((root / "gray80.zip").read_bytes())))

    def read_all():
        splits, read, *_ = celeba._source(root, True)
        return [read(name) for names in splits.values() for name in names]

    works_or_says(read_all)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that says it is as large as that."""
    header = b"IHDR" + struct.pack(">II", width, height) + PNG[24:29]
    return PNG[:12] + header + struct.pack(">I", zlib.crc32(header)) + PNG[33:]


@pytest.mark.parametrize("side", [81, 20_000, 2**31 - 1])
def test_images_that_say_they_are_huge_are_not_unpacked(side, faces):
    gray_faces(faces, a=png_of_size(side, side))
    with pytest.raises(
        ValueError,
        match=r"a\.png (is \d+x\d+: aligned CelebA is|is not a readable image: download)",
    ):
        data.load("celeba")


def test_an_image_of_another_kind_runs_no_program(faces):
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 80\n%%EndComments\n%%EOF\n"
    gray_faces(faces, a=script)
    with pytest.raises(ValueError, match=r"a\.png is not a readable image: download CelebA again"):
        data.load("celeba")


def test_archives_that_unpack_to_much_more_are_refused(faces):
    bomb = bytes(2**24)
    for packing in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        gray_faces(faces)
        with zipfile.ZipFile(faces / "gray80.zip", "a", packing) as file:
            file.writestr("d.png", bomb)
        with pytest.raises(
            ValueError, match=r"d\.png in .*gray80\.zip unpacks to 16777216 bytes by method"
        ):
            data.load("celeba")
    # the same entry, which now says of itself that it is small: no more than that is unpacked
    gray_faces(faces, a=bomb)
    with zipfile.ZipFile(faces / "gray80.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name in "abc":
            file.writestr(f"{name}.png", bomb if name == "a" else PNG)
    whole = (faces / "gray80.zip").read_bytes()
    (faces / "gray80.zip").write_bytes(
        whole.replace(struct.pack("<I", len(bomb)), struct.pack("<I", 1000))
    )
    with pytest.raises(
        ValueError, match=r"a\.png in .*gray80\.zip is damaged: download the archive again"
    ):
        data.load("celeba")


@pytest.mark.parametrize("place", ["find", "rfind"])
def test_names_that_are_no_text_damage_an_archive(place, faces):
    gray_faces(faces, "role,rank,file\npool,0,é\ntest,0,c\n")
    whole = bytearray(archive(faces / "gray80.zip", {"é.png": PNG, "c.png": PNG}).read_bytes())
    whole[getattr(whole, place)("é".encode())] = 0xFF  # beside the entry, or in the list of them
    (faces / "gray80.zip").write_bytes(whole)
    with pytest.raises(
        ValueError, match=r"gray80\.zip is (damaged|not a readable \.zip): download"
    ):
        data.load("celeba")


def test_entries_without_a_name_or_of_folders_are_left_alone(faces):
    gray_faces(faces)
    archive(
        faces / "gray80.zip",
        {"x/": b"", zipfile.ZipInfo(""): PNG, **{f"{name}.png": PNG for name in "abc"}},
    )
    assert len(data.load("celeba")) == 2


def test_entries_that_point_elsewhere_are_names_and_nothing_else(faces, tmp_path):
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"secret")
    gray_faces(faces, f"role,rank,file\npool,0,../outside\npool,1,{outside}\ntest,0,c\n")
    archive(faces / "gray80.zip", {"../outside.png": PNG, "c.png": PNG})
    before = sorted(tmp_path.rglob("*"))
    # both names end in "outside", which is the entry of that name
    assert len(data.load("celeba", "train")) == 2
    assert outside.read_bytes() == b"secret"
    assert [
        p
        for p in sorted(tmp_path.rglob("*"))
        if p not in before and tmp_path / "cache" not in [p, *p.parents]
    ] == []


# Weights of others --------------------------------------------------------------------------------


def saved(state) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def arrays(**state) -> bytes:
    file = io.BytesIO()
    np.savez(file, **state)
    return file.getvalue()


CHAIN = CNN(3, 2).state_dict()
PT, OLD, NPZ = saved(CHAIN), io.BytesIO(), arrays(**{k: v.numpy() for k, v in CHAIN.items()})
torch.save(CHAIN, OLD, _use_new_zipfile_serialization=False)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@fuzz(500)
@given(content=st.sampled_from([PT, OLD.getvalue(), NPZ]).flatmap(damaged))
def test_damaged_files_of_others(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "released"
    path.write_bytes(content)
    for load in (load_released, load_peer):
        works_or_says(lambda load=load: load(path))


SHAPES = st.lists(st.integers(0, 5), max_size=5).map(lambda shape: torch.zeros(shape))


@fuzz(300)
@given(
    changed=st.dictionaries(
        st.sampled_from([*CHAIN, "encoder.0.0.weight", "conv9.weight", "upsample.0.x"]), SHAPES
    ),
    removed=st.sets(st.sampled_from(sorted(CHAIN))),
)
def test_files_of_others_with_other_shapes(changed, removed, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "released"
    path.write_bytes(saved({k: v for k, v in CHAIN.items() if k not in removed} | changed))
    works_or_says(lambda: load_released(path))


class Calls:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def test_evil_files_do_nothing_and_take_no_memory(tmp_path):
    path, trace = tmp_path / "model.pt", tmp_path / "trace"
    for evil in (
        Calls(os.system, f"touch {trace}"),
        Calls(eval, f"open({str(trace)!r}, 'w')"),
        Calls(bytearray, 2**45),
    ):
        for content in (saved({"encoder.0.0.weight": evil}), pickle.dumps(evil, protocol=2)):
            path.write_bytes(content)
            with pytest.raises(ValueError, match="is not a whole file of weights"):
                load_released(path)
    assert not trace.exists()
    zeros = bytes(2**28 + 1)
    for name, load in (("model/data.pkl", load_released), ("encoder.0.0.weight.npy", load_peer)):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(name, zeros)
        with pytest.raises(ValueError, match="is not a whole file of weights"):
            load(path)
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, header)
    archive(path, {"encoder.0.0.weight.npy": array.getvalue()})
    with pytest.raises(ValueError, match="is not a whole file of weights"):
        load_peer(path)


# Parameters ---------------------------------------------------------------------------------------

LAWS = st.one_of(st.just("log-uniform"), st.just("fixed"), st.just("quadratic"), WORDS)
NOISES = st.one_of(
    JSON, st.lists(NUMBERS | JSON, max_size=3).flatmap(lambda p: LAWS.map(lambda law: (law, *p)))
)


@fuzz(600)
@given(
    changed=st.dictionaries(
        st.sampled_from([f.name for f in fields(Recipe) if f.name != "noise"]), JSON, max_size=3
    ),
    noise=st.one_of(st.just(("fixed", 1.0)), NOISES),
)
def test_recipes(changed, noise):
    works_or_says(lambda: Recipe(**{"noise": noise, **changed}))


NETWORKS = [
    (UNet, {"blocks": 1, "channels": 2}),
    (CNN, {"depth": 2, "channels": 2}),
    (MLP, {"width": 2}),
    (ImageMLP, {"size": 4, "width": 2, "depth": 1}),
    (Autoencoder, {"size": 8, "code": 2, "channels": 1}),
]
OPTIONS = sorted(
    {"data_std", "seed", "padding", "bias", "image_channels", "activation", "dimension", *ARGUMENTS}
)


@fuzz(400)
@given(
    network=st.sampled_from(NETWORKS),
    changed=st.dictionaries(st.sampled_from(OPTIONS), JSON, max_size=2),
)
def test_networks(network, changed):
    build, small = network
    known = build.__init__.__code__.co_varnames[1 : build.__init__.__code__.co_argcount]
    works_or_says(lambda: build(**small | {k: v for k, v in changed.items() if k in known}))


@fuzz(400)
@given(
    name=st.sampled_from(
        ["c-alpha", "disks", "sine", "black-white", "fashion-mnist", "ray", "shuffled", "folder"]
    )
    | JSON,
    asked=st.fixed_dictionaries(
        {}, optional={k: JSON for k in ("split", "n", "size", "colour", "seed", "alpha")}
    ),
    options=st.dictionaries(st.sampled_from(["variant", "of", "full"]), WORDS, max_size=1),
)
def test_images_that_are_asked_for(name, asked, options):
    made = works_or_says(lambda: data.load(name, **{"n": 2, "size": 6} | asked | options))
    assert made is None or (made.images.isfinite().all() and made.images.abs().max() <= 1)


SCHEDULES = [sampling.edm, sampling.log_linear, sampling.cosine_vp, sampling.ddim_linear]
SAMPLERS = [
    sampling.euler,
    sampling.heun,
    sampling.reverse_sde,
    sampling.langevin,
    sampling.gradient_estimation,
]


@fuzz(800)
@given(schedule=st.sampled_from(SCHEDULES), arguments=st.lists(JSON, min_size=2, max_size=3))
def test_schedules(schedule, arguments):
    arguments = arguments[: schedule.__code__.co_argcount]
    levels = works_or_says(lambda: schedule(*arguments))
    assert levels is None or levels[-1] == 0


@fuzz(400)
@given(
    sampler=st.sampled_from(SAMPLERS),
    levels=st.lists(NUMBERS.filter(lambda v: isinstance(v, float) or abs(v) < 2**63), max_size=4),
    options=st.fixed_dictionaries(
        {}, optional={k: NUMBERS for k in ("seed", "gamma", "rate", "corrections")}
    ),
)
def test_samplers(sampler, levels, options):
    known = sampler.__wrapped__.__code__.co_varnames
    options = {k: v for k, v in options.items() if k in known}
    denoiser, sigmas = PosteriorMean(torch.eye(2)), torch.tensor(levels, dtype=torch.float64)
    works_or_says(lambda: sampling.last(sampler(denoiser, torch.ones(2, 2), sigmas, **options)))


# Chapters and labs --------------------------------------------------------------------------------


@fuzz(300)
@given(profile=JSON, jobs=JSON, names=st.lists(WORDS, max_size=2))
def test_what_is_executed(profile, jobs, names):
    """A book whose chapters are all up to date: what is taken as a profile must be one."""
    console = Console(file=io.StringIO())

    class Idle(Book):
        def why_run(self, chapter, profile="quick"):
            return ""

    works_or_says(lambda: execution.execute(Idle(ROOT), names, profile, jobs, False, console))


@fuzz(300)
@given(content=JSON.map(json.dumps) | damaged(ledger.__doc__.encode()).map(repr))
def test_damaged_claims(content, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "claims"
    folder.mkdir(exist_ok=True)
    (folder / "01_x.json").write_text(content)
    works_or_says(lambda: ledger.read_all(folder))


LAB = Lab(
    "tiny",
    {"ring": data.ring(4)},
    [Family("Bayes", lambda x, _: PosteriorMean(x))],
    [9],
    "",
    "",
    steps=[3],
)
STATE = LAB.start | {"particles": "250"}


@pytest.fixture(scope="module")
def widget():
    """What the kernel's side of a lab sends, kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Widget,
            "send",
            lambda self, content, buffers=None: self.sent.append((content, buffers or [])),
        )
        widget = Widget(LAB)
        widget.add_traits()
        object.__setattr__(widget, "sent", [])
        yield widget


@fuzz(400)
@given(
    question=st.fixed_dictionaries(
        {"id": WORDS, "ask": st.just("sample") | st.sampled_from(["data", "_data", "__init__", "answer", "close"])},
        optional={"side": mostly("left"), "target": mostly("ring"), "count": mostly("9"),
                  "state": st.fixed_dictionaries({k: mostly(v) for k, v in STATE.items()}) | JSON},
    ) | JSON,
)  # fmt: skip
def test_a_kernel_answers_whatever_it_is_asked(widget, question):
    widget.sent.clear()
    widget._answer(widget, question, [])
    (working, _), (answer, buffers) = widget.sent
    assert working["working"] is True and len(answer["arrays"]) == len(buffers)
    assert bool(buffers) != ("error" in answer)
    assert not buffers or set(answer) - {"id", "arrays"} <= {"numbers"}
    assert buffers or answer["error"].startswith("ValueError: ") and ": " in answer["error"][12:], (
        answer
    )


LINKS = """
import { readFileSync } from "node:fs";
const { stateOfLink } = await import(process.argv[2]);
const { spec, queries } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(queries.map((query) => stateOfLink(spec, query))));
"""


def test_links_to_a_lab_are_read_as_data(javascript, labs):
    """A link chooses among what the lab has; anything else is refused by name or left alone,
    whatever it is."""
    spec, draw, queries = LAB.spec(), random.Random(0), []
    keys = ["target", "count", "left", "right", "schedule", "steps", "particles", "seed", "lab", "constructor", "x",
            "__proto__", "toString", "hasOwnProperty", "seed[]", "TARGET", ""]  # fmt: skip
    values = ["ring", "9", "Bayes~~Heun", "Bayes~~eval", "EDM", "3", "250", "0", "4294967295", "4294967296", "-1",
              "<img src=x onerror=alert(1)>", "javascript:alert(1)", "__proto__", "constructor", "~~", "~" * 999, "٣",
              "1e3", "%00", "%", "%ff", "+", "\ud800", "9" * 400, "0x10", "${1}", "Infinity", ""]  # fmt: skip
    for _ in range(MORE * 3000):
        parts = [f"{draw.choice(keys)}={draw.choice(values)}" for _ in range(draw.randrange(5))]
        queries.append(
            "?" + "&".join([draw.choice(["lab=tiny", "lab=tiny", "lab=other", "lab"]), *parts])
        )
    queries += [
        "?lab=tiny&seed=12&left=Bayes~~Heun&target=ring",
        "?lab=tiny&target=moon&seed=-1&x=1",
    ]
    asked = json.dumps({"spec": spec, "queries": queries}, ensure_ascii=True)
    found = javascript(LINKS, labs, given=asked)
    assert found[-2] == {
        "state": {"seed": 12, "left": ["Bayes", "", "Heun"], "target": "ring"},
        "refused": [],
    }
    assert found[-1] == {"state": {}, "refused": ["target moon", "seed -1"]}
    for query, answer in zip(queries, found, strict=True):
        if not query.startswith("?lab=tiny"):
            assert answer == {"state": {}, "refused": []}
        LAB._check(LAB.start | answer["state"])


def test_no_script_takes_text_for_code():
    """Whatever a script shows of an address, of a file or of a kernel's answer is text, never
    markup and never code."""
    for script in (ROOT / "book/assets").glob("*.js"):
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc",
            script.read_text(),
        )
        assert found == [], script.name


def test_these_are_ten_thousand_cases():
    assert planned >= 10_000
