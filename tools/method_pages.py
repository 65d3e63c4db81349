"""Writes the tables of the pages in docs/methods/: the recipe from keras_ssl.recipes, the figures from docs/methods.md.

python tools/method_pages.py

Each page has two places for them, `<!-- recipe -->` and `<!-- figures -->`, up to `<!-- end -->`. The rest of a page is
written by hand. A test holds that this changes nothing.
"""

import pathlib
import re
import textwrap

import keras_ssl
from keras_ssl import names

DOCS = pathlib.Path(__file__).parent.parent / "docs"
# The batches with which the papers, or the codes that the recipes follow, trained on ImageNet.
PAPER_BATCHES = {
    "BYOL": 4096,
    "BarlowTwins": 2048,
    "DINO": 1024,
    "Distill": 256,
    "Distortion": 768,
    "IBOT": 1024,
    "Jigsaw": 256,
    "LeJEPA": 256,
    "MAE": 4096,
    "MMCR": 2048,
    "MoCo": 256,
    "MoCoV3": 4096,
    "NNCLR": 4096,
    "Rotation": 192,
    "SimCLR": 4096,
    "SimMIM": 2048,
    "SimSiam": 512,
    "SwAV": 4096,
    "TiCo": 256,
    "VICReg": 2048,
}
SHOWN = (
    "steps",
    "linear, 10 per class",
    "linear, 100 per class",
    "linear, all",
    "kNN, all",
    "gain, linear, 10 per class",
)


def bullet(text):
    return textwrap.fill(f"- {text}", 118, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def recipe_table(name):
    """The small recipe and the paper's side by side."""
    method = getattr(keras_ssl, name)
    small = keras_ssl.recipes.recipe(method, (28, 28, 1), 10_000, 128, source="small")
    columns = [("small: 10,000 images, batch 128", small)]
    if name in PAPER_BATCHES:
        batch = PAPER_BATCHES[name]
        paper = keras_ssl.recipes.recipe(method, (224, 224, 3), 1_281_167, batch, source="paper")
        columns.append((f"paper's: ImageNet, batch {batch}", paper))
    found = [{entry: text for entry, text, _ in recipe.entries()} for _, recipe in columns]
    rows = list(dict.fromkeys(entry for entries in found for entry in entries))
    lines = [
        "| | " + " | ".join(head for head, _ in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        *("| " + " | ".join([row, *(entries.get(row, "") for entries in found)]) + " |" for row in rows),
        "",
    ]
    for (_, recipe), word in zip(columns, ("small", "paper's")):
        sources = dict.fromkeys(source for entry, _, source in recipe.entries() if entry not in ("views", "epochs"))
        lines.append(bullet(f"Sources of the {word} recipe: {'; '.join(sources)}."))
        lines += [bullet(f"The {word} recipe: {note}") for note in recipe.notes]
    return "\n".join(lines)


def tables(page, heading):
    """`{first cell: {column: cell}}` of the first table below a heading."""
    lines = page.split(f"\n{heading}\n", 1)[1].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    head = rows[0]
    return {row[0]: dict(zip(head, row)) for row in rows[2:]}


def short_runs(name, page, heading, title):
    """A method's rows in a table of short runs, below what they are compared with; no lines where it has none."""
    found = tables(page, heading)
    own = [row for row in found if re.split(r"[, ]", row)[0] == name]
    if not own:
        return []
    untrained = "untrained vit" if any("vit" in row for row in own) else "untrained resnet"
    both = ["untrained resnet"] if any("vit" not in row for row in own) else []
    base = [row for row in found if row.startswith("raw pixels")] + both
    base += [untrained] if untrained not in base else []
    lines = [f"| {title} | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    return lines + ["| " + " | ".join([row, *(found[row][column] for column in SHOWN)]) + " |" for row in [*base, *own]]


def figures_table(name):
    """The rows of a method in the tables of docs/methods.md."""
    page = (DOCS / "methods.md").read_text(encoding="utf-8")
    lines = short_runs(name, page, "## Side by side", "50 s of training")
    photographs = short_runs(name, page, "### On photographs", "60 s, photographs")
    lines += ["", *photographs] if photographs else []
    if not lines:
        return "No table of [the overview](../methods.md#side-by-side) has this method."
    longer = tables(page, "### Longer runs")
    if name in longer:
        columns = [column for column in next(iter(longer.values())) if column]
        lines += ["", "| longer | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for row in ("untrained backbone", name):
            lines.append("| " + " | ".join([row, *(longer[row][column] for column in columns)]) + " |")
    return "\n".join(lines)


def written(name, text):
    """The text of a page with both tables as they are now."""
    for place, table in (("recipe", recipe_table(name)), ("figures", figures_table(name))):
        pattern = rf"(<!-- {place} -->\n).*?(<!-- end -->)"
        text, count = re.subn(
            pattern, lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", text, flags=re.S
        )
        if count != 1:
            raise SystemExit(f"docs/methods/{name}.md needs <!-- {place} --> and <!-- end --> once; it has {count}.")
    return text


def main():
    for name in names.METHODS:
        path = DOCS / "methods" / f"{name}.md"
        path.write_text(written(name, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
