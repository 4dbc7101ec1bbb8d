"""The largest tensor that an operation makes."""

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
