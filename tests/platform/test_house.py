"""Rules of the house: who may import whom, what servers may import, what must be written down."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import platform
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

import onesearch
import pytest
from onesearch import hookspecs
from onesearch.cli.main import COMMANDS
from onesearch.contracts.conformance._common import LEARNING_ONLY
from onesearch.contracts.offers import ROLES
from onesearch.plugins import load_plugins

ROOT = Path(__file__).parents[2]
CORE = ROOT / "platform" / "onesearch"
STREAMING = ROOT / "streaming"
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists())


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file names in an import, with its line."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module


def sources(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if "_pb2" not in path.name]


def test_platform_is_the_standard_library() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert platform.__file__ is not None
    assert Path(platform.__file__).parent == Path(sysconfig.get_paths()["stdlib"])
    assert platform.python_version()


def test_the_core_imports_no_plugin() -> None:
    assert PLUGINS == ["onesearch_khqe", "onesearch_museq", "onesearch_pars", "onesearch_seq2seq"]
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in sources(CORE)
        for line, module in imports(file)
        if module.split(".")[0].startswith("onesearch_")
    ]
    assert wrong == []


@pytest.mark.parametrize("plugin", PLUGINS)
def test_plugins_import_only_the_core(plugin: str) -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in sources(ROOT / "plugins" / plugin)
        for line, module in imports(file)
        if module.split(".")[0].startswith("onesearch_") and module.split(".")[0] != plugin
    ]
    assert wrong == []


def test_streaming_imports_only_the_core() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in sources(STREAMING)
        for line, module in imports(file)
        if module.split(".")[0].startswith("onesearch_") and module.split(".")[0] != "onesearch_streaming"
    ]
    assert wrong == []


def test_nothing_unpickles() -> None:
    pickling = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for folder in (CORE, ROOT / "plugins", STREAMING, ROOT / "model_repository")
        for file in sources(folder)
        for line, module in imports(file)
        if module.split(".")[0] in pickling
    ]
    assert wrong == []
    torch_load = [
        str(file.relative_to(ROOT))
        for folder in (CORE, ROOT / "plugins", STREAMING)
        for file in sources(folder)
        if re.search(r"torch\.load\(|allow_pickle=True", file.read_text(encoding="utf-8"))
    ]
    assert torch_load == []


def test_text_files_name_their_encoding() -> None:
    """Triton's interpreter is isolated and takes ASCII for text unless told otherwise."""
    wrong = []
    for folder in (CORE, ROOT / "plugins", STREAMING, ROOT / "model_repository"):
        for file in sources(folder):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    given = {keyword.arg for keyword in node.keywords}
                    if node.func.attr in ("read_text", "write_text") and "encoding" not in given:
                        wrong.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []


def serving_modules() -> list[str]:
    """What the servers import: the core's serving half and the plugins' servers and entry points."""
    core = ["contracts", "compiling", "events", "kafka", "releases", "serving"]
    alone = ["config", "errors", "hookspecs", "index", "plugins", "progress", "semantic_ids", "vocabulary"]
    files = [file for room in core for file in sources(CORE / room)]
    files += [CORE / f"{name}.py" for name in alone]
    files = [file for file in files if "conformance" not in file.parts and file.name != "with_confluent.py"]
    names = [".".join(file.relative_to(CORE.parent).with_suffix("").parts) for file in files]
    servers = [entry.offer.server.split(":")[0] for entry in load_plugins().registered]
    # Tests before this one may have brought parts of their own.
    servers = [name for name in servers if (ROOT / "plugins" / name.split(".")[0]).is_dir()]
    assert servers
    return sorted({name.removesuffix(".__init__") for name in names} | set(servers))


def test_serving_imports_without_what_learning_needs() -> None:
    """In a process of its own, where torch and its like cannot be imported."""
    blocked = "\n".join(f"sys.modules[{name!r}] = None" for name in LEARNING_ONLY)
    wanted = "\n".join(f"importlib.import_module({name!r})" for name in serving_modules())
    code = f"import importlib, sys\n{blocked}\nimport onesearch.plugins\n{wanted}\n"
    code += "assert not onesearch.plugins.load_plugins().refused, onesearch.plugins.load_plugins().refused"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("role", ROLES)
def test_every_hook_is_documented(role: str) -> None:
    """As its signature and its promise stand in docs/plugins.md, word for word."""
    hook = getattr(hookspecs, role)
    assert hook.__doc__, f"{role} has no docstring"
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    signature = str(inspect.signature(hook)).replace("'", "")
    assert f"def {role}{signature}:" in page
    assert hook.__doc__ in page


def test_every_command_is_in_the_readme_or_the_docs() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    missing = [name for name in COMMANDS if f"onesearch {name}" not in text]
    assert missing == []


def test_entry_points_are_those_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for module in project["entry-points"]["onesearch"].values():
        assert importlib.util.find_spec(module) is not None
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert Path(onesearch.__file__).parent == CORE


def test_no_machine_paths_or_addresses() -> None:
    """No path of anyone's machine, and no lock file with download addresses, is in the repository."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()  # fmt: skip
    if not listed:
        pytest.skip("not a git checkout")
    assert not [name for name in listed if Path(name).name in ("uv.lock", "poetry.lock", "Pipfile.lock")]
    path = re.compile(r"(?<![\w.])/(?:home/\w+|root|work|Users/\w+)/")
    wrong = []
    for name in listed:
        file = ROOT / name
        if file.suffix in (".py", ".toml", ".md", ".txt", ".sh", ".json", ".pbtxt", "") and file.is_file():
            text = file.read_text(encoding="utf-8", errors="ignore")
            wrong += [f"{name}: {match[0]}" for match in path.finditer(text)]
    assert [entry for entry in wrong if not entry.startswith("tests/platform/test_house.py")] == []
