"""The codes of all errors. Programs match on them: a wording may change, a code may not."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODES = """
    adapter_not_found adopt adopt_differs audit auth bad_dsn bad_value busy client close closed config confinement
    conflict content_refused copy_differs denied differs dimensions embedded embedder erasing error foreign
    foreign_code held incomplete index_dimensions internal invalid_input invalid_principal invalid_tenant journal
    limit locked malformed metric move_in_progress moving mutant no_async_indexing no_database not_offered
    not_provisioned not_visible not_weaviate order permission pgvector_version pool_timeout port posture
    promotion_failed quota rate_limited refused registry rejected replacing reserved_field rights_changed
    scope_violation source_refused stall startup_parameter stopped store stored_form system tenant_not_served
    timeout tls too_complex too_large too_many_columns too_many_connections too_many_tenants too_many_values
    unauthorized unavailable unreachable unsettled unsupported untagged_write untrusted visible
"""
TABLES = {"limits.py": ast.Return, "connect_failures.py": ast.Dict}
"""Files that keep (code, text) pairs: in returned tuples, or as the values of a dict."""


def classes_of_a_code(tree):
    """Return the names of the classes whose first field is `code`."""
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(isinstance(one, ast.AnnAssign) and one.target.id == "code" for one in node.body[:2])
    }


def values(path):
    """Yield the expressions that *path* uses as a code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = classes_of_a_code(tree)
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="code", value=value):
                yield value
            case ast.Assign(targets=[ast.Name(id="code") | ast.Attribute(attr="code")], value=value):
                yield value
            case ast.AnnAssign(target=ast.Name(id="code"), value=value):
                yield value
            case ast.arguments():
                defaults = zip(node.kwonlyargs, node.kw_defaults, strict=True)
                yield from (default for argument, default in defaults if argument.arg == "code")
            case ast.Call(func=ast.Name(id=name), args=[value, *_]) if name in classes:
                yield value
            case ast.Return(value=ast.Tuple(elts=[value, _])) if TABLES.get(path.name) is ast.Return:
                yield value
            case ast.Dict() if TABLES.get(path.name) is ast.Dict:
                yield from (one.elts[0] for one in node.values if isinstance(one, ast.Tuple))


def test_the_codes_of_errors_stay():
    files = [*ROOT.glob("src/**/*.py"), *ROOT.glob("adapters/*/src/**/*.py")]
    constants = [one.value for path in files for one in values(path) if isinstance(one, ast.Constant)]
    codes = {one for one in constants if isinstance(one, str) and re.fullmatch(r"[a-z_]+", one)}
    assert sorted(codes) == CODES.split()
