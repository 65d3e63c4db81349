"""What a loss costs beside the network: memory and traffic, against batch, width and number of replicas.

    python benchmarks/scale.py              # the tables in docs/scale.md
    python benchmarks/scale.py --check      # the formulas beside measured figures at small size

`images` is the global batch, `replicas` divides it; numbers are float32 and sizes in bytes, of one replica. The
formulas count the arrays that grow, not the copies that a backend makes of them: how many those are is measured.
"""

import argparse

import nt_xent_memory

FLOAT = 4
CHUNK_SIMILARITIES, CHUNK_ROWS = 2**23, 512  # as keras_ssl/losses/nt_xent.py has them
MIB = 2**20


def gathered(images, width):
    """What `gather` gives each replica: both views' embeddings of the global batch."""
    return 2 * images * width * FLOAT


def received(images, width, replicas):
    """What each replica receives of others for that; all but its own rows."""
    return gathered(images, width) * (replicas - 1) // replicas


def traffic(images, width, replicas, memory=0):
    """Bytes that each replica receives in a step for the loss: embeddings forward, their gradients back.

    The gradient of what was gathered is summed over replicas: a ring sends it round twice, less what is one's own. A
    queue gathers the embeddings once more, without a gradient. The gradients of the weights come on top: they are
    2 · (replicas − 1) / replicas times the size of the network, whatever the method.
    """
    forward = received(images, width, replicas)
    return forward * (3 if not memory else 4)


def nt_xent_full(images, width, replicas=1, memory=0):
    """The similarities of a replica's queries with all keys."""
    return (2 * images // replicas) * (2 * images + memory) * FLOAT


def nt_xent_chunks(images, width, replicas=1, memory=0):
    """The keys, and the similarities of one chunk."""
    keys = 2 * images + memory
    rows = min(CHUNK_ROWS, max(16, CHUNK_SIMILARITIES // keys), 2 * images // replicas)
    return (keys * width + rows * keys) * FLOAT


def queue(memory, width):
    """The variable itself, which is in the saved file too."""
    return memory * width * FLOAT


def barlow_twins(images, width):
    """Both views' standardized embeddings of the global batch, and the correlation matrix; all on each replica."""
    return (2 * images * width + width * width) * FLOAT


def barlow_twins_by_matrix(width, replicas):
    """Bytes a replica would receive if the matrix were summed instead of the embeddings gathered, as its authors do:
    forward only, for each replica has the matrix' gradient then. Less than `traffic` where 3 · images > width."""
    return 2 * width * width * FLOAT * (replicas - 1) // replicas


CASES = [(256, 1), (1024, 8), (4096, 1), (4096, 8), (4096, 32), (4096, 128)]


def tables():
    """The tables of docs/scale.md as lines."""
    lines = [
        "NT-Xent, width 128, and with a queue of 65536; MiB for each replica:",
        "",
        "| images | replicas | full | chunks | full, queue | chunks, queue | received a step | with queue |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for images, replicas in CASES:
        row = [
            nt_xent_full(images, 128, replicas),
            nt_xent_chunks(images, 128, replicas),
            nt_xent_full(images, 128, replicas, 65536),
            nt_xent_chunks(images, 128, replicas, 65536) + queue(65536, 128),
            traffic(images, 128, replicas),
            traffic(images, 128, replicas, 65536),
        ]
        lines.append(f"| {images} | {replicas} | " + " | ".join(f"{x / MIB:.1f}" for x in row) + " |")
    lines += [
        "",
        "Barlow Twins, MiB for each replica:",
        "",
        "| images | replicas | width | memory | received a step | received if the matrix were summed |",
        "|---|---|---|---|---|---|",
    ]
    for images, replicas in CASES:
        for width in (2048, 8192):
            row = [
                barlow_twins(images, width),
                traffic(images, width, replicas),
                barlow_twins_by_matrix(width, replicas),
            ]
            lines.append(f"| {images} | {replicas} | {width} | " + " | ".join(f"{x / MIB:.0f}" for x in row) + " |")
    return lines


def check(backends):
    """Prints measured peaks beside the formulas: their quotient is how many copies the backend holds at once."""
    print("| backend | loss | images | width | formula, MiB | measured, MiB | quotient |")
    print("|---|---|---|---|---|---|---|")
    cases = [
        ("NT-Xent, full", nt_xent_full, {"form": "full"}, [(1024, 128), (2048, 128), (4096, 128)]),
        ("NT-Xent, chunks", nt_xent_chunks, {"form": "chunks"}, [(2048, 128), (8192, 128)]),
        ("Barlow Twins", barlow_twins, {"loss": "barlow_twins"}, [(1024, 2048), (1024, 4096)]),
    ]
    for backend in backends:
        for name, formula, options, sizes in cases:
            for images, width in sizes:
                expected = formula(images, width) / MIB
                found = nt_xent_memory.measure(backend, images=images, width=width, **options)["mib"]
                figures = f"{expected:.0f} | {found:.0f} | {found / expected:.1f}"
                print(f"| {backend} | {name} | {images} | {width} | {figures} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="measure, beside the formulas")
    parser.add_argument("--backends", default=",".join(nt_xent_memory.BACKENDS), help="separated by commas")
    options = parser.parse_args()
    if options.check:
        check(options.backends.split(","))
    else:
        print("\n".join(tables()))


if __name__ == "__main__":
    main()
