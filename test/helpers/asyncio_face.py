"""The types of the recipes and watched queries as ``txpaxos.aio`` has them, made from the classes with Deferreds."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType

CLASSES = {
    "txpaxos.service.watching": ("Watch",),
    "txpaxos.service.changes": ("EachChange",),
    "txpaxos.recipes.lease": ("Lease",),
    "txpaxos.recipes.permit": ("Hold", "Permit", "Lock", "Semaphore", "Election"),
    "txpaxos.recipes.gathering": ("Party", "Barrier", "DoubleBarrier"),
    "txpaxos.recipes.session": ("Session",),
    "txpaxos.recipes.queue": ("Taken", "Take", "Queue"),
    "txpaxos.recipes.map": ("Map",),
    "txpaxos.recipes.counter": ("Counter",),
    "txpaxos.recipes.set": ("Set",),
    "txpaxos.recipes.recipes": ("Recipes",),
}
"""The classes with methods that give Deferreds, those first that others name as their base."""
SPECIAL = ("__aenter__", "__aexit__", "__aiter__", "__anext__", "__await__")
HEAD = '''"""What ``txpaxos.aio`` gives, for type checkers: recipes and watched queries with coroutines, not Deferreds.

A test writes this file from the classes that it has the names of: ``test/aio/test_recipe_types.py``.
"""
'''


def stub() -> str:
    """The text of ``txpaxos/aio/recipe_types.pyi``, before it is formatted."""
    imports: dict[str, set[str]] = {"typing": {"TypeVar"}}
    classes = []
    own = {name for names in CLASSES.values() for name in names}
    for name, wanted in CLASSES.items():
        module = importlib.import_module(name)
        tree = ast.parse(inspect.getsource(module))
        origins = dict(_origins(tree, name))
        for one in tree.body:
            if isinstance(one, ast.ClassDef) and one.name in wanted:
                made = _class(one, module)
                classes.append(ast.unparse(made))
                for used in _names(made) - own - {"T", *vars(builtins)}:
                    imports.setdefault(origins[used], set()).add(used)
    lines = [
        f"from {module} import {', '.join(sorted(imports[module], key=lambda name: (not name.isupper(), name)))}"
        for module in sorted(imports, key=lambda module: (module.startswith("txpaxos"), module))
    ]
    lines.insert(sum(not one.startswith("from txpaxos") for one in lines), "")
    return "\n".join([HEAD, *lines, '\nT = TypeVar("T")\n', *classes, ""])


def _origins(tree: ast.Module, module: str) -> Iterator[tuple[str, str]]:
    """Where each name of a module comes from."""
    for one in ast.walk(tree):
        if isinstance(one, ast.ImportFrom):
            yield from ((alias.name, str(one.module)) for alias in one.names)
        elif isinstance(one, ast.ClassDef):
            yield one.name, module
        elif isinstance(one, ast.Assign | ast.AnnAssign):
            targets = one.targets if isinstance(one, ast.Assign) else [one.target]
            yield from ((target.id, module) for target in targets if isinstance(target, ast.Name))


def _names(tree: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(tree) if isinstance(one, ast.Name) and not isinstance(one.ctx, ast.Store)}


def _class(found: ast.ClassDef, module: ModuleType) -> ast.ClassDef:
    body: list[ast.stmt] = [found.body[0]]  # Its description.
    for one in found.body:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
            if one.name == "__init__":
                body += _attributes(one, module)
            elif one.name in SPECIAL or not one.name.startswith("_"):
                body.append(method_of(one))
    return ast.ClassDef(found.name, found.bases, [], body, [])


def _attributes(init: ast.FunctionDef | ast.AsyncFunctionDef, module: ModuleType) -> Iterator[ast.stmt]:
    """The public attributes that an object is made with."""
    hints = {one.arg: one.annotation for one in [*init.args.args, *init.args.kwonlyargs]}
    for one in init.body:
        target = (
            one.targets[0] if isinstance(one, ast.Assign) else one.target if isinstance(one, ast.AnnAssign) else None
        )
        if not isinstance(target, ast.Attribute) or target.attr.startswith("_"):
            continue
        hint: ast.expr | None = None
        match one:
            case ast.AnnAssign(annotation=hint):
                pass
            case ast.Assign(value=ast.Name(name)):
                hint = hints[name]
            case ast.Assign(value=ast.Constant(value)):
                hint = ast.Name(type(value).__name__, ast.Load())
            case ast.Assign(value=ast.Attribute(ast.Name(name), attr)):
                hint = ast.Name(getattr(module, ast.unparse(hints[name])).__annotations__[attr], ast.Load())  # type: ignore[arg-type]
        assert hint is not None, ast.unparse(one)
        yield ast.AnnAssign(ast.Name(target.attr, ast.Store()), hint, None, 1)


def method_of(found: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.stmt:
    """A method as asyncio has it, without what it does."""
    returns = found.returns
    is_async = isinstance(found, ast.AsyncFunctionDef) and not any(
        isinstance(one, ast.Yield) for one in ast.walk(found)
    )
    match returns:
        case ast.Subscript(ast.Name("Deferred"), result):
            returns, is_async = result, True
        case ast.Subscript(ast.Name("Generator"), ast.Tuple([_, sent, result])):
            returns = ast.parse(f"Generator[Any, {ast.unparse(sent)}, {ast.unparse(result)}]", mode="eval").body
    body: list[ast.stmt] = [ast.Expr(ast.Constant(...))]
    if ast.get_docstring(found) is not None:
        body = [found.body[0]]
    kind = ast.AsyncFunctionDef if is_async else ast.FunctionDef
    return ast.fix_missing_locations(kind(found.name, found.args, body, found.decorator_list, returns))


def without_layout(text: str) -> str:
    """A program as a tree, with its descriptions without their indents: the same before and after it is formatted."""
    tree = ast.parse(text)
    for one in ast.walk(tree):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            one.value = inspect.cleandoc(one.value).strip()
    return ast.dump(tree)
