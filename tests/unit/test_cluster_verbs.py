"""The verbs over a cluster, against a Kubernetes in memory and a folder that stands for S3."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.disk import DiskStore
from infra.kube_errors import UnreachableError
from jobs import cli, yaml12
from jobs.cluster import verbs
from jobs.cluster.decide import Move
from jobs.cluster.existing import existing
from jobs.cluster.manifest import SUBMISSION as ANNOTATION
from jobs.cluster.session import Session
from jobs.cluster.start import Starter, documents
from jobs.errors import NameInUseError, Reason, StorageError
from jobs.rundir import STOP, ObjectStore, RunDir
from jobs.submission import RECORD, Submission
from tests.unit.fakekube import FakeKube
from tests.unit.fakerun import FakeRun
from tests.unit.test_cluster_launch import DONE, FAILED, RUNNING, SETS, spec
from tests.unit.test_cluster_watch import Told

RUN = ["run", "language", *(word for change in SETS for word in ("--set", change)), "--cluster", "--name", "demo"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeKube:
    made = FakeKube()
    made.platform()

    def store(uri: str, endpoint: str | None = None) -> ObjectStore:
        # The bucket is a folder here; pods know it under their endpoint, and so does this machine.
        if uri.startswith("s3://"):
            assert endpoint == "http://inside:9000"
            return DiskStore(tmp_path / uri.removeprefix("s3://"))
        return DiskStore(Path(uri))

    monkeypatch.setattr(verbs, "open_kube", lambda context, namespace: made)
    monkeypatch.setattr("jobs.cluster.place.open_store", store)
    monkeypatch.setattr("jobs.resolve.open_store", store)
    monkeypatch.setattr("jobs.cluster.place._listens", lambda address: True)
    monkeypatch.setattr("jobs.cluster.watcher.LOOK_S", 0.0)
    monkeypatch.setattr("jobs.cluster.launch.LOOK_S", 0.0)
    return made


@pytest.fixture
def bucket(tmp_path: Path) -> FakeRun:
    return FakeRun(tmp_path / "bucket" / "runs")


@pytest.fixture
def highwater(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def apart(kube: FakeKube, monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage that this machine cannot reach."""
    monkeypatch.setattr("jobs.cluster.place._listens", lambda address: False)


def begun(bucket: FakeRun) -> None:
    bucket.dir.write("spec.json", spec().model_dump(mode="json"))
    bucket.lease(beat_at=time.time())
    bucket.attempt()


def finished(bucket: FakeRun, reason: Reason = Reason.DONE) -> None:
    begun(bucket)
    bucket.lease(beat_at=time.time(), released=True)
    bucket.dir.store.put("demo/logs/driver/0001-00000.log", b"the driver's log\n")
    bucket.dir.write(RECORD, Submission(id="first", began=1.0))
    bucket.result(reason, finished_at=time.time())


# run


def test_a_dry_run_prints_what_would_be_sent(kube: FakeKube, highwater: Run) -> None:
    code, out, _ = highwater(*RUN, "--dry-run")
    assert code == 0 and not [call for call in kube.calls if call.startswith("create")]
    parts = [yaml12.loads(part, "it") for part in out.split("---\n")]
    assert [part["kind"] for part in parts] == ["RayJob", "PodDisruptionBudget", "PodDisruptionBudget"]
    code, out, _ = highwater(*RUN, "--dry-run", "--json")
    same = json.loads(out)
    for document in (parts[0], same[0]):
        document["metadata"]["annotations"].pop(ANNOTATION)
    assert json.dumps(same[0]).count("HIGHWATER_SUBMISSION") == 1
    highwater(*RUN, "--detach")
    sent = kube.objects["RayJob", "demo"]
    assert sent["spec"].keys() == same[0]["spec"].keys()


def test_parts_that_objects_share_are_no_anchors() -> None:
    part = {"a": [1]}
    assert documents([{"x": part, "y": part}, {"z": 'line\n"$(x)" --- &id001'}]).count("&id") == 1


