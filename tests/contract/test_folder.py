"""A folder of one's own images: what is in it, in which order, at which size, and what is said."""

import io
import os
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.data import folder, load

DRAW = np.random.default_rng(0)


def pixels(height: int, width: int) -> np.ndarray:
    return DRAW.integers(0, 256, (height, width, 3), np.uint8)


def saved(image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
def photographs(tmp_path):
    """Twenty-five images of several kinds and sizes, two of them in a subfolder."""
    kinds = ["png", "jpeg", "webp", "bmp", "tiff", "gif"]
    (tmp_path / "mine/holiday").mkdir(parents=True)
    for i in range(25):
        place = tmp_path / "mine" / ("holiday" if i < 2 else "")
        kind = kinds[i % len(kinds)]
        (place / f"{i}.{kind}").write_bytes(saved(pixels(20 + i, 24), kind.upper()))
    return tmp_path / "mine"


def of_one(tmp_path, data: bytes, size: int = 8, colour: str = "rgb", name: str = "a.png"):
    """The image of a file, which stands beside two that differ from it: found by what it changes."""
    root = tmp_path / name.replace(".", "-")
    root.mkdir()
    for i in range(folder.FEWEST - 1):
        (root / f"other{i}.png").write_bytes(saved(pixels(size, size), "PNG"))
    (root / "again.png").write_bytes(saved(pixels(size, size), "PNG"))

    def found():
        return [
            x
            for s in ("train", "test")
            for x in load("folder", s, None, size, colour, path=root).images
        ]

    before = found()
    (root / name).write_bytes(data)
    (one,) = (x for x in found() if not any(torch.equal(x, y) for y in before))
    return one


def test_train_and_test_are_the_whole_folder_in_an_order_of_the_content(photographs):
    train, test = (load("folder", split, path=photographs, size=16) for split in ("train", "test"))
    assert train.images.shape == (23, 16, 16) and test.images.shape == (2, 16, 16)
    assert (
        train.images.dtype == torch.float32 and 0 <= train.images.min() and train.images.max() <= 1
    )
    assert len(torch.cat([train.images, test.images]).unique(dim=0)) == 25
    names = sorted(p for p in photographs.rglob("*") if p.is_file())
    for i, path in enumerate(names):  # other names, other places, another order on the disk
        path.rename(photographs / f"{99 - i}.renamed")
    again = load("folder", path=photographs, size=16)
    assert torch.equal(again.images, train.images) and again.source == train.source
    assert str(train).startswith("23 images, train, 16x16 gray: folder 'mine' (25 images, key ")


def test_disjoint_shares_none_with_train(photographs):
    a, b = (
        load("folder", split, 11, 16, path=photographs).images for split in ("train", "disjoint")
    )
    assert len(torch.cat([a, b]).unique(dim=0)) == 22


def test_equal_files_count_once(photographs):
    shutil.copy(photographs / "3.bmp", photographs / "copy of 3.bmp")
    sets = [load("folder", split, path=photographs, size=16) for split in ("train", "test")]
    assert sum(map(len, sets)) == 25


def test_hidden_files_and_what_is_no_image_are_left_alone(photographs):
    hidden = photographs / ".thumbnails"
    hidden.mkdir()
    for path in (photographs / "._1.png", hidden / "a.jpg"):
        path.write_bytes(b"Mac OS X")
    (photographs / "paper.pdf").write_bytes(b"%PDF-1.7\n")
    (photographs / "notes.txt").write_text("of the journey")
    assert len(load("folder", path=photographs, size=16)) == 23


def test_the_centre_is_cut_and_made_smaller_as_pillow_does(tmp_path):
    x = pixels(40, 64)
    square = Image.fromarray(x[:, 12:52]).resize((16, 16), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1) / 255
    assert torch.equal(of_one(tmp_path, saved(x, "PNG"), 16), expected)
    gray = of_one(tmp_path, saved(x, "PNG"), 16, "gray", "b.png")
    torch.testing.assert_close(gray, expected.mean(0), atol=1e-6, rtol=0)


def test_a_large_photograph_is_decoded_small_and_keeps_its_detail(tmp_path):
    """Stripes of four pixels at the size asked for: decoded at an eighth, they would be gone."""
    stripes = np.tile(127 + 100 * np.sin(np.arange(512) * np.pi / 8), (400, 1)).astype(np.uint8)
    wide = np.stack([stripes] * 3, -1)
    found = of_one(tmp_path, saved(wide, "JPEG", quality=95), 100, "gray")
    square = Image.fromarray(wide[:, 56:456]).resize((100, 100), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.asarray(square)[..., 0].copy()) / 255
    assert expected.std() > 0.2
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def kinds():
    """Files, and the colour in [0, 1] of all their pixels, or of their left and right halves."""
    box = (8, 8)
    palette = Image.new("P", box, 1)
    palette.putpalette([0, 0, 0, 51, 102, 204])
    clear = Image.new("P", box, 0)
    clear.putpalette([255, 0, 0])
    deep = Image.fromarray(np.full(box, 30_000, np.uint16))
    frames = [Image.new("RGB", box, c) for c in ("black", "white")]
    return {
        "palette": (saved(palette, "PNG"), (0.2, 0.4, 0.8)),
        "clear palette": (saved(clear, "PNG", transparency=0), (1, 1, 1)),
        "half clear": (saved(Image.new("RGBA", box, (255, 0, 0, 51)), "PNG"), (1, 0.8, 0.8)),
        "clear gray": (saved(Image.new("LA", box, (0, 0)), "PNG"), (1, 1, 1)),
        "16 bits": (saved(deep, "PNG"), (30_000 / 65_535,) * 3),
        "16 bits, TIFF": (saved(deep, "TIFF"), (30_000 / 65_535,) * 3),
        "black or white": (saved(Image.new("1", box, 1), "PNG"), (1, 1, 1)),
        "CMYK": (saved(Image.new("CMYK", box, (255, 0, 0, 0)), "JPEG", quality=100), (0, 1, 1)),
        "animation": (saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), (0, 0, 0)),
    }


