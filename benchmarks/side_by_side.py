"""What the benchmarks of speed share: contenders in processes of their own, that take turns on the same cores.

A script states its contenders, each a function that prepares the work and gives a function of one round, which does
the work and returns how many images it did. Each runs in a process of its own, with its own Python where it is a peer
(`benchmarks/requirements.txt`), pinned to the same cores; in each round all take a turn, in an order that turns with
the rounds, and only one works at a time. So what else the machine does falls on all of them.

CPU time is that of the process and its children, of all threads. Wall time is given beside it.
"""

import dataclasses
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
OURS = os.environ.get("PYTHONPATH")  # of the one who runs the script


@dataclasses.dataclass
class Contender:
    """One process.

    Args:
        name: a column of the table.
        work: the name of the function in the script's `WORK`, called with `options`.
        options: keyword arguments of it, of plain types.
        python: the interpreter; None for this one.
        environment: variables that are set for it, such as `{"KERAS_BACKEND": "jax"}`.
    """

    name: str
    work: str
    options: dict = dataclasses.field(default_factory=dict)
    python: str = None
    environment: dict = dataclasses.field(default_factory=dict)


def serve_if_asked(work):
    """In a contender's process: prepares its work, and does a round for each line that it is sent. Never returns.

    Args:
        work: `{name: function(**options) → function() → images}`.
    """
    if "--serve" not in sys.argv:
        return
    name, options, cores = json.loads(sys.argv[sys.argv.index("--serve") + 1])
    if cores:
        os.sched_setaffinity(0, cores)
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    run = work[name](**options)
    run()
    run()
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        cpu, wall = _cpu_seconds(), time.perf_counter()
        images = run()
        wall = time.perf_counter() - wall
        print(json.dumps([images, _cpu_seconds() - cpu, wall]), file=answers, flush=True)
    sys.exit()


def _cpu_seconds():
    import psutil

    total = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        times = process.cpu_times()
        # What ended children took is in their parent's.
        total += times.user + times.system + times.children_user + times.children_system
    return total


def measure(script, contenders, rounds=5, cores=(0,)):
    """Lets contenders take turns.

    Args:
        script: `__file__` of the script whose `WORK` the contenders name.
        contenders: a list of `Contender`.
        rounds: turns of each.
        cores: numbers of the cores on which all run; None for all.

    Returns:
        `{name: {"cpu": (median, smallest, largest), "wall": (…)}}`, in images a second.
    """
    threads = str(len(cores) if cores else os.cpu_count())
    processes = {}
    try:
        for contender in contenders:
            environment = {
                **os.environ,
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "OMP_NUM_THREADS": threads,
                "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "benchmarks"), OURS))),
                **contender.environment,
            }
            task = json.dumps([contender.work, contender.options, list(cores or ())])
            process = subprocess.Popen(
                [contender.python or sys.executable, script, "--serve", task],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            processes[contender.name] = process
            # One after another: two that warm up at a time would tune themselves to half a machine.
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"{contender.name} did not start: see what it wrote above.")
        figures = {name: {"cpu": [], "wall": []} for name in processes}
        names = list(processes)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                processes[name].stdin.write("go\n")
                processes[name].stdin.flush()
                images, cpu, wall = json.loads(processes[name].stdout.readline())
                figures[name]["cpu"].append(images / max(cpu, 1e-9))
                figures[name]["wall"].append(images / wall)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return {
        name: {kind: (statistics.median(x), min(x), max(x)) for kind, x in of_one.items()}
        for name, of_one in figures.items()
    }


def row(work, figures, peer, kind="cpu"):
    """A row of the table: images a second of each, median (smallest to largest), and how many times the peer's.

    Args:
        work: what was done, such as "32 px".
        figures: of `measure`.
        peer: the name of the contender that the others are compared with.
    """
    cells = [work]
    for name, of_one in figures.items():
        middle, low, high = of_one[kind]
        times = "" if name == peer else f", **{middle / figures[peer][kind][0]:.2f}×**"
        cells.append(f"{middle:.0f} ({low:.0f} to {high:.0f}){times}")
    return "| " + " | ".join(cells) + " |"


def header(figures, work="work"):
    """The first two lines of the table."""
    return f"| {' | '.join([work, *figures])} |\n|{'---|' * (len(figures) + 1)}"


def machine(packages=("tensorflow", "jax", "torch", "keras")):
    """A line of what this ran on: processor, cores, versions, date."""
    from importlib import metadata

    name = platform.machine()
    wide = ""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
        if line.startswith("flags"):
            wide = "with AVX-512" if "avx512f" in line else "without AVX-512"
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return f"{name} {wide}, {os.cpu_count()} cores; {', '.join(versions)}; {datetime.date.today():%Y-%m-%d}"


def draw(table, peer, path, title):
    """A bar for each row and contender: how many times the peer's images a second, on a logarithmic axis.

    Args:
        table: `{work: figures}`, figures of `measure`.
        path: of the PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in next(iter(table.values())) if name != peer]
    figure, axes = plt.subplots(figsize=(7.5, 0.6 + 0.28 * len(table) * (len(names) + 0.6)))
    for number, name in enumerate(names):
        places = [place + (number + 0.5) / (len(names) + 0.6) for place in range(len(table))]
        times = [figures[name]["cpu"][0] / figures[peer]["cpu"][0] for figures in table.values()]
        bars = axes.barh(places, times, 0.9 / (len(names) + 0.6), label=name)
        axes.bar_label(bars, [f" {x:.2g}×" for x in times], fontsize=8)
    axes.axvline(1.0, color="0.3", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_yticks([place + 0.4 for place in range(len(table))], list(table))
    axes.invert_yaxis()
    axes.set_xlabel(f"images a second of CPU time, as a multiple of {peer}")
    axes.set_title(title, fontsize=10)
    axes.margins(x=0.12)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