def test_a_dry_run_with_an_image_needs_no_platform(
    kube: FakeKube, highwater: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube.objects.clear()
    code, _, err = highwater(*RUN, "--dry-run")
    assert code == 2 and "helm install highwater charts/highwater --namespace lab" in err
    more = ["--set", "cluster.image=my/image:1", "--storage", "s3://abc/runs", "--dry-run"]
    assert highwater(*RUN, *more)[0] == 0

    def nowhere(context: str | None, namespace: str | None) -> FakeKube:
        raise UnreachableError("nothing answers")

    monkeypatch.setattr(verbs, "open_kube", nowhere)
    code, out, _ = highwater(*RUN, *more, "--namespace", "mine")
    assert code == 0 and "namespace: mine" in out
    code, _, err = highwater(*RUN, "--dry-run")
    assert code == 6 and err == "highwater: nothing answers\n"


def test_a_spec_that_never_was_in_a_shell(kube: FakeKube, highwater: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = highwater("run", "-", "--cluster", "--detach")
    assert code == 2 and "HIGHWATER_SPEC is not set" in err
    monkeypatch.setenv("HIGHWATER_SPEC", "language")
    monkeypatch.setenv("HIGHWATER_SET", json.dumps(SETS))
    assert highwater("run", "-", "--cluster", "--detach", "--name", "every-{time}")[0] == 0
    name = next(name for kind, name in kube.objects if kind == "RayJob")
    assert name == time.strftime("every-%Y%m%d-%H%M", time.gmtime())
    for bad in ("x", "7", "[1]"):
        monkeypatch.setenv("HIGHWATER_SET", bad)
        code, _, err = highwater("run", "-", "--cluster", "--detach")
        assert code == 2 and "HIGHWATER_SET" in err


def test_a_run_is_watched_to_its_end(kube: FakeKube, bucket: FakeRun, highwater: Run) -> None:
    real = kube.create

    def create(body: dict[str, Any]) -> dict[str, Any]:
        made = real(body)
        if body["kind"] == "RayJob":
            begun(bucket)
            bucket.dir.write(RECORD, Submission(id=body["metadata"]["annotations"][ANNOTATION], began=1.0))
            bucket.result(Reason.OUT_OF_MEMORY, finished_at=time.time(), message="it did not fit")
            kube.status("demo", **FAILED)
        return made

    kube.create = create  # type: ignore[method-assign]
    code, out, err = highwater(*RUN)
    assert code == 4, err
    assert "run demo at s3://bucket/runs/demo" in out
    assert "highwater resume demo --cluster" in out
    finished(bucket, Reason.OUT_OF_MEMORY)
    kube.delete("RayJob", "demo")
    code, out, _ = highwater(*RUN, "--json")
    assert code == 4 and json.loads(out)["reason"] == "out_of_memory"


def test_a_finished_run_is_told_and_nothing_is_sent(kube: FakeKube, bucket: FakeRun, highwater: Run) -> None:
    finished(bucket)
    code, out, _ = highwater(*RUN)
    assert code == 0 and "run demo is finished" in out and ("RayJob", "demo") not in kube.objects


def test_what_the_cluster_did_not_let_begin(kube: FakeKube, highwater: Run) -> None:
    kube.run(spec(), "demo", kube.platform())
    told = {"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded", "message": "late"}
    kube.at.append((0, lambda: None))
    job = existing(kube.get("RayJob", "demo"), kube.where)
    kube.status("demo", **told)
    session = Session(kube)
    ended = Starter(session, Told()).watch(session.reach_at("demo", job, session.reach("demo").place))
    assert ended.code == 6
    assert ended.record()["message"] == "its pods were not there within cluster.waiting_s: late"


def test_another_submitter_may_be_faster(kube: FakeKube, highwater: Run) -> None:
    real = kube.create

    def create(body: dict[str, Any]) -> dict[str, Any]:
        if body["kind"] == "RayJob" and ("RayJob", "demo") not in kube.objects:
            kube.create = real  # type: ignore[method-assign]
            kube.run(spec(), "demo", kube.platform(), submission="theirs", **RUNNING)
        return real(body)

    kube.create = create  # type: ignore[method-assign]
    code, out, _ = highwater(*RUN, "--detach")
    assert code == 0 and "is there and goes on" in out


def test_a_path_of_this_machine_is_refused(kube: FakeKube, highwater: Run, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a b c")
    code, _, err = highwater(*RUN, "--set", f"data.source={text}", "--detach")
    assert code == 2 and "the run's pods see no disk but their image's" in err
    assert highwater(*RUN, "--set", f"data.source={text}", "--set", "cluster.image=mine:1", "--detach")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "language", "--cluster", "--ray", "auto"], "leave --ray out"),
        (["run", "language", "--context", "c"], "--context is about a run on Kubernetes; add --cluster"),
        (["run", "language", "--detach"], "--detach is about a run on Kubernetes"),
        (["run", "language", "--cluster", "--name", "A b"], "cannot be the name of a run"),
        (["run", "language", "--cluster", "--until", "fits"], "did you mean fit"),
        (["status", "--cluster", "--watch"], "name it"),
        (["status", "A_B", "--cluster"], "cannot be the name of a run"),
        (["logs", "x", "--cluster", "--rank", "-2"], "counted from 0"),
        (["cancel", "nope", "--cluster"], "there is no run 'nope'"),
        (["resume", "nope", "--cluster"], "there is no run 'nope'"),
        (["status", "nope", "--cluster"], "there is no run 'nope'"),
    ],
)
def test_bad_input(kube: FakeKube, highwater: Run, arguments: list[str], says: str) -> None:
    code, _, err = highwater(*arguments)
    assert code == 2 and says in err and err.count("\n") == 1


