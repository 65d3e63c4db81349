"""The runs of quality.py, one after another, and its tables."""

import json
import os
import pathlib
import tempfile

import numpy as np
import quality
from quality import METHODS, UNTRAINED

OURS, PEER, OWN = quality.WHO
FEW = 1e-4  # what losses may differ by in two libraries that compute the same in float32
FEW_OF_WEIGHTS = 0.05  # more: a ReLU whose input is 0 but for rounding is on in one of them


def check(options):
    """Prints what both make of the same views, and fails where they differ."""
    print("| method | loss of step 1 | its difference | of steps 2 to 5, SGD | of weights, SGD | of losses, AdamW |")
    print("|---|---|---|---|---|---|")
    apart = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        random = np.random.default_rng(0)
        count = quality.CHECK_STEPS * quality.CHECK_BATCH
        coarse = random.uniform(0, 255, (count, 7, 7, 1)).repeat(4, axis=1).repeat(4, axis=2)
        views = [np.clip(coarse + random.normal(0, 32, coarse.shape), 0, 255).astype("float32") for _ in "ab"]
        bank = random.normal(size=(quality.QUEUE, METHODS["MoCo"].heads[0][-1])).astype("float32")
        bank /= np.linalg.norm(bank, axis=1, keepdims=True)
        np.savez(folder / "check.npz", a=views[0], b=views[1], bank=bank)
        sides = {OURS: quality.Side(), PEER: quality.Side(options.peer_python)}
        for name in options.methods.split(","):
            losses, weights = {}, {}
            for rule in ("SGD", "AdamW"):
                for who, side in sides.items():
                    result, weights[rule, who] = side.do(_task(folder, "check", who, name, 0, {"rule": rule}))
                    losses[rule, who] = np.array(result["losses"])
            differences = {
                rule: np.abs(losses[rule, OURS] - losses[rule, PEER]) / np.abs(losses[rule, OURS])
                for rule in ("SGD", "AdamW")
            }
            with np.load(folder / f"{name}-0-weights.npz") as file:
                began = [file[key] for key in file.files]
            of_weights = _apart(weights["SGD", OURS], weights["SGD", PEER]) / _apart(weights["SGD", OURS], began)
            first, others = differences["SGD"][0], differences["SGD"][1:].max()
            cells = [f"{value:.1e}" for value in (first, others, of_weights, differences["AdamW"].max())]
            print(f"| {name} | {losses['SGD', OURS][0]:.5f} | {' | '.join(cells)} |", flush=True)
            if max(first, others) > FEW or of_weights > FEW_OF_WEIGHTS:
                apart.append(name)
        for side in sides.values():
            side.end()
    print(
        f"\nThe largest differences within {quality.CHECK_STEPS} steps of {quality.CHECK_BATCH} images: of losses as a "
        "part of the loss; of weights after them, their distance as a part of the way that they went."
    )
    if apart:
        raise SystemExit(f"--check: {', '.join(apart)} differ by more than {FEW:g}, or {FEW_OF_WEIGHTS:g} of weights.")


def _apart(some, others):
    """The Euclidean distance of two lists of arrays."""
    return np.sqrt(sum(np.sum(np.square(a - b, dtype="float64")) for a, b in zip(some, others)))


def _task(folder, kind, who, name, seed, options):
    file = folder / f"{name}-{seed}-{kind if who != PEER else PEER}.json"
    return {
        "folder": str(folder),
        "file": str(file),
        "kind": kind,
        "who": who,
        "name": name,
        "seed": seed,
        "options": options,
    }


def setting(options):
    """What must be the same in rows of one table."""
    return {
        "data": pathlib.Path(options.data).name,
        "image_size": options.image_size,
        "images": options.images,
        "epochs": options.epochs,
        "batch": options.batch,
    }


def rows_of(options):
    file = pathlib.Path(options.output) / "rows.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["setting"] == setting(options)]


def run_missing(options):
    """Runs what is not there: seed by seed, method by method, ours and Lightly's in turns."""
    from keras_ssl import data

    output = pathlib.Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    splits = data.load(options.data, **({"image_size": options.image_size} if options.image_size else {}))
    images = np.asarray(splits.train.images[: options.images]), np.asarray(splits.test.images)
    labels = np.asarray(splits.train.labels[: options.images]), np.asarray(splits.test.labels)
    there = {(row["name"], row["who"], row["seed"]) for row in rows_of(options)}
    wanted = options.who.split(",")
    with tempfile.TemporaryDirectory(dir=output) as temporary:
        folder = pathlib.Path(temporary)
        np.savez(folder / "images.npz", train=images[0], test=images[1])
        sides = {
            OURS: quality.Side(),
            PEER: quality.Side(options.peer_python),
            OWN: quality.Side(backend=options.own_backend),
        }
        for seed in range(options.seeds):
            if (UNTRAINED, OURS, seed) not in there:
                _run(options, folder, sides, OURS, UNTRAINED, seed, labels)
            for number, name in enumerate(options.methods.split(",")):
                first = [OURS, PEER] if (number + seed) % 2 == 0 else [PEER, OURS]
                for who in [*first, OWN]:
                    if who in wanted and (name, who, seed) not in there:
                        _run(options, folder, sides, who, name, seed, labels)
        for side in sides.values():
            side.end()


