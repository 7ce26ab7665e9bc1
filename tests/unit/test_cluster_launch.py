"""The same name twice is the same run: what is created, adopted, replaced or refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infra.kube_errors import ConflictError, ForbiddenError, InvalidError, UnreachableError
from jobs.admission import Seen
from jobs.cluster.decide import Move, decide
from jobs.cluster.existing import Existing, existing, variables
from jobs.cluster.launch import Launcher
from jobs.cluster.manifest import Request, objects, on_cluster
from jobs.cluster.platform import Platform
from jobs.errors import NameInUseError
from jobs.rundir import Lease
from jobs.spec import JobSpec
from jobs.specfile import load_spec
from tests.unit.fakekube import FakeKube
from tests.unit.fakerun import result

SETS = ["workers=2", "epochs=null", "steps=60", "batch=8", "learning_rate=0.01"]
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
FAILED = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


def spec(*more: str) -> JobSpec:
    return load_spec("language", [*SETS, *more])


def there(kube: FakeKube, platform: Platform, one: JobSpec | None = None, **status: str) -> Existing:
    return existing(kube.run(one or spec(), "demo", platform, **status), kube.where)


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def platform(kube: FakeKube) -> Platform:
    return kube.platform()


def seen(**changes: Any) -> Seen:
    return replace(Seen("demo", "s3://bucket/runs/demo"), **changes)


def moved(one: JobSpec, found: Existing | None, known: Seen, *, until: str | None = None, read: bool = True) -> Move:
    return decide(one, until, found, known, read=read, now=1e9).move


def test_a_run_that_goes_on_is_adopted_if_it_is_the_same(kube: FakeKube, platform: Platform) -> None:
    found = there(kube, platform, **RUNNING)
    assert moved(spec(), found, seen()) is Move.ADOPT
    assert moved(spec("checkpointing.every_s=5"), found, seen(), read=False) is Move.ADOPT
    with pytest.raises(NameInUseError, match="seed 1 -> 3"):
        moved(spec("seed=3"), found, seen())
    with pytest.raises(NameInUseError, match="smaller limit"):
        moved(spec("steps=90"), found, seen())


def test_one_that_ended_is_resumed_or_told(kube: FakeKube, platform: Platform) -> None:
    found = there(kube, platform, **FAILED)
    assert moved(spec(), found, seen()) is Move.REPLACE
    assert moved(spec(), found, seen(), read=False) is Move.REPLACE
    # Nothing was ever begun: the spec that was refused may be mended under the same name.
    assert moved(spec("seed=3"), found, seen()) is Move.REPLACE
    finished = seen(spec=spec(), result=result("demo"))
    assert moved(spec(), found, finished) is Move.FINISHED
    assert moved(spec("steps=90"), found, finished) is Move.REPLACE
    with pytest.raises(NameInUseError, match="another spec"):
        moved(spec("seed=3"), found, seen(), read=False)


def test_one_that_succeeded_is_done_unless_it_left_early(kube: FakeKube, platform: Platform) -> None:
    found = there(kube, platform, **DONE)
    assert moved(spec(), found, seen(), read=False) is Move.FINISHED
    assert moved(spec("steps=90"), found, seen(), read=False) is Move.REPLACE
    assert moved(spec(), replace(found, until="fit"), seen(), read=False) is Move.REPLACE
    assert moved(spec(), replace(found, until="fit"), seen(spec=spec())) is Move.REPLACE


def test_without_a_rayjob_the_directory_decides() -> None:
    assert moved(spec(), None, seen()) is Move.CREATE
    assert moved(spec(), None, seen(spec=spec())) is Move.CREATE
    assert moved(spec(), None, seen(spec=spec(), result=result("demo"))) is Move.FINISHED
    lease = Lease(number=1, owner="me", host="far", pid=4, process_started=1, beat_at=1e9)
    with pytest.raises(NameInUseError, match="process 4 on far"):
        moved(spec(), None, seen(spec=spec(), lease=lease, alive=True))


def test_a_strangers_rayjob_is_refused(kube: FakeKube, platform: Platform) -> None:
    job = kube.run(spec(), "demo", platform)
    del job["metadata"]["labels"]["highwater.io/run"]
    with pytest.raises(NameInUseError, match="no run of highwater"):
        existing(job, kube.where)
    broken = kube.run(spec(), "other", platform)
    env = broken["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["env"]
    next(one for one in env if one["name"] == "HIGHWATER_SPEC")["value"] = '{"task": "cooking"}'
    with pytest.raises(NameInUseError, match="cannot read"):
        existing(broken, kube.where)


def test_what_travels_comes_back_as_it_was(kube: FakeKube, platform: Platform) -> None:
    hostile = spec("data.source=s3://bucket/$(HOME)/$$x/${y}")
    found = there(kube, platform, hostile)
    assert found.spec == on_cluster(hostile, platform)
    assert variables(kube.objects["RayJob", "demo"])["HIGHWATER_NAME"] == "demo"
    assert found.created > 0 and found.submission == "first"


# Creating


def sent(platform: Platform, submission: str = "first", code: bytes | None = None) -> list[Any]:
    return objects(on_cluster(spec(), platform), Request("demo", "lab", submission, code=code), platform)


def launcher(kube: FakeKube, said: list[str] | None = None) -> Launcher:
    return Launcher(kube, (said if said is not None else []).append, clock=kube.clock, pause=kube.sleep)


def test_what_a_run_owns_goes_with_it(kube: FakeKube, platform: Platform) -> None:
    made = launcher(kube).create(sent(platform, code=b"zip"))
    assert sorted(kube.objects) == [
        ("ConfigMap", "demo-code"),
        ("ConfigMap", "highwater-platform"),
        ("PodDisruptionBudget", "demo-head"),
        ("PodDisruptionBudget", "demo-worker"),
        ("RayJob", "demo"),
    ]
    owners = kube.objects["PodDisruptionBudget", "demo-head"]["metadata"]["ownerReferences"]
    assert owners == [{"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "demo", "uid": made.uid}]
    launcher(kube).create(sent(platform, code=b"zip"))
    kube.delete("RayJob", "demo")
    assert sorted(kube.objects) == [("ConfigMap", "highwater-platform")]


def test_ours_is_known_by_its_submission(kube: FakeKube, platform: Platform) -> None:
    """A server that fills in fields makes another object of what was sent."""
    kube.run(spec(), "demo", platform)
    kube.objects["RayJob", "demo"]["spec"]["backoffLimit"] = 99
    assert launcher(kube).create(sent(platform)).submission == "first"
    with pytest.raises(ConflictError):
        launcher(kube).create(sent(platform, "second"))


def test_a_budget_that_may_not_be_made_is_told(kube: FakeKube, platform: Platform) -> None:
    said: list[str] = []
    kube.failures.append(("create PodDisruptionBudget", ForbiddenError("you may not")))
    launcher(kube, said).create(sent(platform))
    assert said == ["the run goes on without a disruption budget: you may not"]
    assert ("PodDisruptionBudget", "demo-worker") in kube.objects


def test_what_fails_later_leaves_what_runs(kube: FakeKube, platform: Platform) -> None:
    kube.failures.append(("create ConfigMap", InvalidError("too large")))
    with pytest.raises(InvalidError, match=r"was created and goes on, but not all .* too large; run the same command"):
        launcher(kube).create(sent(platform, code=b"zip"))
    assert ("RayJob", "demo") in kube.objects


def test_leftovers_of_the_last_start_make_room(kube: FakeKube, platform: Platform) -> None:
    old = sent(platform)[1]
    old["metadata"] |= {"ownerReferences": [{"uid": "gone"}]}
    kube.create(old)
    made = launcher(kube).create(sent(platform))
    assert kube.objects["PodDisruptionBudget", "demo-head"]["metadata"]["ownerReferences"][0]["uid"] == made.uid


def test_what_a_chart_made_stays(kube: FakeKube, platform: Platform) -> None:
    for body in sent(platform):
        kube.create(body | {"metadata": body["metadata"] | {"annotations": {"first": "1"}}})
    before = {key: body for key, body in kube.objects.items() if key[0] == "PodDisruptionBudget"}
    launcher(kube).own(kube.objects["RayJob", "demo"], sent(platform)[1:], adopting=True)
    launcher(kube).own(kube.objects["RayJob", "demo"], sent(platform)[1:])
    assert not [call for call in kube.calls if call.startswith("delete")]
    assert before == {key: body for key, body in kube.objects.items() if key[0] == "PodDisruptionBudget"}
    kube.create({"kind": "ConfigMap", "metadata": {"name": "demo-code"}})
    with pytest.raises(ConflictError, match="not all that belongs to it"):
        launcher(kube).own(kube.objects["RayJob", "demo"], sent(platform, code=b"zip")[1:])


def test_a_replacement_waits_for_the_old_pods(kube: FakeKube, platform: Platform) -> None:
    said: list[str] = []
    old = there(kube, platform, **FAILED)
    kube.pod("demo", "worker")
    kube.at.append((20, lambda: kube.objects.pop(("Pod", "demo-worker"))))
    new = launcher(kube, said).replace(old, sent(platform, "second"))
    assert new.submission == "second" and new.uid != old.uid
    assert said == ["waiting for the pods of the last start of run demo to be gone"]


def test_it_does_not_wait_for_ever(kube: FakeKube, platform: Platform) -> None:
    old = there(kube, platform, **FAILED)
    kube.pod("demo", "worker")
    with pytest.raises(UnreachableError, match=r"Pod demo-worker .* still there after 150 s"):
        launcher(kube).replace(old, sent(platform, "second"))
