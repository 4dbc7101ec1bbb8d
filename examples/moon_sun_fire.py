"""Three questions, three answers, five right pairs: softmax or sigmoid?

|                        | Moon  | Sun   | Fire  |
|------------------------|-------|-------|-------|
| What's in the sky?     | right | right | wrong |
| What appears at night? | right | wrong | wrong |
| What's hot?            | wrong | right | right |

Each question and each answer is a vector, free to move. We train them with either loss, and ask three things:
can the loss reach its floor, does the model know the table, and what if we train the bare cosines?

    python examples/moon_sun_fire.py
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

import sigmax

QUESTIONS = ("What's in the sky?", "What appears at night?", "What's hot?")
ANSWERS = ("Moon", "Sun", "Fire")
RIGHT = sigmax.Positives([0, 0, 1, 2, 2], [0, 1, 0, 1, 2], shape=(3, 3))


class Trained(NamedTuple):
    """What training led to."""

    logits: Tensor  #: (3 questions, 3 answers)
    value: float  #: the loss after training
    floor: float  #: the smallest value that any logits could give it


def train(loss: nn.Module, *, width: int = 8, steps: int = 300, seed: int = 0) -> Trained:
    """Move random vectors, and what the loss itself can learn, until they give the right answers."""
    generator = torch.Generator().manual_seed(seed)
    questions = nn.Parameter(torch.randn(len(QUESTIONS), width, generator=generator))
    answers = nn.Parameter(torch.randn(len(ANSWERS), width, generator=generator))
    learned = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam([questions, answers, *learned], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(questions, answers, RIGHT).backward()
        optimizer.step()
    with torch.no_grad():
        floor = loss.objective.floor(RIGHT.counts).float().mean()
        return Trained(loss.logits(questions, answers), loss(questions, answers, RIGHT).item(), floor.item())


def scaled_softmax() -> Trained:
    return train(sigmax.SoftmaxLoss(logit_scale=10.0))


def scaled_sigmoid() -> Trained:
    return train(sigmax.SigmoidLoss(logit_scale=10.0, logit_bias=0.0))


def literal_softmax() -> Trained:
    """The logits are the cosines themselves."""
    return train(sigmax.SoftmaxLoss(logit_scale=1.0, learnable=False))


def literal_sigmoid() -> Trained:
    """The logits are the cosines themselves: σ(cosine) lies between 0.27 and 0.73."""
    return train(sigmax.SigmoidLoss(logit_scale=1.0, logit_bias=0.0, learnable=False))


def shares(logits: Tensor) -> Tensor:
    """How the answers offered divide each question among them: a row adds up to 1."""
    return logits.softmax(1)


def presences(logits: Tensor) -> Tensor:
    """The probability that a pair is right, whatever else is: a row adds up to nothing in particular."""
    return logits.sigmoid()


def show(title: str, trained: Trained, activation: Callable[[Tensor], Tensor]) -> None:
    print(f"{title:<28}" + "".join(f"{answer:>7}" for answer in ANSWERS))
    for question, row in zip(QUESTIONS, activation(trained.logits).tolist(), strict=True):
        print(f"  {question:<26}" + "".join(f"{probability:7.2f}" for probability in row))
    print(f"  loss {trained.value:.3f}, floor {trained.floor:.3f}, {trained.value - trained.floor:.3f} above it\n")


def main() -> None:
    print("With a scale (and a bias) to learn, both reach the floor and both know the table.\n")
    show("softmax: shares", scaled_softmax(), shares)
    show("sigmoid: presences", scaled_sigmoid(), presences)
    print("On the bare cosines, from -1 to 1, neither can.\n")
    show("softmax: shares", literal_softmax(), shares)
    show("sigmoid: presences", literal_sigmoid(), presences)


if __name__ == "__main__":
    main()
