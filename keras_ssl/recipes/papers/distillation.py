"""What the papers trained with that have a teacher which is trained already."""

from keras_ssl.methods.distill import Distill
from keras_ssl.recipes.papers.families import CODE, sgd
from keras_ssl.recipes.plan import Cosine, Sourced


def _distill(run):
    source = f"{CODE}, jacobswan1/SEED"
    return sgd(
        run,
        source,
        0.03,
        256,
        Cosine(0.0, source, epochs=0),
        Sourced(200, source),
        nesterov=False,
        decay=1e-4,
        arguments={
            "temperature": Sourced(0.2, source),
            "teacher_temperature": Sourced(1e-4, source),
            "memory": Sourced(65536, source),
            "features_weight": Sourced(0.0, source),
        },
        notes=("the authors' projections are 128 wide; here the student's is as wide as the teacher's features.",),
    )


PAPERS = {Distill: _distill}
