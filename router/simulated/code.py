"""Trace small Python programs with an interpreter of its own, and wrongly: loops too long or short, // rounded up."""

import ast
import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from router.simulated.reading import Method, Reading

_ASKED = re.compile(r"program print|trace this code|what is printed|its output|what this prints", re.I)
_LINE = re.compile(r"^(?:\s+\S.*|[a-z_]\w* [-+*]?= .*|for .*:|while .*:|if .*:|else:|print\(.*\))$")
_MAX_STEPS = 20_000
_OPERATORS: dict[type[ast.AST], Callable[..., object]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Mod: operator.mod,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip


class UntraceableError(Exception):
    """A program that goes beyond what is understood here, or runs too long."""


@dataclass
class Tracer:
    """Interprets assignments, loops over range, while, if, lists, len, sum and print.

    extra_pass: a range runs this many passes too far. max_passes: loops stop after so many.
    floor_divide: what `//` is taken for.
    """

    extra_pass: int = 0
    max_passes: int | None = None
    floor_divide: Callable[[int, int], int] = operator.floordiv
    names: dict[str, object] = field(default_factory=dict)
    printed: list[str] = field(default_factory=list)
    n_steps: int = 0

    def run(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            self.step(statement)

    def step(self, node: ast.stmt) -> None:
        self.n_steps += 1
        if self.n_steps > _MAX_STEPS:
            raise UntraceableError("too long")
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.names[name] = self.value(value)
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                self.names[name] = self.apply(op, self.names.get(name), self.value(value))
            case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=bounds), body=body):
                passes = range(*self.bounds(bounds))
                for item in passes[: self.max_passes]:
                    self.names[name] = item
                    self.run(body)
            case ast.While(test=test, body=body):
                n_passes = 0
                while self.value(test) and n_passes != self.max_passes:
                    n_passes += 1
                    self.run(body)
            case ast.If(test=test, body=body, orelse=orelse):
                self.run(body if self.value(test) else orelse)
            case ast.Expr(value=ast.Call(func=ast.Name(id="print"), args=shown)):
                self.printed.append(" ".join(str(self.value(one)) for one in shown))
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=[one])):
                items = self.names.get(name)
                if not isinstance(items, list):
                    raise UntraceableError(ast.dump(node))
                items.append(self.value(one))
            case _:
                raise UntraceableError(ast.dump(node))

    def bounds(self, arguments: Sequence[ast.expr]) -> list[int]:
        values = [value for value in map(self.value, arguments) if isinstance(value, int)]
        if not 1 <= len(values) <= 2 or len(values) != len(arguments):
            raise UntraceableError("range")
        return [*values[:-1], values[-1] + self.extra_pass]

    def value(self, node: ast.expr) -> object:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name) if name in self.names:
                return self.names[name]
            case ast.List(elts=elements):
                return [self.value(one) for one in elements]
            case ast.BinOp(left=left, op=op, right=right):
                return self.apply(op, self.value(left), self.value(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self.apply(op, self.value(left), self.value(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.apply(ast.Sub(), 0, self.value(operand))
            case ast.Subscript(value=container, slice=place):
                return self.item(self.value(container), self.value(place))
            case ast.Call(func=ast.Name(id=("len" | "sum") as name), args=[argument]):
                items = self.value(argument)
                if isinstance(items, list | str):
                    return len(items) if name == "len" else sum(items)
        raise UntraceableError(ast.dump(node))

    def item(self, items: object, place: object) -> object:
        if isinstance(items, list | str) and isinstance(place, int) and -len(items) <= place < len(items):
            return items[place]
        raise UntraceableError("index")

    def apply(self, op: ast.AST, left: object, right: object) -> object:
        try:
            if isinstance(op, ast.FloorDiv) and isinstance(left, int) and isinstance(right, int):
                return self.floor_divide(left, right)
            return _OPERATORS[type(op)](left, right)
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise UntraceableError(str(error)) from error


def read(prompt: str) -> Reading | None:
    """Parse a prompt that shows a program; none when it is something else, or is not understood."""
    if not _ASKED.search(prompt):
        return None
    program = "\n".join(line for line in prompt.replace("```python", "").split("\n") if _LINE.match(line))
    try:
        tree = ast.parse(program)
        exact = _trace(tree, Tracer())
    except (SyntaxError, UntraceableError):
        return None
    n_branches = len(re.findall(r"^\s*(?:if|else|while|for)\b", program, re.M))
    printed = " ".join(exact.printed)
    return Reading(
        family="code tracing",
        difficulty=min(10.0, 2.2 * math.log(max(1, exact.n_steps - 3)) - 3.2 + 0.9 * n_branches),
        right=Method("traced every pass", printed),
        slips={
            "careless": Method("ran each range one pass too far", _slip(tree, Tracer(extra_pass=1), printed)),
            "shortcut": Method(
                "traced the first three passes of each loop", _slip(tree, Tracer(max_passes=3), printed)
            ),
            "confused": Method(
                "rounded // up and ran each range one pass too short",
                _slip(tree, Tracer(extra_pass=-1, floor_divide=lambda a, b: -(-a // b)), printed),
            ),
        },
    )


def _trace(tree: ast.Module, tracer: Tracer) -> Tracer:
    tracer.run(tree.body)
    return tracer


def _slip(tree: ast.Module, tracer: Tracer, otherwise: str) -> str:
    """What a wrong way of tracing prints; where it leads nowhere, one more than what is right."""
    try:
        return " ".join(_trace(tree, tracer).printed)
    except UntraceableError:
        return str(int(otherwise) + 1) if otherwise.lstrip("-").isdigit() else "nothing"
