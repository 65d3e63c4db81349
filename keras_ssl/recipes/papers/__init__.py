"""What the papers trained with: a function of the run to its `Plan`, by method; a file for each family."""

from keras_ssl.methods.siamese import Siamese
from keras_ssl.recipes.papers import agreement, contrast, masks, proxy_tasks

PAPERS = {**contrast.PAPERS, **agreement.PAPERS, **proxy_tasks.PAPERS, **masks.PAPERS}
NO_PAPER = {Siamese: "the paper of Siamese (Hadsell et al. 2006) states no learning rate"}
