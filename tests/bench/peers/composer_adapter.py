"""Composer's automatic microbatching, inside its own Trainer.

Composer offers it on GPUs only, so the flag that asks for it is set after the Trainer has been built without. The
search itself (run the batch, halve the microbatch, run it again) is Composer's, untouched.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from composer import ComposerModel, DataSpec, Trainer
from composer.utils import dist
from torch.utils.data import DataLoader

from tests.bench.peers.batches import Batches
from tests.bench.peers.subject import START, Subject
from trainers.optim import build_optimizer
from trainers.task import Task

warnings.simplefilter("ignore")
# Its threads and buffers belong to the library, which is loaded before the limit holds.
dist.initialize_dist("cpu")


def automatic(subject: Subject) -> int:
    """The microbatch that remains after one batch of 1,024 rows."""
    task, spec = subject.task(START), subject.spec(START)
    model = Model(task)
    trainer = Trainer(
        model=model,
        train_dataloader=DataSpec(
            DataLoader(Batches(task), batch_size=None),
            split_batch=_split,
            get_num_samples_in_batch=lambda batch: batch[0].shape[1],
            get_num_tokens_in_batch=lambda batch: batch[0].numel(),
        ),
        optimizers=build_optimizer(spec.optimizer, float(spec.learning_rate), [list(model.parameters())]),
        max_duration="1ba",
        device="cpu",
        device_train_microbatch_size=START,
        progress_bar=False,
    )
    trainer.state.auto_microbatching = True
    train = trainer._train_microbatches
    trainer._train_microbatches = lambda *args, **kwargs: _in_child(subject, trainer, lambda: train(*args, **kwargs))
    trainer.fit()
    return int(trainer.state.device_train_microbatch_size or 0)


def _in_child(subject: Subject, trainer: Trainer, train: Callable[[], Any]) -> torch.Tensor:
    """One batch in microbatches, as the subject wants trials to run; twice, so that the optimizer has its state."""

    def twice() -> None:
        # A sum over one process is what it was, and gloo's threads did not follow into this one.
        torch.distributed.all_reduce = lambda *args, **kwargs: None
        for _ in range(2):
            train()
            for optimizer in trainer.state.optimizers:
                optimizer.step()

    subject.attempt(int(trainer.state.device_train_microbatch_size), twice)
    return torch.zeros(())


def _split(batch: Any, rows: int) -> list[Any]:
    return list(zip(*(part.split(int(rows), dim=1) for part in batch), strict=True))


class Model(ComposerModel):
    """Our model and loss; every microbatch begins with a fresh carry, because Composer carries nothing."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task, self.inner = task, task.model()

    def forward(self, batch: Any) -> torch.Tensor:
        carry = tuple(tensor[: batch[0].shape[1]] for tensor in self.task.carries()[0])
        return self.task.loss(self.inner, batch, carry).total

    def loss(self, outputs: torch.Tensor, batch: Any) -> torch.Tensor:
        return outputs
