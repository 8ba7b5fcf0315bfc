"""A grid of calls on a real cluster: a head and two machines on loopback, one core each, started by `ray start`."""

import contextlib
import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
import ray
from datasets import Dataset
from nbformat.v4 import new_code_cell, new_notebook

from mipo_nb import mipo, models, training
from mipo_nb.base.errors import UserError
from mipo_nb.base.files import project_root
from mipo_nb.command import cli, random_models
from mipo_nb.lab import grids, notebooks, runs
from mipo_nb.training import Recipe

HERE = Path(__file__).parent
_FEW = ("--object-store-memory", "80000000", "--disable-usage-stats", "--block", "--node-ip-address", "127.0.0.1")


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


PATIENT = {"RAY_health_check_failure_threshold": "200"}  # two busy cores answer late, and no machine is lost for that


class Machine:
    """A machine of a cluster: the processes that `ray start` starts, with an environment of its own."""

    def __init__(self, *arguments, code=None, **environment):
        paths = os.pathsep.join(map(str, (code or project_root(), HERE)))
        environment = {**os.environ, "PYTHONPATH": paths, **PATIENT, **environment}
        environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
        environment.pop("RAY_ADDRESS", None)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *_FEW, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def stop(self):
        """End it at once, as a cut of power does: the processes that it started, and no other."""
        mine = [psutil.Process(self.process.pid)] if self.process.poll() is None else []
        for one in [*(child for process in mine for child in process.children(recursive=True)), *mine]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()


class Loopback:
    """A cluster on this machine."""

    def __init__(self, cpus=0):
        self.folder = tempfile.mkdtemp(prefix="ray")  # short: the sockets in it may have a hundred characters
        self.address = f"127.0.0.1:{free_port()}"
        head = ["--head", "--port", self.address.rpartition(":")[2], "--num-cpus", cpus, "--temp-dir", self.folder]
        self.clients = None
        if importlib.util.find_spec("grpc"):  # then it serves clients too, each head at a port of its own
            self.clients = f"127.0.0.1:{free_port()}"
            head += ["--ray-client-server-port", self.clients.rpartition(":")[2]]
        self.machines = [Machine(*head, "--include-dashboard", "false")]

    def add(self, **how):
        """A machine with one core that joins."""
        gpus = how.pop("gpus", 0)
        self.machines.append(Machine("--address", self.address, "--num-cpus", 1, "--num-gpus", gpus, **how))
        return self.machines[-1]

    def is_up(self):
        """Whether the head answers, clients too: they come last."""
        return self.machines[0].process.poll() is None and answers(self.clients or self.address)

    def stop(self):
        for machine in reversed(self.machines):
            machine.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_for(holds, seconds=300):
    until = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def answers(address):
    with socket.socket() as opened:
        return not opened.connect_ex(("127.0.0.1", int(address.rpartition(":")[2])))


def started(**how):
    """A `Loopback` whose head has started. Ray ends a head, or a machine, that takes 30 seconds to; busy, it may."""
    for _ in range(4):
        cluster = Loopback(**how)
        time.sleep(1)
        wait_for(lambda cluster=cluster: cluster.machines[0].process.poll() is not None or cluster.is_up())
        if cluster.is_up():
            return cluster
        cluster.stop()
    raise AssertionError("no head has started")


def joined(cluster, n, how):
    """Whether the cluster has more than n machines; a machine that has ended starts again."""
    if len(cluster.machines) < n + 2 or cluster.machines[-1].process.poll() is not None:
        del cluster.machines[n + 1 :]
        cluster.add(**how)
    return ray.cluster_resources().get("CPU", 0) > n


@contextlib.contextmanager
def loopback(**machines):
    """A head without a core of its own and its machines, all of which have joined."""
    cluster = started()
    try:
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
        for n, how in enumerate(machines.values()):  # one by one: two that start at once may take the same ports
            wait_for(lambda n=n, how=how: joined(cluster, n, how))
        yield cluster
    finally:
        ray.shutdown()
        cluster.stop()


