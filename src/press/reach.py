"""Which modules of `helpers` a piece of code reaches: names lead to the files that define them.

Importing a package runs all that its `__init__` imports, yet only what a name reaches decides what
code does. A package that is used as anything but `package.name` counts whole, and a module that
does something when it is imported counts wherever any is. Not seen: imports by computed names.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

Dotted = tuple[str, ...]  # ("helpers", "data")
Bound = dict[str, set[tuple[Dotted, Dotted]]]  # by name: a module and what in it; by "*": all of it
DEFINES = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def reached(code: str, source: Path, words: Iterable[str] = ()) -> set[Path]:
    """The modules below `source`/helpers that code reaches, directly or through others.

    words: names that it uses where Python does not parse. Raises SyntaxError for code that is none.
    """
    found = Reach(source)
    found.read(code, (), words)
    if _names(code, ())[0]:
        for file in source.glob("helpers/**/*.py"):
            if _acts(file.read_bytes()):
                found.take(file)
    return found.files


class Reach:
    """The files to which the names read so far lead."""

    def __init__(self, source: Path):
        self.source, self.files = source, set[Path]()
        self.seen = set[tuple[Path, Dotted]]()

    def read(self, code: str | bytes, package: Dotted, words: Iterable[str] = ()) -> None:
        """Follows all names that code of that package uses."""
        bound, used = _names(code, package)
        for name in used | {(word,) for word in words}:
            for module, names in bound.get(name[0], ()):
                self.follow(module, names + name[1:])
            for module, _ in bound.get("*", ()):
                self.follow(module, ())
                self.follow(module, name)

    def take(self, file: Path) -> None:
        if file not in self.files:
            self.files.add(file)
            self.read(file.read_bytes(), self.package(file))

    def package(self, file: Path) -> Dotted:
        return file.parent.relative_to(self.source).parts

    def follow(self, module: Dotted, names: Dotted) -> None:
        place = self.source.joinpath(*module)
        self.enter(place if place.is_dir() else place.with_suffix(".py"), names)

    def enter(self, place: Path, names: Dotted) -> None:
        """Takes what the names, one within the other, mean in a module or in a package's folder."""
        if (place, names) in self.seen:
            return
        self.seen.add((place, names))
        if place.is_file():
            self.take(place)
        elif not names or names[0].startswith("__"):
            for file in place.rglob("*.py"):
                self.take(file)
        file = place if place.is_file() else place / "__init__.py"
        if not names or not file.is_file():
            return
        name, rest = names[0], names[1:]
        bound, _ = _names(file.read_bytes(), self.package(file))
        inner = [p for p in (place / name, place / f"{name}.py") if place.is_dir() and p.exists()]
        for path in inner:
            self.enter(path, rest)
        for module, target in bound.get(name, ()):
            self.follow(module, target + rest)
        for module, _ in bound.get("*", ()):
            self.follow(module, names)
        if not inner and name not in bound:  # defined here
            self.take(file)


@cache
def digest(code: bytes) -> str:
    """A hash of what a module does: no comment, layout or docstring changes it.

    One that speaks of `__doc__` shows its docstrings, so there they count."""
    tree = ast.parse(code)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree) if b"__doc__" not in code else ():
        if isinstance(node, documented) and node.body and _is_text(node.body[0]):
            del node.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@cache
def _acts(code: bytes) -> bool:
    """Whether importing a module does more than to bind names."""

    def binds(node: ast.stmt) -> bool:
        targets = node.targets if isinstance(node, ast.Assign) else []
        changes = any(isinstance(target, (ast.Attribute, ast.Subscript)) for target in targets)
        return isinstance(node, DEFINES) and not changes

    body = ast.parse(code).body
    return not all(binds(n) or _is_text(n) or "__main__" in ast.unparse(n) for n in body)


@cache
def _names(code: str | bytes, package: Dotted) -> tuple[Bound, set[Dotted]]:
    """What the imports of a module in that package bind, and every dotted name that it uses."""
    bound: Bound = {}
    used: set[Dotted] = set()
    todo: list[ast.AST] = [ast.parse(code)]
    while todo:
        node: Any = todo.pop()
        rest: Dotted = ()
        while isinstance(node, ast.Attribute):
            node, rest = node.value, (node.attr, *rest)
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.Name):
            used.add((node.id, *rest))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                path = tuple(alias.name.split("."))
                name, module = (alias.asname, path) if alias.asname else (path[0], path[:1])
                bound.setdefault(name, set()).add((module, ()))
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = above + tuple(node.module.split(".") if node.module else ())
            for alias in node.names:
                names = (alias.name,) if alias.name != "*" else ()
                bound.setdefault(alias.asname or alias.name, set()).add((module, names))
    ours = {n: {target for target in bound[n] if target[0][:1] == ("helpers",)} for n in bound}
    return {name: targets for name, targets in ours.items() if targets}, used
