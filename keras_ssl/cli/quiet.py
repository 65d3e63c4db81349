"""Keeps what a framework logs while it starts out of the terminal, unless something is wrong.

TensorFlow writes nine lines when it is imported and when it first looks for a GPU, and an error of CUDA is among them
where there is no GPU at all. They come from C++, which writes to file descriptor 2 past Python's `sys.stderr`, and some
come before TensorFlow reads TF_CPP_MIN_LOG_LEVEL.

So descriptor 2 is a temporary file during the start, and what is in it is then read line by line. **A line that is not
known to be harmless is printed.** The error of CUDA is harmless only on a machine without an NVIDIA driver; where there
is one, the error says why the GPU is not used, and is printed. If the start fails, or with --verbose, all is printed.
Should the process crash in the start, faulthandler says on the terminal where; --verbose shows the rest.

After the start nothing is held back but TensorFlow's informational lines, by TF_CPP_MIN_LOG_LEVEL=1 (its warnings and
errors are printed), unless the variable is set or --verbose is given.
"""

import contextlib
import faulthandler
import gc
import os
import pathlib
import re
import sys
import tempfile

_STAMP = r"(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: )?"  # TensorFlow before 2.20
_HARMLESS = (
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR",
    rf"{_STAMP}I\d{{4}} .*",  # absl's informational lines
    rf"{_STAMP}I (?:tensorflow|external)/.*",
    r"To enable the following instructions: .*",  # the second line of one of those
    r".*Unable to register cu(?:FFT|DNN|BLAS) factory: Attempting to register factory .* already been registered",
    r"W.* computation_placer\.cc.* already registered.*",
)
_NO_DRIVER = (r".*failed call to cuInit: .*", r".*Could not find cuda drivers on your machine.*")
_DRIVER = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")  # the last is Windows' WSL
_OBJECTS = 20_000  # that are made between two looks of Python's collector: by default 700, and a trace makes millions


def start_keras(verbose, whole_process=False):
    """Imports Keras and its backend, and lets TensorFlow look for GPUs, which is when it logs the most.

    Args:
        verbose: True to print all that is logged.
        whole_process: of `keras_ssl.cli.main`.
    """
    if "keras" in sys.modules:
        return
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    with contextlib.ExitStack() as stack:
        if not verbose:
            stack.enter_context(_harmless_held_back())
        if whole_process:
            stack.enter_context(_imported_quickly())
        from keras_ssl import backend

        backend.find_devices_early()
    backend.silence_retracing()


@contextlib.contextmanager
def _imported_quickly():
    """Halves the time of importing Keras, of which what is imported is the same, but for Keras' scikit-learn wrappers.

    Python's collector looks through all that the imports make, again and again, and frees nothing: 0.7 s. What is there
    in the end stays for good, and is put where the collector does not look, nor does it while a step is traced.

    And Keras imports scikit-learn, and with it SciPy's statistics, for `keras.wrappers`, and matplotlib for
    `keras.visualization`, which no command uses: 1.2 s and 0.4 s. It is told that there are none, as on a machine that
    has none. The probes and the page import them later, themselves.
    """
    hidden = [name for name in ("sklearn", "matplotlib") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
        gc.set_threshold(_OBJECTS, 20, 20)
        for name in hidden:
            del sys.modules[name]


@contextlib.contextmanager
def _harmless_held_back():
    """What is written to descriptor 2 inside is printed after it, but for lines that are known to be harmless."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept, os.fdopen(os.dup(2), "wb", closefd=True) as terminal:
        traced = faulthandler.is_enabled()
        if not traced:
            faulthandler.enable(terminal)
        os.dup2(kept.fileno(), 2)
        failed = False
        try:
            yield
        except Exception:
            failed = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal.fileno(), 2)
            if not traced:
                faulthandler.disable()
            kept.seek(0)
            lines = kept.read().splitlines(keepends=True)
            terminal.write(b"".join(line for line in lines if failed or not harmless(line.decode(errors="replace"))))


def harmless(line, driver=None):
    """Whether a line of a framework's log tells nothing that a user should know.

    Args:
        driver: whether the machine has an NVIDIA driver; None to look.
    """
    line = line.strip()
    if any(re.fullmatch(pattern, line) for pattern in _NO_DRIVER):
        return not (any(pathlib.Path(path).exists() for path in _DRIVER) if driver is None else driver)
    return any(re.fullmatch(pattern, line) for pattern in _HARMLESS)
