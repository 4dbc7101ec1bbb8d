"""AdamW for tables of which a step reads few rows: it costs what the step reads, and goes where dense AdamW goes.

Dense AdamW moves every row in every step, also one without a gradient: its moments fade, and until they have it moves
on. Here such a row waits. Before it is read again it takes all the steps it has missed at once
(`sigmax.training.missed`), so that what is read is what dense AdamW would have there, up to rounding, with the same
rates, moments, bias corrections and ε. SparseAdam of PyTorch instead lets a row that is not read stand still and keep
its moments: another optimizer, whose rates would have to be found anew.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from sigmax.encoders.rows import watch
from sigmax.processes import world_size
from sigmax.training.missed import NODES, WINDOW, Rates, missed

__all__ = ["RowAdamW"]

#: Numbers of a table that are worked on at a time: they and their moments stay in the processor's cache.
BLOCK = 2**16
#: Numbers of a table from which on compiled loops, if there are any, save more time than it takes to load them.
LOOPS_FROM = 2**23
#: As AdamW calls m and v.
MOMENTS = ("exp_avg", "exp_avg_sq")


class RowAdamW(torch.optim.AdamW):
    """AdamW without decay of weights; of a parameter with a sparse gradient it moves the rows of that gradient.

    Args:
        groups: parameters with their rates, as for AdamW.
        eps: ε.
        tables: those of the parameters that are read through `sigmax.encoders.rows`, and so have such gradients. Before
            they are read in any other way, `settle` must be called. Over several processes their gradients are averaged
            here: DistributedDataParallel knows only dense ones.
    """

    def __init__(self, groups: Any, *, eps: float, tables: Iterable[Tensor] = ()) -> None:
        super().__init__(groups, eps=eps, weight_decay=0.0, fused=True)
        self._step_supports_amp_scaling = False  # read by GradScaler: it unscales the gradients itself
        self._tables: dict[Tensor, _Table | None] = dict.fromkeys(tables)  #: None until there was a sparse gradient
        for parameter in self._tables:
            watch(parameter, functools.partial(self._told, parameter))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the parameters by their gradients."""
        if world_size() > 1:
            for parameter in self._tables:
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
            if table is not None:
                table.settle()

    def close(self) -> None:
        """Watch the tables no longer: their gradients will be dense."""
        for parameter in self._tables:
            watch(parameter, None)

    def state_dict(self) -> dict[str, Any]:
        """Settle, and return the state: that of AdamW, and of a table the `last` step of each row with a gradient."""
        self.settle()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state, also one of AdamW."""
        super().load_state_dict(state_dict)
        self._tables = dict.fromkeys(self._tables)
        for group in self.param_groups:
            for parameter in group["params"]:
                if "last" in self.state.get(parameter, {}):
                    self.state[parameter]["last"] = self.state[parameter]["last"].to(
                        torch.int32
                    )  # float was made of it
                    self._tables[parameter] = _Table(parameter, self.state[parameter], group)

    def _told(self, parameter: Tensor, places: Tensor) -> None:
        table = self._tables[parameter]
        if table is not None:
            table.told(places)

    def _table(self, parameter: Tensor, group: dict[str, Any]) -> _Table:
        table = self._tables.get(parameter)
        if table is None:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            now = int(state["step"])
            state["last"] = torch.full((len(parameter),), now or -WINDOW, dtype=torch.int32, device=parameter.device)
            self._tables[parameter] = table = _Table(parameter, state, group)
        return table


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
        large = table.device.type == "cpu" and table.numel() >= LOOPS_FROM
        self.loops = _loops() if large else None

    @property
    def now(self) -> int:
        """The steps taken so far."""
        return self.rates.steps

    @torch.no_grad()
    def told(self, places: Tensor) -> None:
        """Let distinct rows that are about to be read take the steps they have missed."""
        if not self.level:
            self._pay(places[self._owes(self.paid[places], self.state["last"][places])])

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
        self.rates.append(rate)
        waited = (self.now - self.state["last"][rows]).double()
        fades = torch.stack([beta**waited for beta in self.betas]).to(self.table.dtype)
        unbiased = [1 - beta**self.now for beta in self.betas]
        new = [1 - beta for beta in self.betas]
        table, moments = self.table.data, [self.state[name] for name in MOMENTS]
        parts = self._parts(rows)
        if self.loops is not None:
            parts = iter(())
            numbers = torch.tensor([*new, rate / unbiased[0], 1 / unbiased[1], self.eps], dtype=self.table.dtype)
            self.loops.move(*_arrays(table, *moments), rows.numpy(), *_arrays(values), fades.numpy(), numbers.numpy())
        for part in parts:
            here, arriving = rows[part], values[part]
            moved, first, second = (one.index_select(0, here) for one in (table, *moments))
            first.mul_(_beside(fades[0, part], first)).add_(arriving, alpha=new[0])
            second.mul_(_beside(fades[1, part], second)).addcmul_(arriving, arriving, value=new[1])
            moments[0].index_copy_(0, here, first)
            moments[1].index_copy_(0, here, second)
            moved.addcdiv_(first, second.div_(unbiased[1]).sqrt_().add_(self.eps), value=-rate / unbiased[0])
            table.index_copy_(0, here, moved)
        self.state["step"] += 1
        self.state["last"][rows] = self.now
        self.paid[rows] = self.now
        self.level = False

    def prepare(self, rate: float) -> None:
        """Bring all rows and their moments up to date, for a step that moves them all."""
        self.settle()
        gaps = (self.now - self.state["last"]).double()
        for name, beta in zip(MOMENTS, self.betas, strict=True):
            moment = self.state[name]
            moment.mul_(_beside((beta**gaps).to(moment.dtype), moment))
        self.rates.append(rate)
        self.state["last"].fill_(self.now)
        self.paid.fill_(self.now)

    def _pay(self, rows: Tensor) -> None:
        """Move rows, all of which owe something, to where they are now."""
        last, at = self.state["last"][rows], 0
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
        # Through `data`: a gradient on its way may need rows read before, and those do not change here.
        table, moments = self.table.data, [self.state[name] for name in MOMENTS]
        if self.loops is not None:
            self.loops.pay(*_arrays(table, *moments), rows.numpy(), which, points.numpy(), weights.numpy())
            return
        place = torch.from_numpy(which).to(rows.device)
        for part in self._parts(rows):
            here = rows[part]
            moved, first, second = (one.index_select(0, here) for one in (table, *moments))
            root, total = second.sqrt_(), torch.zeros_like(moved)
            u, w = points[place[part]], weights[place[part]]
            for j in range(nodes):
                total.addcdiv_(_beside(w[:, j], moved), root + _beside(u[:, j], moved))
            table.index_copy_(0, here, moved.addcmul_(first, total, value=-1))

    def _parts(self, rows: Tensor) -> Iterator[slice]:
        for start in range(0, len(rows), self.height):
            yield slice(start, start + self.height)


@functools.cache
def _loops() -> ModuleType | None:
    """The loops; None where Numba is not installed."""
    if importlib.util.find_spec("numba") is None:
        return None
    from sigmax.training import row_loops

    return row_loops


def _arrays(*tables: Tensor) -> list[NDArray[Any]]:
    """Tables as arrays of two dimensions that share their numbers."""
    return [table.view(len(table), -1).numpy() for table in tables]


def _beside(values: Tensor, rows: Tensor) -> Tensor:
    """(k,) values as (k, 1, …), one for each of (k, …) rows."""
    return values.view(-1, *(1 for _ in rows.shape[1:]))


def _average(parameter: Tensor) -> Tensor | None:
    """Average a gradient over all processes: sparse if it is so on each of them. All of them get the same bits."""
    gradient, processes = parameter.grad, world_size()
    if gradient is None:
        gradient = torch.zeros_like(parameter).to_sparse(1)
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
