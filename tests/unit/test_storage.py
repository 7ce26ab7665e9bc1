"""One contract for every store, and what each of them says when it cannot do what was asked."""

from __future__ import annotations

import builtins
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra import files
from infra.disk import DiskStore
from infra.keys import TEMP_PREFIX
from infra.s3 import S3Store
from infra.storage import check, is_local, open_store
from jobs.errors import ExistsError, NotFoundError, StorageError
from jobs.rundir import ObjectStore

SECRET = "wJalrXUtnFEMI-secret"


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


@pytest.fixture(params=["disk", "s3", "s3-prefix"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "disk":
        return open_store(str(tmp_path / "new" / "store"))
    address = request.getfixturevalue("s3_address")
    made = S3Store(f"bucket-{os.urandom(6).hex()}", "a/prefix" if request.param == "s3-prefix" else "", address)
    made._client.create_bucket(Bucket=made.bucket)
    if made.prefix:
        # A neighbour that begins alike must never be seen.
        S3Store(made.bucket, "", address).put("a/prefix-else/run/spec.json", b"x")
    return made


# The contract


def test_what_is_put_is_got_and_replaced(store: ObjectStore) -> None:
    store.put("run/spec.json", b"one")
    store.put("run/spec.json", b"two")
    assert store.get("run/spec.json") == b"two"
    store.put("run/empty", b"")
    assert store.get("run/empty") == b""


def test_a_missing_object_is_not_found(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="run/none"):
        store.get("run/none")
    with pytest.raises(NotFoundError, match="run/none"):
        store.get_file("run/none", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    store.put("run/a/b", b"")
    with pytest.raises(NotFoundError):
        store.get("run/a")


def test_if_absent_keeps_the_first(store: ObjectStore) -> None:
    store.put("run/lease", b"first", if_absent=True)
    with pytest.raises(ExistsError, match="run/lease"):
        store.put("run/lease", b"second", if_absent=True)
    assert store.get("run/lease") == b"first"


def test_of_many_exclusive_writers_exactly_one_wins(store: ObjectStore) -> None:
    barrier = threading.Barrier(8)

    def write(number: int) -> bool:
        barrier.wait()
        try:
            # The same bytes from all: a store must not take a stranger's for its own.
            store.put("race/lease", b"same", if_absent=True)
        except ExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 1
    assert store.get("race/lease") == b"same"


def test_files_go_in_and_out(store: ObjectStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(1 << 20) * 20)
    store.put_file("run/data/tokens.bin", source)
    target.write_bytes(b"old")
    store.get_file("run/data/tokens.bin", target)
    assert target.read_bytes() == source.read_bytes()
    assert store.list("run/data/")[0].size == 20 << 20
    assert not [name for name in os.listdir(tmp_path) if name.startswith(TEMP_PREFIX)]


def test_a_local_file_that_is_missing_is_named(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*/absent") as caught:
        store.put_file("run/x", tmp_path / "absent")
    assert not isinstance(caught.value, NotFoundError)


def test_list_is_by_prefix_and_sorted(store: ObjectStore) -> None:
    keys = ["run/b", "run/a/2", "run/a/1", "run/a-1", "run2/x", "run/\u00e9t\u00e9", "run/\u4f60\u597d", "run/a b"]
    for key in keys:
        store.put(key, key.encode())
    assert [one.key for one in store.list("")] == sorted(keys)
    assert [one.key for one in store.list("run/a/")] == ["run/a/1", "run/a/2"]
    assert [one.key for one in store.list("run/a")] == ["run/a b", "run/a-1", "run/a/1", "run/a/2"]
    assert [one.key for one in store.list("run/\u00e9")] == ["run/\u00e9t\u00e9"]
    assert store.list("nothing/here") == []
    assert store.list("run/b/c") == []
    assert store.names() == ["run", "run2"]
    entry = store.list("run/\u4f60\u597d")[0]
    assert entry.size == len(entry.key.encode())
    assert entry.modified > 1e9


def test_delete_takes_what_is_there(store: ObjectStore) -> None:
    store.put("run/a/b", b"1")
    store.put("run/c", b"1")
    store.delete(["run/a/b", "run/none", "none/at/all", "run/c/d"])
    assert [one.key for one in store.list("")] == ["run/c"]
    store.delete([])
    store.delete(["run/c"])
    assert store.names() == []


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a/.", "a\nb", "a\0b", "\x9b", "\udcff"]
)
def test_keys_that_could_leave_the_store_are_refused(store: ObjectStore, key: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.touch()
    for use in (
        lambda: store.put(key, b""),
        lambda: store.get(key),
        lambda: store.put_file(key, source),
        lambda: store.get_file(key, tmp_path / "target"),
        lambda: store.delete([key]),
    ):
        with pytest.raises(StorageError, match="cannot be the key"):
            use()


def test_a_prefix_cannot_leave_the_store_either(store: ObjectStore) -> None:
    for prefix in ("../", "/", "a/../"):
        with pytest.raises(StorageError, match="cannot be the key"):
            store.list(prefix)


def test_a_store_can_be_shipped_to_a_worker_without_its_secrets(store: ObjectStore) -> None:
    store.put("run/x", b"1")
    shipped = pickle.dumps(store)
    assert SECRET.encode() not in shipped
    copy = pickle.loads(shipped)
    assert copy.get("run/x") == b"1"
    assert copy.uri == store.uri


def test_check_passes_and_leaves_nothing(store: ObjectStore) -> None:
    check(store)
    assert store.list("") == []
    assert store.names() == []


def test_many_keys_are_listed_and_deleted_in_pages(s3_address: str) -> None:
    from moto.s3.models import s3_backends

    made = S3Store("many", "", s3_address)
    made._client.create_bucket(Bucket="many")
    keys = [f"run/{number:04d}" for number in range(1005)]
    for key in keys:
        # A thousand requests would take ten seconds; moto's server runs in this process.
        s3_backends["123456789012"]["aws"].put_object("many", key, b"")
    assert [one.key for one in made.list("run/")] == keys
    made.delete(keys)
    assert made.list("") == []


# Addresses


def test_folders_in_all_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert open_store("runs").uri == str(tmp_path / "runs")
    assert open_store("~/runs").uri == "/home/someone/runs"
    assert open_store("/x/y/").uri == "/x/y"
    assert open_store("file:///x/a%20b").uri == "/x/a b"
    assert open_store("file://localhost/x").uri == "/x"
    assert not (tmp_path / "runs").exists()


def test_s3_addresses() -> None:
    assert open_store("s3://my-bucket").uri == "s3://my-bucket"
    assert open_store("s3://my-bucket/a/b/").uri == "s3://my-bucket/a/b"
    assert not is_local("s3://my-bucket")
    assert is_local("runs")
    assert open_store("runs").flush_s == 0.5
    assert open_store("s3://my-bucket").flush_s == 10


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("gs://bucket/x", "s3://bucket"),
        ("http://host/x", "s3://bucket"),
        ("s3:/bucket/x", "s3://bucket"),
        ("", "folder"),
        ("a\0b", "folder"),
        ("~nobody-like-this/x", "home of a user"),
        ("file://host/x", "file:///folder"),
        ("s3://", "bucket name"),
        ("s3://B_A_D/x", "bucket name"),
        ("s3://my-bucket/a/../b", "not allowed"),
        ("s3://my-bucket/a?endpoint_override=x", "not allowed"),
    ],
)
def test_bad_addresses_say_what_is_allowed(uri: str, what: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_store(uri)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_endpoints() -> None:
    for endpoint in ("localhost:9000", "ftp://host", "http://"):
        with pytest.raises(StorageError, match=r"http\(s\)://host:port"):
            open_store("s3://my-bucket", endpoint)
    with pytest.raises(StorageError) as caught:
        open_store("s3://my-bucket", "http://me:hunter2@host:9000")
    assert "hunter2" not in str(caught.value)


def test_endpoint_comes_from_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general:1")
    assert "http://general:1" in told(lambda: open_store("s3://my-bucket"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://special:1")
    assert "http://special:1" in told(lambda: open_store("s3://my-bucket"))
    assert "http://given:1" in told(lambda: open_store("s3://my-bucket", "http://given:1"))


def told(make: Callable[[], ObjectStore]) -> str:
    """Where requests of the store would go, without making one."""
    made = make()
    assert isinstance(made, S3Store)
    return made._place.where


# Disk


def test_a_killed_writer_leaves_nothing_that_shows(tmp_path: Path) -> None:
    script = f"""
import os, sys
from pathlib import Path
from infra.files import replacing
with replacing(Path({str(tmp_path)!r}) / "run" / "big.bin") as file:
    file.write(b"x" * 100000); file.flush()
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -9
    store = DiskStore(tmp_path)
    assert len(os.listdir(tmp_path / "run")) == 1
    assert store.list("") == []
    with pytest.raises(NotFoundError):
        store.get("run/big.bin")
    store.put("run/big.bin", b"whole")
    assert store.get("run/big.bin") == b"whole"


def test_old_leftovers_go_with_their_folder(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    store.put("run/checkpoint/x", b"")
    leftover = tmp_path / "run" / "checkpoint" / f"{TEMP_PREFIX}1"
    leftover.touch()
    store.delete(["run/checkpoint/x"])
    assert leftover.exists(), "it may be a live writer's"
    os.utime(leftover, (0, 0))
    store.delete(["run/checkpoint/x"])
    assert os.listdir(tmp_path) == []


def test_writers_and_deleters_of_one_folder_do_not_fail(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)

    def work(number: int) -> None:
        for _ in range(30):
            store.put(f"run/folder/{number}", b"")
            store.delete([f"run/folder/{number}"])

    with ThreadPoolExecutor(4) as pool:
        builtins.list(pool.map(work, range(4)))


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """A small file system in memory; skips, and says why, where mounting is not permitted."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"NOT TESTED HERE, mounting a tmpfs needs root: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="NOT TESTED HERE: tmpfs is Linux's")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(b"x" * (1 << 18))
    with mounted(tmp_path / "full", "size=64k") as folder:
        store = DiskStore(folder)
        store.put("run/small", b"kept")
        for write in (lambda: store.put("run/large", source.read_bytes()), lambda: store.put_file("run/large", source)):
            with pytest.raises(StorageError, match="no space is left on the device; free some") as caught:
                write()
            assert f"{folder}/run/large" in str(caught.value)
        assert [one.key for one in store.list("")] == ["run/small"]
        assert os.listdir(folder / "run") == ["small"], "a failed write leaves no file behind"
        with pytest.raises(OSError, match="No space"):
            (folder / "fill").write_bytes(b"x" * (1 << 17))
        with pytest.raises(StorageError, match="no space is left"):
            check(store)


def test_no_space_without_a_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*/run/x: no space is left on the device"):
        DiskStore(tmp_path).put("run/x", b"")
    assert os.listdir(tmp_path / "run") == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="NOT TESTED HERE: tmpfs is Linux's")
def test_read_only_storage_is_one_sentence(tmp_path: Path) -> None:
    with mounted(tmp_path / "fixed", "ro") as folder:
        with pytest.raises(StorageError, match=r"read-only; mount it writable"):
            check(DiskStore(folder))
        with pytest.raises(StorageError, match=r"read-only"):
            check(DiskStore(folder / "deeper"))


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a folder")
    for root in (tmp_path / "runs", tmp_path / "runs" / "deeper"):
        with pytest.raises(StorageError, match="is a file where a folder is needed"):
            check(DiskStore(root))
    assert DiskStore(tmp_path / "runs" / "deeper").list("") == []
    with pytest.raises(StorageError, match="is a file where"):
        DiskStore(tmp_path / "runs").names()


@pytest.mark.skipif(os.geteuid() == 0, reason="NOT TESTED HERE: permissions do not bind root")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="permission denied for user"):
        check(DiskStore(tmp_path))


def test_no_permission_told_by_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(StorageError, match="permission denied for user id"):
        DiskStore(tmp_path).put("run/x", b"")


def test_no_hard_links_is_found_by_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", refuse)
    with pytest.raises(StorageError, match="without hard links"):
        check(DiskStore(tmp_path))
    assert DiskStore(tmp_path).list("") == []


def test_a_link_that_nfs_repeated_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def twice(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(files.os, "link", twice)
    DiskStore(tmp_path).put("run/lease", b"mine", if_absent=True)
    assert DiskStore(tmp_path).get("run/lease") == b"mine"


def test_names_that_no_key_can_have_are_not_objects(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a\nb").touch()
    (Path(os.fsdecode(os.fsencode(tmp_path / "run") + b"/\xff"))).touch()
    (tmp_path / "run" / "fine").touch()
    assert [one.key for one in DiskStore(tmp_path).list("")] == ["run/fine"]


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="too long"):
        DiskStore(tmp_path).put("run/" + "x" * 300, b"")


# S3 that answers with errors


@contextmanager
def answering(status: int, code: str, message: str = "Because.") -> Iterator[str]:
    """The address of an S3 server that has only this answer."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # Else boto3 waits a second for "100 Continue".

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            if code == "PermanentRedirect":
                self.send_header("x-amz-bucket-region", "eu-west-1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sentence(use: Callable[[], object]) -> str:
    """The one sentence of the StorageError that `use` ends with."""
    with pytest.raises(StorageError) as caught:
        use()
    text = str(caught.value)
    assert "\n" not in text
    assert SECRET not in text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("status", "code", "what"),
    [
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID AKIA... is not accepted by http://127.0.0.1:"),
        (403, "SignatureDoesNotMatch", "AWS_ACCESS_KEY_ID AKIA... is not accepted by http://127.0.0.1:"),
        (403, "AccessDenied", "access is denied to AWS_ACCESS_KEY_ID AKIA..."),
        (400, "ExpiredToken", "have expired"),
        (301, "PermanentRedirect", "set AWS_REGION to the bucket's region"),
        (301, "Moved", "it redirects elsewhere; check that --storage-endpoint"),
        (400, "AuthorizationHeaderMalformed", "is not in region us-east-1"),
        (404, "NoSuchBucket", "bucket my-bucket does not exist at http://127.0.0.1:"),
        (507, "XMinioStorageFull", "no space is left there"),
        (403, "RequestTimeTooSkewed", "clock is wrong"),
        (418, "Teapot", "cannot write .highwater-probe/"),
    ],
)
def test_what_a_server_refuses_is_one_sentence(status: int, code: str, what: str) -> None:
    with answering(status, code, f"Because of {SECRET}.") as address:
        store = open_store("s3://my-bucket/runs", address)
        text = sentence(lambda: check(store))
        assert what in text
        assert address in text


def test_every_method_translates(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.touch()
    with answering(403, "AccessDenied") as address:
        store = open_store("s3://my-bucket", address)
        for use in (
            lambda: store.get("a"),
            lambda: store.put("a", b""),
            lambda: store.put("a", b"", if_absent=True),
            lambda: store.get_file("a", tmp_path / "target"),
            lambda: store.put_file("a", source),
            lambda: store.list(""),
            lambda: store.names(),
            lambda: store.delete(["a"]),
        ):
            assert "denied" in sentence(use)


def test_a_missing_bucket_says_so(s3_address: str) -> None:
    text = sentence(lambda: check(open_store("s3://not-there", s3_address)))
    assert text == f"bucket not-there does not exist at {s3_address}; create it, or name another in --storage"


def test_a_conflict_that_stays_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: builtins.list[float] = []
    monkeypatch.setattr("infra.s3.time.sleep", pauses.append)
    with answering(409, "ConditionalRequestConflict") as address:
        text = sentence(lambda: open_store("s3://my-bucket", address).put("a", b"", if_absent=True))
    assert "ConditionalRequestConflict" in text
    assert len(pauses) == 4


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    text = sentence(lambda: check(open_store("s3://my-bucket", "http://127.0.0.1:9")))
    assert "no S3 server answers there" in text
    assert "http://127.0.0.1:9" in text


def test_a_web_page_in_place_of_s3() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<html><body>hello"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        assert address in sentence(lambda: open_store("s3://my-bucket", address).list(""))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, s3_address: str) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    text = sentence(lambda: check(open_store("s3://my-bucket", s3_address)))
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in text
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "only-one")
    assert "AWS_SECRET_ACCESS_KEY" in sentence(lambda: check(open_store("s3://my-bucket", s3_address)))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "nobody" in sentence(lambda: open_store("s3://my-bucket", s3_address))


def test_a_store_that_ignores_conditions_is_refused(tmp_path: Path) -> None:
    class Careless(DiskStore):
        def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
            super().put(key, data)

    with pytest.raises(StorageError, match="ignores If-None-Match"):
        check(Careless(tmp_path))
    assert Careless(tmp_path).list("") == []
