"""Writes tests/slow_on_tensorflow.txt: the tests that take more than two seconds there.

    KERAS_BACKEND=tensorflow python -m pytest -m "slow or not slow" --durations=0 -vv > durations.txt
    python tools/slow_tests.py durations.txt

TensorFlow traces each small model for longer than JAX or torch take to train it. So that the README's test line stays
short, what takes long on TensorFlow is marked slow there, and on the other backends it is not: tests/conftest.py.
"""

import argparse
import pathlib
import re

LIST = pathlib.Path(__file__).parent.parent / "tests" / "slow_on_tensorflow.txt"
SECONDS = 2.0
_LINE = re.compile(r"([\d.]+)s (call|setup|teardown) +(tests/.*?::.*)")


def durations(text):
    """Seconds of each test, with those of its fixtures, by its name."""
    found = {}
    for seconds, _, name in _LINE.findall(text):
        found[name.strip()] = found.get(name.strip(), 0.0) + float(seconds)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=pathlib.Path, help="what pytest printed with --durations=0")
    parser.add_argument("--add", action="store_true", help="keep what the list has: the log is of some tests only")
    options = parser.parse_args()
    slow = {name for name, seconds in durations(options.log.read_text()).items() if seconds > SECONDS}
    if options.add:
        slow |= set(LIST.read_text().splitlines())
    LIST.write_text("".join(f"{name}\n" for name in sorted(slow)))
    print(f"{len(slow)} tests in {LIST}")


if __name__ == "__main__":
    main()
