"""How well the plain MLP fits an arbitrary function: `python -m tests.bench.image_mlp`, a table by width and depth.

The function is a sum of random waves of one variable, given at 256 places. What is shown is the share of its variance
that is left over after training: 1 is a model that says the mean, 0 is perfect.
"""

from __future__ import annotations

import statistics
from typing import Literal

import torch

from jobs.spec_image import Mlp
from trainers.models.vision import mlp

PLACES, WAVES = 256, 8
Activation = Literal["relu", "gelu", "none"]


def function(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Places from -1 to 1, as images of one pixel [256, 1, 1, 1], and the function's values [256, 1]."""
    draw = torch.Generator().manual_seed(seed)
    places = torch.linspace(-1, 1, PLACES).unsqueeze(1)
    height, phase = torch.randn(WAVES, generator=draw), 6.3 * torch.rand(WAVES, generator=draw)
    values = (height * torch.sin(places * torch.arange(1, WAVES + 1) * 1.6 + phase)).sum(1, keepdim=True)
    return places.view(-1, 1, 1, 1), (values - values.mean()) / values.std(correction=0)


def left_over(widths: list[int], activation: Activation = "relu", steps: int = 600, seed: int = 0) -> float:
    """Share of the function's variance that a network of these widths leaves after so many steps on all places."""
    places, values = function(seed)
    torch.manual_seed(seed)
    net = mlp(Mlp(widths=widths, activation=activation), channels=1, size=1, outputs=1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (net(places) - values).square().mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float((net(places) - values).square().mean())


def median_left_over(widths: list[int], activation: Activation = "relu", seeds: int = 3, steps: int = 600) -> float:
    """The median over functions and first weights."""
    return statistics.median(left_over(widths, activation, steps, seed) for seed in range(seeds))


def main() -> dict[tuple[Activation, int, int], float]:
    """Print the table; its values by activation, width and depth."""
    torch.set_num_threads(1)
    widths, depths = (4, 16, 64), (1, 2, 3)
    heads = "".join(f"{depth} deep".rjust(10) for depth in depths)
    print(f"share of an arbitrary function's variance left over, median of 3 functions\n{'':12}{heads}")
    table: dict[tuple[Activation, int, int], float] = {}
    activations: tuple[Activation, ...] = ("relu", "gelu", "none")
    for activation in activations:
        for width in widths:
            for depth in depths:
                table[activation, width, depth] = median_left_over([width] * depth, activation)
            row = "".join(f"{table[activation, width, depth]:10.4f}" for depth in depths)
            print(f"{activation:>6}{width:>5} {row}", flush=True)
    return table


if __name__ == "__main__":
    main()
