"""The floor that learning must beat: the encoder as it was initialised, through the same evaluations.

On CIFAR-10, kNN of an untrained Conv-4 is near 35 % and that of raw pixels too; without this row a broken method looks
like a working one.
"""

from miyagi.methods.base import Method
from miyagi.settings import MethodSettings


class Settings(MethodSettings):
    """No settings: nothing is trained."""

    trains = False


class Random(Method[Settings]):
    """Keeps the encoder as it is."""
