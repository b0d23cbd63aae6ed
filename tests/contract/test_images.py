"""Images by name: splits that share nothing, CelebA prepared as described, a cache that is whole or
not there."""

import gzip
import hashlib
import os
import shutil
import sys
import time
import types
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from faces import (
    DECODED,
    JPEGS,
    NAMES,
    PARTITION,
    PHOTOGRAPHS,
    REPEATS,
    TEST,
    archive,
    original,
    packed,
    photograph,
)
from PIL import Image
from torch.nn.functional import avg_pool2d, interpolate

from helpers import files
from helpers.data import celeba, fashion_mnist, images, load, synthetic

REAL = {name: os.environ.get(name) for name in (celeba.ROOT, images.FASHION_ROOT)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for every test, and no data sets but those that it makes."""
    for name in REAL:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "creative-denoiser"


# Fashion-MNIST ------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
def test_embedded_fashion_is_padded_to_32_or_left_at_28(split):
    plain, padded = (load("fashion-mnist", split, 50, size=size).images for size in (28, None))
    assert torch.equal(plain, fashion_mnist(50, split)) and torch.equal(
        padded[:, 2:30, 2:30], plain
    )
    padded[:, 2:30, 2:30] = 0
    assert padded.shape == (50, 32, 32) and padded.count_nonzero() == 0


def test_train_and_disjoint_are_the_two_ends_of_the_pool():
    pool = fashion_mnist()
    assert torch.equal(load("fashion-mnist", "train", 5000, 28).images, pool[:5000])
    assert torch.equal(load("fashion-mnist", "disjoint", size=28).images, pool[5000:])
    assert torch.equal(load("fashion-mnist", "disjoint", 3, 28).images, pool[-3:])


def fake_fashion(folder: Path, monkeypatch) -> np.ndarray:
    """Nine images in the original format under the name of the training set; their checksum is made
    the right one."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 28, 28), np.uint8)
    raw = np.array([2051, 9, 28, 28], ">i4").tobytes() + pixels.tobytes()
    name, md5, _ = images.FASHION["pool"]
    (folder / name).write_bytes(gzip.compress(raw))
    monkeypatch.setitem(images.FASHION, "pool", (name, md5, hashlib.sha256(raw).hexdigest()))
    return pixels


def test_full_fashion_comes_from_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(images.FASHION_ROOT, str(tmp_path))
    pixels = fake_fashion(tmp_path, monkeypatch)
    assert np.array_equal(
        load("fashion-mnist", size=28, full=True).images.numpy(), pixels / np.float32(255)
    )
    with pytest.raises(
        ValueError, match=r"n is 5: Fashion-MNIST has 4 images for split 'disjoint'"
    ):
        load("fashion-mnist", "disjoint", 5, full=True)


def test_full_fashion_is_downloaded_by_its_checksum_else(tmp_path, monkeypatch):
    pixels, asked = fake_fashion(tmp_path, monkeypatch), []

    def retrieve(url, known_hash, fname, path, downloader):
        asked.append((url, known_hash, Path(path).name))
        return str(tmp_path / fname)

    monkeypatch.setitem(sys.modules, "pooch", types.SimpleNamespace(retrieve=retrieve))
    assert len(load("fashion-mnist", full=True)) == len(pixels)
    url = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/train-images-idx3-ubyte.gz"
    assert asked == [(url, "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d", "creative-denoiser")]


@pytest.mark.parametrize("damage", ["other", "cut", "not gzip", "missing"])
def test_full_fashion_of_another_content_is_refused(damage, tmp_path, monkeypatch):
    monkeypatch.setenv(images.FASHION_ROOT, str(tmp_path))
    fake_fashion(tmp_path, monkeypatch)
    file = tmp_path / images.FASHION["pool"][0]
    packed = file.read_bytes()
    file.write_bytes(
        {"other": gzip.compress(b"0" * 7072), "cut": packed[:-20], "not gzip": b"0"}.get(
            damage, packed
        )
    )
    if damage == "missing":
        file.unlink()
    with pytest.raises(
        ValueError,
        match=r"train-images-idx3-ubyte\.gz is missing or damaged: get https://.*, or unset",
    ):
        load("fashion-mnist", full=True)


@pytest.mark.skipif(not REAL[images.FASHION_ROOT], reason=f"{images.FASHION_ROOT} is not set")
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_embedded_images_are_the_first_of_the_original(split, monkeypatch):
    monkeypatch.setenv(images.FASHION_ROOT, REAL[images.FASHION_ROOT])
    full = load("fashion-mnist", split, size=28, full=True).images
    assert len(full) == {"train": 60_000, "test": 10_000}[split]
    embedded = fashion_mnist(split=split)
    assert torch.equal(full[: len(embedded)], embedded)


# CelebA from made-up photographs ------------------------------------------------------------------

GRAY80 = [np.asarray(Image.fromarray(p).convert("L").resize((80, 80))) for p in PHOTOGRAPHS]
# files by role and rank; those below have their originals, too
RANKED = {"pool": [8, 2, 5, 0], "test": [7, 4]}
ORIGINALS = [2, 8, 4]


def subset(root: Path, kind: str = "PNG") -> Path:
    """The prepared layout, made at `root`: gray images of six files and the originals of three."""
    root.mkdir(parents=True, exist_ok=True)
    rows = [
        f"{role},{rank},{NAMES[i]},x"
        for role, ranked in RANKED.items()
        for rank, i in enumerate(ranked)
    ]
    (root / "index.csv").write_text(
        "\n".join(["role,rank,file,partition", "dropped_repeat,,000004.jpg,x", *rows[::-1]])
    )
    gray = {
        f"x/{NAMES[i][:-4]}.{kind.lower()}": packed(GRAY80[i], kind)
        for r in RANKED.values()
        for i in r
    }
    archive(root / "celeba_gray80.zip", gray)
    archive(root / "originals.zip", {f"img/{NAMES[i]}": JPEGS[i] for i in ORIGINALS})
    return root


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """The original layout as a folder, named by CELEBA_ROOT."""
    monkeypatch.setenv(celeba.ROOT, str(tmp_path / "faces"))
    return original(tmp_path / "faces")


def crops(indices, decoded=DECODED) -> torch.Tensor:
    """The 160x160 centres, (N, 3, 160, 160) in [0, 1]."""
    return (
        torch.from_numpy(np.stack([decoded[i][29:-29, 9:-9] for i in indices]))
        .movedim(-1, 1)
        .float()
        / 255
    )


def resized(crops: torch.Tensor, size: int) -> torch.Tensor:
    """Antialiased cubic interpolation with a = -1/2, by torch and without rounding."""
    return interpolate(crops, (size, size), mode="bicubic", antialias=True).clamp(0, 1)


def permuted() -> list[int]:
    """The files of the pool without the repeat, in the order of the one permutation."""
    pool = [i for i in range(12) if PARTITION[i] != "2" and i not in REPEATS]
    return np.random.default_rng(20240515).permutation(pool).tolist()


def gray(size, split="train", **options) -> torch.Tensor:
    return load("celeba", split, size=size, **options).images


def test_crop_order_and_repeats(faces):
    """At 160 nothing is resized: the crops themselves, without the repeats, the pool in its order."""
    pool, test = (
        load("celeba", split, size=160, colour="rgb").images for split in ("train", "test")
    )
    torch.testing.assert_close(pool, crops(permuted()), rtol=0, atol=1e-7)
    torch.testing.assert_close(test, crops(TEST), rtol=0, atol=1e-7)


@pytest.mark.parametrize("size", [64, 80, 100])
def test_colour_is_resized_by_an_antialiased_cubic(faces, size):
    found = load("celeba", "test", size=size, colour="rgb")
    assert found.images.shape == (3, 3, size, size) and (found.size, found.colour) == (size, "rgb")
    # Pillow rounds to 8 bits after each axis
    torch.testing.assert_close(found.images, resized(crops(TEST), size), rtol=0, atol=1.6 / 255)


def test_gray_is_the_plain_mean_of_the_colours(faces):
    colour = load("celeba", size=80, colour="rgb").images
    torch.testing.assert_close(gray(80), colour.mean(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "block"), [(40, 2), (20, 4)])
def test_smaller_gray_sizes_are_block_means(faces, size, block):
    for split in ("train", "test"):
        means = avg_pool2d(gray(80, split)[:, None], block)[:, 0]
        torch.testing.assert_close(gray(size, split), means, rtol=0, atol=1e-6)


def test_splits_share_nothing(faces):
    n = len(gray(80)) // 2
    parts = [gray(80, n=n), gray(80, "disjoint", n=n), gray(80, "test")]
    assert torch.equal(parts[0], gray(80)[:n]) and torch.equal(parts[1], gray(80)[-n:])
    assert torch.pdist(torch.cat(parts).flatten(1)).min() > 1


@pytest.mark.parametrize("kind", ["zip", "below celeba", "scrambled zip"])
def test_folder_and_archive_hold_the_same_images(faces, kind, tmp_path, monkeypatch):
    """Whatever the order of an archive's entries (which decides what is a repeat of what) and what
    else is in it."""
    expected, other = (
        gray(80),
        original(tmp_path / "other" / "celeba", "folder" if "celeba" in kind else "zip"),
    )
    if kind == "scrambled zip":
        with zipfile.ZipFile(other / "img_align_celeba.zip") as file:
            entries = {name: file.read(name) for name in reversed(file.namelist())}
        archive(
            other / "img_align_celeba.zip", {"README": b"", "__MACOSX/._000001.jpg": b"", **entries}
        )
    monkeypatch.setenv(celeba.ROOT, str(tmp_path / "other" / ("celeba" if "zip" in kind else "")))
    assert torch.equal(gray(80), expected)


def test_the_same_faces_in_the_same_order_at_every_size_and_colour(tmp_path, monkeypatch):
    """The last two differ in details that are lost at 8x8: at that size, too, they are two."""
    rows, columns = np.indices((218, 178))
    board = (((rows - 29) // 8 + (columns - 9) // 8) % 2 * 60.0 - 30)[..., None]
    twins = [(0.7 * photograph(20) + 35 + s * board).clip(0, 255).astype(np.uint8) for s in (1, -1)]
    jpegs = [*JPEGS[:10], *(packed(p, "JPEG") for p in twins)]
    monkeypatch.setenv(
        celeba.ROOT, str(original(tmp_path / "twins", jpegs=jpegs, partition="001020120200"))
    )
    fine = gray(80)
    assert len(fine) == 9
    for size, colour in ((8, "gray"), (8, "rgb"), (64, "gray"), (100, "rgb")):
        found = load("celeba", size=size, colour=colour).images
        found = found.mean(1) if colour == "rgb" else found
        assert len(found) == 9, (size, colour)
        coarse = [interpolate(x[:, None], (8, 8), mode="area").flatten(1) for x in (found, fine)]
        assert (coarse[0] - coarse[1]).abs().max() < 0.03, (size, colour)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_prepared_subset_is_taken_by_rank_as_it_is(kind, tmp_path, monkeypatch):
    monkeypatch.setenv(celeba.ROOT, str(subset(tmp_path / "subset", kind)))
    for split, role in (("train", "pool"), ("test", "test")):
        expected = torch.from_numpy(np.stack([GRAY80[i] for i in RANKED[role]])) / 255
        torch.testing.assert_close(
            gray(80, split), expected, rtol=0, atol=1e-7 if kind == "PNG" else 10 / 255
        )
        coarse = avg_pool2d(gray(80, split)[:, None], 2)[:, 0]
        torch.testing.assert_close(gray(40, split), coarse, rtol=0, atol=1e-6)
        originals = [i for i in RANKED[role] if i in ORIGINALS]
        found = load("celeba", split, size=160, colour="rgb")
        torch.testing.assert_close(found.images, crops(originals), rtol=0, atol=1e-7)
    assert "aligned originals" in found.source and "80x80 gray archive" in load("celeba").source


# The cache ----------------------------------------------------------------------------------------


def replaced(faces, i, jpeg):
    (faces / "img_align_celeba" / NAMES[i]).write_bytes(jpeg)


CHANGES = {
    "file": lambda faces: replaced(faces, 4, packed(photograph(30), "JPEG")),
    # by a file of the same length
    "content": lambda faces: replaced(
        faces, 4, packed(photograph(30, (3, 3)), "JPEG").ljust(len(JPEGS[4]), b"\0")
    ),
    "one more": lambda faces: original(faces, jpegs=[*JPEGS[:11], packed(photograph(30), "JPEG")]),
    "partition": lambda faces: original(faces, partition=PARTITION[:4] + "0" + PARTITION[5:]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_the_source_changes_the_images(faces, change):
    before = gray(80), gray(80, "test")
    change(faces)
    after = gray(80), gray(80, "test")
    assert any(
        len(a) != len(b) or not torch.equal(a, b) for a, b in zip(before, after, strict=True)
    )


def test_a_changed_index_changes_the_images(tmp_path, monkeypatch):
    root = subset(tmp_path / "subset")
    monkeypatch.setenv(celeba.ROOT, str(root))
    before = gray(80)
    (root / "index.csv").write_text((root / "index.csv").read_text().replace("pool,0,", "pool,9,"))
    assert torch.equal(gray(80), before.roll(-1, 0))


def test_a_second_load_decodes_nothing(faces, monkeypatch, capsys):
    before = gray(40)
    assert "preparing CelebA, gray 80x80" in capsys.readouterr().err
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded again"))
    assert torch.equal(gray(40), before) and capsys.readouterr().err == ""


def test_images_are_mapped_and_writing_to_them_leaves_the_cache(faces, cache):
    x = gray(80)
    (file,) = cache.glob("celeba-gray-80-*/pool.npy")
    if Path("/proc/self/maps").exists():
        assert str(file) in Path("/proc/self/maps").read_text(encoding="utf-8")
    before = x.clone()
    x.zero_()
    assert torch.equal(gray(80), before) and np.array_equal(np.load(file), before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_preparation_leaves_nothing(faces, cache, error, monkeypatch):
    opened, count = Image.open, iter(range(100))

    def interrupted(file, **options):
        if next(count) == 5:
            raise error
        return opened(file, **options)

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(Image, "open", interrupted)
        gray(40)
    assert {path.suffix for path in cache.iterdir()} <= {".lock"}
    assert len(gray(40)) == 7


def test_of_two_that_ask_at_once_one_prepares(faces, monkeypatch, capsys):
    opened = Image.open
    monkeypatch.setattr(
        Image, "open", lambda file, **options: time.sleep(0.02) or opened(file, **options)
    )
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(gray, [80, 80])
    assert torch.equal(first, second) and capsys.readouterr().err.count("preparing") == 1


def test_what_a_killed_preparation_left_is_removed(tmp_path):
    left = tmp_path / ".a.0123.tmp"
    left.mkdir()
    (left / "half").write_text("")
    with files.folder_atomically(tmp_path / "a") as new:
        (new / "x").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (
        tmp_path / "a" / "x"
    ).read_text() == "whole"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file"
    files.write_atomically(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, b"new")
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


# What may be wrong with CelebA --------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "", "missing"])
def test_without_a_folder_the_message_says_what_to_do(value, tmp_path, monkeypatch):
    if value is not None:
        monkeypatch.setenv(celeba.ROOT, value and str(tmp_path / value))
    found = "missing', not a folder" if value else "CELEBA_ROOT is not set"
    with pytest.raises(
        ValueError,
        match=f"{found}: set it .* or call helpers.data.download_celeba; 'fashion-mnist'",
    ):
        load("celeba")


def shrink(root):
    replaced(root, 6, packed(PHOTOGRAPHS[0][:200], "JPEG"))


def flip_a_byte(root):
    """In the compressed part of one member of the archive, whose directory stays as it is."""
    original(root, "zip")
    shutil.rmtree(root / "img_align_celeba")
    data = bytearray((root / "img_align_celeba.zip").read_bytes())
    data[data.index(JPEGS[6]) + 500] ^= 1
    (root / "img_align_celeba.zip").write_bytes(data)


def broken_zip(root):
    shutil.rmtree(root / "img_align_celeba")
    (root / "img_align_celeba.zip").write_bytes(b"PK, and no more")


DAMAGES = {
    "no list": (
        lambda r: (r / "list_eval_partition.txt").unlink(),
        "holds no CelebA: it needs img_align_celeba",
    ),
    "no images": (
        lambda r: shutil.rmtree(r / "img_align_celeba"),
        "holds no CelebA: .* or index.csv beside .zip",
    ),
    "no test images": (lambda r: original(r, partition="0" * 12), "holds no CelebA"),
    "image size": (shrink, "000007.jpg is 178x200: aligned CelebA is 178x218"),
    "cut image": (
        lambda r: replaced(r, 6, JPEGS[6][:2000]),
        "000007.jpg is not a readable image: download CelebA",
    ),
    "no image": (
        lambda r: replaced(r, 6, b"no image"),
        "000007.jpg is not a readable image: download CelebA again",
    ),
    "member of an archive": (
        flip_a_byte,
        "000007.jpg in .*img_align_celeba.zip is damaged: download the archive",
    ),
    "archive": (broken_zip, "img_align_celeba.zip is not a readable .zip: download it again"),
    "list": (
        lambda r: (r / "list_eval_partition.txt").write_text("one two three\n"),
        "list_eval_partition.txt",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_source_is_named(faces, cache, damage, message):
    damage(faces)
    with pytest.raises(ValueError, match=message):
        load("celeba")
    assert all(path.suffix == ".lock" for path in cache.glob("*celeba*"))


INDICES = {
    "column": (
        "role,rank\npool,0\n",
        "index.csv is damaged: it needs the columns role, rank, file",
    ),
    "rank": ("role,rank,file\npool,first,000001.jpg\n", "index.csv is damaged"),
    "short row": ("role,rank,file\npool,0\n", "index.csv is damaged"),
    "not text": (b"role,rank,file\n\xff\xfe\x00", "index.csv is damaged"),
    "other files": ("role,rank,file\npool,0,x.jpg\ntest,0,y.jpg\n", "holds no CelebA"),
}


@pytest.mark.parametrize(("text", "message"), INDICES.values(), ids=INDICES)
def test_a_damaged_index_is_named(text, message, tmp_path, monkeypatch):
    root = subset(tmp_path / "subset")
    monkeypatch.setenv(celeba.ROOT, str(root))
    (root / "index.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        load("celeba")


@pytest.mark.parametrize("options", [{"colour": "rgb"}, {"size": 64}])
def test_gray_images_alone_do_not_make_colour_or_other_sizes(options, tmp_path, monkeypatch):
    root = subset(tmp_path / "subset")
    (root / "originals.zip").unlink()
    monkeypatch.setenv(celeba.ROOT, str(root))
    assert len(load("celeba")) == 4
    with pytest.raises(
        ValueError, match="colour, and gray sizes other than 20, 40 and 80, need the original JPEGs"
    ):
        load("celeba", **options)


def test_a_folder_of_photographs_needs_no_list(tmp_path, monkeypatch):
    """The numbers of the files say to which split they belong; names of others count nowhere."""
    numbers = [1, 162_771, 182_637, 182_638, 202_599]
    for i, number in enumerate(numbers):
        (tmp_path / f"{number:06d}.jpg").write_bytes(JPEGS[i])
    (tmp_path / "holiday.jpg").write_bytes(JPEGS[7])
    monkeypatch.setenv(celeba.ROOT, str(tmp_path))
    assert (len(load("celeba")), len(load("celeba", "test"))) == (3, 2)
    nested = tmp_path / "kaggle/img_align_celeba/img_align_celeba"
    nested.mkdir(parents=True)
    for path in tmp_path.glob("*.jpg"):
        path.rename(nested / path.name)
    monkeypatch.setenv(celeba.ROOT, str(tmp_path / "kaggle"))
    assert (len(load("celeba")), len(load("celeba", "test"))) == (3, 2)


# Repeats ------------------------------------------------------------------------------------------


def with_repeats() -> torch.Tensor:
    """60 random images 40x40, some of them a dimmed, shifted, inverted or slightly noisy copy of
    another."""
    g = torch.Generator().manual_seed(0)
    x = interpolate(torch.rand(60, 1, 8, 8, generator=g), (40, 40), mode="bilinear")[:, 0]
    x[7], x[31], x[32], x[59] = 0.5 * x[3], x[3] + 0.2, 1 - x[30], x[58]
    for i, j, amount in ((20, 10, 0.02), (21, 10, 0.05), (45, 44, 0.3), (50, 2, 0.1)):
        x[i] = x[j] + amount * torch.randn(40, 40, generator=g)
    return x


def brute_force(x: torch.Tensor, threshold: float) -> list[bool]:
    means = x.double().numpy().reshape(len(x), 20, 2, 20, 2).mean((2, 4)).reshape(len(x), -1)
    r = np.abs(np.corrcoef(means))
    assert np.abs(r - threshold).min() > 1e-4  # nothing that rounding decides
    return [bool((r[i, :i] > threshold).any()) for i in range(len(x))]


@pytest.mark.parametrize("block", [1, 7, 32, 60, 2048])
@pytest.mark.parametrize("threshold", [0.95, 0.7])
def test_repeats_equal_brute_force(block, threshold):
    for x in (with_repeats(), with_repeats().flip(0)):  # of two the later one
        expected = brute_force(x, threshold)
        assert 4 < sum(expected) < 30
        assert celeba.repeats(x, threshold, block).tolist() == expected


@pytest.mark.parametrize("shape", [(5, 40), (5, 30, 40), (5, 40, 50), (5, 3, 40, 40)])
def test_repeats_need_multiples_of_20(shape):
    with pytest.raises(
        ValueError, match=r"images have shape .*: pass \(N, H, W\) with H and W multiples of 20"
    ):
        celeba.repeats(torch.rand(shape))


# Synthetic classes through the same door ----------------------------------------------------------

MADE = {
    "c-alpha": (synthetic.c_alpha, {"alpha": 2}),
    "disks": (synthetic.disks, {}),
    "sine": (synthetic.sine, {}),
}


@pytest.mark.parametrize("name", MADE)
def test_synthetic_splits_have_streams_of_their_own(name):
    """Seed s has the streams 3 s, 3 s + 1, 3 s + 2: no two of seed and split share their images."""
    make, options = MADE[name]
    drawn = []
    for seed in (0, 1):
        for split in images.SPLITS:
            found = load(name, split, 4, 16, seed=seed, **options)
            assert torch.equal(found.images, make(4, size=16, seed=len(drawn), **options))
            assert found.source.endswith(f"seed {len(drawn)}")
            drawn.append(found.images)
    assert len(torch.cat(drawn).flatten(1).unique(dim=0)) == 24


def test_options_reach_the_class_and_its_description():
    found = load("c-alpha", n=3, size=12, alpha=3, beta=1, variant="paper")
    assert torch.equal(found.images, synthetic.c_alpha(3, 3, beta=1, size=12, variant="paper"))
    assert (
        str(found)
        == "3 images, train, 12x12 gray: synthetic c-alpha, alpha 3, beta 1, variant paper, seed 0"
    )


def test_defaults_of_synthetic_classes():
    found = load("disks", size=8)
    assert len(found) == 1000 and found.size == 8 and load("sine", n=1).images.shape == (1, 80, 80)


def test_a_ray_is_multiples_of_the_first_training_image():
    first = load("fashion-mnist", n=1).images[0]
    rays = [load("ray", split, 5, of="fashion-mnist").images for split in ("train", "test")]
    scales = [x.flatten(1) @ first.flatten() / first.square().sum() for x in rays]
    for x, s in zip(rays, scales, strict=True):
        torch.testing.assert_close(x, s[:, None, None] * first, rtol=0, atol=1e-6)
    assert len(torch.cat(scales).unique()) == 10


def test_shuffled_images_are_put_in_order_again():
    """The test images by the same permutation as the training images."""
    for split in ("disjoint", "test"):
        x, plain = (load(name, split, 6, 28, **o).images for name, o in (
            ("shuffled", {"of": "fashion-mnist", "seed": 3}), ("fashion-mnist", {})))  # fmt: skip
        assert torch.equal(synthetic.shuffled(x, seed=3, inverse=True), plain) and not torch.equal(
            x, plain
        )


def test_black_and_white():
    found = load("black-white", size=4)
    assert (
        torch.equal(found.images, torch.tensor([0.0, 1.0])[:, None, None].expand(2, 4, 4))
        and found.size == 4
    )


def test_faces_are_shuffled_and_scaled(faces):
    plain = gray(40)
    assert torch.equal(synthetic.shuffled(load("shuffled", size=40).images, inverse=True), plain)
    x = load("ray", n=3, size=40).images
    torch.testing.assert_close(
        x / x.amax((1, 2), keepdim=True), (plain[:1] / plain[0].max()).expand(3, 40, 40)
    )


@pytest.mark.parametrize("name", ["fashion-mnist", "disks"])
def test_numbers_may_be_whole_floats(name):
    found = load(name, n=3.0, size=32.0)
    assert torch.equal(found.images, load(name, n=3, size=32).images) and repr(found.size) == "32"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("mnist",), {}, "name is 'mnist': choose one of fashion-mnist, celeba, c-alpha"),
        (("fashion-mnist", "valid"), {}, "split is 'valid': choose one of train, disjoint, test"),
        (("fashion-mnist", "train", 0), {}, "n is 0: it must be a whole number of at least 1"),
        (("fashion-mnist", "train", 2.5), {}, "n is 2.5"),
        (
            ("fashion-mnist", "train", 10_001),
            {},
            r"n is 10001: embedded .*full=True has more\) has 10000 images",
        ),
        (
            ("fashion-mnist", "disjoint", 5001),
            {},
            "n is 5001: .* has 5000 images for split 'disjoint'",
        ),
        (("fashion-mnist", "test", 1001), {}, "n is 1001: .* has 1000 images for split 'test'"),
        (("fashion-mnist", "train", 5, 64), {}, "size is 64: Fashion-MNIST is 28, or 32"),
        (("fashion-mnist", "train", 5, -1), {}, "size is -1: it must be a whole number"),
        (("fashion-mnist",), {"colour": "rgb"}, "colour is 'rgb': choose gray, or rgb for celeba"),
        (("celeba",), {"colour": "sepia"}, "colour is 'sepia': choose gray"),
        (("fashion-mnist",), {"fill": True}, "fashion-mnist with .*'fill'"),
        (("c-alpha", "train", 5), {}, "c-alpha with .*'alpha'"),
        (("disks", "train", 5), {"alpha": 2}, "disks with .*'alpha'"),
        (("c-alpha", "train", 5), {"alpha": -1}, "alpha is -1: a regularity is positive"),
        (("sine", "train", 5, 2), {}, "size is 2: a sine"),
        (("black-white", "train", 3), {}, "n is 3: black-white has 2 images"),
        (("ray",), {}, "CELEBA_ROOT is not set"),
        (("shuffled",), {"of": "mnist"}, "name is 'mnist'"),
    ],
)
def test_bad_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        load(*arguments, **options)


@pytest.mark.parametrize(
    ("split", "n", "limit"), [("train", 99, 7), ("disjoint", 4, 3), ("test", 4, 3)]
)
def test_too_many_faces(faces, split, n, limit):
    with pytest.raises(
        ValueError, match=rf"n is {n}: CelebA at this size and colour .* has {limit} images"
    ):
        load("celeba", split, n)


def test_an_error_inside_a_class_is_not_taken_for_a_wrong_option(monkeypatch):
    def broken(n, size, seed):
        return torch.zeros(n, size) + None

    monkeypatch.setitem(images.LOADERS, "disks", images._class("disks", broken))
    with pytest.raises(TypeError):
        load("disks", n=1)


# The real faces -----------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL[celeba.ROOT], reason=f"{celeba.ROOT} is not set")
def test_real_faces(monkeypatch):
    """A prepared subset holds all images without repeats, near the exact ones beside it; its
    originals give those."""
    monkeypatch.undo()  # the reader's own cache: prepared once
    root = Path(REAL[celeba.ROOT])
    if not (root / "celeba_gray80_exact_tiny.npz").exists():
        pytest.skip(f"{celeba.ROOT} has no exact images")
    pool, test = (load("celeba", split).images for split in ("train", "test"))
    assert pool.shape == (18_884, 80, 80) and test.shape == (1000, 80, 80)
    assert celeba.repeats(torch.cat([pool, test])).sum() <= 2
    colour = {
        split: load("celeba", split, size=80, colour="rgb").images for split in ("train", "test")
    }
    exact = np.load(root / "celeba_gray80_exact_tiny.npz")
    for found, split in ((pool, "train"), (test, "test")):
        expected = torch.from_numpy(exact[f"{split}_sum"].astype(np.float32)) / 765
        assert (found[: len(expected)] - expected).square().mean((1, 2)).sqrt().max() < 2 / 255
        torch.testing.assert_close(
            colour[split][: len(expected)].mean(1), expected, rtol=0, atol=1e-6
        )
