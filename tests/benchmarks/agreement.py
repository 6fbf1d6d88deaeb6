"""Passing tests is not being right: `python tests/benchmarks/agreement.py RUN_DIR`, for a run on QuixBugs.

Each repaired program of a solved rollout and its reference answer the same random inputs, drawn within the
preconditions of the program's docstring, each program in a sandbox run of its own. Where the docstring leaves a choice
(any tree of least weight, any valid order), every right answer agrees; an exception or a time-out agrees with the same
one of the reference. A program with the reference's own syntax tree agrees in any case.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from harness.errors import RepoAgentError, UsageError
from harness.records import Task, Trace
from harness.trace_reader import read_traces
from sandboxes.base import Command, Limits, Resources, Sandbox, SandboxError
from sandboxes.choose import CHOICES, open_backend
from sandboxes.workspace import MappingTree, Workspace
from suites.quixbugs.suite import PROGRAMS, TESTS, QuixbugsSuite
from tools.files import FileState, execute

LIMITS = Limits(cpu_s=120, wall_s=400, output_bytes=32 * 2**20)
DRIVER = """
import collections.abc, importlib, itertools, json, os, signal
from node import Node
CALL_CPU_S, MAX_TIMEOUTS, MAX_ITEMS, MAX_CHARS = 1.0, 5, 10000, 30000
class Timeout(BaseException): pass
def over(number, frame): raise Timeout
def graph(size, edges):
    nodes = [Node(number, None, [], [], [], []) for number in range(size)]
    for edge in edges:
        a, b = nodes[edge[0]], nodes[edge[1]]
        a.successors.append(b), a.outgoing_nodes.append(b)
        b.predecessors.append(a), b.incoming_nodes.append(a)
    return nodes

def arguments(task, data):
    if task in ("breadth_first_search", "depth_first_search", "shortest_path_length"):
        size, edges, start, goal = data
        nodes = graph(size, edges)
        lengths = [{(nodes[a], nodes[b]): length for a, b, length in edges}] if task == "shortest_path_length" else []
        return lengths + [nodes[start], nodes[goal]]
    if task in ("detect_cycle", "reverse_linked_list"):
        nodes = graph(data[0], [])
        for node, following in zip(nodes, nodes[1:] + [None if data[1] is None else nodes[data[1]]]):
            node.successor = following
        return [nodes[0] if nodes else None]
    if task == "topological_ordering":
        nodes = graph(len(data[0]), data[1])
        return [[nodes[number] for number in data[0]]]
    return [{(a, b): weight for a, b, weight in each["edges"]} if isinstance(each, dict) else each for each in data]

def plain(value):
    if value is None or isinstance(value, (bool, int, float, str)): return value
    if isinstance(value, (set, frozenset)): return {"set": sorted(map(plain, value), key=repr)}
    if isinstance(value, collections.abc.Mapping):
        return {"dict": sorted(([plain(key), plain(value[key])] for key in value), key=repr)}
    if isinstance(value, collections.abc.Iterable): return [plain(each) for each in itertools.islice(value, MAX_ITEMS)]
    if not isinstance(value, Node): return {"type": type(value).__name__}
    chain = []
    while isinstance(value, Node) and len(chain) < 50:
        chain, value = chain + [value.value], value.successor
    return {"nodes": chain}

def answer(task, function, args):
    try:
        signal.setitimer(signal.ITIMER_PROF, CALL_CPU_S, 0.1)
        text = json.dumps({"value": plain(function(*args))})
        return text if len(text) <= MAX_CHARS else json.dumps({"raised": "TooLong"})
    except BaseException as error:
        return json.dumps({"raised": type(error).__name__})
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)

out, null = os.fdopen(os.dup(1), "w"), os.open(os.devnull, os.O_RDWR)
for fd in (0, 1, 2): os.dup2(null, fd)
signal.signal(signal.SIGPROF, over)
asked, late = json.load(open("inputs.json")), 0
function = getattr(importlib.import_module("program"), asked["task"])
for data in asked["inputs"]:
    line = answer(asked["task"], function, arguments(asked["task"], data))
    print(line, file=out, flush=True)
    late += line == '{"raised": "Timeout"}'
    if late == MAX_TIMEOUTS: break
