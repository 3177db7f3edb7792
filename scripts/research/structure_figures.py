"""What can be read from the files of a checkout: sizes, names, imports, constants.

- A function's lines are those from `def` to its end, without decorators and docstring.
- A public function is one whose own name has no underscore, wherever it stands.
- A cycle is a set of modules that reach each other by imports, TYPE_CHECKING's left out.
- A constant is a number that a module gives a name in capitals; a table is several in one.
"""

import ast
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

PACKAGE = "localspec"
Function = ast.FunctionDef | ast.AsyncFunctionDef
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Module:
    """One file: its dotted name, its formatted text and its tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def n_lines(self) -> int:
        return len(self.text.splitlines())

    def all_of(self, *kinds: type[ast.AST]) -> Iterator[Any]:
        """Nodes of these kinds, wherever they stand."""
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))


def modules_of(checkout: Path) -> list[Module]:
    """Every module of the package, as `ruff format` writes it by the checkout's own settings."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(checkout / PACKAGE, copy / PACKAGE, ignore=shutil.ignore_patterns("*.pyc"))
        shutil.copy(checkout / "pyproject.toml", copy)
        ruff = Path(sys.executable).with_name("ruff")
        subprocess.run([ruff, "format", "--quiet", copy], check=True)
        return [_module(path, copy) for path in sorted((copy / PACKAGE).rglob("*.py"))]


def _module(path: Path, root: Path) -> Module:
    inside = path.relative_to(root)
    name = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
    text = path.read_text(encoding="utf-8")
    return Module(name, inside.relative_to(PACKAGE), text, ast.parse(text))


def figures_of(checkout: Path, policy: Iterable[str]) -> Figures:
    """All that can be read from the files."""
    modules = modules_of(checkout)
    return {
        **_sizes(modules),
        **_functions(modules),
        **_docstrings(modules),
        **_names(modules),
        **_cycles(modules),
        "constants": _constants(modules, policy),
    }


def _sizes(modules: list[Module]) -> Figures:
    lines = [module.n_lines for module in modules]
    return {
        "modules": len(modules),
        "modules_without_init": sum(module.path.stem != "__init__" for module in modules),
        "lines": sum(lines),
        "module_lines": {"median": median(lines), "max": max(lines)},
    }


def _functions(modules: list[Module]) -> Figures:
    found = [function for module in modules for function in module.all_of(*Function.__args__)]
    lines = sorted(map(_code_lines, found))
    shares = {"median": median(lines), "p90": lines[int(0.9 * len(lines))], "max": lines[-1]}
    return {
        "functions": len(found),
        "function_lines": shares,
        "most_parameters": max(map(_n_parameters, found)),
    }


def _code_lines(function: Function) -> int:
    end = function.end_lineno or function.lineno
    return end - function.lineno + 1 - _docstring_lines(function)


def _docstring_lines(function: Function) -> int:
    if ast.get_docstring(function, clean=False) is None:
        return 0
    first = function.body[0]
    return (first.end_lineno or first.lineno) - first.lineno + 1


def _n_parameters(function: Function) -> int:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def _docstrings(modules: list[Module]) -> Figures:
    functions = [node for module in modules for node in module.all_of(*Function.__args__)]
    classes = [node for module in modules for node in module.all_of(ast.ClassDef)]
    return {
        "public_functions_with_docstring": _documented(functions),
        "public_functions_and_classes_with_docstring": _documented([*functions, *classes]),
    }


def _documented(nodes: Iterable[Any]) -> float:
    public = [node for node in nodes if not node.name.startswith("_")]
    return sum(ast.get_docstring(node) is not None for node in public) / len(public)


def _names(modules: list[Module]) -> Figures:
    """What one name stands for several of."""
    classes = _places((c.name, m.name) for m in modules for c in m.all_of(ast.ClassDef))
    aliases = _places((name, m.name) for m in modules for name in _aliases(m.tree))
    both = {name: classes.get(name, set()) | aliases.get(name, set()) for name in classes | aliases}
    files = _places(
        (m.path.name, str(m.path.parent)) for m in modules if not m.path.stem.startswith("__")
    )
    return {
        "class_names_in_several_modules": _several(classes, 2),
        "class_and_alias_names_in_several_modules": _several(both, 2),
        "file_names_in_two_folders": _several(files, 2),
        "file_names_in_three_folders": _several(files, 3),
    }


