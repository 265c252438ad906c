"""A cluster in this process that stands in for Ray: its clock, nodes and actors do as a test says."""

from __future__ import annotations

import copy
import importlib
import sys
import types
from collections import deque

from runners import faults


class RayError(Exception):
    pass


class ActorDiedError(RayError):
    pass


class GetTimeoutError(RayError):
    pass


class Ref:
    """What a call will give, or an object that was put."""

    def __init__(self, actor=None, call=None):
        self.actor, self.call = actor, call
        self.done, self.value, self.error = actor is None, None, None


class Method:
    def __init__(self, actor, name):
        self.actor, self.name, self.beside = actor, name, False

    def options(self, concurrency_group):
        self.beside = concurrency_group == "beside"
        return self

    def remote(self, *arguments):
        ref = Ref(self.actor, (self.name, arguments))
        (self.actor.aside if self.beside else self.actor.queue).append(ref)
        self.actor.world.calls.append((self.actor.number, self.name))
        if self.actor.world.eager:
            self.actor.work()
        return ref


class Actor:
    """A handle and the actor behind it; ``node`` is None while it waits for room."""

    def __init__(self, world, cls):
        self.world, self.cls, self.number = world, cls, len(world.actors)
        self.node, self.dead, self.hung, self.real = None, False, False, None
        self.queue, self.aside = deque(), deque()
        world.actors.append(self)
        world.place()

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return Method(self, name)

    def work(self, until=None):
        """Answer what was asked, in order; at most up to a call."""
        while self.aside and not self.dead and self.node and not self.hung:
            self._answer(self.aside.popleft())
        while self.queue and (self.dead or (self.node and not self.hung)):
            ref = self.queue.popleft()
            self._answer(ref)
            if ref is until:
                return

    def _answer(self, ref):
        ref.done = True
        if self.dead:
            ref.error = ActorDiedError("The actor died.\n\tactor_id: 7\nIts process was killed.")
            return
        self.world.here = self
        self.real = self.real or self.cls()
        name, arguments = ref.call
        given = [a.value if isinstance(a, Ref) else a for a in arguments]
        # a copy, as all that travels: the actor goes on writing into its own arrays
        ref.value = copy.deepcopy(getattr(self.real, name)(*given))


class World:
    """The cluster, and the module ``ray`` to those who import it."""

    def __init__(self, **nodes):
        self.nodes = dict(nodes)  # CPUs by address
        self.actors, self.puts, self.calls, self.here = [], [], [], None
        self.now, self.events, self.eager, self.head = 0.0, [], False, True

    # -- What a test does ------------------------------------------------------------------------

    def at(self, when, event):
        self.events.append((when, event))

    def add_node(self, address, cpus):
        self.nodes[address] = cpus
        self.place()

    def lose_node(self, address):
        del self.nodes[address]
        for actor in self.actors:
            if actor.node == address:
                actor.dead, actor.node = True, None
        self.place()

    def place(self):
        for actor in self.actors:
            if actor.node is None and not actor.dead:
                free = [a for a in self.nodes if self.free(a) >= 1]
                actor.node = max(free, key=self.free, default=None)

    def free(self, address):
        return self.nodes[address] - sum(actor.node == address for actor in self.actors)

    # -- What Ray does ---------------------------------------------------------------------------

    def remote(self, **options):
        assert options["num_cpus"] == 1
        assert options["max_restarts"] == options["max_task_retries"] == 0
        return lambda cls: types.SimpleNamespace(remote=lambda: Actor(self, cls))

    def put(self, value):
        ref = Ref()
        ref.value = value
        self.puts.append(ref)
        return ref

    def get(self, ref, timeout):
        assert ref.done, "got before it was there"
        if ref.error:
            raise ref.error
        return ref.value

    def wait(self, refs, num_returns=1, timeout=None):
        assert timeout is not None, "a wait without a limit"
        for ref in refs:
            if not ref.done:
                ref.actor.work(until=ref)
        if not all(ref.done for ref in refs):
            self.now += timeout
            for event in [event for event in self.events if event[0] <= self.now]:
                self.events.remove(event)
                event[1]()
        ready = [ref for ref in refs if ref.done]
        return ready, [ref for ref in refs if not ref.done]

    def kill(self, actor, no_restart):
        actor.dead, actor.node = True, None
        self.place()

    def install(self, monkeypatch):
        """Be the module, and let what imports it be imported anew; gives the source's modules."""
        monkeypatch.setattr(
            faults, "_process", ""
        )  # a worker made here says that it is this process
        names = ("remote", "put", "get", "wait", "kill")
        module = types.ModuleType("ray")
        for name in names:
            setattr(module, name, getattr(self, name))
        module.nodes = lambda: [
            {"NodeID": a, "NodeManagerAddress": a, "Alive": True, "Resources": {"CPU": float(c)}}
            for a, c in self.nodes.items()
        ]
        module.available_resources = lambda: {"CPU": float(sum(map(self.free, self.nodes)))}
        context = types.SimpleNamespace(get_node_id=lambda: self.here.node, gcs_address="head:6379")
        module.get_runtime_context = lambda: context
        module.util = types.SimpleNamespace(get_node_ip_address=lambda: self.here.node)
        module.exceptions = types.ModuleType("ray.exceptions")
        for error in (RayError, ActorDiedError, GetTimeoutError):
            setattr(module.exceptions, error.__name__, error)
        monkeypatch.setitem(sys.modules, "ray", module)
        monkeypatch.setitem(sys.modules, "ray.exceptions", module.exceptions)
        for name in ("ray", "ray_member"):
            monkeypatch.delitem(sys.modules, f"runners.sources.{name}", raising=False)
        source = importlib.import_module("runners.sources.ray")
        monkeypatch.setattr(source, "time", types.SimpleNamespace(monotonic=lambda: self.now))
        return source