def used(cluster, monkeypatch):
    """Runs that are started use this cluster."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("MIPO_NB_WORKERS", "ray")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A cluster of two machines: one sees the runs' folders, the other works in its folder `scratch`."""
    folder = tmp_path_factory.mktemp("scratch")
    with loopback(sees={}, alone={"MIPO_NB_SCRATCH": str(folder)}) as cluster:
        cluster.scratch = folder
        yield cluster


@pytest.fixture
def cluster(pair, monkeypatch):
    used(pair, monkeypatch)
    return pair


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny random model."""
    return random_models.write(tmp_path_factory.mktemp("models") / "tiny", "tiny")


def pairs():
    def said(role, text):
        return [{"role": role, "content": text}]

    texts = ["a bee", "a bus", "a tea", "a sea", "a key", "a fee", "a pea", "a toe"]
    return Dataset.from_list([
        {"prompt": said("user", f"Name {k}."), "chosen": said("assistant", text), "rejected": said("assistant", text[::-1])}
        for k, text in enumerate(texts)
    ])  # fmt: skip


def likelihoods(start, adapter, tokenizer, rows):
    """log p of the pairs of `rows` under a model with an adapter."""
    model, _ = models.load(start, dtype="float32", adapter=adapter)
    return training.reference_log_probabilities(model, tokenizer, rows, batch_size=4)


def trainings(folder, tiny):
    """(run, what three trainings gave, their likelihoods): steps of a function that takes steps itself, then of another that
    takes what they left."""
    run = runs.start("01_test", "smoke", model=tiny, output_dir=folder)
    model, tokenizer = models.load(tiny, dtype="float32")
    numbers = {"learning_rate": 1e-3, "batch_size": 4, "dtype": "float32", "device": "cpu"}
    grid = [{"recipe": Recipe(**numbers, seed=seed)} for seed in range(3)]
    common = {"start": tiny, "reference_model": model, "tokenizer": tokenizer, "preferred": pairs(), "step": run.step}
    trained = run.map("trained", mipo.train, grid, **common)
    adapters = [{"adapter": result["adapter"]} for result in trained]
    return run, trained, run.map("likely", likelihoods, adapters, start=tiny, tokenizer=tokenizer, rows=pairs())


def steps_in(run):
    return {file.parent.name for file in run.folder.parent.glob("steps/*/result.json")}


def test_a_worker_with_other_versions_or_another_commit_is_refused_with_both_named(tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    shutil.copytree(project_root() / "mipo_nb", checkout / "mipo_nb")
    (checkout / "notebooks").mkdir()
    (checkout / "trl-0.0.1.dist-info").mkdir()
    (checkout / "trl-0.0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: trl\nVersion: 0.0.1\n")
    git = ["git", "-C", checkout, "-c", "user.name=A", "-c", "user.email=a@b.example"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "Another"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout[:12]
    monkeypatch.chdir(tmp_path)  # Ray's workers look for code first where the run began
    with loopback(odd={"gpus": 1, "code": checkout}) as cluster, pytest.raises(UserError) as caught:
        used(cluster, monkeypatch)
        run = runs.start("01_test", "smoke", gpus_per_training=1, output_dir=tmp_path / "out")
        run.map("waits", waits, [{"n": 0}], place=str(tmp_path))
    said, here = str(caught.value), grids.workers.versions()
    assert said.startswith(
        f"The worker on {socket.gethostname()} has commit {commit} with changes in place of {here['commit']}, "
    )
    assert f" trl 0.0.1 in place of {here['trl']}; bring it to " in said and "\n" not in said
    assert not steps_in(run)


def test_a_cluster_gives_what_a_loop_gives_bit_for_bit(cluster, tiny, tmp_path, monkeypatch):
    there, *given = trainings(tmp_path / "there", tiny)
    monkeypatch.delenv("MIPO_NB_WORKERS")
    here, *alone = trainings(tmp_path / "here", tiny)
    # Three and three, a reference, three. The last have an adapter in their key, whose layers PEFT lists in the order of a set.
    assert len(steps_in(there)) == len(steps_in(here)) == 10 and len(steps_in(there) & steps_in(here)) >= 7
    for one, other in zip(given[0], alone[0], strict=True):
        assert one["log"] == other["log"] and one["final_adapter"] == other["final_adapter"] != one["initial_adapter"]
        assert one["adapter"].is_relative_to(tmp_path / "there")
        weights = [result["adapter"] / "adapter_model.safetensors" for result in (one, other)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    assert all((one == other).all() for one, other in zip(given[1], alone[1], strict=True))
    on_scratch = {file.parent.name for file in cluster.scratch.glob("steps/*/result.json")}
    assert on_scratch and on_scratch < steps_in(there)  # both had a part in it
    again, *found = trainings(tmp_path / "there", tiny)
    assert all(step["found"] for step in again.steps) and [len(some) for some in found] == [3, 3]
    assert not list(there.folder.parent.glob("steps/.seen-*"))


def waits(n, place, folder):
    """Twice n, as soon as there is a file "go" or one of this number in a place; says there who is at it."""
    with Path(place, f"pid-{n}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    until = time.monotonic() + 300
    while not (Path(place, "go").exists() or Path(place, f"go-{n}").exists()) and time.monotonic() < until:
        time.sleep(0.05)
    (folder / "left.txt").write_text(str(n))
    return [2 * n, folder / "left.txt"]


def at_it(place, n):
    """The processes that have begun a call so far."""
    file = Path(place, f"pid-{n}")
    return file.read_text().split() if file.exists() else []


def test_a_worker_that_is_killed_is_replaced_and_progress_says_where(cluster, tmp_path, monkeypatch):
    progress, seen = tmp_path / "progress.json", []
    monkeypatch.setenv("MIPO_NB_PROGRESS", str(progress))

    def kill():
        wait_for(lambda: at_it(tmp_path, 0) and at_it(tmp_path, 1))
        wait_for(lambda: progress.exists() and "2 running" in progress.read_text())
        seen.append(json.loads(progress.read_text()))
        os.kill(int(at_it(tmp_path, 0)[0]), signal.SIGKILL)
        wait_for(lambda: len(at_it(tmp_path, 0)) == 2 or at_it(tmp_path, 2))  # whichever gets the free core
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill)
    run = runs.start("01_test", "smoke", output_dir=tmp_path / "out")
    killer.start()
    found = run.map("waits", waits, [{"n": n} for n in range(3)], place=str(tmp_path))
    killer.join()
    assert [n for n, _ in found] == [0, 2, 4] and [file.read_text() for _, file in found] == ["0", "1", "2"]
    assert len(set(at_it(tmp_path, 0))) == 2 and len(at_it(tmp_path, 1)) == 1
    where = f"waits: 2 running, 2 on {socket.gethostname()}; 1 waiting; done"
    assert seen == [{"step": where, "done": 0, "total": 3}]


def noted(place):
    with Path(place, "inner").open("a") as file:
        file.write("once\n")
    return 7


def in_stages(stage, place, folder, step):
    """[7, a file of the word "left"]; the first to come waits at a stage: before its own step, after it, in mid-file."""

    def wait_at(here):
        if here == stage and not Path(place, "go").exists():
            Path(place, f"at-{here}").touch()
            wait_for(Path(place, "go").exists)

    with Path(place, "pid-0").open("a") as file:
        file.write(f"{os.getpid()}\n")
    wait_at("before its step")
    inner = step("inner", noted, place)
    wait_at("after its step")
    with (folder / "left.txt").open("w") as file:
        file.write("le")
        file.flush()
        wait_at("in mid-file")
        file.write("ft")
    return [inner, folder / "left.txt"]


@pytest.mark.parametrize("stage", ["before its step", "after its step", "in mid-file", "with its result written"])
def test_a_worker_may_be_killed_at_any_moment(cluster, tmp_path, stage):
    def results():
        written = {*tmp_path.glob("out/**/result.json"), *cluster.scratch.glob("steps/*/result.json")} - before
        return [file for file in written if file.parent.name.startswith(in_stages.__name__)]

    def kill():
        wait_for(Path(tmp_path, f"at-{stage}").exists if stage != "with its result written" else results)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(at_it(tmp_path, 0)[0]), signal.SIGKILL)
        (tmp_path / "go").touch()

    before = set(cluster.scratch.glob("steps/*/result.json"))
    run, killer = runs.start("01_test", "smoke", output_dir=tmp_path / "out"), threading.Thread(target=kill)
    killer.start()
    [(inner, file)] = run.map("stages", in_stages, [{"stage": stage}], place=str(tmp_path), step=run.step)
    killer.join()
    assert inner == 7 and file.read_text() == "left"
    assert len(at_it(tmp_path, 0)) == 2 or stage == "with its result written"


def mistaken(n, place, folder):
    if n == 1:
        raise UserError("Say which bird.")
    return waits(n, place, folder)


def test_a_mistake_on_a_worker_stops_the_run_with_its_sentence_and_the_other_calls(cluster, tmp_path):
    run = runs.start("01_test", "smoke", output_dir=tmp_path / "out")
    (tmp_path / "go-0").touch()
    with pytest.raises(UserError) as caught:
        run.map("mistaken", mistaken, [{"n": n} for n in (1, 2, 0)], place=str(tmp_path))
    assert str(caught.value) == "Say which bird." and caught.value.__cause__ is None
    (tmp_path / "go").touch()
    for number in map(int, at_it(tmp_path, 2)):
        wait_for(lambda pid=number: not psutil.pid_exists(pid))  # a worker that was at another call
    assert len(steps_in(run)) <= 1


def line(rows, n):
    return [rows.read_text().splitlines()[n], rows.is_relative_to("/proc")]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no paths here that one process has and another has not")
def test_a_file_that_a_worker_does_not_have_is_sent_to_it(cluster, tmp_path):
    (tmp_path / "rows.txt").write_text("a\nb\nc\n")
    opened = os.open(tmp_path, os.O_RDONLY)
    rows = Path(f"/proc/self/fd/{opened}/rows.txt")
    run = runs.start("01_test", "smoke", output_dir=tmp_path / "out")
    try:
        found = run.map("line", line, [{"n": n} for n in range(3)], rows=rows)
    finally:
        os.close(opened)
    assert found == [["a", False], ["b", False], ["c", False]]


NOTEBOOK = """
from mipo_nb import runs
run = runs.start("01_grid", PROFILE, output_dir=OUTPUT_DIR)
def squared(n):
    return n * n, __import__("os").getpid()