def _places(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    places: dict[str, set[str]] = defaultdict(set)
    for name, place in pairs:
        places[name].add(place)
    return places


def _several(places: Mapping[str, set[str]], least: int) -> dict[str, list[str]]:
    return {name: sorted(of) for name, of in sorted(places.items()) if len(of) >= least}


def _aliases(tree: ast.Module) -> Iterator[str]:
    """Names of types that a module defines by assignment: `Talk = Callable[[str], None]`."""
    for node in tree.body:
        for target in _targets(node):
            if target[:1].isupper() and not target.isupper():
                yield target


def _targets(node: ast.stmt) -> list[str]:
    """Plain names that a statement assigns to."""
    if isinstance(node, ast.AnnAssign):
        targets: list[ast.expr] = [node.target]
    else:
        targets = node.targets if isinstance(node, ast.Assign) else []
    flat = [e for t in targets for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
    return [target.id for target in flat if isinstance(target, ast.Name)]


def _cycles(modules: list[Module]) -> Figures:
    known = {module.name for module in modules}
    at_top = {module.name: _imported(module, known, within=False) for module in modules}
    anywhere = {module.name: _imported(module, known, within=True) for module in modules}
    plain = _components(at_top)
    return {
        "import_cycles": plain,
        "import_cycles_hidden_in_functions": [c for c in _components(anywhere) if c not in plain],
    }


def _imported(module: Module, known: set[str], *, within: bool) -> set[str]:
    """Modules of the package that this one imports when it is loaded, or `within` functions too."""
    found: set[str] = set()
    for node in _import_statements(module.tree.body, within=within):
        found.update(_modules_named(node, module, known))
    return found - {module.name}


def _import_statements(body: Iterable[ast.AST], *, within: bool) -> Iterator[ast.AST]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _import_statements(node.orelse, within=within)
        elif within or not isinstance(node, Function.__args__):
            yield from _import_statements(ast.iter_child_nodes(node), within=within)


def _modules_named(node: Any, module: Module, known: set[str]) -> Iterator[str]:
    """`from a import b` names the module a.b where that is one, else a."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
        return
    package = module.name if module.path.stem == "__init__" else module.name.rpartition(".")[0]
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    source = ".".join([*above, *([node.module] if node.module else [])])
    for alias in node.names:
        inner = f"{source}.{alias.name}"
        yield from (name for name in (inner if inner in known else source,) if name in known)


def _components(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Sets of modules that reach one another, of more than one."""
    reached = {name: _reached(name, edges) for name in edges}
    sets = {
        tuple(sorted(other for other in reached[name] if name in reached[other])) for name in edges
    }
    return sorted([*found] for found in sets if len(found) > 1)


def _reached(start: str, edges: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = [*edges[start]]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += edges[name]
    return found


def _constants(modules: list[Module], policy: Iterable[str]) -> Figures:
    """By file: scalars by name, and tables by name with how many numbers each has."""
    found: Figures = {}
    for module in modules:
        if any(module.path.match(glob) for glob in policy):
            named = dict(_named_numbers(module.tree))
            scalars = [name for name, n in named.items() if n is None]
            tables = {name: n for name, n in named.items() if n is not None}
            found[module.path.as_posix()] = {"scalars": scalars, "tables": tables}
    return found


def _named_numbers(tree: ast.Module) -> Iterator[tuple[str, int | None]]:
    """Names in capitals; None for one number, else how many."""
    for node in tree.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        names = [name for name in _targets(node) if name.strip("_").isupper()]
        if value is None or not names:
            continue
        parts = value.elts if len(names) > 1 and isinstance(value, ast.Tuple) else [value]
        for name, part in zip(names, parts, strict=False):
            if n := _n_numbers(part):
                yield name, None if _is_scalar(part) else n


def _n_numbers(node: ast.AST) -> int:
    kinds = Counter(type(n.value) for n in ast.walk(node) if isinstance(n, ast.Constant))
    return kinds[int] + kinds[float]


def _is_scalar(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant | ast.UnaryOp | ast.BinOp)
