"""CelebA in its original layout, from made-up photographs."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

# by partition; the eleventh repeats the first, the tenth, of the test images, the second, both a
# little darker
PARTITION = "001020120202"
REPEATS = {10: 0, 9: 1}
TEST = [i for i in range(12) if PARTITION[i] == "2" and i not in REPEATS]


def photograph(seed: int, grid=(9, 11)) -> np.ndarray:
    """A smooth random colour image (218, 178, 3), uint8."""
    rough = np.random.default_rng(seed).integers(20, 236, (*grid[::-1], 3), np.uint8)
    return np.asarray(Image.fromarray(rough).resize((178, 218), Image.Resampling.BICUBIC))


def packed(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=95)
    return file.getvalue()


PHOTOGRAPHS = [photograph(i) for i in range(12)]
for i, j in REPEATS.items():
    PHOTOGRAPHS[i] = (0.9 * PHOTOGRAPHS[j]).astype(np.uint8)
NAMES = [f"{i + 1:06d}.jpg" for i in range(12)]
JPEGS = [packed(p, "JPEG") for p in PHOTOGRAPHS]
DECODED = [np.asarray(Image.open(io.BytesIO(j))) for j in JPEGS]


def archive(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)
    return path


def original(
    root: Path, kind: str = "folder", jpegs: list[bytes] = JPEGS, partition: str = PARTITION
) -> Path:
    """The original layout, made at `root`."""
    root.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        (root / "img_align_celeba").mkdir(exist_ok=True)
        for name, jpeg in zip(NAMES, jpegs, strict=False):
            (root / "img_align_celeba" / name).write_bytes(jpeg)
    else:
        content = {
            f"img_align_celeba/{name}": jpeg for name, jpeg in zip(NAMES, jpegs, strict=False)
        }
        archive(root / "img_align_celeba.zip", content)
    lines = (f"{name} {part}\n" for name, part in zip(NAMES, partition, strict=False))
    (root / "list_eval_partition.txt").write_text("".join(lines))
    return root
