"""A pool of worker processes that run mutants in parallel.

Each worker has a separate store and gets one mutant after the other. If a worker ends or takes too long, its mutant
counts as survived (it was not seen to be killed), and a new worker replaces it.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any

Event = dict[str, Any]
Start = Callable[[dict[str, Any]], "subprocess.Popen[str]"]
Read = Callable[[str, str], Event | None]
Watch = Callable[[Event], None]


class Crew:
    """Some workers. *start* makes a worker's process for a request, *read* one of its lines of this run's token."""

    def __init__(self, request: dict[str, Any], start: Start, read: Read, *, timeout: float) -> None:
        self._request = request
        self._start = start
        self._read = read
        self._timeout = timeout
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self, mutants: Sequence[Event], jobs: int, watch: Watch) -> list[Event]:
        """Run all *mutants*, *jobs* at a time; return their events in the order of *mutants*."""
        waiting: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
        for pair in enumerate(mutants):
            waiting.put(pair)
        events: dict[int, Event] = {}

        def done(place: int, event: Event) -> None:
            with self._lock:
                events[place] = event
                watch({**event, "done": len(events), "total": len(mutants)})

        threads = [threading.Thread(target=self._man, args=(waiting, done)) for _ in range(min(jobs, len(mutants)))]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._stop()
            for thread in threads:
                thread.join()
            raise
        return [events[place] for place in sorted(events)]

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()

    def _man(self, waiting: queue.SimpleQueue[tuple[int, Event]], done: Callable[[int, Event], None]) -> None:
        process: subprocess.Popen[str] | None = None
        try:
            while not self._stopped:
                try:
                    place, mutant = waiting.get_nowait()
                except queue.Empty:
                    break
                if process is None:
                    process = self._new()
                event = self._ask(process, mutant)
                if event is None:
                    self._end(process)
                    process = None
                    event = {**mutant, "killed_by": [], "reasons": [f"its process ended, or took {self._timeout:g} s"]}
                done(place, event)
        finally:
            if process is not None:
                self._end(process)

    def _new(self) -> subprocess.Popen[str]:
        process = self._start(self._request)
        with self._lock:
            self._running.add(process)
            if self._stopped:
                process.kill()
        return process

    def _ask(self, process: subprocess.Popen[str], mutant: Event) -> Event | None:
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(self._timeout, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps(mutant["name"]) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                event = self._read(line, self._request["token"])
                if event is None:
                    continue
                if event["event"] == "error":
                    return {**mutant, "killed_by": [], "reasons": [event["message"]]}
                if event["event"] == "mutant" and event["name"] == mutant["name"]:
                    return {**mutant, "killed_by": list(event["killed_by"]), "reasons": list(event["reasons"])}
        except OSError:
            return None
        finally:
            timer.cancel()
        return None

    def _end(self, process: subprocess.Popen[str]) -> None:
        """Let it clean up behind itself, but not for ever."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
        except OSError:
            process.kill()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        with self._lock:
            self._running.discard(process)
