"""What a few labels make of a pretrained backbone: every protocol of `evaluate.fine_tune`, three seeds.

    python benchmarks/transfer.py                 # what is missing of three seeds; then the table
    python benchmarks/transfer.py --seeds=1
    python benchmarks/transfer.py --choose        # how the default learning rates were chosen

A seed pretrains a backbone of its own by the recipe of `keras-ssl pretrain` and draws 10 labels per class five times;
all protocols see the same draws. Backbones and figures are kept in `--output`, so that a run that was cut off goes on
where it was. Test images are looked at once, by the classifier that the last epoch gives.

`--choose` looks at the training split alone: labels of draws that the table does not use, judged on other training
images, with the backbone of seed 0. Each protocol has as many candidates as the others; "frozen-then-unfrozen" takes
those of "linear" and "fine-tune", which are its halves.
"""

import argparse
import json
import pathlib

import numpy as np

PER_CLASS = 10
DRAWS = 5
JUDGES = 1000
CHOICES = {
    "linear": [(1e-3, None), (3e-3, None), (1e-2, None), (3e-2, None)],
    "fine-tune": [(3e-3, 3e-4), (3e-3, 1e-3), (1e-2, 1e-3), (1e-2, 3e-3)],
    "from-scratch": [(1e-3, 1e-3), (3e-3, 3e-3), (1e-2, 1e-2), (3e-2, 3e-2)],
}


def pretrained(seed, folder):
    """The backbone of the default recipe at this seed, trained once."""
    import keras

    import keras_ssl
    from keras_ssl.cli import experiment, pretrain

    path = folder / f"backbone-{seed}.keras"
    if not path.exists():
        settings = pretrain.FLAGS
        settings.unparse_flags()
        settings(["transfer", f"--seed={seed}"])
        data = keras_ssl.data.load(settings.data)
        model, _ = experiment.begin(experiment.method_by_name(settings.method), data, settings)
        model.fit(data.train.images, batch_size=settings.batch_size, epochs=settings.epochs, verbose=2)
        model.backbone.save(path)
    return keras.models.load_model(path)


class Figures:
    """Accuracies by name in a JSON file, each measured once."""

    def __init__(self, path):
        self.path = path
        self.known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def get(self, name, measure):
        if name not in self.known:
            import keras

            self.known[name] = measure()
            self.path.write_text(json.dumps(self.known, indent=1) + "\n", encoding="utf-8")
            print(f"{self.path.stem}: {name}: {self.known[name]:.4f}", flush=True)
            keras.utils.clear_session()
        return self.known[name]


def choose(folder, draws=3):
    """Mean accuracies on held-out training images, by protocol and learning rates."""
    import keras_ssl
    from keras_ssl import evaluate

    images, labels = (lambda split: (split.images, split.labels))(keras_ssl.data.load("fashion_mnist_sample").train)
    backbone, figures = pretrained(0, folder), Figures(folder / "choice.json")
    for protocol, candidates in CHOICES.items():
        for rates in candidates:

            def measure(draw, protocol=protocol, rates=rates):
                order = np.random.default_rng(1000 + draw).permutation(len(labels))
                judges, rest = order[:JUDGES], order[JUDGES:]
                return evaluate.fine_tune(
                    backbone,
                    (images[rest], labels[rest]),
                    (images[judges], labels[judges]),
                    per_class=PER_CLASS,
                    protocol=protocol,
                    learning_rate=rates[0],
                    backbone_rate=rates[1],
                    seed=1000 + draw,
                ).accuracy

            accuracies = [
                figures.get(f"{protocol} {rates} draw {draw}", lambda draw=draw: measure(draw)) for draw in range(draws)
            ]
            print(
                f"{protocol:22} head {rates[0]:<7g} backbone {rates[1] or 0:<7g} {np.mean(accuracies):.3f}", flush=True
            )


def measure(seed, folder, draws=DRAWS):
    """A dict of protocol to accuracies on the test images, one a draw of labels."""
    import keras_ssl
    from keras_ssl import evaluate

    data = keras_ssl.data.load("fashion_mnist_sample")
    backbone, figures = pretrained(seed, folder), Figures(folder / f"seed-{seed}.json")

    def accuracy(protocol, draw):
        tuned = evaluate.fine_tune(
            backbone, data.train, data.test, per_class=PER_CLASS, protocol=protocol, seed=DRAWS * seed + draw
        )
        return tuned.accuracy

    return {
        protocol: [
            figures.get(f"{protocol} draw {draw}", lambda p=protocol, d=draw: accuracy(p, d)) for draw in range(draws)
        ]
        for protocol in evaluate.PROTOCOLS
    }


def markdown(results):
    """A row a protocol: mean ± standard deviation over seeds and draws together, and the mean of each seed."""
    seeds = range(len(results))
    lines = [["", "accuracy", *(f"seed {seed}" for seed in seeds)], ["---"] * (2 + len(results))]
    for protocol in results[0]:
        values = [value for one in results for value in one[protocol]]
        means = [f"{np.mean(one[protocol]):.3f}" for one in results]
        lines.append([protocol, f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}", *means])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def margin(results, better="fine-tune", control="from-scratch"):
    """How far one protocol is above another on the same labels, in points: over all pairs, and seed by seed."""
    pairs = [100 * (np.array(one[better]) - np.array(one[control])) for one in results]
    every = np.concatenate(pairs)
    seeds = [pair.mean() for pair in pairs]
    spread = f" ± {np.std(seeds, ddof=1):.1f}" if len(seeds) > 1 else ""
    return (
        f"{better} − {control}: {np.mean(seeds):+.1f}{spread} points (mean ± standard deviation over seeds); by seed "
        f"{', '.join(f'{value:+.1f}' for value in seeds)}; the smallest of {len(every)} pairs {every.min():+.1f}, "
        f"{np.sum(every > 0)} above 0"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0")
    parser.add_argument("--draws", type=int, default=DRAWS, help="of labels a seed, at most the default")
    parser.add_argument("--output", default="runs/transfer", help="where backbones and figures are kept")
    parser.add_argument("--choose", action="store_true", help="compare learning rates on the training split instead")
    options = parser.parse_args()
    folder = pathlib.Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    if options.choose:
        choose(folder)
        return
    results = [measure(seed, folder, options.draws) for seed in range(options.seeds)]
    print(f"\n{PER_CLASS} labels per class, {options.seeds} seeds, {options.draws} draws of labels each\n")
    print(markdown(results))
    print(f"\n{margin(results)}\n{margin(results, 'linear')}\n{margin(results, 'frozen-then-unfrozen')}")


if __name__ == "__main__":
    main()
