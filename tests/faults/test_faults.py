"""What must not break: kill -9 at any moment, a full disk, a place where nothing may be written,
two equal runs.

Moments are drawn from a seed. SLOW=1 kills each command fifty times and looks at the results after
each; else each is killed twice in a row.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from faces import original
from press_fixtures import BOOK

from press.execute import kernel_environment
from press.site import fetch_scripts

ROUNDS, KILLS = (50, 1) if os.environ.get("SLOW") else (1, 2)
PIPELINE = [sys.executable, "-m", "press"]


def contents(*folders: Path) -> dict[str, bytes]:
    """Every file below the folders; of what is known of a run, or of a training, all but the time
    it took."""

    def timeless(state):
        return {
            k: timeless(v) if isinstance(v, dict) else v for k, v in state.items() if k != "seconds"
        }

    found = {
        str(file): file.read_bytes()
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file()
    }
    timed = [
        name for name, data in found.items() if name.endswith(".json") and b'"seconds"' in data
    ]
    return found | {name: json.dumps(timeless(json.loads(found[name]))).encode() for name in timed}


def finished(command: list, **options) -> float:
    """Runs the command to its end, which must be success; how long it took."""
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - begun


def killed_at_random_moments(command, again, found, begin=lambda: None, **options):
    """`command`, killed at moments of its usual time, then `again`: it must end with success and
    leave, by `found`, what an undisturbed run leaves. What the killed process had started is left
    to find out by itself."""
    begin()
    usual = finished(command, **options)
    expected, moments = found(), random.Random(0)
    for _ in range(ROUNDS):
        killed = 0
        while killed < KILLS:
            begin()
            with subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
            ) as process:
                try:
                    process.wait(moments.uniform(0.1, 0.9) * usual)
                except subprocess.TimeoutExpired:
                    process.kill()
                    killed += 1
        finished(again, **options)
        assert found() == expected


MEASURES = """import os, pathlib
folder = pathlib.Path(os.environ["CREATIVE_DENOISER_RESULTS"]) / "claims"
folder.mkdir(parents=True, exist_ok=True)
print((folder / "01_measures.json").%s)"""


@pytest.fixture
def book(scratch):
    """A chapter that measures, one that prints for a while, and a ledger; and all that a site
    needs."""
    claims = '{"chapter": "01_measures", "claims": [{"verdict": "reproduced"}]}'
    scratch.chapter("01_measures", MEASURES % f"write_text({claims!r})")
    scratch.chapter(
        "02_prints",
        "import time\nfor i in range(50):\n    print(i, flush=True)\n    time.sleep(0.01)",
    )
    scratch.chapter("ledger", MEASURES % "read_text()")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / name, scratch.root)
    scripts = fetch_scripts(BOOK).parent
    (scratch.root / "build").mkdir()
    (scratch.root / "build/npm").symlink_to(scripts)
    shutil.copytree(ROOT / "book/assets", scratch.root / "book/assets")
    shutil.copy(ROOT / "book/references.bib", scratch.root / "book")
    return scratch


def test_execution_goes_on_after_kill_9_at_any_moment(book):
    folders = book.root / "build/run", book.root / "build/results"
    killed_at_random_moments(
        [*PIPELINE, "execute", "--force"],
        [*PIPELINE, "execute"],
        lambda: contents(*folders),
        cwd=book.root,
        env=book.environment(),
    )


def test_a_site_is_built_after_kill_9_at_any_moment(book):
    assert book("execute").returncode == 0
    site = book.root / "build/site"

    def outdate():
        (site / "built").unlink(missing_ok=True)

    options = {"cwd": book.root, "env": book.environment()}
    killed_at_random_moments(
        [*PIPELINE, "build"], [*PIPELINE, "build"], lambda: contents(site), outdate, **options
    )


TRAIN = """
import functools, pathlib, sys
from dataclasses import replace
from helpers import looks, training
from helpers.experiments import runner, zoo
from helpers.experiments import campaign
recipe = training.Recipe(60, 4, 1e-2, ("log-uniform", 0.05, 1.0), "level", ema=0.9)
small = {"blocks": 1, "channels": 2, "normalisation": "none"}
heard = {**small, "blind": False, "level": "scale"}
clothes, short = {"name": "fashion-mnist", "n": 10}, replace(recipe, steps=20, loss="edm")
rows = {
    "tiny": zoo.Entry("UNet", small, {"name": "disks", "size": 8, "n": 10}, recipe),
    "heard": zoo.Entry("UNet", heard, clothes, short, watched=True),
}
runner.train = functools.partial(training.train, checkpoint_seconds=0.0)
looks.JUDGED, looks.STEPS, runner.LOOKS = 4, 3, 3
if __name__ == "__main__":  # the campaign's own worker begins with all above
    try:
        failed = campaign.campaign(sys.argv[1:], rows, "cpu", "cpu", 1, pathlib.Path("train"), humble=True)
    except ValueError as error:
        sys.exit(f"error: {error}")
    sys.exit("".join(f"error: {error}" for error in failed.values()) or None)
