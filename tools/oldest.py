"""Runs a part of the tests with the oldest releases that pyproject.toml allows.

    python tools/oldest.py FOLDER                         # TensorFlow and JAX; FOLDER gets the environment
    python tools/oldest.py FOLDER --backends=torch        # another folder: its releases need other ones of numpy

Each requirement `name>=version` of the package, and of the extra of each backend, becomes `name==version`. A release of
torch before 2.13 brings CUDA along, some gigabytes.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).parent.parent
TESTS = [
    *("augment", "barlow_twins", "configs", "data", "earlier", "evaluate", "files", "keras_compat", "layer_contract"),
    *("nt_xent", "queue", "resume", "shapes", "testing"),
]


def oldest(requirement):
    name, version = re.fullmatch(r"([\w-]+)>=([\w.]+)", requirement).groups()
    # "keras>=3.15" allows 3.15.0, and pip takes 3.15 for it.
    return f"{name}=={version}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--backends", default="tensorflow,jax", help="by commas")
    given = parser.parse_args()
    backends = given.backends.split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    pinned = [oldest(one) for one in project["dependencies"]]
    pinned += [oldest(one) for backend in backends for one in extras.get(backend, [])]
    subprocess.run([sys.executable, "-m", "venv", given.folder], check=True)
    python = given.folder.absolute() / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *pinned, *extras["test"]], check=True)
    failed = []
    for backend in backends:
        environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        files = [f"tests/test_{name}.py" for name in TESTS]
        done = subprocess.run([python, "-m", "pytest", "-n", "0", *files], cwd=ROOT, env=environment)
        failed += [backend] if done.returncode else []
    print("\n".join(pinned))
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
