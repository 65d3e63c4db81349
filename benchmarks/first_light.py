"""What the default recipe of `keras-ssl pretrain` is worth: three seeds, five draws of labels each.

    python benchmarks/first_light.py               # the seeds that are missing of 0, 1, 2; then the table
    python benchmarks/first_light.py --seed=1      # one of them; the table of those that are there

Each seed has initial weights, order, views and five draws of labels of its own; its figures are kept in `--output`, so
that a run that was cut off goes on with the next seed. `--method`, `--backbone`, `--epochs` and the other flags are
those of `keras-ssl pretrain`.
"""

import argparse
import json
import pathlib
import time

DRAWS = 5


def measure(seed, flags):
    """The table of one seed, as dicts of accuracies, and how long training and evaluation took."""
    import keras_ssl
    from keras_ssl.cli import experiment, pretrain
    from keras_ssl.data.split import hold_out

    pretrain.FLAGS.unparse_flags()
    settings = pretrain.FLAGS
    settings(["first_light", f"--seed={seed}", *flags])
    data, _ = hold_out(keras_ssl.data.load(settings.data, image_size=settings.image_size), seed)
    start, cpu = time.perf_counter(), time.process_time()
    model, untrained, recipe = experiment.begin(experiment.method_by_name(settings.method), data, settings)
    experiment.fit(model, data, recipe, settings)
    trained = time.perf_counter()
    backbones = {"untrained backbone": untrained, "trained backbone": model.backbone}
    table = experiment.table(data, backbones, seed=DRAWS * seed)
    return {
        "settings": settings.flag_values_dict(),
        "training_seconds": trained - start,
        "evaluation_seconds": time.perf_counter() - trained,
        "cpu_seconds": time.process_time() - cpu,
        "table": experiment.table_to_json(table),
    }


def markdown(results):
    """Mean ± standard deviation over seeds and draws of labels together."""
    from keras_ssl.evaluate import efficiency

    first = results[0]["table"]
    merged = {
        name: {
            column: efficiency.Cell([value for one in results for value in one["table"][name][column]])
            for column in cells
        }
        for name, cells in first.items()
    }
    header, rows = efficiency.as_rows(merged)
    lines = [[cell.replace("\n", ", ") for cell in header], ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="run this seed alone")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0")
    parser.add_argument("--output", default="runs/first_light", help="where the figures are kept")
    options, flags = parser.parse_known_args()
    folder = pathlib.Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds) if options.seed is None else [options.seed]:
        path = folder / f"seed-{seed}.json"
        if not path.exists():
            path.write_text(json.dumps(measure(seed, flags), indent=1) + "\n", encoding="utf-8")
    paths = sorted(folder.glob("seed-*.json"))
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    print(f"\n{len(results)} seeds, {DRAWS} draws of labels each; mean ± standard deviation over all of them\n")
    print(markdown(results))
    for path, one in zip(paths, results):
        print(
            f"\n{path.stem}: training {one['training_seconds']:.0f} s, evaluation {one['evaluation_seconds']:.0f} s, "
            f"{one['cpu_seconds']:.0f} s of processor time"
        )


if __name__ == "__main__":
    main()
