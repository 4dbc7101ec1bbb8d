"""What an engine is: a way to compute A, the right pairs' logits and their gradients without the n × m matrix."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sigmax.kernels.problem import Gradients, Inputs, Problem, Reduction, Wants

__all__ = ["Engine"]


class Engine(Protocol):
    """Numbers in, numbers out: `dense` says what they are, `autograd` makes them part of PyTorch's graph.

    Adding one to `sigmax.kernels.ENGINES` makes it a `kernel`. What an engine cannot compute exactly it refuses in
    `missing`; the other methods are called only where that returned None.
    """

    name: str  #: what `kernel` calls it
    device: str | None  #: type of the device that it was made for, None for any: "auto" takes it there only

    def missing(self, inputs: Inputs, problem: Problem) -> str | None:
        """Return why it cannot do this here, and what to do about it; None where it can."""

    def reduce(self, inputs: Inputs, problem: Problem) -> Reduction:
        """A of each row (and column), and the right pairs' logits. See `sigmax.kernels.reduce_logits`."""

    def gradients(
        self, inputs: Inputs, problem: Problem, totals: Reduction, arriving: Reduction, wants: Wants
    ) -> Gradients:
        """Gradients by the inputs, from those arriving at what `reduce` returned.

        Args:
            inputs: the same as for `reduce`.
            problem: the same as for `reduce`.
            totals: A of rows and columns over all there is, which may be more than the pairs seen here.
            arriving: the gradients at rows, columns and pairs.
            wants: which of the four to compute; the others are None.
        """

    def weighted_loss(
        self, inputs: Inputs, problem: Problem, weights: Tensor, wants: Wants
    ) -> tuple[Tensor, Gradients] | None:
        """Σᵢ wᵢ Lᵢ and its gradients from one pass over the logits; None where two passes are as good.

        Args:
            inputs: the vectors, the scale and the bias.
            problem: one direction: `problem.columns` is false.
            weights: (n,) constants.
            wants: which gradients to compute; the others are None.
        """
