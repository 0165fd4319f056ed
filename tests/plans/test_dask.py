"""Dask on loopback: workers and the runner are killed at random, and the plan gets through."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import pytest
from distributed import Client

from tests.plans import programs
from torchsystem.plans import Journal, Plan, Retry
from torchsystem.plans.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUSE = Path(__file__).parents[2]
HEIGHT = 6
PATIENT = {f"DASK_DISTRIBUTED__COMM__TIMEOUTS__{what}": "200s" for what in ("CONNECT", "TCP")}
RUNNER = """
import sys
from distributed import Client
from tests.plans import programs
from torchsystem.plans import Journal, Retry
from pathlib import Path

address, journal, trace, until = sys.argv[1:]
with Client(address) as client:
    plan = programs.pyramid(6, Path(trace), 0.1, Path(until))
    print(plan.run(Journal(journal), executor=client.get_executor, failures=Retry(5, wait=0.1)))
"""
SCHEDULER = """
import sys
from distributed import LocalCluster

if __name__ == "__main__":
    cluster = LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None, host="127.0.0.1")
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
    cluster.close()
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """Start a cluster in a process of its own, and return its address."""
    program = tmp_path / "cluster.py"
    program.write_text(SCHEDULER)
    with (tmp_path / "cluster.log").open("w") as log, python(log, program) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        address = process.stdout.readline().strip()
        assert address.startswith("tcp://127.0.0.1"), (tmp_path / "cluster.log").read_text()
        yield address
        process.stdin.close()
        process.wait(200)


def python(log: TextIO, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python that finds the house; what it complains about goes into a file, for nobody reads in between."""
    return subprocess.Popen(  # noqa: S603 - our own programs
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(HOUSE), "OMP_NUM_THREADS": "1", **PATIENT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )


def workers(journal: Journal) -> list[int]:
    """Return the processes that are doing steps now."""
    records = [record for record in journal.records("pyramid") if record.state == "started" and record.worker]
    found = [Worker.read(record.worker or "") for record in records]
    return [worker.process.pid for worker in found if worker.is_alive()]


def finished(journal: Journal) -> dict[str, str | None]:
    """Return the results that there are."""
    return {record.key: record.result for record in journal.records("pyramid") if record.state == "finished"}


def test_workers_and_the_runner_are_killed_and_the_plan_gets_through(cluster: str, tmp_path: Path) -> None:
    """Each result is once in the journal, and stays; Dask runs tasks again, and finds finished ones done."""
    journal, trace = Journal(tmp_path / "plan.db"), tmp_path / "trace"
    instants = random.Random(int(os.environ.get("SEED", "0")))  # noqa: S311 - not for secrets
    before: dict[str, str | None] = {}
    killed: Counter[str] = Counter()
    wanted = {"worker": 2, "runner": 2}
    enough, deadline = tmp_path / "enough", time.monotonic() + 240
    output: Any = ""
    while not output:
        assert time.monotonic() < deadline, killed
        with (tmp_path / "runner.log").open("a") as log:
            runner = python(log, "-c", RUNNER, cluster, journal.path, trace, enough)
        while runner.poll() is None:
            time.sleep(instants.uniform(0, 0.1))
            victims = workers(journal)
            kinds = sorted(kind for kind in wanted if killed[kind] < wanted[kind])
            if not kinds:
                enough.touch()  # until now the plan cannot get through
            elif victims:
                kind = instants.choice(kinds)
                os.kill(instants.choice(victims) if kind == "worker" else runner.pid, signal.SIGKILL)
                killed[kind] += 1
                time.sleep(instants.uniform(0, 0.3))
            after = finished(journal)
            assert before.items() <= after.items()
            before = after
        output, _ = runner.communicate()
        assert runner.returncode in {0, -signal.SIGKILL}, (tmp_path / "runner.log").read_text()
    assert int(output) == programs.top(HEIGHT)
    assert killed == wanted
    assert len(finished(journal)) == len(programs.pyramid(HEIGHT))
    assert len(trace.read_text().splitlines()) >= len(programs.pyramid(HEIGHT))
    # What was killed was started twice, though it may not have come as far as its trace.
    assert sum(record.attempts for record in journal.records("pyramid")) > len(programs.pyramid(HEIGHT))


def test_a_step_that_is_tried_again_is_done_again(cluster: str, tmp_path: Path) -> None:
    """At once as well: Dask would give back what came of it before, as long as it remembers that."""
    plan, folders = Plan("flaky", [programs.service]), [tmp_path / str(number) for number in range(20)]
    for folder in folders:
        folder.mkdir()
        plan.add("fail-twice", folder=str(folder))
    with Client(cluster) as client:
        result = plan.run(Journal(tmp_path / "plan.db"), executor=client.get_executor, failures=Retry(2, wait=0))
    assert result == 2
