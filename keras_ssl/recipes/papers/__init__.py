"""What the papers trained with: a function of the run to its `Plan`, by method; a file for each family."""

from keras_ssl.methods.siamese import Siamese
from keras_ssl.recipes.papers import agreement, clusters, contrast, distillation, masks, proxy_tasks, spread

PAPERS = {
    **contrast.PAPERS,
    **agreement.PAPERS,
    **clusters.PAPERS,
    **spread.PAPERS,
    **distillation.PAPERS,
    **masks.PAPERS,
    **proxy_tasks.PAPERS,
}
NO_PAPER = {Siamese: "the paper of Siamese (Hadsell et al. 2006) states no learning rate"}