# The other verbs


def test_status(kube: FakeKube, bucket: FakeRun, highwater: Run) -> None:
    assert "no runs in namespace lab" in highwater("status", "--cluster")[1]
    kube.run(spec(), "demo", kube.platform(), jobDeploymentStatus="Initializing")
    broken = kube.run(spec(), "odd", kube.platform())
    broken["spec"] = {}
    _, out, _ = highwater("status", "--cluster")
    assert out.splitlines()[0].split() == ["RUN", "STATE", "WORKERS", "AGE", "MESSAGE"]
    assert "demo" in out and "odd" in out and "is no run of highwater" in out
    code, out, _ = highwater("status", "demo", "--cluster")
    assert code == 0 and "waiting       its pods are not made yet" in out
    begun(bucket)
    kube.status("demo", **RUNNING)
    code, out, _ = highwater("status", "demo", "--cluster", "--json")
    document = json.loads(out)
    assert document["rayjob"]["phase"] == "running" and document["run"]["state"] == "running"
    kube.status("demo", **DONE)
    finished(bucket)
    code, out, _ = highwater("status", "demo", "--cluster", "--watch")
    assert code == 0 and "done" in out


def test_cancel_asks_then_waits_then_forces(kube: FakeKube, bucket: FakeRun, highwater: Run) -> None:
    begun(bucket)
    kube.run(spec(), "demo", kube.platform(), **RUNNING)
    assert highwater("cancel", "demo", "--cluster")[:2] == (0, "asked run demo to save and leave\n")
    assert bucket.dir.read(STOP) is not None
    code, _, err = highwater("cancel", "demo", "--cluster", "--wait", "0")
    assert code == 1 and "has not left after 0 s" in err
    code, out, _ = highwater("cancel", "demo", "--cluster", "--wait", "0", "--force")
    assert code == 0 and "took the pods of run demo away: it had not left after 0 s" in out
    job = kube.objects["RayJob", "demo"]
    assert job["spec"]["suspend"] is True
    kube.status("demo", jobDeploymentStatus="Suspended")
    assert existing(job, "").standing.reason is Reason.STOPPED
    assert "does not run: it was suspended by a cancel" in highwater("cancel", "demo", "--cluster")[1]
    assert highwater("resume", "demo", "--cluster", "--detach")[0] == 0
    assert "suspend" not in kube.objects["RayJob", "demo"]["spec"]


def test_a_run_without_a_driver_is_ended_at_once(kube: FakeKube, highwater: Run) -> None:
    kube.run(spec(), "demo", kube.platform(), jobDeploymentStatus="Initializing")
    assert "had no driver at work" in highwater("cancel", "demo", "--cluster")[1]
    assert kube.objects["RayJob", "demo"]["spec"]["suspend"] is True
    kube.run(spec("cluster.queue=team"), "queued", kube.platform(), jobDeploymentStatus="Suspended")
    assert highwater("cancel", "queued", "--cluster", "--json")[0] == 0
    assert ("RayJob", "queued") not in kube.objects


def test_resume_without_a_rayjob_takes_the_directorys_spec(kube: FakeKube, bucket: FakeRun, highwater: Run) -> None:
    finished(bucket, Reason.STOPPED)
    bucket.attempt(spec=spec("steps=90").model_dump(mode="json"))
    assert highwater("resume", "demo", "--cluster", "--detach")[0] == 0
    made = existing(kube.objects["RayJob", "demo"], "")
    assert made.spec.steps == 90 and made.spec.storage_endpoint == "http://inside:9000"


