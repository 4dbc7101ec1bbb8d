"""What happens to a tile of logits between the products, in one pass each. Importing this file imports Numba.

The loops are plain Python over rows; LLVM makes them run over 8 or 16 logits at a time, which is why exp and log1p are
written here: polynomials without branches. They run on the threads of PyTorch's own products, the team that
`GOMP_parallel` of the libgomp which PyTorch has loaded keeps: a second pool would compete with the first, which waits
spinning. Compiled once per machine, then read from Numba's cache.

A block function takes the address of an array of int64: numbers, and addresses of float32 arrays. `run` calls it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import binding, ir
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

__all__ = ["BLOCKS", "LANES", "run"]

#: PyTorch's own, where it brings one under this name. OSError where there is none.
_GOMP = ctypes.CDLL("libgomp.so.1")
_GOMP.GOMP_parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
binding.load_library_permanently("libgomp.so.1")
_thread = types.ExternalFunction("omp_get_thread_num", types.int32())
_threads = types.ExternalFunction("omp_get_num_threads", types.int32())

#: Logits per thread below which a team costs more than it gives.
LEAST_WORK = 2**14
#: Products Π(1 + e) built side by side, and how many e go into each before its logarithm is taken: 2³² at most.
LANES, DEPTH = 64, 32
#: e^x is 0 below: the least normal number.
LEAST = np.float32(-87.33654)

F32, I32 = np.float32, np.int32


# -- bits and addresses --------------------------------------------------------------------------


@intrinsic
def _bits(typing, value):
    """float32 -> the int32 of the same bits."""
    return types.int32(types.float32), lambda _, builder, __, given: builder.bitcast(given[0], ir.IntType(32))


@intrinsic
def _float(typing, value):
    """int32 -> the float32 of the same bits."""
    return types.float32(types.int32), lambda _, builder, __, given: builder.bitcast(given[0], ir.FloatType())


@intrinsic
def _pointer(typing, address):
    """An address -> a pointer to float32."""
    pointer = types.CPointer(types.float32)
    return pointer(types.int64), lambda context, builder, _, given: builder.inttoptr(
        given[0], context.get_value_type(pointer)
    )


# -- exp and log1p -------------------------------------------------------------------------------


@njit(inline="always", fastmath={"contract"}, error_model="numpy")
def _exp(x):
    """e^x for x ≤ 88, 0 for x < −87.3, NaN for NaN; to 2 units in the last place (Cephes' expf)."""
    z = LEAST if x < LEAST else x
    rounded = z * F32(1.44269504) + F32(
        12582912.0
    )  # 1.5 · 2²³: the integer nearest to x / log 2 stands in the last bits
    n = rounded - F32(12582912.0)
    r = (z - n * F32(0.693359375)) + n * F32(2.12194440e-4)
    p = F32(1.9875691500e-4)
    p = p * r + F32(1.3981999507e-3)
    p = p * r + F32(8.3334519073e-3)
    p = p * r + F32(4.1665795894e-2)
    p = p * r + F32(1.6666665459e-1)
    p = p * r + F32(5.0000001201e-1)
    e = p * (r * r) + r + F32(1.0)
    power = _float(((_bits(rounded) - I32(0x4B400000)) + I32(127)) << I32(23))
    return F32(0.0) if x < LEAST else e * power


@njit(inline="always", fastmath={"contract"}, error_model="numpy")
def _log1p(p):
    """log(1 + p) for 0 ≤ p < 2⁶⁴, NaN for NaN; to 3 units in the last place (Cephes' logf)."""
    u = F32(1.0) + p
    lost = (p - (u - F32(1.0))) / u  # what rounding 1 + p took away
    bits = _bits(u)
    # u = 2ᵏ m with m in [√½, √2)
    k = (bits - I32(0x3F3504F3)) >> I32(23)
    m = _float(bits - (k << I32(23))) - F32(1.0)
    y = F32(7.0376836292e-2)
    y = y * m + F32(-1.1514610310e-1)
    y = y * m + F32(1.1676998740e-1)
    y = y * m + F32(-1.2420140846e-1)
    y = y * m + F32(1.4249322787e-1)
    y = y * m + F32(-1.6668057665e-1)
    y = y * m + F32(2.0000714765e-1)
    y = y * m + F32(-2.4999993993e-1)
    y = y * m + F32(3.3333331174e-1)
    square = m * m
    y = y * m * square - F32(0.5) * square
    n = F32(k)
    log = m + (y + n * F32(-2.12194440e-4) + lost) + n * F32(0.693359375)
    return p if p != p else log


# -- rows ----------------------------------------------------------------------------------------


@njit(inline="always", fastmath={"reassoc", "contract"}, error_model="numpy")
def _peak(row):
    peak = F32(-np.inf)
    for j in range(row.shape[0]):
        peak = row[j] if row[j] > peak else peak
    return peak


@njit(fastmath={"reassoc", "contract"}, error_model="numpy")
def _exp_row(row, shift):
    total = F32(0.0)
    for j in range(row.shape[0]):
        e = _exp(row[j] - shift)
        row[j] = e
        total += e
    return total


@njit(fastmath={"reassoc", "contract"}, error_model="numpy")
def _exp_sum(row, columns):
    total = F32(0.0)
    for j in range(row.shape[0]):
        e = _exp(row[j])
        columns[j] += e
        total += e
    return total


@njit(fastmath={"reassoc", "contract"}, error_model="numpy")
def _sigmoid_lanes(row, products, bias):
    """Σ max(s, 0) and Σ σ(s) of up to LANES logits, which become σ(s); the products take e^−|s| in."""
    positive, acts = F32(0.0), F32(0.0)
    for j in range(row.shape[0]):
        s = row[j] + bias
        e = _exp(-abs(s))
        positive += F32(0.0) if s < F32(0.0) else s
        products[j] += e + products[j] * e
        act = (F32(1.0) if s >= F32(0.0) else e) / (F32(1.0) + e)
        acts += act
        row[j] = act
    return positive, acts


@njit(fastmath={"reassoc", "contract"}, error_model="numpy")
def _logs(products):
    total = F32(0.0)
    for lane in range(products.shape[0]):
        total += _log1p(products[lane])
        products[lane] = F32(0.0)
    return total


@njit(fastmath={"reassoc", "contract"}, error_model="numpy")
def _spread_exp_row(row, by_row, by_column):
    for j in range(row.shape[0]):
        row[j] = _exp(row[j]) * (by_row + by_column[j])


@njit(fastmath={"reassoc", "contract"}, error_model="numpy")
def _spread_exp_row_alone(row, by_row):
    for j in range(row.shape[0]):
        row[j] = _exp(row[j]) * by_row


@njit(fastmath={"reassoc", "contract"}, error_model="numpy")
def _spread_shares_row(row, total, by_row, totals, by_column):
    for j in range(row.shape[0]):
        row[j] = _exp(row[j] - total) * by_row + _exp(row[j] - totals[j]) * by_column[j]


@njit(fastmath={"reassoc", "contract"}, error_model="numpy")
def _spread_shares_row_alone(row, total, by_row):
    for j in range(row.shape[0]):
        row[j] = _exp(row[j] - total) * by_row


@njit(inline="always", fastmath={"contract"}, error_model="numpy")
def _sigmoid(s):
    e = _exp(-abs(s))
    return (F32(1.0) if s >= F32(0.0) else e) / (F32(1.0) + e)


@njit(fastmath={"reassoc", "contract"}, error_model="numpy")
def _spread_sigmoid_row(row, bias, by_row, by_column):
    for j in range(row.shape[0]):
        row[j] = _sigmoid(row[j] + bias) * (by_row + by_column[j])


@njit(fastmath={"reassoc", "contract"}, error_model="numpy")
def _spread_sigmoid_row_alone(row, bias, by_row):
    for j in range(row.shape[0]):
        row[j] = _sigmoid(row[j] + bias) * by_row


# -- blocks: what each thread of a team does -----------------------------------------------------


@njit(inline="always", error_model="numpy")
def _mine(rows):
    """This thread's part of the rows."""
    me, team = types.int64(_thread()), types.int64(_threads())
    return rows * me // team, rows * (me + 1) // team


@njit(inline="always", error_model="numpy")
def _floats(address, size):
    return carray(_pointer(address), size, dtype=np.float32)


def _exp_rows(given):
    """rows, width, whether to subtract each row's maximum; block, its maxima, its sums."""
    rows, width, peaked = given[0], given[1], given[2]
    block, peaks, sums = _floats(given[3], rows * width), _floats(given[4], rows), _floats(given[5], rows)
    start, stop = _mine(rows)
    for i in range(start, stop):
        row = block[i * width : (i + 1) * width]
        peak = _peak(row) if peaked else F32(0.0)
        peak = F32(0.0) if peak == F32(-np.inf) else peak
        peaks[i] = peak
        sums[i] = _exp_row(row, peak)


def _exp_sums(given):
    """rows, width; block, sums of its rows, (threads, width) sums of its columns, to be zero before."""
    rows, width = given[0], given[1]
    block, sums = _floats(given[2], rows * width), _floats(given[3], rows)
    me = types.int64(_thread())
    columns = _floats(given[4] + 4 * me * width, width)
    start, stop = _mine(rows)
    for i in range(start, stop):
        sums[i] = _exp_sum(block[i * width : (i + 1) * width], columns)


def _sigmoid_rows(given):
    """rows, width; block, bias, Σ softplus and Σ σ of its rows, (threads, LANES) to be zero before."""
    rows, width = given[0], given[1]
    block, bias = _floats(given[2], rows * width), _floats(given[3], 1)[0]
    sums, acts = _floats(given[4], rows), _floats(given[5], rows)
    products = _floats(given[6] + 4 * types.int64(_thread()) * LANES, LANES)
    start, stop = _mine(rows)
    for i in range(start, stop):
        total, act = F32(0.0), F32(0.0)
        taken = 0
        for left in range(i * width, (i + 1) * width, LANES):
            right = min(left + LANES, (i + 1) * width)
            positive, part = _sigmoid_lanes(block[left:right], products, bias)
            total += positive
            act += part
            taken += 1
            if taken == DEPTH:
                total += _logs(products)
                taken = 0
        sums[i] = total + _logs(products)
        acts[i] = act


def _spread_exp(given):
    """rows, width; block, gradient by row, gradient by column or 0."""
    rows, width = given[0], given[1]
    block, by_row = _floats(given[2], rows * width), _floats(given[3], rows)
    start, stop = _mine(rows)
    for i in range(start, stop):
        row = block[i * width : (i + 1) * width]
        if given[4]:
            _spread_exp_row(row, by_row[i], _floats(given[4], width))
        else:
            _spread_exp_row_alone(row, by_row[i])


def _spread_shares(given):
    """rows, width; block, A by row, gradient by row, A by column or 0, gradient by column."""
    rows, width = given[0], given[1]
    block, totals, by_row = _floats(given[2], rows * width), _floats(given[3], rows), _floats(given[4], rows)
    start, stop = _mine(rows)
    for i in range(start, stop):
        row = block[i * width : (i + 1) * width]
        if given[5]:
            _spread_shares_row(row, totals[i], by_row[i], _floats(given[5], width), _floats(given[6], width))
        else:
            _spread_shares_row_alone(row, totals[i], by_row[i])


def _spread_sigmoid(given):
    """rows, width; block, bias, gradient by row, gradient by column or 0."""
    rows, width = given[0], given[1]
    block, bias = _floats(given[2], rows * width), _floats(given[3], 1)[0]
    by_row = _floats(given[4], rows)
    start, stop = _mine(rows)
    for i in range(start, stop):
        row = block[i * width : (i + 1) * width]
        if given[5]:
            _spread_sigmoid_row(row, bias, by_row[i], _floats(given[5], width))
        else:
            _spread_sigmoid_row_alone(row, bias, by_row[i])


def _compiled(block: Callable[[Any], None]) -> Any:
    return cfunc(types.void(types.CPointer(types.int64)), cache=True, error_model="numpy")(block)


#: What `run` can run, by name.
BLOCKS = {
    block.__name__.removeprefix("_"): _compiled(block)
    for block in (_exp_rows, _exp_sums, _sigmoid_rows, _spread_exp, _spread_shares, _spread_sigmoid)
}


def run(name: str, block: torch.Tensor, *given: torch.Tensor | int | None) -> None:
    """Run a block function on a (rows, width) block: sizes and numbers first, then the block, then tensors.

    Args:
        name: one of `BLOCKS`.
        block: (rows, width) contiguous float32, changed in place.
        given: numbers, which come before the block's address, and contiguous float32 tensors, None for an address of 0.
    """
    numbers = [value for value in given if isinstance(value, int)]
    tensors = [value for value in given if not isinstance(value, int)]
    addresses = [0 if value is None else value.data_ptr() for value in (block, *tensors)]
    packed = np.array([*block.shape, *numbers, *addresses], np.int64)
    threads = max(1, min(torch.get_num_threads(), block.numel() // LEAST_WORK, block.shape[0]))
    _GOMP.GOMP_parallel(BLOCKS[name].address, packed.ctypes.data, threads, 0)
