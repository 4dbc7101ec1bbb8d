r"""The law of both families: what each loss *is*, dense and readable.

Scores s = logit_scale · ⟨query, candidate⟩ + logit_bias. For query i with target row yᵢ over the candidates

    L = Σᵢ [ A(sᵢ) − ⟨yᵢ, sᵢ⟩ ],        ∂L/∂s = act(s) − y,        act = A′

A is logsumexp for the softmax family and Σⱼ softplus(sᵢⱼ) for the sigmoid. Everything else in Sigmax (kernels,
losses, command line, tests, the tables in the documentation) reads the definitions of this file, and a new loss is one
more entry of `OBJECTIVES`, written here or put there by another package.

An excluded pair has the logit −∞: exp(−∞) = softplus(−∞) = σ(−∞) = 0, so it takes part in nothing.

Importing this file does not import PyTorch: the command line's help reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from sigmax.positives import Positives

__all__ = [
    "LOGSUMEXP",
    "OBJECTIVES",
    "SOFTPLUS",
    "Objective",
    "Paper",
    "Partition",
    "directed_loss",
    "excluded_logits",
    "of_family",
]


# -- A and act ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Partition:
    """The A of the law, and its derivative.

    A over a union of disjoint tiles is `combine` of the tiles' A, so one engine serves both families.
    """

    name: str
    reduce: Callable[[Tensor, int], Tensor]  #: (n, m) logits, dim -> A along dim
    combine: Callable[[Tensor, Tensor], Tensor]  #: A of two disjoint tiles -> A of their union
    act: Callable[[Tensor, Tensor], Tensor]  #: logits, A broadcast to them -> ∂A/∂s
    empty: float  #: A over no candidates
    #: What A adds up over the candidates, where engines may have a loop of their own for it: "exp" (A is the logarithm
    #: of the sum) or "softplus" (A is the sum). None: the functions above are all that is known of A.
    term: str | None = None


def _softplus(logits: Tensor) -> Tensor:
    """log(1 + eˢ) = −log σ(−s), exact everywhere (F.softplus turns linear at 20, an error of 2·10⁻⁹)."""
    from torch.nn import functional as F

    return -F.logsigmoid(-logits)


def _softmax(logits: Tensor, total: Tensor) -> Tensor:
    """exp(s − A); a row without candidates has A = −∞ and no share to give."""
    return (logits - total.masked_fill(total == -math.inf, 0.0)).exp()


LOGSUMEXP = Partition(
    name="logsumexp",
    reduce=lambda s, dim: s.logsumexp(dim),
    combine=lambda one, other: one.logaddexp(other),
    act=_softmax,
    empty=-math.inf,
    term="exp",
)
SOFTPLUS = Partition(
    name="softplus",
    reduce=lambda s, dim: _softplus(s).sum(dim),
    combine=lambda one, other: one + other,
    act=lambda s, _: s.sigmoid(),
    empty=0.0,
    term="softplus",
)


# -- sums over each query's right answers --------------------------------------------------------


def sum_by_row(values: Tensor, rows: Tensor, n: int) -> Tensor:
    """(k,) values, (k,) rows -> (n,): Σ of the values of each row; 0 for a row without any."""
    return values.new_zeros(n).index_add(0, rows, values)


def logsumexp_by_row(values: Tensor, rows: Tensor, n: int) -> Tensor:
    """(k,) values, (k,) rows -> (n,): log Σ exp of the values of each row; −∞ for a row without any."""
    peak = values.new_full((n,), -math.inf).scatter_reduce(0, rows, values.detach(), "amax")
    peak = peak.masked_fill(peak == -math.inf, 0.0)
    return sum_by_row((values - peak[rows]).exp(), rows, n).log() + peak


# -- the objectives ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Where a loss comes from."""

    key: str
    title: str
    authors: str
    venue: str
    year: int
    arxiv: str

    def bibtex(self) -> str:
        """Return the entry for a bibliography."""
        fields = {
            "title": self.title,
            "author": self.authors,
            "booktitle": self.venue,
            "year": self.year,
            "eprint": self.arxiv,
            "archivePrefix": "arXiv",
        }
        lines = (f"    {name}={{{value}}},\n" for name, value in fields.items())
        return f"\n@inproceedings{{{self.key},\n{''.join(lines)}}}\n"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One loss, as a definition.

    The loss of query i is `row_loss(A, s, rows, counts)[i]`: from A over the candidates it is compared with,
    and from the logits s of its right answers alone.
    """

    name: str  #: that of its family, and after a hyphen what sets it apart
    family: str  #: "softmax" or "sigmoid"
    formula: str
    partition: Partition
    against: str  #: A runs over "all" candidates offered, or over the "wrong" ones only
    row_loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  #: (n,) A, (k,) s, (k,) rows, (n,) |P| -> (n,)
    floor: Callable[[Tensor], Tensor]  #: (n,) |P| -> (n,) the smallest value a query's loss can have
    summary: str  #: one line for --help
    linear: bool = False  #: ∂L/∂A is the same at every A, so that an engine may know it before it knows A
    paper: Paper | None = None

    @property
    def variant(self) -> str:
        """The name inside the family: "average" of "softmax-average", "sigmoid" of "sigmoid"."""
        return self.name.removeprefix(f"{self.family}-")

    @property
    def needs_positive(self) -> bool:
        """Whether a query with no right answer means nothing to this loss and is left out."""
        return self.family == "softmax"

    def counted(self, counts: Tensor) -> Tensor:
        """(n,) |P| -> (n,) bool: the queries that have a loss."""
        return counts > 0 if self.needs_positive else counts >= 0

    def __reduce__(self) -> tuple[Callable[[str], Objective], tuple[str]]:
        """Pickle the name: what it stands for is code."""
        return _named, (self.name,)


def _named(name: str) -> Objective:
    return OBJECTIVES[name]


def _average(total: Tensor, s: Tensor, rows: Tensor, counts: Tensor) -> Tensor:
    return total - sum_by_row(s, rows, len(total)) / counts


def _decoupled(total: Tensor, s: Tensor, rows: Tensor, counts: Tensor) -> Tensor:
    return sum_by_row(_softplus(total[rows] - s), rows, len(total)) / counts


def _any(total: Tensor, s: Tensor, rows: Tensor, counts: Tensor) -> Tensor:
    return total - logsumexp_by_row(s, rows, len(total))


def _pairs(total: Tensor, s: Tensor, rows: Tensor, counts: Tensor) -> Tensor:
    return _softplus(total + logsumexp_by_row(-s, rows, len(total)))


def _sigmoid(total: Tensor, s: Tensor, rows: Tensor, counts: Tensor) -> Tensor:
    return total - sum_by_row(s, rows, len(total))


def _zero(counts: Tensor) -> Tensor:
    return counts.new_zeros(counts.shape)


OBJECTIVES: dict[str, Objective] = {
    entry.name: entry
    for entry in (
        Objective(
            name="softmax-average",
            family="softmax",
            formula="Lᵢ = logsumexpⱼ(sᵢⱼ) − (1/|Pᵢ|) Σ_{p∈Pᵢ} sᵢₚ",
            partition=LOGSUMEXP,
            against="all",
            row_loss=_average,
            linear=True,
            floor=lambda counts: counts.log(),
            summary="each query over all candidates, target 1/k for each of its k right answers",
            paper=Paper(
                key="khosla2020supervised",
                title="Supervised Contrastive Learning",
                authors="Prannay Khosla and Piotr Teterwak and Chen Wang and Aaron Sarna and Yonglong Tian and "
                "Phillip Isola and Aaron Maschinot and Ce Liu and Dilip Krishnan",
                venue="Advances in Neural Information Processing Systems",
                year=2020,
                arxiv="2004.11362",
            ),
        ),
        Objective(
            name="softmax-decoupled",
            family="softmax",
            formula="Lᵢ = −(1/|Pᵢ|) Σ_{p∈Pᵢ} log[ exp sᵢₚ / (exp sᵢₚ + Σ_{j wrong} exp sᵢⱼ) ]",
            partition=LOGSUMEXP,
            against="wrong",
            row_loss=_decoupled,
            floor=_zero,
            summary="each right answer against the wrong ones only",
            paper=Paper(
                key="gupta2024dualencoders",
                title="Dual-Encoders for Extreme Multi-Label Classification",
                authors="Nilesh Gupta and Devvrit Khatri and Ankit Singh Rawat and Srinadh Bhojanapalli and "
                "Prateek Jain and Inderjit S. Dhillon",
                venue="International Conference on Learning Representations",
                year=2024,
                arxiv="2310.10636",
            ),
        ),
        Objective(
            name="softmax-any",
            family="softmax",
            formula="Lᵢ = −log Σ_{p∈Pᵢ} softmaxₚ(sᵢ)",
            partition=LOGSUMEXP,
            against="all",
            row_loss=_any,
            linear=True,
            floor=_zero,
            summary="at least one right answer on top",
            paper=Paper(
                key="miech2020endtoend",
                title="End-to-End Learning of Visual Representations from Uncurated Instructional Videos",
                authors="Antoine Miech and Jean-Baptiste Alayrac and Lucas Smaira and Ivan Laptev and Josef Sivic and "
                "Andrew Zisserman",
                venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
                year=2020,
                arxiv="1912.06430",
            ),
        ),
        Objective(
            name="softmax-pairs",
            family="softmax",
            formula="Lᵢ = log[ 1 + Σ_{p∈Pᵢ} Σ_{j wrong} exp(sᵢⱼ − sᵢₚ) ]",
            partition=LOGSUMEXP,
            against="wrong",
            row_loss=_pairs,
            floor=_zero,
            summary="every right answer above every wrong one: the pair furthest from it counts most",
            paper=Paper(
                key="wang2026multiple",
                title="Training Dense Retrievers with Multiple Positive Passages",
                authors="Benben Wang and Minghao Tang and Hengran Zhang and Jiafeng Guo and Keping Bi",
                venue="arXiv preprint",
                year=2026,
                arxiv="2602.12727",
            ),
        ),
        Objective(
            name="sigmoid",
            family="sigmoid",
            formula="Lᵢ = Σⱼ softplus(sᵢⱼ) − Σ_{p∈Pᵢ} sᵢₚ",
            partition=SOFTPLUS,
            against="all",
            row_loss=_sigmoid,
            linear=True,
            floor=_zero,
            summary="every pair on its own: right or wrong; a query with no right answer counts too",
            paper=Paper(
                key="zhai2023sigmoid",
                title="Sigmoid Loss for Language Image Pre-Training",
                authors="Xiaohua Zhai and Basil Mustafa and Alexander Kolesnikov and Lucas Beyer",
                venue="IEEE/CVF International Conference on Computer Vision",
                year=2023,
                arxiv="2303.15343",
            ),
        ),
    )
}


def of_family(family: str) -> dict[str, Objective]:
    """Return the objectives of a family, under their names inside it."""
    return {entry.variant: entry for entry in OBJECTIVES.values() if entry.family == family}


def directed_loss(which: Objective, total: Tensor, s: Tensor, rows: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of each query from A and the logits of its right answers, and which queries count.

    A query left out (no right answer, in the softmax family) has the loss 0.

    Args:
        which: the objective.
        total: (n,) A over the candidates each query is compared with.
        s: (k,) logits of the right pairs.
        rows: (k,) query of each right pair.
        counts: (n,) right answers of each query.

    Returns:
        (n,) losses and (n,) bool, true for the queries that count.
    """
    counted = which.counted(counts)
    # A row that is left out may hold ±∞ − ±∞; it must give neither a value nor a gradient.
    total = total.masked_fill(~counted, 0.0)
    losses = which.row_loss(total, s, rows, counts.clamp(min=1).to(total.dtype))
    return losses.masked_fill(~counted, 0.0), counted


def excluded_logits(which: Objective, logits: Tensor, positives: Positives) -> Tensor:
    """(n, m) logits with −∞ where A does not look: ignored pairs and, `against` the wrong ones only, right pairs."""
    mask = positives.ignored_to_dense()
    if which.against == "wrong":
        mask = mask | positives.to_dense()
    return logits.masked_fill(mask, -math.inf)
