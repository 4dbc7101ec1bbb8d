r"""L-BFGS that goes on where it ended when the penalty changes.

It minimises f(θ) = g(θ) + ½ Σₖ λₖ |θₖ|² over a matrix θ whose row k has the penalty λₖ, as the two-loop recursion does
(Nocedal 1980), in three ways that libraries do not offer and that save most of the steps along a path of penalties:

- What remains of H⁻¹ beside the remembered steps is a matrix that the caller knows, times one number, instead of the
  identity; then the first step goes as far as it should.
- g does not change with λ. A remembered step s whose gradients differed by y is one of the new f with y + (λ' − λ) s,
  so that nothing learnt about the curvature is lost.
- The gradient of g at the point reached is kept, too.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Lbfgs", "Scale"]

#: Multiplies by about the inverse of a Hessian.
Scale = Callable[[Tensor], Tensor]

#: Steps that are remembered.
MEMORY = 10
#: A step is taken where f falls by this part of what the slope promises, and the slope by this part (Wolfe).
FALL, FLATTER = 1e-4, 0.9
#: Points looked at along one direction, at most.
TRIALS = 12


class Lbfgs:
    """The state of a minimisation: where it is, and what it remembers.

    Args:
        slope: θ -> g and ∂g/∂θ.
        start: θ to begin with; it is not changed.
        memory: steps that are remembered.
    """

    def __init__(self, slope: Callable[[Tensor], tuple[float, Tensor]], start: Tensor, *, memory: int = MEMORY) -> None:
        self.slope = slope
        self.at = start.clone()
        self.value = math.nan  #: f at the last point
        self.steps = 0  #: how often g was computed
        self._remembered: deque[tuple[Tensor, Tensor]] = deque(maxlen=memory)
        self._smooth: tuple[float, Tensor] | None = None
        self._penalty: Tensor | None = None

    def go(
        self,
        penalty: Tensor,
        scale: Callable[[], Scale],
        *,
        tolerance: float,
        steps: int,
        told: Callable[[int, float], None] = lambda step, value: None,
    ) -> None:
        """Go on until a step lowers f by no more than `tolerance` times f.

        Args:
            penalty: (k, 1) λₖ.
            scale: called once, after g was computed: what multiplies by about the inverse of f's Hessian, symmetric and
                positive.
            tolerance: 0 or above.
            steps: how often g is computed, at most.
            told: called with the number of the step and f, each time g was computed.
        """
        end = self.steps + steps
        if self._smooth is None:
            self._smooth = self._computed(self.at)
            self._tell(told, penalty)
        import os

        if os.environ.get("CLEAR"):
            self._remembered.clear()
        if self._penalty is not None:
            for step, bent in self._remembered:
                bent.add_(step * (penalty - self._penalty))
        self._penalty = penalty
        metric = scale()
        value, gradient = self._with_penalty(self.at, *self._smooth)
        while self.steps < end:
            direction = self._direction(gradient, metric)
            falling = _dot(direction, gradient)
            if not falling < 0:  # what is remembered misleads, as rounding can make it
                self._remembered.clear()
                direction = self._direction(gradient, metric)
                falling = _dot(direction, gradient)
                if not falling < 0:
                    break
            found = self._along(direction, value, falling, end, told)
            if found is None:
                if not self._remembered:
                    break
                self._remembered.clear()
                continue
            before, (length, self._smooth, lower, slope) = value, found
            step = direction.mul_(length)
            self.at += step
            bent = slope - gradient
            if _dot(step, bent) > torch.finfo(step.dtype).eps * math.sqrt(_dot(step, step) * _dot(bent, bent)):
                self._remembered.append((step, bent))  # a smaller product is rounding
            value, gradient = lower, slope
            if before - value <= tolerance * abs(before):
                break
        self.value = value

    def _computed(self, at: Tensor) -> tuple[float, Tensor]:
        self.steps += 1
        return self.slope(at)

    def _tell(self, told: Callable[[int, float], None], penalty: Tensor) -> None:
        assert self._smooth is not None
        told(self.steps, self._smooth[0] + 0.5 * float((penalty * self.at.square()).sum()))

    def _with_penalty(self, at: Tensor, smooth: float, slope: Tensor) -> tuple[float, Tensor]:
        """Add the penalty to g and its gradient."""
        assert self._penalty is not None
        bent = at * self._penalty
        return smooth + 0.5 * _dot(bent, at), bent.add_(slope)

    def _direction(self, gradient: Tensor, metric: Scale) -> Tensor:
        """Return −H⁻¹ · gradient by the two loops."""
        direction = gradient.neg()
        products = [_dot(step, bent) for step, bent in self._remembered]
        parts = []
        for (step, bent), product in zip(reversed(self._remembered), reversed(products), strict=True):
            part = _dot(step, direction) / product
            parts.append(part)
            direction.sub_(bent, alpha=part)
        direction = metric(direction)
        if self._remembered:
            _, bent = self._remembered[-1]
            stretch = _dot(metric(bent), bent)
            direction *= products[-1] / stretch if stretch > 0 else 1.0
        for (step, bent), product, part in zip(self._remembered, products, reversed(parts), strict=True):
            direction.add_(step, alpha=part - _dot(bent, direction) / product)
        return direction

    def _along(
        self, direction: Tensor, value: float, falling: float, end: int, told: Callable[[int, float], None]
    ) -> tuple[float, tuple[float, Tensor], float, Tensor] | None:
        """Find a length of the step; with it g and its gradient there, f and its gradient. None where f does not fall.

        Too long, it is halved or less, by the parabola through both ends; too short, it grows by the secant of the
        slopes.
        """
        low, high, length = 0.0, math.inf, 1.0
        taken = None
        for _ in range(TRIALS):
            if self.steps >= end and taken is not None:
                break
            at = torch.add(self.at, direction, alpha=length)
            smooth = self._computed(at)
            there, gradient = self._with_penalty(at, *smooth)
            told(self.steps, there)
            slope = _dot(gradient, direction)
            # near the minimum f falls by less than it is rounded by
            if not there <= value + FALL * length * falling + 4 * torch.finfo(direction.dtype).eps * abs(value):
                high = length
                bend = there - value - falling * length
                best = -falling * length**2 / (2 * bend) if bend > 0 and math.isfinite(bend) else 0.0
                length = min(max(best, low + 0.1 * (high - low)), low + 0.5 * (high - low))
                continue
            taken = length, smooth, there, gradient
            if slope >= FLATTER * falling:
                break
            low = length
            secant = length * falling / (falling - slope) if slope > falling else 4 * length
            length = min(max(secant, 1.5 * length), 4 * length) if math.isinf(high) else (low + high) / 2
        return taken


def _dot(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.flatten(), other.flatten()))
