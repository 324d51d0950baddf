"""The house style that a linter does not know: names, first lines of docstrings, and sizes of files and functions."""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES, MAX_FUNCTION_LINES = 450, 60

FORBIDDEN_NAMES = frozenset(
    """
    said told asked made found given kept taken seen heard shown held gone lost drawn meant wanted lacking
    each some what how who whom where own ours theirs others many whole it there here them foreign stranger strangers
    anything everything nothing something
    """.split()  # noqa: SIM905
)
"""Participles and pronouns: a name is a noun or a verb, so that it can be read without its context."""

QUESTION_WORD = re.compile(r"(What|Whether|How|Who|Whose|Where|Which|When)\b")
FORMATTER_OFF = re.compile(r"#\s*fmt:\s*(skip|off)")
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
PROSE = re.compile(r"\b[a-z]+(?: [a-z]+){3,}\b")
"""Four words of a sentence. A test matches what an error names, so that the sentence can be improved."""
SIMPLE_STATEMENTS = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Return, ast.Raise, ast.Assert, ast.Delete)

Check = Callable[[ast.Module], list[str]]
"""Maps the code of a file to its violations, each with its line."""


def list_files() -> list[Path]:
    files: list[Path] = [ROOT / "conftest.py"]
    for folder in ("src", "tests", "experiments"):
        files += (ROOT / folder).rglob("*.py")
    return sorted(files)


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def list_nodes(tree: ast.Module) -> list[ast.AST]:
    return list(ast.walk(tree))


def collect(check: Check) -> list[str]:
    """Return the violations of all files."""
    violations = []
    for path in list_files():
        violations += [f"{path.relative_to(ROOT)}:{violation}" for violation in check(parse(path))]
    return violations


def bound_names(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every name that the code binds outside a comprehension, with its line."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, COMPREHENSIONS):
            continue
        if isinstance(child, (*FUNCTIONS, ast.ClassDef)):
            yield child.name, child.lineno
        elif isinstance(child, ast.arg):
            yield child.arg, child.lineno
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id, child.lineno
        elif isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store):
            yield child.attr, child.lineno
        elif isinstance(child, ast.alias) and child.asname:
            yield child.asname, child.lineno
        elif isinstance(child, ast.ExceptHandler) and child.name:
            yield child.name, child.lineno
        yield from bound_names(child)


def find_forbidden_names(tree: ast.Module) -> list[str]:
    return [f"{line}: {name}" for name, line in bound_names(tree) if name.strip("_") in FORBIDDEN_NAMES]


def find_questions(tree: ast.Module) -> list[str]:
    violations = []
    for node in list_nodes(tree):
        # a string that stands alone is a docstring, of a module, a class, a function or a constant
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        docstring = node.value.value if is_text else None
        if isinstance(docstring, str) and QUESTION_WORD.match(docstring.strip()):
            violations.append(f"{node.lineno}: {docstring.strip().splitlines()[0]}")
    return violations


def find_long_functions(tree: ast.Module) -> list[str]:
    violations = []
    for node in list_nodes(tree):
        if isinstance(node, FUNCTIONS):
            num_lines = (node.end_lineno or 0) - node.lineno + 1
            if num_lines > MAX_FUNCTION_LINES:
                violations.append(f"{node.lineno}: {node.name} has {num_lines} lines")
    return violations


def find_nested_comprehensions(tree: ast.Module) -> list[str]:
    violations = []
    for node in list_nodes(tree):
        if isinstance(node, COMPREHENSIONS):
            num_comprehensions = sum(isinstance(child, COMPREHENSIONS) for child in ast.walk(node))
            if num_comprehensions > 1 or len(node.generators) > 1:
                violations.append(f"{node.lineno}: nested comprehension")
    return violations


def find_several_conditionals(tree: ast.Module) -> list[str]:
    violations = []
    for node in list_nodes(tree):
        if isinstance(node, SIMPLE_STATEMENTS):
            num_conditionals = sum(isinstance(child, ast.IfExp) for child in ast.walk(node))
            if num_conditionals > 1:
                violations.append(f"{node.lineno}: {num_conditionals} conditional expressions")
    return violations


