"""Checks on new examples before they may count: a cascade in a fixed order; the first that fails is the reason.

Pure: texts and vectors come in, decisions with reasons go out.
"""

from balkit.verify.cascade import CASCADE, Against, Vectors, new_examples
from balkit.verify.form import Usual, usual
from balkit.verify.known import Known
from balkit.verify.leaking import leaks

__all__ = ["CASCADE", "Against", "Known", "Usual", "Vectors", "leaks", "new_examples", "usual"]