found = run.map("squared", squared, [{"n": n} for n in range(3)])
run.record("sum", sum(n for n, _ in found))
run.record("elsewhere", sum(pid != __import__("os").getpid() for _, pid in found))
"""


def test_a_notebook_sends_functions_of_its_own_by_an_option(cluster, tmp_path, monkeypatch):
    monkeypatch.delenv("MIPO_NB_WORKERS")
    monkeypatch.setattr(notebooks, "project_root", lambda: tmp_path)
    parameters = new_code_cell('PROFILE = "laptop"\nOUTPUT_DIR = "runs"', metadata={"tags": ["parameters"]})
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (tmp_path / "notebooks").mkdir()
    content = new_notebook(cells=[parameters, new_code_cell(NOTEBOOK)], metadata=kernel)
    nbformat.write(content, tmp_path / "notebooks" / "01_grid.ipynb")
    options = ["--workers", "ray", "--profile", "smoke", "--output-dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["mipo-nb", "run", "01", *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    recorded = json.loads((tmp_path / "out" / "smoke" / "01_grid" / "results.json").read_text())
    assert {one["name"]: one["value"] for one in recorded} == {"sum": 5, "elsewhere": 3}


DRIVER = """
import sys
import test_grids
from mipo_nb.base.errors import UserError
from mipo_nb.lab import runs
try:
    run = runs.start("01_test", "smoke", output_dir=sys.argv[1])
    run.map("waits", test_grids.waits, [{"n": 0}, {"n": 1}], place=sys.argv[2])