print("done", file=out, flush=True)
"""


def ints(rng: Random, least: int = 0, most: int = 12, low: int = -20, high: int = 20) -> list[int]:
    return [rng.randint(low, high) for _ in range(rng.randint(least, most))]


def unique(rng: Random, least: int = 0, most: int = 10) -> list[int]:
    return rng.sample(range(-30, 31), rng.randint(least, most))


def text(rng: Random, most: int) -> str:
    return "".join(rng.choices("abc", k=rng.randint(0, most)))


def search_in_sorted(rng: Random) -> list[Any]:
    arr = sorted(ints(rng, high=0))
    return [arr, rng.choice(arr) if arr and rng.random() < 0.6 else rng.randint(-22, 2)]


def nested(rng: Random, depth: int = 4) -> list[Any]:
    deeper = [depth > 1 and rng.random() < 0.4 for _ in range(rng.randint(0, 4))]
    return [nested(rng, depth - 1) if deep else rng.choice([rng.randint(0, 9), "x", "yz"]) for deep in deeper]


def parentheses(rng: Random) -> list[Any]:
    parens = ""
    for more in ["()"] * rng.randint(0, 6) + [rng.choice(["", "", "(", ")"])]:
        at = rng.randint(0, len(parens))
        parens = parens[:at] + more + parens[at:]
    return [parens]


def almost_sorted(rng: Random) -> list[Any]:
    """Sort keys exceed positions by less than k, so that no element is further than k from its sorted position."""
    arr = sorted(unique(rng))
    k = rng.randint(0, len(arr))
    return [[value for _, value in sorted((place + rng.random() * k, value) for place, value in enumerate(arr))], k]


def palindrome(rng: Random) -> list[Any]:
    size = rng.randint(1, 8)
    half = [rng.choice([9, 9, rng.randint(0, 9)]) for _ in range((size + 1) // 2)]
    half[0] = half[0] or 1
    return [half + half[: size // 2][::-1]]


def postfix(rng: Random, depth: int = 4) -> list[Any]:
    if depth == 0 or rng.random() < 0.2:
        return [float(rng.randint(1, 9))]
    return [*postfix(rng, depth - 1), *postfix(rng, depth - 1), rng.choice("+-*/")]


def wrapped(rng: Random) -> list[Any]:
    """Words shorter than the width, or a single one: on others the reference may never end."""
    cols = rng.randint(2, 14)
    line = "".join("abcdefghijklm"[: rng.randint(1, cols - 1)] + " " * rng.choice([1, 1, 2]) for _ in ints(rng))
    return [rng.choice([line, line.rstrip(), line.rstrip(), "x" * rng.randint(0, 40)]), cols]


def edges(rng: Random, size: int, share: float) -> list[list[int]]:
    return [[u, v] for u in range(size) for v in range(size) if u != v and rng.random() < share]


def two_nodes(rng: Random) -> list[Any]:
    """Without ties, where the reference fails, and sparse: in one of a thousand dense graphs it misses the shortest."""
    size = rng.randint(1, 7)
    links = [[u, v, rng.randint(1, 10**6)] for u, v in edges(rng, size, rng.choice([0.15, 0.3]))]
    return [size, links, rng.randrange(size), rng.randrange(size)]


def weighted(rng: Random, links: list[list[int]]) -> dict[str, Any]:
    """Weights that may be negative, without a negative cycle: around one, differences of heights add up to zero."""
    height = [rng.randint(-6, 6) for _ in range(8)]
    return {"edges": [[u, v, rng.randint(0, 8) + height[u] - height[v]] for u, v in rng.sample(links, len(links))]}


def from_source(rng: Random) -> list[Any]:
    """Every node but the source (0) has an edge to it: the reference fails on others."""
    size = rng.randint(1, 6)
    return [0, weighted(rng, [[rng.randrange(size), v] for v in range(1, size)] + edges(rng, size, 0.2))]


def connected(rng: Random) -> list[Any]:
    size = rng.randint(2, 7)
    links = [[rng.randrange(v), v] for v in range(1, size)] + [[u, v] for u, v in edges(rng, size, 0.4) if u < v]
    return [{"edges": [[u, v, rng.randint(1, 20)] for u, v in rng.sample(links, len(links))]}]


INPUTS: dict[str, Callable[[Random], list[Any]]] = {  # plain data; the driver makes nodes and dictionaries of it
    "bitcount": lambda rng: [rng.randrange(2 ** rng.randint(1, 40))],
    "breadth_first_search": two_nodes,
    "bucketsort": lambda rng: [ints(rng, low=0, high=14), rng.randint(15, 20)],
    "depth_first_search": two_nodes,
    "detect_cycle": lambda rng: [size := rng.randint(1, 20), rng.choice([None, rng.randrange(size)])],
    "find_first_in_sorted": search_in_sorted,
    "find_in_sorted": search_in_sorted,
    "flatten": lambda rng: [nested(rng)],
    "gcd": lambda rng: rng.sample([6 * rng.randint(0, 99), rng.randint(1, 500)], 2),
    "get_factors": lambda rng: [rng.randint(1, 3000)],
    "hanoi": lambda rng: [rng.randint(0, 7), *rng.sample([1, 2, 3], 2)],  # two pegs: on one, the reference is wrong
    "is_valid_parenthesization": parentheses,
    "kheapsort": almost_sorted,
    "knapsack": lambda rng: [rng.randint(0, 40), [[rng.randint(1, 20), rng.randint(0, 30)] for _ in ints(rng, most=7)]],
    "kth": lambda rng: [arr := ints(rng, 1), rng.randrange(len(arr))],
    "lcs_length": lambda rng: [text(rng, 10), text(rng, 10)],
    "levenshtein": lambda rng: [text(rng, 6), text(rng, 6)],
    "lis": lambda rng: [unique(rng, most=14)],
    "longest_common_subsequence": lambda rng: [text(rng, 8), text(rng, 8)],
    "max_sublist_sum": lambda rng: [ints(rng, low=-9, high=9)],
    "mergesort": lambda rng: [ints(rng)],
    "minimum_spanning_tree": connected,
    "next_palindrome": palindrome,
    "next_permutation": lambda rng: [arr if (arr := unique(rng, 2)) != sorted(arr)[::-1] else arr[::-1]],
    "pascal": lambda rng: [rng.randint(1, 20)],
    "possible_change": lambda rng: [rng.sample(range(1, 30), rng.randint(0, 4)), rng.randint(-3, 50)],
    "powerset": lambda rng: [unique(rng, most=6)],
    "quicksort": lambda rng: [ints(rng)],
    "reverse_linked_list": lambda rng: [rng.randint(0, 40), None],
    "rpn_eval": lambda rng: [postfix(rng)],
    "shortest_path_length": two_nodes,
    "shortest_path_lengths": lambda rng: [size := rng.randint(1, 6), weighted(rng, edges(rng, size, 0.35))],
    "shortest_paths": from_source,
    "shunting_yard": lambda rng: [[rng.randint(0, 9), *(t for n in ints(rng, low=0) for t in (rng.choice("+-*/"), n))]],
    "sieve": lambda rng: [rng.randint(1, 400)],
    "sqrt": lambda rng: [rng.uniform(1, rng.choice([4, 300])), rng.choice([0.001, 0.01, 0.1, 0.5])],
    "subsequences": lambda rng: [a := rng.randint(-5, 5), a + rng.randint(-2, 8), rng.randint(1, 4)],
    "to_base": lambda rng: [rng.randint(1, 10 ** rng.randint(1, 9)), rng.randint(2, 36)],
    "topological_ordering": lambda rng: [
        rng.sample(range(size := rng.randint(0, 8)), size),
        [[u, v] for u, v in edges(rng, size, 0.4) if u < v],
    ],
    "wrap": wrapped,
}


def draw(task: str, count: int, seed: int) -> list[list[Any]]:
    """Distinct inputs, fewer than `count` where the program has few."""
    rng = Random(f"{seed}/{task}")
    drawn = {json.dumps(data): data for data in (INPUTS[task](rng) for _ in range(3 * count))}
    return list(drawn.values())[:count]


def agrees(task: str, data: list[Any], got: str, wanted: str) -> bool:
    """Whether two outcomes of the driver, {"value": …} or {"raised": …}, are the same or as good."""
    try:
        mine, its = json.loads(got), json.loads(wanted)
        return bool(mine == its) or acceptable(task, data, mine["value"], its["value"])
    except (TypeError, ValueError, LookupError, AttributeError):
        return False


def acceptable(task: str, data: list[Any], got: Any, wanted: Any) -> bool:
    """Whether a value other than the reference's is right too; may fail on a value of the wrong kind."""
    match task:
        case "breadth_first_search" | "depth_first_search" | "detect_cycle":
            return bool(got) == bool(wanted)
        case "find_in_sorted":
            return bool(got >= 0 and data[0][got] == data[1])
        case "longest_common_subsequence":
            return len(got) == len(wanted) and all(char in rest for rest in map(iter, data) for char in got)
        case "powerset" | "subsequences":
            return sorted(map(sorted, got)) == sorted(map(sorted, wanted))
        case "sqrt":
            return bool(abs(got - math.sqrt(data[0])) <= data[1])
        case "minimum_spanning_tree":
            return spanning_weight(got["set"], data[0]["edges"]) == spanning_weight(wanted["set"], data[0]["edges"])
        case "topological_ordering":
            place = {node["nodes"][0]: position for position, node in enumerate(got)}
            return len(got) == len(place) == len(data[0]) and all(place[u] < place[v] for u, v in data[1])
    return False


