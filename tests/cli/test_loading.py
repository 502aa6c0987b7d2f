"""Loading the App of a file: under one module name, completely, and without running its job."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.processes import WAIT_S, Ended, environment, run

APP = 'from streamkit import App\napp = App("job"{})\napp.stream("a", bytes, name="own").to("b")\n'
ORDERS = 'from {} import app\napp.stream("c", bytes, name="orders").to("d")\n'


def graph(folder: Path, target: str) -> Ended:
    return run(folder, "graph", target)


def sources(ended: Ended) -> list[str]:
    assert ended.code == 0, ended.err
    return [line.split()[0] for line in ended.out.decode().splitlines() if "[source" in line]


def files(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_py", ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("imported", ["shop.app", "app"])
@pytest.mark.parametrize("has_init", [True, False])
@pytest.mark.parametrize("target", ["shop/app.py", "shop.app"])
def test_the_graph_of_an_app_contains_the_stages_of_included_modules(
    tmp_path: Path, target: str, has_init: bool, imported: str
) -> None:
    if (imported, target) == ("app", "shop.app"):
        imported = "shop.app"  # only for a file, its folder is on the import path
    files(
        tmp_path,
        shop__app_py=APP.format(', include=["shop.orders"]'),
        shop__orders_py=ORDERS.format(imported),
    )
    if has_init:
        (tmp_path / "shop" / "__init__.py").touch()
    assert sources(graph(tmp_path, target)) == ["own", "orders"]


@pytest.mark.parametrize("has_init", [True, False])
def test_a_file_can_be_loaded_from_another_folder(tmp_path: Path, has_init: bool) -> None:
    files(
        tmp_path,
        shop__app_py=APP.format(', include=["shop.orders"]'),
        shop__orders_py=ORDERS.format("shop.app"),
    )
    if has_init:
        (tmp_path / "shop" / "__init__.py").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert sources(graph(elsewhere, str(tmp_path / "shop" / "app.py"))) == ["own", "orders"]


def test_a_package_that_imports_its_own_app_is_loaded_once(tmp_path: Path) -> None:
    files(tmp_path, shop__app_py=APP.format(""))
    (tmp_path / "shop" / "__init__.py").write_text("from shop.app import app\n")
    assert sources(graph(tmp_path, "shop/app.py")) == ["own"]


@pytest.mark.parametrize("levels", [1, 2])
def test_relative_imports_work_with_and_without_a_package(tmp_path: Path, levels: int) -> None:
    folder = tmp_path / "outer" / "inner"
    folder.mkdir(parents=True)
    (folder.parents[levels - 2] if levels == 2 else folder).joinpath("names.py").write_text(
        'TOPIC = "from-names"\n'
    )
    (folder / "app.py").write_text(
        f"from {'.' * levels}names import TOPIC\n" + APP.format("").replace('"a"', "TOPIC")
    )
    ended = graph(tmp_path, "outer/inner/app.py")
    assert b"topic from-names" in ended.out, ended.err


@pytest.mark.parametrize("name", ["copy.py", "json.py", "my.app.py", "my-app.py", "click.py"])
def test_any_file_name_is_accepted(tmp_path: Path, name: str) -> None:
    uses = "import copy, json\nassert copy.deepcopy and json.loads\n"
    (tmp_path / name).write_text(uses + APP.format(""))
    assert sources(graph(tmp_path, name)) == ["own"]


@pytest.mark.parametrize("name", ["json.py", "my.app.py", "__init__.py", "__main__.py"])
def test_any_file_name_is_accepted_in_a_package(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / name).write_text(APP.format(""))
    assert sources(graph(tmp_path, f"shop/{name}")) == ["own"]


def test_a_package_with_the_name_of_a_standard_module_is_refused(tmp_path: Path) -> None:
    files(tmp_path, json__app_py=APP.format(""))
    (tmp_path / "json" / "__init__.py").touch()
    ended = graph(tmp_path, "json/app.py")
    assert ended.code == 2
    assert "the package 'json' should be" in ended.err


@pytest.mark.parametrize("name", ["copy.py", "json.py"])
def test_a_job_in_a_file_with_the_name_of_a_standard_module_runs(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(APP.format(""))
    ended = run(tmp_path, "run", name, "--once", "--create-topics")
    assert (ended.code, "Traceback" in ended.err) == (0, False)


def test_the_error_names_a_file_that_a_standard_module_hides(tmp_path: Path) -> None:
    files(tmp_path, app_py="from calendar import holidays\n", calendar_py="holidays = []\n")
    ended = graph(tmp_path, "app.py")
    assert ended.code == 2
    assert "calendar.py: Python has a module with that name" in ended.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import pkg\n", "No module named 'pkg'"),
        ("from app import nothing\n", "cannot import name 'nothing'"),
        ("1 / 0\n", "pkgs.py:1 in <module>: 1 / 0"),
        ("def\n", "pkgs.py:1: invalid syntax"),
    ],
)
def test_an_error_in_an_included_module_is_reported_with_its_line(
    tmp_path: Path, text: str, words: str
) -> None:
    files(tmp_path, app_py=APP.format(', include=["pkgs"]'), pkgs_py=text)
    ended = graph(tmp_path, "app.py")
    assert ended.code == 2
    assert words in ended.err
    assert "Traceback" not in ended.err
    assert "does not exist" not in ended.err


@pytest.mark.parametrize("name", ["pkg", "shop.pkg", "shop.deep.pkg"])
def test_a_missing_included_module_is_named(tmp_path: Path, name: str) -> None:
    files(tmp_path, shop__app_py=APP.format(f', include=["{name}"]'))
    ended = graph(tmp_path, "shop/app.py")
    assert ended.code == 2
    assert f"the included module {name!r} does not exist" in ended.err


UNGUARDED = {
    "plain": "app.run()\nopen('continued', 'w').close()\n",
    "with its exit code": "import sys\nsys.exit(app.run(once=True))\n",
    "caught": "try:\n    app.run()\nexcept Exception:\n    open('continued', 'w').close()\n",
    "in a thread": "import threading\nt = threading.Thread(target=app.run)\nt.start()\nt.join()\n",
}


@pytest.mark.parametrize("end", UNGUARDED.values(), ids=UNGUARDED)
@pytest.mark.parametrize("command", ["check", "graph"])
def test_check_and_graph_do_not_run_a_job_that_the_file_runs(
    tmp_path: Path, command: str, end: str
) -> None:
    files(tmp_path, app_py=APP.format("") + end)
    ended = run(tmp_path, command, "app.py")
    assert ended.code == 0, ended.err
    assert sorted(os.listdir(tmp_path)) == ["app.py"]
    if "thread" not in end:
        assert "app.py:" in ended.err
        assert 'put app.run() under `if __name__ == "__main__":`' in ended.err


def test_an_app_created_in_the_function_that_runs_it_is_found(tmp_path: Path) -> None:
    body = APP.format("").replace("\napp", "\n    app").replace("App\n", "App\ndef main():\n", 1)
    files(tmp_path, app_py=f"{body}    app.run()\nmain()\n")
    assert sources(graph(tmp_path, "app.py")) == ["own"]


def test_a_file_that_runs_its_own_job_is_run_once(tmp_path: Path) -> None:
    files(tmp_path, app_py=APP.format("") + "app.run(once=True, create_topics=True)\n")
    ended = run(tmp_path, "run", "app.py", "--once", "--create-topics")
    assert ended.code == 0
    assert ended.err.count("job: running on") == 1


def test_an_included_module_that_imports_an_unguarded_app_file_is_refused(tmp_path: Path) -> None:
    files(
        tmp_path,
        app_py=APP.format(', include=["orders"]') + "app.run(once=True)\n",
        orders_py=ORDERS.format("app"),
    )
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 1
    assert "runs a job when its file is imported" in done.stderr
    assert "running on" not in done.stderr


def test_a_file_that_calls_sys_exit_is_an_error_with_its_line(tmp_path: Path) -> None:
    files(tmp_path, app_py='import sys\nsys.exit("no configuration")\n')
    ended = graph(tmp_path, "app.py")
    assert ended.code == 2
    assert "app.py:2 in <module>: sys.exit" in ended.err
    assert "exited the program while the file was loaded: 'no configuration'" in ended.err


def test_an_invalid_option_is_an_error_with_its_line(tmp_path: Path) -> None:
    wrong = '\napp.stream("in", str).to("out", on_error="skp")\n'
    files(tmp_path, app_py=f'from streamkit import App\n\napp = App("app"){wrong}')
    ended = graph(tmp_path, "app.py")
    assert ended.code == 2
    assert "app.py:4: on_error='skp' is not valid" in ended.err
    assert 'hint: use "fail", "skip"' in ended.err


def test_output_of_an_app_file_is_not_part_of_its_graph(tmp_path: Path) -> None:
    files(tmp_path, app_py="print('hello')\n" + APP.format(""))
    ended = graph(tmp_path, "app.py")
    assert b"hello" not in ended.out
    assert "hello" in ended.err


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("", "APP is empty"),
        (":app", "':app' is not a valid target"),
        ("app.py:", "'app.py:' is not a valid target"),
        ("shop", "shop has no App"),
        ("shop/", "shop is a folder"),
        ("a..b", "no module 'a..b'"),
        ("shop.none", "no module 'shop.none'"),
        ("none.py", "none.py does not exist"),
        ("app.py:other", "app.py has no App named 'other'"),
    ],
)
def test_an_invalid_app_target_is_refused(tmp_path: Path, target: str, words: str) -> None:
    files(tmp_path, app_py=APP.format(""), shop__empty_py="")
    ended = graph(tmp_path, target)
    assert ended.code == 2
    assert words in ended.err


def test_many_modules_are_imported_fast(tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    (many / "__init__.py").touch()
    for number in range(1_000):
        (many / f"part_{number}.py").touch()
    text = "".join(f"import many.part_{number}\n" for number in range(1_000))
    files(tmp_path, app_py=text + APP.format(""))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert sources(graph(tmp_path, "app.py")) == ["own"]
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 4
