"""When the collapse monitor rings, and that it is silent: four broken runs, and every method's normal one.

    python benchmarks/alarms.py                      # all; what is there already is not run again
    python benchmarks/alarms.py --only=Exemplar,BYOL --passes=2

The normal runs are the recipes "small" on the bundled sample, at full length unless `--passes` cuts them; the broken
ones are SimCLR's and BYOL's recipes with a part taken out, for three passes. Each is a process of its own, and its
figures are kept in `--output`.
"""

import argparse
import json
import pathlib
import subprocess
import sys

BROKEN = {
    "BYOL without predictor": ("BYOL", {"predictor": "identity"}),
    "SimCLR at temperature 100": ("SimCLR", {"temperature": 100.0}),
    "triplet at its margin": ("Triplet", {"backbone": "constant"}),
    "encoder of constant output": ("SimCLR", {"backbone": "constant"}),
}
NORMAL = ["Siamese", "Triplet", "SimCLR", "BYOL", "BarlowTwins", "Rotation", "Distortion", "Jigsaw"]
NORMAL += ["RelativePatch", "Exemplar"]


def constant(shape):
    """A ResNet whose output is one for all images: its features times 0, and a bias."""
    import keras

    import keras_ssl

    backbone = keras_ssl.backbones.resnet8(shape)
    silent = keras.layers.Rescaling(0.0, offset=1.0)(backbone.output)
    return keras.Model(backbone.input, silent)


def measure(name, passes):
    import warnings

    import keras

    import keras_ssl

    warnings.simplefilter("ignore")
    method, change = BROKEN.get(name, (name, {}))
    method, change = getattr(keras_ssl, method), dict(change)
    data = keras_ssl.data.load("fashion_mnist_sample")
    images = data.train.images[:2000] if method.uses_index else data.train.images
    keras.utils.set_random_seed(0)
    epochs = passes or (3 if name in BROKEN else None)
    recipe = keras_ssl.recipes.recipe(method, (28, 28, 1), len(images), 128, epochs, "small")
    shape = (None, None, 1) if method.patch_based else (28, 28, 1)
    made = constant(shape) if change.pop("backbone", None) else keras_ssl.backbones.resnet8(shape)
    arguments = {**recipe.arguments, **change}
    if arguments.get("predictor") == "identity":
        arguments["predictor"] = keras.layers.Identity()
    model = method(made, views=recipe.views, **arguments)
    model.compile(recipe.optimizer)
    monitor = keras_ssl.callbacks.CollapseMonitor(data.test)
    history = model.fit(images, batch_size=128, epochs=recipe.epochs, verbose=0, callbacks=[monitor]).history
    return {"passes": recipe.epochs, "alarms": monitor.alarms, "history": history}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names with commas")
    parser.add_argument("--passes", type=int, help="of each run, in the place of the recipe's")
    parser.add_argument("--output", default="runs/alarms")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = pathlib.Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    if options.measure:
        result = measure(options.measure, options.passes)
        (folder / f"{options.measure}.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        return
    names = options.only.split(",") if options.only else [*BROKEN, *NORMAL]
    print(f"{'run':28}{'passes':>7}{'loss':>9}  {'spread: features':>17}{'embedding':>11}  rings")
    wrong = 0
    for name in names:
        path = folder / f"{name}.json"
        if not path.exists():
            again = ["--passes", str(options.passes)] if options.passes else []
            subprocess.run([sys.executable, __file__, "--measure", name, "--output", str(folder), *again], check=True)
        result = json.loads(path.read_text(encoding="utf-8"))
        least = {key: min(result["history"][key]) for key in ("feature_spread", "embedding_spread")}
        rings = "; ".join(alarm[:60] + "…" for alarm in result["alarms"]) or "no"
        print(
            f"{name:28}{result['passes']:7d}{result['history']['loss'][-1]:9.3f}  {least['feature_spread']:17.3f}"
            f"{least['embedding_spread']:11.3f}  {rings}",
            flush=True,
        )
        wrong += bool(result["alarms"]) != (name in BROKEN)
    print(f"{wrong} of {len(names)} runs rang wrongly or kept silent wrongly")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