@pytest.mark.parametrize("kind", kinds())
def test_pixels_of_all_kinds(kind, tmp_path):
    data, colour = kinds()[kind]
    expected = torch.tensor(colour).view(3, 1, 1).expand(3, 8, 8)
    torch.testing.assert_close(of_one(tmp_path, data), expected.float(), atol=0.005, rtol=0)


def test_a_photograph_is_turned_as_the_camera_says(tmp_path):
    x, turned = pixels(8, 8), Image.Exif()
    turned[0x0112] = 6  # to be seen, turn it by a quarter clockwise
    found = of_one(tmp_path, saved(x, "PNG", exif=turned))
    assert torch.equal(found, torch.from_numpy(np.rot90(x, -1).copy()).permute(2, 0, 1) / 255)


def huge() -> bytes:
    """A PNG that says it is of 30,000 x 30,000 pixels."""
    png = saved(pixels(8, 8), "PNG")
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 80\n%%EndComments\n%%EOF\n"
FAULTS = {
    "cut.jpg": (lambda: saved(pixels(99, 99), "JPEG")[:3000], "is broken or may not be read"),
    "nameless": (lambda: saved(pixels(99, 99), "JPEG")[:3000], "is broken or may not be read"),
    "empty.png": (lambda: b"", "is no image that is read here: save it as JPEG or PNG"),
    "paper.jpg": (lambda: b"%PDF-1.7\n", "is no image that is read here"),
    "phone.HEIC": (lambda: b"\0\0\0\x24ftypheic", "is no image that is read here"),
    "program.png": (lambda: EPS, "is no image that is read here"),
    "dot.png": (lambda: saved(pixels(1, 1), "PNG"), "is 1x1, smaller than 16x16"),
    "line.png": (lambda: saved(pixels(15, 900), "PNG"), "is 900x15, smaller than 16x16"),
    "bomb.png": (huge, f"has more than {Image.MAX_IMAGE_PIXELS} pixels"),
    "float.tiff": (
        lambda: saved(np.ones((20, 20), np.float32), "TIFF"),
        "has 32-bit pixels, of which none says what white is: save it with 8 or 16",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_used_is_named_or_left_out(name, photographs):
    data, fault = FAULTS[name]
    before = load("folder", path=photographs, size=16)
    (photographs / "holiday" / name).write_bytes(data())
    with pytest.raises(ValueError) as error:
        load("folder", path=photographs, size=16)
    said = f"has files that cannot be used (1): {os.path.join('holiday', name)} ({fault}"
    assert said in str(error.value) and "pass skip=True to leave them out" in str(error.value)
    left = load("folder", path=photographs, size=16, skip=True)
    assert torch.equal(left.images, before.images)
    assert left.source == before.source.replace("25 images", "25 images, 1 left out")


def test_of_many_faults_some_are_named_and_all_are_counted(photographs):
    for i in range(folder.NAMED + 2):
        (photographs / f"x{i}.jpg").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"has files that cannot be used \(7\): x0.* and 2 more; mend"
    ):
        load("folder", path=photographs, size=16)


def test_what_is_mended_is_seen(photographs):
    (photographs / "new.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"new\.png \(is no image"):
        load("folder", path=photographs, size=16)
    (photographs / "new.png").write_bytes(saved(pixels(30, 30), "PNG"))
    assert "(26 images, key" in load("folder", path=photographs, size=16).source


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"size": 64},
            r"cannot be used \(25\): .* \(is 24x\d\d, smaller than 64x64\).* or a smaller size",
        ),
        ({"size": 64, "skip": True}, r"has 0 images of 64x64 or larger: put at least 3 different"),
        ({"size": 16, "n": 24}, r"n is 24: folder 'mine' \(25 images, key \w+\) has 23 images for"),
        ({"size": 16, "split": "test", "n": 3}, r"n is 3: .* has 2 images for split 'test'"),
        ({"size": 16, "path": "nowhere"}, r"path is 'nowhere': name a folder; an archive is unp"),
        ({"size": 16, "path": __file__}, r"path is '.*test_folder\.py': name a folder"),
        ({"size": 16, "path": "~nobody-has-this-name"}, r"path is '~nobody.*': name a folder"),
        ({"size": 16, "path": ""}, r"path is '': name a folder"),
        ({"size": 16, "path": None}, r"path is 'None': name a folder"),
        ({"size": 16, "crop": "left"}, r"folder with .*'crop'"),
    ],
)
def test_bad_arguments(photographs, options, message):
    with pytest.raises(ValueError, match=message):
        load("folder", **{"path": photographs} | options)


def test_a_folder_is_named():
    with pytest.raises(ValueError, match=r"folder with .*'path'"):
        load("folder")