"""


@pytest.fixture
def training(tmp_path):
    """The campaign of a zoo of two, in a folder of its own: command, and where and how to run it."""
    (tmp_path / "train.py").write_text(TRAIN)
    judge, models = "fashion-autoencoder", tmp_path / "models"
    models.mkdir()
    shutil.copy(ROOT / f"models/{judge}.safetensors", models)
    card = json.loads((ROOT / "models/manifest.json").read_text())[judge]
    (models / "manifest.json").write_text(json.dumps({judge: card}))
    places = {"CREATIVE_DENOISER_MODELS": str(models), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return [sys.executable, "train.py"], {
        "cwd": tmp_path,
        "env": {**os.environ, "OMP_NUM_THREADS": "1", **places},
    }


def test_a_training_goes_on_after_kill_9_at_any_moment(training):
    command, options = training
    folders = options["cwd"] / "models", options["cwd"] / "train"
    alone = (folders[0] / "manifest.json").read_text()

    def begin():
        for name in ("tiny", "heard"):
            (folders[0] / f"{name}.safetensors").unlink(missing_ok=True)
        (folders[0] / "manifest.json").write_text(alone)

    killed_at_random_moments(command, command, lambda: contents(*folders), begin, **options)
    names = {file.name for file in folders[0].iterdir()}
    assert names >= {"tiny.safetensors", "heard.safetensors", "heard.webp"} and not list(
        folders[1].rglob("*.*")
    )


LOAD = """
import sys
from helpers import data
try:
    data.load("celeba")
except ValueError as error:
    sys.exit(f"error: {error}")
"""


# A full disk, and a place where nothing may be written --------------------------------------------

SMALL = 'rm -rf "$0.held" && cp -a "$0" "$0.held" && mount -t tmpfs -o size=1m none "$0" && cp -a "$0.held/." "$0"'
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'


def within(mounting: str, folder: Path, command: list, **options) -> subprocess.CompletedProcess:
    """Runs a command for which alone `folder`, with all that is in it, is on a disk of one
    megabyte, or read-only.

    What the command leaves there is copied to `<folder>.left`."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*unshare, "mount -t tmpfs none /tmp"]).returncode
    ):
        pytest.skip("this system lets nobody but its administrator mount anything")
    script = mounting + ' && { "$@"; status=$?; cp -a "$0/." "$0.left"; exit $status; }'
    return subprocess.run(
        [*unshare, script, folder, *command], capture_output=True, text=True, **options
    )


def assert_said(done, reason: str, *paths: Path):
    """No success is claimed, nobody sees a traceback, and one line names a path, the reason and the
    remedy."""
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in said, said
    lines = [
        line for line in said.splitlines() if f"could not be written ({reason}): make room" in line
    ]
    assert any(str(path) in line for path in paths for line in lines), said


def test_a_full_disk_is_said_and_what_was_there_stays(book):
    options, build = {"cwd": book.root, "env": book.environment()}, book.root / "build"
    assert book("execute").returncode == 0
    before = contents(build)
    book.chapter("02_prints", "print('x' * 2_000_000)")
    done = within(SMALL, build, [*PIPELINE, "execute"], **options)
    assert_said(done, "No space left on device", book.executed("02_prints"))
    left = {
        name.replace(".left/", "/"): data
        for name, data in contents(build.with_name("build.left")).items()
    }
    changed = [f"{build}/run/book/{name}" for name in ("02_prints.ipynb", "02_prints.json")]
    assert {k: v for k, v in left.items() if k not in changed} == {
        k: v for k, v in before.items() if k not in changed
    }
    assert changed[0] not in left, "outputs of another state of the chapter"
    book.chapter("02_prints", "print('little')")
    assert book("execute").returncode == 0
    done = within(SMALL, build, [*PIPELINE, "build"], **options)
    assert_said(done, "No space left on device", build / "src")
    assert book("build").returncode == 0


def written(folder: Path) -> dict:
    """All but what this test and Python themselves leave."""
    return {
        k: v for k, v in contents(folder).items() if ".left/" not in k and "__pycache__" not in k
    }


def test_where_nothing_may_be_written_it_is_said(book):
    options, build = {"cwd": book.root, "env": book.environment()}, book.root / "build"
    assert book("execute").returncode == 0
    before = written(book.root)
    for command in (["execute", "--force"], ["build"]):
        assert_said(
            within(READ_ONLY, build, [*PIPELINE, *command], **options),
            "Read-only file system",
            build,
        )
    done = within(READ_ONLY, book.root / "book", [*PIPELINE, "store"], **options)
    assert_said(done, "Read-only file system", book.path("01_measures"))
    assert written(book.root) == before
    shutil.rmtree(build)
    build.write_text("a file where a folder is needed")
    done = book("execute")
    assert_said(done, "Not a directory", build)


