"""keras-tuner on genotypes: the space, oracles for the classic strategies, and DARTS itself as a trial."""

from darts_tf.tuner.evolution import RegularizedEvolutionOracle
from darts_tf.tuner.grid import GridOracle
from darts_tf.tuner.reinforce import ReinforceOracle
from darts_tf.tuner.sampling import DARTSOracle
from darts_tf.tuner.searches import DARTSTuner
from darts_tf.tuner.space import GenotypeHyperModel, genotype_of, hyperparameters_of
from darts_tf.tuner.swarm import ParticleSwarmOracle

__all__ = [
    "DARTSOracle",
    "DARTSTuner",
    "GenotypeHyperModel",
    "GridOracle",
    "ParticleSwarmOracle",
    "RegularizedEvolutionOracle",
    "ReinforceOracle",
    "genotype_of",
    "hyperparameters_of",
]