except UserError as e:
    print(e)
"""


def test_with_the_head_lost_what_was_finished_is_found(tmp_path):
    alone = started(cpus=1)
    environment = {**os.environ, "RAY_ADDRESS": alone.address, "MIPO_NB_WORKERS": "ray", "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = f"{project_root()}{os.pathsep}{HERE}"
    try:
        command = [sys.executable, "-c", DRIVER, tmp_path / "out", tmp_path]
        driver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        (tmp_path / "go-0").touch()
        wait_for(lambda: list(tmp_path.glob("out/smoke/steps/*/result.json")) and at_it(tmp_path, 1))
    finally:
        alone.stop()
    told, errors = driver.communicate(timeout=60)
    port = alone.address.rpartition(":")[2]
    said = [
        line for line in told.splitlines() if line and "(raylet)" not in line
    ]  # Ray itself may say why its node ended
    assert len(said) == 1, told
    assert re.match(
        rf"The head of the cluster at [\d.]+:{port} does not answer any more; start it and its work", said[0]
    ), errors
    (tmp_path / "go").touch()
    run = runs.start("01_test", "smoke", output_dir=tmp_path / "out")
    found = run.map("waits", waits, [{"n": 0}, {"n": 1}], place=str(tmp_path))
    assert [n for n, _ in found] == [0, 2] and [step["found"] for step in run.steps] == [True, False]


OUTSIDE = """
import sys
import test_grids
from mipo_nb.base.errors import UserError
run, found = test_grids.untrained(sys.argv[1], sys.argv[2])
print([array.tolist() for array in found])
try:
    run.map("mistaken", test_grids.mistaken, [{"n": 1}], place=sys.argv[1])