def test_a_training_says_that_the_disk_is_full(training):
    command, options = training
    shutil.rmtree(options["cwd"] / "models")  # the first network, which is met here, needs no judge
    for name, network in (("train", "train/cpu/tiny"), ("models", "models/tiny")):
        (options["cwd"] / name).mkdir()
        (options["cwd"] / name / "large").write_bytes(bytes(2**20))
        done = within(SMALL, options["cwd"] / name, command, **options)
        assert_said(done, "No space left on device", Path(network))
    assert contents(options["cwd"] / "models.left").keys() == {
        str(options["cwd"] / "models.left/large")
    }
    for name in ("train", "models"):
        (options["cwd"] / name / "large").unlink()
    finished([*command, "tiny"], **options)


def test_faces_that_do_not_fit_on_the_disk_are_not_half_there(tmp_path):
    cache = tmp_path / "cache/creative-denoiser"
    cache.mkdir(parents=True)
    (cache / "large").write_bytes(bytes(2**20 - 2**16))
    (tmp_path / "load.py").write_text(LOAD)
    places = {"CELEBA_ROOT": str(original(tmp_path / "faces")), "XDG_CACHE_HOME": str(cache.parent)}
    command, options = [sys.executable, tmp_path / "load.py"], {"env": os.environ | places}
    assert_said(
        within(SMALL, cache, command, **options),
        "No space left on device",
        cache / "celeba-gray-80",
    )
    left = [path.name for path in cache.with_name("creative-denoiser.left").iterdir()]
    assert not [name for name in left if not name.endswith((".lock", ".json")) and name != "large"]
    (cache / "large").unlink()
    finished(command, **options)


# Two equal runs -----------------------------------------------------------------------------------

CHEAP = "17_geometry"


def test_two_runs_of_a_chapter_are_equal_byte_by_byte(tmp_path):
    """A notebook with its pictures, and what it measured: as the pipeline executed it, and executed
    here again."""
    [chapter] = BOOK.select([CHEAP])
    if why := BOOK.why_run(chapter):
        pytest.fail(f"{CHEAP}: {why}: run `python -m press execute`", pytrace=False)
    environment = kernel_environment(BOOK) | {"CREATIVE_DENOISER_RESULTS": str(tmp_path)}
    again, claims = tmp_path / chapter.name, f"claims/{CHEAP}.json"
    finished(
        [sys.executable, "-m", "press.worker", BOOK.root / chapter, again],
        env=environment,
    )
    assert again.read_bytes() == BOOK.executed(chapter).read_bytes()
    assert b"image/png" in again.read_bytes()
    assert (tmp_path / claims).read_bytes() == (BOOK.results / claims).read_bytes()


# Files that would run as programs -----------------------------------------------------------------

RUNS = r"pickle|joblib|\bdill\b|shelve|marshal|torch\.load|np\.load|allow_pickle\s*=\s*True|weights_only\s*=\s*False"
REASONED = {  # file: what it may say, and why
    # of what the test itself has pickled, as processes do
    "tests/contract/test_contract.py": ["pickle"],
    "src/helpers/released.py": {
        "torch.load": "other people's weights come in that form: weights_only=True, which runs nothing",
        "np.load": "allow_pickle=False",
        "pickle": "words of its messages",
    },
    "src/helpers/data/celeba.py": {
        "np.load": "of arrays that it has made; numpy's default is allow_pickle=False"
    },
    "tests/contract/test_images.py": {"np.load": "the same arrays"},
    "tests/contract/test_networks.py": {
        "pickle": "makes the evil file, and shows that it would act"
    },
    "tests/faults/test_fuzz.py": {"pickle": "makes evil files"},
}


def test_no_file_that_the_book_reads_runs_as_a_program():
    """Weights are safetensors, records are JSON: nothing unpickles, but for the reasons above, and
    what needs it."""
    files = [
        f for folder in ("src", "book", "tests", "benchmarks") for f in (ROOT / folder).rglob("*")
    ]
    texts = {
        file.relative_to(ROOT).as_posix(): file.read_text("utf-8")
        for file in files
        if file.suffix in (".py", ".ipynb", ".md")
        and file != Path(__file__)
        and ".ipynb_checkpoints" not in file.parts
    }
    found = {name: set(re.findall(RUNS, text)) for name, text in texts.items()}
    assert {name: words for name, words in found.items() if words} == {
        k: set(v) for k, v in REASONED.items()
    }
    released = texts["src/helpers/released.py"]
    assert re.findall(r"torch\.load\(.*", released) == [
        'torch.load(file, map_location="cpu", weights_only=True)'
    ]
    assert re.findall(r"np\.load\(.*", released) == ["np.load(file, allow_pickle=False) as arrays:"]
    folders = [ROOT / folder for folder in ("models", "src", "results", "book")]
    assert not [
        f
        for folder in folders
        for f in folder.rglob("*")
        if re.search(r"\.(pt|pth|ckpt|pkl|pickle|npy|npz)$", f.name)
    ]