def spanning_weight(chosen: list[list[int]], links: list[list[int]]) -> float:
    """Of the chosen edges together; not a number where they leave a node out. KeyError for a foreign edge."""
    weights, reached = {(u, v): weight for u, v, weight in links}, {0}
    for _ in chosen:
        reached.update(node for edge in chosen if reached.intersection(edge) for node in edge)
    return sum(weights[u, v] for u, v in chosen) if reached.issuperset(v for _, v, _ in links) else math.nan


def syntax(source: bytes) -> str:
    """The program's syntax tree without comments, positions and strings that stand alone (docstrings)."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):  # the sandbox may have another Python
        return ""
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [it for it in body if not (isinstance(it, ast.Expr) and isinstance(it.value, ast.Constant))]
    return ast.dump(tree)


def final_tree(task: Task, trace: Trace) -> Workspace:
    """The tree as the rollout left it, replayed from the calls."""
    state = FileState(task.tree)
    for step in trace.steps:
        if step.call.usable and step.call.name == "write_file" and step.error is None:
            state, _ = execute(state, step.call, task.may_edit)
    if trace.steps and state.workspace.digest != trace.steps[-1].digest:
        raise UsageError(f"{trace.header.rollout}: the replayed tree is not the one of the trace")
    return state.workspace


def answers(sandbox: Sandbox, node: bytes, task: str, program: bytes, inputs: list[Any]) -> list[str]:
    """One outcome per input, fewer where the program died or timed out too often. It runs in the sandbox only."""
    asked = json.dumps({"task": task, "inputs": inputs}).encode()
    files = {"agree_driver.py": DRIVER.encode(), "program.py": program, "node.py": node, "inputs.json": asked}
    result = sandbox.run(Workspace(MappingTree(files)), Command(("python3", "agree_driver.py"), limits=LIMITS))
    lines = result.output.splitlines()
    return lines[:-1] if lines[-1:] == ["done"] else [*lines, '{"raised": "died"}']


def report(suite: QuixbugsSuite, sandbox: Sandbox, traces: list[Trace], count: int, seed: int) -> None:
    tasks, agreeing = {task.id: task for task in suite.tasks()}, 0
    node = tasks["detect_cycle"].tree.read(f"{TESTS}/node.py")
    print(f"{'rollout':<32} {'same tree':>9} {'inputs':>6} {'disagree':>8}  first disagreeing input")
    for trace in traces:
        task, inputs = tasks[trace.header.task], draw(trace.header.task, count, seed)
        path = f"{PROGRAMS}/{task.id}.py"
        programs = final_tree(task, trace).read(path), suite.reference(task).read(path)
        got, wanted = (answers(sandbox, node, task.id, program, inputs) for program in programs)
        if len(wanted) != len(inputs):
            raise SandboxError(f"the reference of {task.id} gave {len(wanted)} answers to {len(inputs)} inputs")
        compared = list(zip(inputs, got, wanted, strict=False))
        differ = [f"{data}: {mine}, not {its}" for data, mine, its in compared if not agrees(task.id, data, mine, its)]
        same = syntax(programs[0]) == syntax(programs[1])
        agreeing += same or not differ
        row = f"{trace.header.rollout:<32} {'yes' if same else 'no':>9} {len(compared):>6} {len(differ):>8}"
        print(row, "", *(words[:150] for words in differ[:1]), flush=True)
    print(f"agree with the reference on further inputs: {agreeing} of {len(traces)} solved")


def main() -> None:
    parser = argparse.ArgumentParser(description="Do repaired programs agree with the references on further inputs?")
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--sandbox", choices=CHOICES, default="auto")
    parser.add_argument("--inputs", type=int, default=300, help="inputs per program (default: 300)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        suite = QuixbugsSuite()
        traces = [trace for trace in read_traces(args.run) if trace.score is not None and trace.score.value == 1.0]
        if any(trace.header.suite != suite.name for trace in traces):
            raise UsageError(f"{args.run} is no run on {suite.name}")
        backend, notices = open_backend(args.sandbox)
        with closing(backend), backend.open(Resources()) as sandbox:
            print("".join(f"{notice}\n" for notice in notices), end="", file=sys.stderr)
            report(suite, sandbox, sorted(traces, key=lambda trace: trace.header.rollout), args.inputs, args.seed)
    except (RepoAgentError, SandboxError) as error:
        raise SystemExit(f"agreement: {error}") from error


if __name__ == "__main__":
    main()