except UserError as e:
    print(e)
"""


def untrained(folder, tiny):
    """(run, likelihoods of two sets of pairs)."""
    run, (_, tokenizer) = runs.start("01_test", "smoke", model=tiny, output_dir=folder), models.load(tiny)
    grid = [{"rows": pairs()}, {"rows": pairs().select(range(3))}]
    return run, run.map("likely", likelihoods, grid, start=tiny, adapter=None, tokenizer=tokenizer)


@pytest.mark.skipif(importlib.util.find_spec("grpc") is None, reason="Ray's client needs grpc")
def test_from_outside_of_a_cluster_its_head_is_named_and_gives_the_same(cluster, tiny, tmp_path, monkeypatch):
    environment = {**os.environ, "MIPO_NB_WORKERS": f"ray://{cluster.clients}", "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = f"{project_root()}{os.pathsep}{HERE}"
    environment.pop("RAY_ADDRESS")
    command = [sys.executable, "-c", OUTSIDE, tmp_path / "there", tiny]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    monkeypatch.delenv("MIPO_NB_WORKERS")
    here, found = untrained(tmp_path / "here", tiny)
    told = done.stdout.splitlines()
    assert told[-2:] == [str([array.tolist() for array in found]), "Say which bird."], done.stdout + done.stderr
    there = {file.parent.name for file in tmp_path.glob("there/smoke/steps/*/result.json")}
    assert there == steps_in(here) and len(there) == 2


NOBODY = """
from types import SimpleNamespace
from mipo_nb.base.errors import UserError
from mipo_nb.lab import grids
try:
    grids.Cluster("ray", SimpleNamespace(gpus_per_training=0))
except UserError as e:
    print(e)
"""


def test_a_head_that_does_not_answer_is_one_sentence():
    environment = {**os.environ, "RAY_ADDRESS": f"127.0.0.1:{free_port()}", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", NOBODY], env=environment, cwd=project_root(), capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("No cluster answers to --workers ray ("), done.stderr
    assert done.stdout.count("\n") == 1 and done.stderr == ""


@pytest.mark.parametrize(
    "address", ["", "Ray", "dask", "ray:", "ray://", "ray://head", "ray://head:x", "http://head:1"]
)
def test_another_address_is_refused(address):
    with pytest.raises(UserError, match="--workers takes ray, or an address like ray://HEAD:10001, not "):
        grids.checked(address)


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"^--workers ray needs ray, .*: pip install -e '\.\[cluster\]'\.$"):
        grids.checked("ray")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(UserError, match="^--workers ray://head:10001 needs grpc, which is not installed"):
        grids.checked("ray://head:10001")
    assert grids.checked("ray") == "ray"


def test_a_run_on_a_gpu_asks_for_one(monkeypatch):
    monkeypatch.setenv("MIPO_NB_WORKERS", "ray")
    with pytest.raises(UserError, match="its workers are to have none; set gpus_per_training to 1"):
        grids.cluster_of(SimpleNamespace(device="cuda", gpus_per_training=0))
    monkeypatch.delenv("MIPO_NB_WORKERS")
    assert grids.cluster_of(SimpleNamespace(device="cuda", gpus_per_training=0)) is None
