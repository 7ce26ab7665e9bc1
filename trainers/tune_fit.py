"""The search for the largest batch x bptt as a Ray Tune searcher, and a probe as a Tune trainable.

searcher = FitSearcher(Limits(budget=8 * 2**30, bptts=(32, 64, 128)))
tuner = tune.Tuner(
    tune.with_resources(probe_trial(spec, data, 8 * 2**30), {"cpu": 1, "gpu": 1}),
    tune_config=tune.TuneConfig(search_alg=searcher, num_samples=searcher.samples),
)
tuner.fit()
searcher.choice
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from jobs.errors import HighwaterError, Reason
from jobs.spec import JobSpec
from trainers.fit.search import Search
from trainers.fit.sizes import Choice, Limits, Reading, Size, Surface

#: What a trial's result may say of its reading; the size is the trial's own configuration.
MEASURED = tuple(field.name for field in fields(Reading) if field.name != "size")
NEEDED = ("persistent", "peak")


class FitSearcher(Searcher):  # type: ignore[misc]  # Ray is not typed.
    """Suggests `{"batch", "bptt"}` (`bptt` only where there are several or one is given) until the choice is final.

    One trial at a time: each size follows from what the last one measured. A trial reports, with its last result, the
    fields of `Reading` under their names, `persistent` and `peak` at least. A trial that runs out of memory reports
    `failed` and `reason="out_of_memory"`; one that ends with an error ends the search, and `choice` says so.
    """

    def __init__(self, limits: Limits, estimate: Surface | None = None, unit: str = "units") -> None:
        super().__init__(metric="seconds", mode="min")
        self.search = Search(limits, estimate, unit)
        self._running: tuple[str, Size] | None = None
        self._broken: HighwaterError | None = None

    @property
    def samples(self) -> int:
        """What Tune's `num_samples` must be at least: trials that the search may ask for."""
        return self.search.limits.probes

    @property
    def choice(self) -> Choice:
        """The size to train at; the errors of `Search.choice`, or of a trial that ended with one."""
        if self._broken is not None:
            raise self._broken
        return self.search.choice()

    def set_max_concurrency(self, max_concurrent: int) -> bool:  # noqa: ARG002 - Tune's signature
        """Says that the searcher limits its trials itself, to one."""
        return True

    def suggest(self, trial_id: str) -> dict[str, int] | str | None:
        """The next size as a configuration; None while a trial runs, FINISHED at the end."""
        if self._running is not None:
            return None
        size = self.search.ask() if self._broken is None else None
        if size is None:
            return str(Searcher.FINISHED)
        self._running = (trial_id, size)
        return {"batch": size.batch} | ({"bptt": size.bptt} if size.bptt is not None else {})

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take the reading of the trial's last result."""
        if self._running is None or self._running[0] != trial_id:
            return
        size, self._running = self._running[1], None
        try:
            self.search.tell(reading_of(size, None if error else result))
        except HighwaterError as problem:
            self._broken = problem

    def save(self, checkpoint_path: str) -> None:
        """Write everything that was told; Tune moves the file into place."""
        state = {"search": self.search, "broken": self._broken}
        Path(checkpoint_path).write_bytes(pickle.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        """Go on from `save`. A trial that was running then is suggested anew."""
        state = pickle.loads(Path(checkpoint_path).read_bytes())
        self.search, self._broken, self._running = state["search"], state["broken"], None


def reading_of(size: Size, result: dict[str, Any] | None) -> Reading:
    """The reading that a trial's last result describes; HighwaterError if it says nothing of memory."""
    if result is None:
        raise HighwaterError(f"the trial at {size} ended with an error; Tune's log of it says which", Reason.USER_CODE)
    measured = {name: result[name] for name in MEASURED if result.get(name) is not None}
    if measured.get("failed"):
        reason = measured.get("reason", Reason.OUT_OF_MEMORY)
        if reason != Reason.OUT_OF_MEMORY:
            raise HighwaterError(f"at {size}: {measured['failed']}", Reason(reason))
    elif missing := [name for name in NEEDED if name not in measured]:
        raise HighwaterError(
            f"the trial at {size} did not report {' and '.join(missing)}, in bytes; report them with tune.report",
            Reason.USER_CODE,
        )
    return Reading(size, **measured)


def probe_trial(spec: JobSpec, data: Path, budget: int, workers: int = 1) -> Callable[[dict[str, Any]], None]:
    """A Tune trainable that probes its configuration's size for the spec over prepared data, on the trial's device.

    `data` is the data stage's folder, on every node alike. The trial uses its GPU if Tune gives it one; `budget` is
    in bytes. It reports a reading as `FitSearcher` wants it, a size that does not fit included.
    """

    def probe(config: dict[str, Any]) -> None:
        import torch

        from trainers.fit.prober import Prober

        device = torch.device("cuda", 0) if spec.resources.gpus_per_worker else torch.device("cpu")
        with Prober(spec, data, 0, workers, device) as prober:
            reading = prober.probe(Size(config["batch"], config.get("bptt")), budget)
        # The timeline is for one report, and Tune would log it with every result.
        tune.report({name: value for name, value in reading.to_json().items() if name != "timeline"})

    return probe
