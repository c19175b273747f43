"""Three Weaviate nodes on loopback, each of which can be ended and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from vectoracl.adapter_api.local_servers import network, start
from vectoracl.adapter_api.local_servers.start import Place
from vectoracl_weaviate.demo_server import SPEC

NODES = 3
KEY = "key-of-a-cluster-of-a-test-that-nobody-else-reaches"
RUNNER = """
import json, pathlib, subprocess, sys, time
folder = pathlib.Path(sys.argv[1])
nodes = json.loads((folder / "nodes.json").read_text())
running = {}
while True:
    for name, (command, environment) in nodes.items():
        if (folder / name).exists() and (name not in running or running[name].poll() is not None):
            with open(folder / f"{name}.log", "ab") as log:
                running[name] = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                                 stderr=log)
            (folder / f"{name}.pid").write_text(str(running[name].pid))
    time.sleep(0.05)
"""


@dataclass
class Cluster:
    """The running nodes; `ports` of each by name."""

    folder: Path
    ports: list[dict[str, int]]

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return `[stores.main]`: the first node's address, and those of the others."""
        first, *others = [{"url": f"http://127.0.0.1:{one['http']}", "grpc_port": one["grpc"]} for one in self.ports]
        return {"adapter": "weaviate", **first, "nodes": others, "api_key": KEY, "dimension": 4, **more}

    def ready(self, index: int) -> bool:
        try:
            url = f"http://127.0.0.1:{self.ports[index]['http']}/v1/nodes"
            answer = httpx.get(url, headers={"authorization": f"Bearer {KEY}"}, timeout=5)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200 and sum(one["status"] == "HEALTHY" for one in answer.json()["nodes"]) == sum(
            (self.folder / f"node{number}").exists() for number in range(NODES)
        )

    def wait(self) -> None:
        """Wait until each running node sees all others that run."""
        end = time.monotonic() + 180
        while not all(self.ready(one) for one in range(NODES) if (self.folder / f"node{one}").exists()):
            if time.monotonic() > end:
                said = (self.folder / "node0.log").read_text(errors="replace")[-600:]
                raise start.MissingServerError(f"The cluster did not form: {said}")
            time.sleep(0.3)

    def end(self, index: int, *, killed: bool) -> None:
        """End one node: at once, or as a service manager asks it to."""
        (self.folder / f"node{index}").unlink()
        how = signal.SIGKILL if killed else signal.SIGTERM
        os.kill(int((self.folder / f"node{index}.pid").read_text()), how)

    def begin(self, index: int) -> None:
        """Start one node again, and wait until all are one cluster."""
        (self.folder / f"node{index}").touch()
        self.wait()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Start three nodes. Raises: MissingServerError."""
    program = start.program(SPEC).what
    names = ("http", "grpc", "gossip", "data", "raft", "raft_rpc")
    free = start._free([f"{name}{index}" for index in range(NODES) for name in names])
    ports = [{name: free[f"{name}{index}"] for name in names} for index in range(NODES)]
    for one in ports:
        one["raft_rpc"] = one["raft"] + 1  # where the nodes of one machine expect it of each other
    members = ",".join(f"node{index}:{one['raft']}" for index, one in enumerate(ports))
    nodes = {}
    for index, one in enumerate(ports):
        place = Place(str(folder / f"data{index}"), one, key=KEY)
        environment = {
            **os.environ, **SPEC.environment(place), "CLUSTER_HOSTNAME": f"node{index}",
            "CLUSTER_IN_LOCALHOST": "true", "CLUSTER_JOIN": f"127.0.0.1:{ports[0]['gossip']}", "RAFT_JOIN": members,
            "RAFT_BOOTSTRAP_EXPECT": str(NODES), "FAST_FAILURE_DETECTION": "true", "QUERY_SLOW_LOG_ENABLED": "false",
        }  # fmt: skip
        if index == 0:
            environment.pop("CLUSTER_JOIN")
        nodes[f"node{index}"] = ([program, *SPEC.arguments(place)], environment)
        (folder / f"node{index}").touch()
    (folder / "nodes.json").write_text(json.dumps(nodes))
    (folder / "nodes.json").chmod(0o600)
    carried = ",".join(str(one[name]) for one in ports for name in ("http", "grpc"))
    guard = subprocess.Popen(
        [sys.executable, "-m", "vectoracl.adapter_api.local_servers.guard", str(folder / "runner.log"),
         carried if network.possible() else "-", sys.executable, "-c", RUNNER, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    made = Cluster(folder, ports)
    try:
        made.wait()
        yield made
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(30)
        for index in range(NODES):
            pid = folder / f"node{index}.pid"
            if pid.exists():
                with suppress(ProcessLookupError):
                    os.kill(int(pid.read_text()), signal.SIGKILL)