def list_targets(target: ast.expr) -> list[str]:
    """Return the names of a target, or of the first argument of ``parametrize``."""
    if isinstance(target, ast.Constant):
        return str(target.value).replace(",", " ").split()
    elements = getattr(target, "elts", [target])
    return [str(getattr(element, "id", getattr(element, "value", ""))) for element in elements]


def bound_literals(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield each name that an assignment, a loop or ``parametrize`` binds, with each of its literal values."""
    if isinstance(node, ast.Assign):
        names, rows = list_targets(node.targets[0]), [node.value]
    elif isinstance(node, ast.For):
        names, rows = list_targets(node.target), getattr(node.iter, "elts", [])
    elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "parametrize":
        names, rows = list_targets(node.args[0]), getattr(node.args[1], "elts", [])
    else:
        return
    for row in rows:
        cells = [row] if len(names) == 1 else getattr(row, "elts", getattr(row, "args", []))
        yield from zip(names, cells, strict=False)


def find_matched_sentences(tree: ast.Module) -> list[str]:
    patterns: list[ast.AST] = []
    for node in list_nodes(tree):
        if isinstance(node, ast.keyword) and node.arg == "match":
            patterns.append(node.value)
    names: set[str] = set()
    for pattern in patterns:
        names |= {node.id for node in ast.walk(pattern) if isinstance(node, ast.Name)}
    for node in list_nodes(tree):
        patterns += [value for name, value in bound_literals(node) if name in names]
    violations = []
    for pattern in patterns:
        for node in ast.walk(pattern):
            if isinstance(node, ast.Constant) and (prose := PROSE.search(str(node.value))):
                violations.append(f"{node.lineno}: {prose[0]}")
    return violations


def test_names_are_nouns_and_verbs() -> None:
    assert not collect(find_forbidden_names), "say what the thing is"


def test_docstrings_state_a_result() -> None:
    assert not collect(find_questions), "begin with what comes out, not with a question word"


def test_functions_are_short() -> None:
    assert not collect(find_long_functions), f"at most {MAX_FUNCTION_LINES} lines"


def test_comprehensions_are_flat() -> None:
    assert not collect(find_nested_comprehensions), "write a loop, or name a function"


def test_a_statement_has_one_conditional() -> None:
    assert not collect(find_several_conditionals), "write an if statement"


def test_no_test_matches_a_sentence() -> None:
    assert not collect(find_matched_sentences), "match what the error names: the file, the key, the choices, the cure"


def test_files_are_short() -> None:
    num_lines = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in list_files()}
    assert not {path: count for path, count in num_lines.items() if count > MAX_FILE_LINES}


def test_no_file_switches_the_formatter_off() -> None:
    violations = []
    for path in list_files():
        if path != Path(__file__) and FORMATTER_OFF.search(path.read_text(encoding="utf-8")):
            violations.append(path)
    assert not violations


def test_every_check_sees_a_violation() -> None:
    """Each check reports the code that it is for."""
    filler = "    pass\n" * MAX_FUNCTION_LINES
    code = f'''def kept(each):
    """What it does."""
    made = [y for x in each for y in x]
    return 1 if made else 2 if each else 3
def long():
{filler}
@pytest.mark.parametrize("value, message", [(1, "b must be a c"), pytest.param(2, f"{{b}}: it must be a c")])
def test(value, message):
    cure = "leave out"
    with raises(match=message): pass
    with raises(match=cure + "there is no such file"): pass'''
    tree = ast.parse(code)
    assert find_forbidden_names(tree) == ["1: kept", "1: each", "3: made"]
    assert find_questions(tree) == ["2: What it does."]
    assert find_nested_comprehensions(tree) == ["3: nested comprehension"]
    assert find_several_conditionals(tree) == ["4: 2 conditional expressions"]
    assert find_matched_sentences(tree) == [
        f"{MAX_FUNCTION_LINES + 11}: there is no such file",
        f"{MAX_FUNCTION_LINES + 7}: b must be a c",
        f"{MAX_FUNCTION_LINES + 7}: it must be a c",
    ]
    assert find_long_functions(tree) == [f"5: long has {MAX_FUNCTION_LINES + 1} lines"]