def test_logs(kube: FakeKube, bucket: FakeRun, highwater: Run) -> None:
    kube.run(spec(), "demo", kube.platform(), jobDeploymentStatus="Initializing")
    code, _, err = highwater("logs", "demo", "--cluster")
    assert code == 2 and "no log of driver" in err and "its pods are not made yet" in err
    finished(bucket)
    assert highwater("logs", "demo", "--cluster", "--skip", "4")[1] == "driver's log\n"


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("alive", [True, False])
def test_all_of_it_through_a_pod(kube: FakeKube, bucket: FakeRun, highwater: Run, tmp_path: Path, alive: bool) -> None:
    finished(bucket)
    if alive:
        kube.run(spec(), "demo", kube.platform(), **DONE)
        kube.pod("demo")
    else:
        kube.platform(credentialsSecret="s3", imagePullSecrets=["pull"])
        running(kube)
    _, out, _ = highwater("status", "demo", "--cluster")
    assert "state         finished" in out
    assert highwater("logs", "demo", "--cluster")[1] == "the driver's log\n"
    folder = tmp_path / "here" / "demo"
    assert highwater("pull", "demo", "--cluster", "--to", str(tmp_path / "here"))[1] == f"{folder}\n"
    assert (folder / "result.json").read_bytes() == (tmp_path / "bucket/runs/demo/result.json").read_bytes()
    if alive:
        assert highwater(*RUN)[0] == 0
        kube.objects.pop(("RayJob", "demo"))
    bucket.result(Reason.STOPPED, finished_at=time.time())
    assert highwater("resume", "demo", "--cluster", "--detach")[0] == 0
    assert [name for kind, name in kube.objects if kind == "Pod"] == (["demo-head"] if alive else [])


def running(kube: FakeKube) -> None:
    real = kube.create

    def create(body: dict[str, Any]) -> dict[str, Any]:
        made = real(body)
        if body["kind"] == "Pod":
            kube.objects["Pod", body["metadata"]["name"]]["status"] = {"phase": "Running"}
        return made

    kube.create = create  # type: ignore[method-assign]


@pytest.mark.usefixtures("apart")
def test_a_visitor_that_does_not_start_is_removed_and_told(
    kube: FakeKube, bucket: FakeRun, highwater: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.cluster.visitor.START_S", 0.0)
    code, _, err = highwater("pull", "demo", "--cluster")
    assert "did not start within" in err and code == 6
    assert not [name for kind, name in kube.objects if kind == "Pod"]


@pytest.mark.usefixtures("apart")
def test_a_stop_goes_through_the_head(kube: FakeKube, bucket: FakeRun, highwater: Run) -> None:
    begun(bucket)
    kube.run(spec(), "demo", kube.platform(), **RUNNING)
    kube.pod("demo")
    code, _, err = highwater("cancel", "demo", "--cluster")
    assert (code, err) == (0, "") and bucket.dir.read(STOP) is not None


def test_a_report_is_written_where_the_run_is(kube: FakeKube, bucket: FakeRun, highwater: Run) -> None:
    kube.run(spec(), "demo", kube.platform(), **DONE)
    begun(bucket)
    bucket.plan()
    bucket.steps(1, 3)
    bucket.result()
    code, _, err = highwater("report", "demo", "--cluster")
    assert code == 0, err
    assert RunDir(bucket.dir.store, "demo").store.list("demo/report.html")


def test_storage_that_fails_between_two_looks(
    kube: FakeKube, bucket: FakeRun, highwater: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise StorageError("it is away")

    monkeypatch.setattr("jobs.cluster.start.read_run", fails)
    code, out, _ = highwater(*RUN, "--detach")
    assert code == 0 and "going on without a look" in out


def test_commands_in_messages_name_the_namespace(kube: FakeKube, highwater: Run) -> None:
    _, out, _ = highwater(*RUN, "--detach", "-n", "lab", "--context", "a b")
    assert "highwater cancel demo --cluster --context 'a b' --namespace lab" in out


@pytest.mark.parametrize("beats", [False, True])
def test_a_driver_that_was_lost_is_waited_for(kube: FakeKube, bucket: FakeRun, beats: bool) -> None:
    told = Told()
    bucket.dir.write("spec.json", spec().model_dump(mode="json"))
    bucket.lease(beat_at=kube.now, host="a-pod")

    def pause(amount: float) -> None:
        kube.sleep(amount)
        if beats:
            bucket.lease(beat_at=kube.now, host="a-pod")

    starter = Starter(Session(kube), told, pause=pause, now=kube.clock)
    if beats:
        with pytest.raises(NameInUseError, match=r"on a-pod .* which is no RayJob of this namespace"):
            starter.begin(spec(), "demo", None)
    else:
        assert starter.begin(spec(), "demo", None)[0].move is Move.CREATE
    assert told.lines.count("a driver of run demo was seen a moment ago; waiting whether it is alive") == 1


def test_what_was_refused_is_mended_under_the_same_name(kube: FakeKube, bucket: FakeRun, highwater: Run) -> None:
    kube.run(spec(), "demo", kube.platform(), jobDeploymentStatus="Retrying")
    noted = Submission(id="first", began=1.0, refused="no such column", reason=Reason.BAD_DATA)
    bucket.dir.write(RECORD, noted)
    code, _, err = highwater(*RUN, "--set", "seed=3", "--detach")
    assert (code, err) == (0, "")
    assert existing(kube.objects["RayJob", "demo"], "").spec.seed == 3
