"""What operations make and cost, counted and never timed."""

import weakref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Largest(TorchDispatchMode):
    """The size of the largest tensor made, in elements."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.numel = max(self.numel, *(leaf.numel() for leaf in tree_leaves(made) if isinstance(leaf, Tensor)), 0)
        return made


class Allocated(Largest):
    """The same, but for what shows another tensor's numbers; of a sparse tensor its values count."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if _plain(leaf)}
        new = [leaf for leaf in tree_leaves(made) if _plain(leaf) and leaf.untyped_storage().data_ptr() not in given]
        self.numel = max(self.numel, *(leaf.numel() for leaf in new), 0)
        return made


def _plain(leaf):
    return isinstance(leaf, Tensor) and not leaf.is_sparse


class Ledger(TorchDispatchMode):
    """What operations do: multiplications in matrix products, numbers that others touch, bytes alive.

    `touched` adds up the largest tensor of each operation that is neither a product nor a view: divided by the pairs of
    a matrix, how often it is gone through. `peak` is the most bytes of new tensors alive at once.
    """

    def __init__(self):
        super().__init__()
        self.multiplications = self.touched = self.alive = self.peak = 0
        self.seen = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        known = {leaf.untyped_storage()._cdata for leaf in given}
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if func.overloadpacket is torch.ops.aten.mm:
            self.multiplications += args[0].numel() * args[1].shape[1]
        elif func.overloadpacket in (torch.ops.aten.addmm, torch.ops.aten.addmm_):
            self.multiplications += args[1].numel() * args[2].shape[1]
        elif func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put_):  # some of the numbers alone
            self.touched += (args[2] if len(args) > 2 else result).numel()
        elif not func.is_view and "empty" not in func.name():
            self.touched += max((leaf.numel() for leaf in (*given, *made)), default=0)
        for leaf in made:
            if leaf.untyped_storage()._cdata not in known:
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage):
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size):
        self.alive -= size
