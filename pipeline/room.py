"""How much of the machines a step takes: the memory that is asked for, and how many processes its
tasks may share. Pure: a machine is what Ray counts of it, by name."""

from collections.abc import Mapping, Sequence

from pipeline.stage import Step

MEMORY_SHARE = 0.8
"""A task never asks for more of the largest node's memory: it would wait for ever."""
SHARED_SHARE = 0.5
"""Of a node's memory, for processes that tasks share: the rest is for those that compute."""

Resources = Mapping[str, float]


def memory_of(step: Step, nodes: Sequence[Resources]) -> int:
    """Bytes to ask for; `nodes`: what each machine has of what Ray counts."""
    largest = max(node.get("memory", 0) for node in nodes) * MEMORY_SHARE
    return int(min(step.memory_gb * (1 << 30), largest))


def room_for(step: Step, nodes: Sequence[Resources]) -> int:
    """How many processes its tasks may share: as many as their CPUs allow, and half the memory."""
    memory = max(1, memory_of(step, nodes))
    found = (
        min(node.get("CPU", 0) / step.cpus, node.get("memory", 0) * SHARED_SHARE / memory)
        for node in nodes
    )
    return max(1, sum(map(int, found)))
