"""How much faster a QRNN layer is than nn.LSTM of the same width, forward and backward: a table of ratios.

`python -m tests.bench.qrnn [--threads N] [--pairs N] [--device cpu|cuda]`. Blocks alternate, so that
what else the machine does meets both; the ratio is the median over pairs, with the quartiles beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from trainers.models.awd_lstm import WeightDropLstm
from trainers.models.qrnn import QrnnLayer

SHAPES = [(8, 512, 320), (32, 128, 320), (64, 70, 400), (256, 32, 320)]


def timed(work: Callable[[], None], device: torch.device) -> float:
    """Milliseconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3


def contenders(batch: int, length: int, width: int, device: torch.device) -> dict[str, Callable[[], None]]:
    """One call of each layer on the same input, forward and backward."""
    inputs = torch.randn(length, batch, width, device=device, requires_grad=True)
    zeros = torch.zeros(batch, width, device=device)
    qrnn = QrnnLayer(width, width, 1, 0.0).to(device)
    wide = QrnnLayer(width, width, 2, 0.0).to(device)
    dropped = WeightDropLstm(width, width, 0.5).to(device)
    lstm = nn.LSTM(width, width).to(device)
    return {
        "nn.LSTM": lambda: lstm(inputs)[0].sum().backward(),
        "weight-drop LSTM": lambda: dropped(inputs, (zeros, zeros))[0].sum().backward(),
        "QRNN": lambda: qrnn(inputs, (zeros,))[0].sum().backward(),
        "QRNN window 2": lambda: wide(inputs, (zeros, zeros))[0].sum().backward(),
    }


def compare(batch: int, length: int, width: int, pairs: int, device: torch.device) -> None:
    """Print one line per layer: its milliseconds, and how many times faster than nn.LSTM it is."""
    works = contenders(batch, length, width, device)
    for work in works.values():
        timed(work, device)
    rounds = [{name: timed(work, device) for name, work in works.items()} for _ in range(pairs)]
    for name in works:
        ratios = [row["nn.LSTM"] / row[name] for row in rounds]
        low, middle, high = statistics.quantiles(ratios, n=4)
        ms = statistics.median(row[name] for row in rounds)
        print(f"{batch:>6}{length:>7}{width:>7}  {name:<17}{ms:>9.1f} ms  {middle:5.2f}x  ({low:.2f}-{high:.2f})")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {options.threads} thread(s)"
    print(f"{name}, torch {torch.__version__}; medians of {options.pairs} alternating rounds\n batch length  width")
    for batch, length, width in SHAPES:
        compare(batch, length, width, options.pairs, device)


if __name__ == "__main__":
    main()
