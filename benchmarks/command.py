"""The whole command by parts: `keras-ssl pretrain` on the sample, in seconds of CPU and of wall time.

    python benchmarks/command.py --rounds=5 --whole=1 --peer_python=peers/bin/python

Each round is a process of its own. The rounds of the start end with the first step; whole runs are as many as asked
for. The peer is a script of Lightly and torch up to its first step: process start, imports, SimCLR's transforms of 128
images, a ResNet-18's step. It has no table and no page, so those have no peer.
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

FOLDER = pathlib.Path(__file__).parent
_BEGAN = time.time()


def _now():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system, time.time() - _BEGAN


def ours(stop_after_first_step):
    """Runs the command in this process; prints how long its parts took."""
    marks = {"begin": (0.0, 0.0)}
    from keras_ssl.cli import main, quiet

    def marked(module, name, before=None, after=None):
        function = getattr(module, name)

        def run(*arguments, **options):
            if before:
                marks[before] = _now()
            result = function(*arguments, **options)
            if after:
                marks[after] = _now()
            return result

        setattr(module, name, run)

    import keras_ssl.cli

    start = quiet.start_keras

    def started(*arguments):
        start(*arguments)
        marks["imports"] = _now()
        import keras

        from keras_ssl.cli import experiment
        from keras_ssl.training import run

        class Watch(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                now = _now()
                marks.setdefault("first step", now)
                steps.append(now)
                if stop_after_first_step:
                    print(json.dumps({"marks": marks}), file=sys.stderr, flush=True)
                    os._exit(0)

            def on_epoch_end(self, epoch, logs=None):
                epochs.append(_now())

        fit = run.Run._fit

        def watched(self, *rest):
            # The last of all, so that an epoch's end is after what the other callbacks do there.
            self.callbacks.append(Watch())
            return fit(self, *rest)

        run.Run._fit = watched
        marked(experiment, "fit", after="trained")
        marked(experiment, "table", before="table begins", after="table")

    steps, epochs = [], []
    keras_ssl.cli.start_keras = started
    with tempfile.TemporaryDirectory() as folder:
        code = main(["pretrain", f"--output={folder}/run"], whole_process=True)
        marks["end"] = _now()
    per_epoch = len(steps) // len(epochs)
    step = [statistics.median(b[kind] - a[kind] for a, b in itertools.pairwise(steps[1:per_epoch])) for kind in (0, 1)]
    beyond = [
        [end[kind] - begin[kind] - (per_epoch - lost) * step[kind] for kind in (0, 1)]
        for begin, end, lost in zip([steps[0], *epochs], epochs, [1] + [0] * len(epochs))
    ]
    print(json.dumps({"marks": marks, "step": step, "beyond": beyond}), file=sys.stderr, flush=True)
    sys.exit(code)


def peer():
    """From the start of a process of torch and Lightly to the end of its first step."""
    import numpy as np
    import torch
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from PIL import Image
    from torchvision.models import resnet18

    imports = _now()
    network = resnet18()
    network.fc = torch.nn.Identity()
    head, criterion = SimCLRProjectionHead(512, 512, 128), NTXentLoss(temperature=0.1)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], 1e-3)
    transform = SimCLRTransform(input_size=28, gaussian_blur=0.0)
    pixels = np.random.default_rng(0).integers(0, 256, (128, 28, 28, 3), "uint8")
    a, b = (torch.stack(views) for views in zip(*(transform(Image.fromarray(image)) for image in pixels)))
    criterion(head(network(a)), head(network(b))).backward()
    optimizer.step()
    print(json.dumps({"marks": {"imports": imports, "first step": _now()}}), file=sys.stderr, flush=True)


def _child(python, *arguments):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(FOLDER.parent)}
    done = subprocess.run([python, __file__, *arguments], env=environment, capture_output=True, text=True)
    found = [line for line in done.stderr.splitlines() if line.startswith('{"marks"')]
    if not found:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(found[-1])


def _cells(values):
    return [f"{statistics.median(x):.1f} ({min(x):.1f} to {max(x):.1f})" for x in zip(*values)]


def _since(marks, name, before=None):
    begin = marks[before] if before else (0.0, 0.0)
    return [a - b for a, b in zip(marks[name], begin)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole", type=int, default=1, help="whole runs, some minutes each")
    parser.add_argument("--peer_python", help="an interpreter with benchmarks/requirements.txt")
    parser.add_argument("--picture", default=str(FOLDER.parent / "docs" / "images" / "command.png"))
    asked = parser.parse_args()
    sys.path.insert(0, str(FOLDER))
    import side_by_side

    mine, theirs = [], []
    for _ in range(asked.rounds):
        mine.append(_child(sys.executable, "--first_step")["marks"])
        if asked.peer_python:
            theirs.append(_child(asked.peer_python, "--peer")["marks"])
    print(side_by_side.machine(("tensorflow", "keras", "scikit-learn", "matplotlib")))
    print("\n| part | CPU seconds | wall seconds |\n|---|---|---|")
    rows = {
        "process start and imports": [_since(m, "imports") for m in mine],
        "… to the end of the first step": [_since(m, "first step") for m in mine],
    }
    if theirs:
        rows["Lightly and torch: start and imports"] = [_since(m, "imports") for m in theirs]
        rows["Lightly and torch: … to the end of the first step"] = [_since(m, "first step") for m in theirs]
    whole = [_child(sys.executable, "--ours") for _ in range(asked.whole)]
    if whole:
        rows["the other steps and epochs"] = [_since(w["marks"], "trained", "first step") for w in whole]
        rows["of that, beyond steps in the first epoch"] = [w["beyond"][0] for w in whole]
        rows["of that, beyond steps in the last epoch"] = [w["beyond"][-1] for w in whole]
        rows["the table"] = [_since(w["marks"], "table", "table begins") for w in whole]
        rows["the page"] = [_since(w["marks"], "end", "table") for w in whole]
        rows["the whole command"] = [_since(w["marks"], "end") for w in whole]
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(_cells(values))} |")
    _draw(rows, asked.picture)


def _draw(rows, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 0.4 * len(rows) + 0.8), layout="constrained")
    axes = figure.subplots()
    names = list(rows)
    for kind, (label, color) in enumerate((("CPU", "#2f6fde"), ("wall", "#a9c1ea"))):
        values = [statistics.median(value[kind] for value in rows[name]) for name in names]
        bars = axes.barh([place + 0.4 * kind for place in range(len(names))], values, 0.38, label=label, color=color)
        axes.bar_label(bars, [f" {value:.1f}" for value in values], fontsize=8)
    axes.set_yticks([place + 0.2 for place in range(len(names))], names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("seconds")
    axes.margins(x=0.15)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    if "--peer" in sys.argv:
        peer()
    elif "--ours" in sys.argv or "--first_step" in sys.argv:
        ours("--first_step" in sys.argv)
    else:
        main()
