"""Executes one chapter in a process of its own: `python -m press.worker SOURCE TARGET
[NAME=VALUE ...]`."""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from press.chapters import clean, lightened, read_notebook, write_notebook

# environment variable: who started this process, gone or not by the time it asks
PARENT = "CREATIVE_DENOISER_PARENT"
# environment variable: the file in which the kernel notes which files it opens
OPENED = "CREATIVE_DENOISER_OPENED"
TRACE = f"""
def _trace():
    import os, sys
    if "{OPENED}" in os.environ:
        log = os.open(os.environ["{OPENED}"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        def note(event, arguments):
            if event == "open" and isinstance(arguments[0], str):
                os.write(log, os.fsencode(os.path.abspath(arguments[0]) + "\\n"))
        sys.addaudithook(note)
_trace()
del _trace
"""


def die_with_parent() -> None:
    """Ends this process once its parent is gone (kill -9 included); its kernel watches us in the
    same way."""
    parent = int(os.environ.get(PARENT, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def execute(source: Path, target: Path, parameters: dict[str, str]) -> None:
    """Runs `source` in its own folder; the result, with its error if any, appears at `target` in
    one step."""
    # half a second, which the other commands and the watch over the parent do not wait for
    import papermill
    from ipykernel.kernelspec import write_kernel_spec

    with tempfile.TemporaryDirectory() as home:
        # A kernel of this very interpreter, and none of the user's kernels, start-up files or
        # history.
        write_kernel_spec(Path(home) / "kernels" / "python3")
        startup = Path(home) / "profile_default" / "startup"
        startup.mkdir(parents=True)
        (startup / "trace.py").write_text(TRACE)
        os.environ |= {"JUPYTER_PATH": home, "JUPYTER_RUNTIME_DIR": home, "IPYTHONDIR": home}
        output = Path(home) / "output.ipynb"
        try:
            papermill.execute_notebook(
                source,
                output,
                parameters,
                kernel_name="python3",
                language="python",
                cwd=source.parent,
                progress_bar=False,
                # A loaded machine is slow, not wrong: cells have no time limit, messages a generous
                # one.
                start_timeout=600,
                iopub_timeout=600,
            )
        finally:
            if output.is_file():
                write_notebook(target, lightened(clean(read_notebook(output))))


if __name__ == "__main__":
    die_with_parent()
    execute(Path(sys.argv[1]), Path(sys.argv[2]), dict(pair.split("=", 1) for pair in sys.argv[3:]))
