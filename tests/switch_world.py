"""Workers that write to a tenant while it is switched, and know what must be there in the end."""

import json
import random
import threading
import time
from contextlib import ExitStack

import vectoracl as v
from vectoracl import Chunk, F, hazmat, testing
from vectoracl.copying.switch import Switch

REASON = "a test of switches"
ANN = testing.principal("ann", "acme")


def rows(acl, store, tenant="acme"):
    found = hazmat.operate(acl, store=store, reason=REASON).read(tenant, 10_000).hits
    return sorted((hit.tag, hit.text, tuple(hit.vector.tolist()), json.dumps(hit.metadata)) for hit in found)


def run(work, tries):
    """Run a switch, again where the stores differ: Qdrant's local mode may show rows late next to many threads."""
    for left in reversed(range(tries)):
        try:
            return work.run()
        except v.StoreError as error:
            if error.code != "differs" or not left:
                raise
    raise AssertionError("unreachable")


class Work:
    """Writes to documents of its own while a switch runs, and knows what must be there in the end."""

    def __init__(self, acl, number, seed, dimension=2):
        self.handle = acl.scoped(ANN)
        self.number = number
        self.random = random.Random(seed)
        self.dimension = dimension
        self.expected = {}
        self.faults = []
        self.calls = 0

    def step(self):
        document = f"w{self.number}-{self.random.randrange(4)}"
        kind = self.random.randrange(4)
        word = f"{self.random.random()}"
        some = [
            Chunk(f"c{n}", document, f"{word} {n}", [1.0, float(n), *[0.5] * (self.dimension - 2)])
            for n in self.random.sample(range(6), 3)
        ]
        mine = self.expected.setdefault(document, {})
        if kind == 0:
            self.handle.replace(document, iter(some))
            self.expected[document] = {one.id: one.text for one in some}
        elif kind == 1:
            self.handle.delete(document=document)
            self.expected[document] = {}
        else:
            self.handle.upsert(one for one in some)  # can be iterated once only
            mine.update({one.id: one.text for one in some})
        self.check(document)
        self.calls += 1

    def check(self, document):
        found = [(hit.id, hit.text) for hit in self.handle.scan(F["@document"] == document)]
        if sorted(found) != sorted(self.expected[document].items()):
            self.faults.append((document, found, self.expected[document]))

    def run(self, stop):
        try:
            while not stop.is_set() and not self.faults:
                self.step()
        except BaseException as error:
            self.faults.append(error)


def interleaved(acl, made, seed, targets, workers=4, beside=0.05, dimension=2):
    """Switch acme through *targets* while workers of several processes' configurations write and read."""
    with ExitStack() as stack:
        others = [acl, stack.enter_context(v.VectorACL(made))]
        stop = threading.Event()
        works = [Work(others[n % 2], n, f"{seed}-{n}", dimension) for n in range(workers)]
        threads = [threading.Thread(target=one.run, args=(stop,)) for one in works]
        for one in threads:
            one.start()
        try:
            for to in targets:
                time.sleep(beside)
                work = Switch(acl, "acme", to, reason=REASON, batch=5)
                run(work, tries=5 if acl.config.stores[to].adapter == "qdrant" else 1)
                if random.Random(f"{seed}{to}").random() < 0.5:
                    work.remove_former()
            time.sleep(beside)
        finally:
            stop.set()
            for one in threads:
                one.join(60)
        for one in works:
            assert not one.faults, one.faults
            assert one.calls > 2
            for document in one.expected:
                one.check(document)
            assert not one.faults, one.faults
        expected = sum(len(part) for one in works for part in one.expected.values())
        assert len(rows(acl, targets[-1])) == expected
