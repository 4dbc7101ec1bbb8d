"""AdamW for tables of which a step reads few rows: it costs what the step reads, and goes where dense AdamW goes.

Dense AdamW moves every row in every step, also one without a gradient: its moments fade, and until they have it moves
on. Here such a row waits. Before it is read again it takes all the steps it has missed at once
(`sigmax.training.missed`), so that what is read is what dense AdamW would have there, up to rounding, with the same
rates, moments, bias corrections and ε. SparseAdam of PyTorch instead lets a row that is not read stand still and keep
its moments: another optimizer, whose rates would have to be found anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.adamw import adamw

from sigmax.encoders.rows import watch
from sigmax.processes import world_size
from sigmax.training.missed import NODES, WINDOW, Rates, missed

__all__ = ["RowAdamW"]

#: Numbers of a table that are worked on at a time: they and their moments stay in the processor's cache.
BLOCK = 2**16


class RowAdamW(torch.optim.AdamW):
    """AdamW without decay of weights; of a parameter with a sparse gradient it moves the rows of that gradient.

    Such a parameter is read through `sigmax.encoders.rows`; before it is read in any other way `settle` must be called.

    Args:
        groups: parameters with their rates, as for AdamW.
        eps: ε.
        gathered: parameters whose gradients are averaged over all processes here: DistributedDataParallel knows only
            dense ones.
    """

    def __init__(self, groups: Any, *, eps: float, gathered: Iterable[Tensor] = ()) -> None:
        super().__init__(groups, eps=eps, weight_decay=0.0, fused=True)
        self._step_supports_amp_scaling = False  # read by GradScaler: it unscales the gradients itself
        self._gathered = list(gathered)
        self._tables: dict[Tensor, _Table] = {}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the parameters by their gradients."""
        if world_size() > 1:
            for parameter in self._gathered:
                parameter.grad = _average(parameter)
        sparse: list[tuple[Tensor, Tensor]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient, table = parameter.grad, self._tables.get(parameter)
                if gradient is None:
                    continue
                if gradient.is_sparse:
                    self._table(parameter, group).step(gradient.coalesce(), group["lr"])
                    sparse.append((parameter, gradient))
                    parameter.grad = None
                elif table is not None:
                    table.prepare(group["lr"])
        super().step()
        for parameter, gradient in sparse:
            parameter.grad = gradient

    def settle(self) -> None:
        """Let every row take the steps that it has missed."""
        for table in self._tables.values():
            table.settle()

    def close(self) -> None:
        """Watch no table any longer."""
        for parameter in self._tables:
            watch(parameter, None)

    def state_dict(self) -> dict[str, Any]:
        """Settle, and return the state: that of AdamW, and of a table the `last` step of each row with a gradient."""
        self.settle()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state, also one of AdamW."""
        super().load_state_dict(state_dict)
        self.close()
        self._tables.clear()
        for group in self.param_groups:
            for parameter in group["params"]:
                if "last" in self.state.get(parameter, {}):
                    self.state[parameter]["last"] = self.state[parameter]["last"].to(torch.int32)  # float was made of it
                    self._tables[parameter] = _Table(parameter, self.state[parameter], group)

    def _table(self, parameter: Tensor, group: dict[str, Any]) -> _Table:
        if parameter not in self._tables:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            now = int(state["step"])
            state["last"] = torch.full((len(parameter),), now or -WINDOW, dtype=torch.int32, device=parameter.device)
            self._tables[parameter] = _Table(parameter, state, group)
        return self._tables[parameter]


class _Table:
    """A table, the moments that its rows had at their last gradient, and what they owe since.

    Args:
        table: (v, …).
        state: of AdamW, with `last`, (v,) the last step with a gradient of each row.
        group: of its parameters.
    """

    def __init__(self, table: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        self.table, self.state = table, state
        self.betas, self.eps = group["betas"], group["eps"]
        self.rates = Rates(int(state["step"]))
        #: (v,) steps that each row has taken.
        self.paid = torch.full_like(state["last"], self.now)
        self.level = True  #: whether no row owes anything
        self.height = max(1, BLOCK * len(table) // max(1, table.numel()))
        watch(table, self.told)

    @property
    def now(self) -> int:
        """The steps taken so far."""
        return self.rates.steps

    @torch.no_grad()
    def told(self, places: Tensor) -> None:
        """Let rows that are about to be read take the steps they have missed."""
        if not self.level:
            self._pay(places[self._owes(self.paid[places], self.state["last"][places])].unique())

    @torch.no_grad()
    def settle(self) -> None:
        """Let all rows take the steps they have missed."""
        if not self.level:
            self._pay(self._owes(self.paid, self.state["last"]).nonzero()[:, 0])
            self.paid.fill_(self.now)
            self.level = True

    def _owes(self, paid: Tensor, last: Tensor) -> Tensor:
        return (paid < self.now) & (paid < last + WINDOW)

    def step(self, gradient: Tensor, rate: float) -> None:
        """Move the rows of a gradient."""
        rows, values = gradient._indices()[0], gradient._values()
        self.told(rows)
        gaps = (self.now - self.state["last"][rows]).double()
        moments = self.state["exp_avg"], self.state["exp_avg_sq"]
        fades = [(beta**gaps).to(self.table.dtype) for beta in self.betas]
        for part in self._parts(rows):
            here = rows[part]
            weights, first, second = (one.index_select(0, here) for one in (self.table.detach(), *moments))
            for moment, fade in zip((first, second), fades, strict=True):
                moment.mul_(_beside(fade[part], moment))
            adamw(
                [weights],
                [values[part]],
                [first],
                [second],
                [],
                [self.state["step"].clone()],
                fused=True,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=rate,
                weight_decay=0.0,
                eps=self.eps,
                maximize=False,
            )
            for whole, made in zip((self.table.detach(), *moments), (weights, first, second), strict=True):
                whole.index_copy_(0, here, made)
        self.rates.append(rate)
        self.state["step"] += 1
        self.state["last"][rows] = self.now
        self.paid[rows] = self.now
        self.level = False

    def prepare(self, rate: float) -> None:
        """Bring all rows and their moments up to date, for a step that moves them all."""
        self.settle()
        gaps = (self.now - self.state["last"]).double()
        for name, beta in zip(("exp_avg", "exp_avg_sq"), self.betas, strict=True):
            moment = self.state[name]
            moment.mul_(_beside((beta**gaps).to(moment.dtype), moment))
        self.rates.append(rate)
        self.state["last"].fill_(self.now)
        self.paid.fill_(self.now)

    def _pay(self, rows: Tensor) -> None:
        """Move rows, all of which owe something, to where they are now."""
        if not len(rows):
            return
        last = self.state["last"][rows]
        at = 0
        for up_to, nodes in NODES:
            chosen = rows[(last > at) & (last <= up_to)]
            at = up_to
            if len(chosen):
                self._pay_with(chosen, nodes)
        self.paid[rows] = self.now

    def _pay_with(self, rows: Tensor, nodes: int) -> None:
        codes = (self.state["last"][rows].long() << 32) | self.paid[rows]
        pairs, which = (found.cpu().numpy() for found in codes.unique(return_inverse=True))
        found = missed(pairs >> 32, pairs & (2**32 - 1), self.now, self.rates, nodes, self.betas)
        points, weights = (torch.from_numpy(np.ascontiguousarray(one)).to(self.table) for one in found)
        points *= self.eps
        place = torch.from_numpy(which).to(rows.device)
        moments = self.state["exp_avg"], self.state["exp_avg_sq"]
        for part in self._parts(rows):
            here = rows[part]
            moved, first, second = (one.index_select(0, here) for one in (self.table.detach(), *moments))
            root, total = second.sqrt_(), torch.zeros_like(moved)
            u, w = points[place[part]], weights[place[part]]
            for j in range(nodes):
                total.addcdiv_(_beside(w[:, j], moved), root + _beside(u[:, j], moved))
            # Through `data`: a gradient on its way may need rows read before, and these have changed no more.
            self.table.data.index_copy_(0, here, moved.addcmul_(first, total, value=-1))

    def _parts(self, rows: Tensor) -> Iterator[slice]:
        for start in range(0, len(rows), self.height):
            yield slice(start, start + self.height)


def _beside(values: Tensor, rows: Tensor) -> Tensor:
    """(k,) values as (k, 1, …), one for each of (k, …) rows."""
    return values.view(-1, *(1 for _ in rows.shape[1:]))


def _average(parameter: Tensor) -> Tensor | None:
    """Average a gradient over all processes: sparse if it is so on each of them. All of them get the same bits."""
    gradient, processes = parameter.grad, world_size()
    if gradient is None:
        gradient = torch.sparse_coo_tensor(size=parameter.shape, dtype=parameter.dtype, device=parameter.device)
    dense = not gradient.is_sparse
    gradient = gradient if dense else gradient.coalesce()
    size = torch.tensor(-1 if dense else gradient._nnz(), device=parameter.device)
    sizes = [torch.empty_like(size) for _ in range(processes)]
    dist.all_gather(sizes, size)
    counts = [int(one) for one in sizes]
    if min(counts) < 0:
        whole = gradient if dense else gradient.to_dense()
        dist.all_reduce(whole)
        return whole.div_(processes)
    most = max(counts)
    rows = torch.zeros(most, dtype=torch.int64, device=parameter.device)
    values = parameter.new_zeros(most, *parameter.shape[1:])
    rows[: counts[dist.get_rank()]], values[: counts[dist.get_rank()]] = gradient._indices()[0], gradient._values()
    found = []
    for mine in (rows, values):
        parts = [torch.empty_like(mine) for _ in range(processes)]
        dist.all_gather(parts, mine)
        found.append(torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]))
    places, which = found[0].unique(return_inverse=True)
    total = values.new_zeros(len(places), *parameter.shape[1:]).index_add_(0, which, found[1]).div_(processes)
    return torch.sparse_coo_tensor(places[None], total, parameter.shape, is_coalesced=True, check_invariants=False)