def _run(options, folder, sides, who, name, seed, labels):
    """One run, its features judged, its row written."""
    from keras_ssl.evaluate import efficiency

    common, kind = {"epochs": options.epochs, "batch": options.batch}, "ours"
    if who == PEER:
        sides[OURS].do(_task(folder, "weights", OURS, name, seed, {}))
    elif who == OWN:
        spent = [row["cpu_seconds"] for row in rows_of(options) if (row["name"], row["who"]) == (name, PEER)]
        if not spent:
            print(f"{name}, own: Lightly's run is not there, whose processor time it would have.", flush=True)
            return
        common, kind = {"seconds": float(np.mean(spent))}, "own"
    result, features = sides[who].do(_task(folder, kind, who, name, seed, common))
    table = efficiency.label_efficiency(
        {name: tuple(features)}, *labels, per_class=quality.PER_CLASS, draws=quality.DRAWS, seed=quality.DRAWS * seed
    )
    scores = {column: float(np.mean(cell.accuracies)) for column, cell in table[name].items()}
    row = {"setting": setting(options), "name": name, "who": who, "seed": seed, "scores": scores, **result}
    with open(pathlib.Path(options.output) / "rows.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
    spent = f", {row['cpu_seconds']:.0f} s" if "cpu_seconds" in row else ""
    print(f"{name}, {who}, seed {seed}{spent}: kNN, all {list(scores.values())[-1]:.3f}", flush=True)


# The tables.


def print_tables(options):
    rows = rows_of(options)
    if not rows:
        print(f"{options.output} holds no run with {setting(options)}.")
        return
    columns = sorted(
        rows[0]["scores"], key=lambda column: (not column.startswith("kNN"), list(rows[0]["scores"]).index(column))
    )
    seeds = [row["seed"] for row in rows if row["name"] == UNTRAINED]
    print(
        f"\n{_words(options)} {'; '.join(sorted({row['on'] for row in rows}))}. Last epoch; mean ± standard deviation "
        f"over seeds, each the mean of {quality.DRAWS} draws of labels.\n"
    )
    _print(["", "seeds", "steps", *columns, "processor s"])
    _print(["---"] * (len(columns) + 4))
    if seeds:
        _print([UNTRAINED, str(len(seeds)), "", *_spread(_of(rows, UNTRAINED, OURS), columns), ""])
    for name in METHODS:
        for who, words in ((OURS, "ours"), (PEER, "Lightly"), (OWN, "ours, own recipe")):
            found = _of(rows, name, who)
            if found:
                steps, spent = (np.mean([row[key] for row in found.values()]) for key in ("steps", "cpu_seconds"))
                cells = [f"{name}, {words}", str(len(found)), f"{steps:.0f}", *_spread(found, columns), f"{spent:.0f}"]
                _print(cells)
    print(
        "\nOurs less Lightly's, in points, ± the standard error of the difference; bold beyond two of them, where "
        "there are three pairs or more:\n"
    )
    _print(["", "pairs", *columns, "processor time, Lightly's / ours"])
    _print(["---"] * (len(columns) + 3))
    for who, words in ((OURS, ""), (OWN, ", own recipe")):
        pairs = {name: _pairs(rows, name, who) for name in METHODS}
        for name, both in pairs.items():
            if both:
                _print(_compared(f"{name}{words}", both, columns))
        every = [pair for both in pairs.values() for pair in both]
        if len(every) > 1:
            _print(_compared(f"all of them{words}", every, columns))


def _pairs(rows, name, who):
    """Ours and Lightly's run of each seed that both have."""
    mine, theirs = _of(rows, name, who), _of(rows, name, PEER)
    return [(mine[seed], theirs[seed]) for seed in sorted(set(mine) & set(theirs))]


def _compared(words, pairs, columns):
    cells = [_difference([mine["scores"][c] - theirs["scores"][c] for mine, theirs in pairs]) for c in columns]
    mine, theirs = (sum(pair[number]["cpu_seconds"] for pair in pairs) for number in (0, 1))
    return [words, str(len(pairs)), *cells, f"{theirs / mine:.2f}"]


def _words(options):
    size = f" at {options.image_size} px" if options.image_size else ""
    images = f", {options.images:,} images" if options.images else ""
    return f"{pathlib.Path(options.data).name}{size}{images}, epochs {options.epochs}, batches of {options.batch};"


def _of(rows, name, who):
    return {row["seed"]: row for row in rows if (row["name"], row["who"]) == (name, who)}


def _spread(found, columns):
    values = {column: [row["scores"][column] for row in found.values()] for column in columns}
    return [
        f"{np.mean(one):.3f}" + (f" ± {np.std(one, ddof=1):.3f}" if len(one) > 1 else "") for one in values.values()
    ]


def _difference(values):
    """Seeds are pairs: both began with the same weights, and are judged by the same draws of labels."""
    points = 100.0 * np.asarray(values)
    if len(points) < 2:
        return f"{points[0]:+.1f}"
    error = np.std(points, ddof=1) / np.sqrt(len(points))
    text = f"{np.mean(points):+.1f} ± {error:.1f}"
    return f"**{text}**" if len(points) > 2 and abs(np.mean(points)) > 2.0 * error else text  # two say little of it


def _print(cells):
    print("| " + " | ".join(cells) + " |")
