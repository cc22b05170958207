from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from gymnasium import spaces

from uepo_lib import loading, remote, storage, tasks
from uepo_lib.errors import UsageError
from uepo_lib.storage import Trajectory
from uepo_lib.tasks import Task

TASK = tasks.get("hopper-medium@minari")
KITCHEN = tasks.get("kitchen-mixed@minari")
BOX = spaces.Box(-np.inf, np.inf, (11,))


def arms(size: int = 3, low: float = -1.0, high: float = 1.0) -> spaces.Box:
    return spaces.Box(low, high, (size,))


def keyed(**parts: spaces.Space[Any]) -> spaces.Dict:
    return spaces.Dict(parts)


GOAL = spaces.Dict({"kettle": spaces.Box(-1, 1, (7,))})


def trajectory(state_dim: int = 11, action_dim: int = 3, steps: int = 5) -> Trajectory:
    generator = np.random.default_rng(0)
    return Trajectory(
        observations=generator.normal(size=(steps + 1, state_dim)),
        actions=generator.uniform(-1, 1, (steps, action_dim)).astype(np.float32),
        rewards=np.arange(float(steps)),
        terminated=False,
        truncated=True,
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for what is on the remote: the dataset, and its namespaces."""
    shelf = tmp_path_factory.mktemp("remote")
    storage.write_dataset(TASK, [trajectory()], shelf, metadata={}, algorithm="none")
    (shelf / "mujoco" / "namespace_metadata.json").write_text(
        json.dumps({"datasets": [TASK.dataset_id], "namespaces": ["mujoco/hopper"]})
    )
    (shelf / "mujoco" / "hopper" / "namespace_metadata.json").write_text("{}")
    return shelf


class Shelf:
    """A remote for Minari: a folder on this machine, given as ``shelf://FOLDER``."""

    breaks_off = False

    def __init__(self, name: str, token: str | None) -> None:
        self.folder = Path(name)

    def list_datasets(self, prefix: str | None = None) -> Iterator[str]:
        for path in self.folder.rglob("data/metadata.json"):
            dataset_id = str(path.parents[1].relative_to(self.folder))
            if dataset_id.startswith(prefix or ""):
                yield dataset_id

    def get_dataset_metadata(self, dataset_id: str) -> Any:
        return json.loads((self.folder / dataset_id / "data" / "metadata.json").read_text())

    def download_dataset(self, dataset_id: str, path: Path) -> None:
        shutil.copytree(self.folder / dataset_id, Path(path) / dataset_id)
        if self.breaks_off:
            (Path(path) / dataset_id / "data" / "main_data.hdf5").unlink()
            raise ConnectionResetError("peer went away\nwith two lines")

    def list_namespaces(self) -> list[str]:
        found = self.folder.rglob("namespace_metadata.json")
        return [str(path.parent.relative_to(self.folder)) for path in found]

    def download_namespace_metadata(self, namespace: str, path: Path) -> None:
        (Path(path) / namespace).mkdir(parents=True, exist_ok=True)


@pytest.fixture
def shelf(published: Path, monkeypatch: pytest.MonkeyPatch) -> type[Shelf]:
    import minari.storage.remotes as remotes

    monkeypatch.setitem(remotes._registry, "shelf", lambda: Shelf)
    monkeypatch.setenv("MINARI_REMOTE", f"shelf://{published}")
    monkeypatch.setattr(Shelf, "breaks_off", False)
    return Shelf


def nothing_left(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if not path.name.endswith(".lock")]


# ---- what arrives --------------------------------------------------------------------------------


def test_a_dataset_arrives_whole_and_is_remembered_by_its_hashes(
    shelf: type[Shelf], published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = remote.download(TASK, tmp_path)
    assert target == tmp_path / TASK.dataset_id
    assert capsys.readouterr().out == "", "progress is not what a command prints"
    record = json.loads((target / "arrived.json").read_text())
    for name in ("data/main_data.hdf5", "data/metadata.json"):
        sent = (published / TASK.dataset_id / name).read_bytes()
        assert (target / name).read_bytes() == sent
        assert record["files"][name] == hashlib.sha256(sent).hexdigest()
    assert record["bytes"] == sum((target / name).stat().st_size for name in record["files"])
    assert len(loading.load(TASK, tmp_path)) == 5
    assert not list(tmp_path.glob(".downloading-*"))


def test_what_is_there_is_not_fetched_again_but_verified(
    shelf: type[Shelf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = remote.download(TASK, tmp_path)
    monkeypatch.setattr(remote, "_fetch", lambda *_: pytest.fail("fetched again"))
    assert remote.download(TASK, tmp_path) == target
    data = target / "data" / "main_data.hdf5"
    with data.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(UsageError, match=r"main_data.hdf5 has changed since .*download it again"):
        remote.download(TASK, tmp_path)
    data.unlink()
    with pytest.raises(UsageError, match=r"main_data.hdf5 is missing"):
        remote.verify(target)


def test_what_minari_fetched_by_itself_is_taken_over(
    shelf: type[Shelf], published: Path, tmp_path: Path
) -> None:
    shutil.copytree(published / TASK.dataset_id, tmp_path / TASK.dataset_id)
    remote.verify(remote.download(TASK, tmp_path))


def test_a_download_that_breaks_off_leaves_nothing(
    shelf: type[Shelf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shelf, "breaks_off", True)
    with pytest.raises(UsageError, match="download failed: peer went away with two lines"):
        remote.download(TASK, tmp_path)
    assert nothing_left(tmp_path)
    monkeypatch.setattr(Shelf, "breaks_off", False)
    assert remote.download(TASK, tmp_path).is_dir()


def test_a_dataset_that_the_remote_does_not_have_is_refused(
    shelf: type[Shelf], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="mujoco/hopper/expert") as caught:
        remote.download(tasks.get("hopper-expert@minari"), tmp_path)
    assert "\n" not in str(caught.value)
    assert nothing_left(tmp_path)


def test_a_dataset_for_another_robot_is_refused_and_leaves_nothing(
    shelf: type[Shelf], tmp_path: Path
) -> None:
    walker = tasks.get("walker2d-medium@minari")
    wrong = Task("mine", walker.robot, TASK.dataset_id, "")
    with pytest.raises(UsageError, match=r"actions in .*\(3,\)\); must be \(6,\)"):
        remote.download(wrong, tmp_path)
    assert nothing_left(tmp_path)


def test_a_dictionary_with_a_rule_arrives_as_states(
    shelf: type[Shelf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import minari

    part = trajectory(59, 9)
    goal = {"kettle": np.ones((6, 7))}
    dictionary = {"observation": part.observations, "achieved_goal": goal, "desired_goal": goal}
    episode = dataclasses.replace(storage._buffer(part), observations=dictionary)
    place = tmp_path / "remote"
    place.mkdir()
    wide = spaces.Box(-np.inf, np.inf, (59,), np.float64)
    with storage.minari_root(place):
        minari.create_dataset_from_buffers(
            KITCHEN.dataset_id, [episode], action_space=arms(9),
            observation_space=keyed(observation=wide, achieved_goal=GOAL, desired_goal=GOAL),
            description="", algorithm_name="none", author="none", author_email="none",
            code_permalink="none",
        )  # fmt: skip
    monkeypatch.setenv("MINARI_REMOTE", f"shelf://{place}")
    remote.download(KITCHEN, tmp_path)
    data = loading.load(KITCHEN, tmp_path)
    raw = data.normaliser.inverse(data.states).numpy()
    np.testing.assert_allclose(raw, part.observations[:-1], rtol=0, atol=1e-5)


# ---- what cannot be used -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "observations", "actions", "said"),
    [
        (TASK, BOX, spaces.Discrete(3), r"Discrete\(3\); must be a box"),
        (TASK, BOX, spaces.MultiBinary(3), "must be a box"),
        (TASK, BOX, arms(4), r"\(4,\)\); must be \(3,\) within \[-1, 1\]"),
        (TASK, BOX, arms(low=-2), r"Box\(-2, 1, .*within \[-1, 1\]"),
        (TASK, BOX, arms(high=np.inf), r"Box\(-1, inf"),
        (TASK, spaces.Box(-1, 1, (17,)), arms(), "17 numbers a state; Hopper-v5 has 11"),
        (TASK, spaces.Box(0, 255, (8, 8, 3), np.uint8), arms(), "must be a vector"),
        (TASK, spaces.Discrete(5), arms(), "must be a vector"),
        (TASK, keyed(observation=BOX), arms(), r"dictionary .*\(observation\).* rule takes none"),
        (KITCHEN, keyed(achieved_goal=GOAL), arms(9), "rule takes observation"),
        (KITCHEN, keyed(observation=GOAL), arms(9), "must be a vector"),
        (KITCHEN, keyed(observation=BOX, desired_goal=GOAL), arms(9), "11 numbers a state"),
    ],
)
def test_spaces_without_a_use_are_refused_in_one_line(
    task: Task, observations: Any, actions: Any, said: str
) -> None:
    dataset = SimpleNamespace(observation_space=observations, action_space=actions)
    with pytest.raises(UsageError, match=said) as caught:
        remote.check_spaces(task, dataset)
    assert "\n" not in str(caught.value)
    assert task.dataset_id in str(caught.value)


def test_spaces_with_a_use_are_not() -> None:
    wide = spaces.Box(-np.inf, np.inf, (59,))
    flat = SimpleNamespace(observation_space=BOX, action_space=arms())
    dictionary = SimpleNamespace(
        observation_space=keyed(observation=wide, achieved_goal=GOAL, desired_goal=GOAL),
        action_space=arms(9),
    )
    remote.check_spaces(TASK, flat)
    remote.check_spaces(KITCHEN, dictionary)


# ---- without a network ---------------------------------------------------------------------------


def refused_within(seconds: float, folder: Path, said: str) -> None:
    started = time.monotonic()
    with pytest.raises(UsageError, match=said) as caught:
        remote.download(TASK, folder)
    assert time.monotonic() - started < seconds
    assert "\n" not in str(caught.value)
    assert nothing_left(folder)


@pytest.fixture
def default_remote(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MINARI_REMOTE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http", "https", "all"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)


@pytest.mark.usefixtures("default_remote")
def test_a_name_that_resolves_to_nothing_is_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    refused_within(2, tmp_path, "hopper-medium@minari: no network: .*does not answer")


@pytest.mark.usefixtures("default_remote")
@pytest.mark.parametrize("hanging", ["getaddrinfo", "create_connection"])
def test_a_network_that_says_nothing_is_given_up_within_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hanging: str
) -> None:
    over = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        over.wait(20)
        raise OSError("timed out")

    monkeypatch.setattr(socket, hanging, hang)
    refused_within(2, tmp_path, "no network")
    over.set()


@pytest.mark.usefixtures("default_remote")
def test_a_port_that_nobody_listens_at_is_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        assert remote._answers(constants.ENDPOINT)
        # the way goes through a proxy if there is one, and then that must answer
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "")
        assert not remote._answers(constants.ENDPOINT)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert remote._answers(constants.ENDPOINT)
    refused_within(2, tmp_path, "no network: 127.0.0.1 does not answer")


@pytest.mark.usefixtures("default_remote")
def test_an_offline_switch_is_respected_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused_within(2, tmp_path, "forbidden by HF_HUB_OFFLINE")


@pytest.mark.usefixtures("default_remote")
def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused_within(2, tmp_path, r"`remote` extra: pip install 'uepo\[remote\]'")


# ---- the default client, against a hub on this machine -------------------------------------------


def hub(published: Path) -> ThreadingHTTPServer:
    """What the default client asks of its server, answered from a folder."""
    commit, files = "c" * 40, [p for p in (published / "mujoco").rglob("*") if p.is_file()]
    names = {str(path.relative_to(published / "mujoco")): path.read_bytes() for path in files}
    api, raw = "/api/datasets/farama-minari/mujoco", "/datasets/farama-minari/mujoco/resolve/"

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            if asked.path == "/api/datasets":
                assert parse_qs(asked.query)["author"] == ["farama-minari"]
                self.send_json([{"id": "farama-minari/mujoco"}])
            elif asked.path.startswith(f"{api}/revision/"):
                about = [{"rfilename": name} for name in names]
                self.send_json({"id": "farama-minari/mujoco", "sha": commit, "siblings": about})
            elif asked.path.startswith(f"{api}/tree/"):
                self.send_json(
                    [
                        {"type": "file", "path": n, "size": len(c), "oid": self.tag(c)}
                        for n, c in names.items()
                    ]
                )
            elif asked.path.startswith(raw):
                self.send(names.get(asked.path.removeprefix(raw).partition("/")[2]))
            else:
                self.send(None)

        do_HEAD = do_GET

        @staticmethod
        def tag(content: bytes) -> str:
            return hashlib.sha1(content).hexdigest()

        def send_json(self, content: Any) -> None:
            self.send(json.dumps(content).encode(), "application/json")

        def send(self, content: bytes | None, kind: str = "application/octet-stream") -> None:
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("ETag", f'"{self.tag(content or b"")}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content or b"")

        def log_message(self, *_: Any) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Hub)


@pytest.mark.slow
def test_the_default_client_downloads_and_writes_nothing_at_home(
    published: Path, tmp_path: Path
) -> None:
    """In a process of its own: the client reads its server's address when it is imported."""
    script = (
        "import sys; from pathlib import Path; from uepo_lib import remote, tasks; "
        f"print(remote.download(tasks.get({TASK.name!r}), Path(sys.argv[1])))"
    )
    server = hub(published)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home, folder = tmp_path / "home", tmp_path / "data"
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "MINARI_", "XDG_"))}
    settings = {
        "HOME": str(home), "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "no_proxy": "127.0.0.1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], env=kept | settings, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    target = folder / TASK.dataset_id
    assert done.stdout == f"{target}\n"
    remote.verify(target)
    sent = published / TASK.dataset_id / "data" / "main_data.hdf5"
    assert (target / "data" / "main_data.hdf5").read_bytes() == sent.read_bytes()
    assert not [path for path in home.rglob("*") if path.is_file()]
