from __future__ import annotations

import json
import signal
from pathlib import Path

from tests import wasm
from tests.cli.conftest import Run
from tests.cli.processes import WAIT_S, started


def test_a_module_can_be_created_listed_and_deleted(on_cluster: Run, tmp_path: Path) -> None:
    (tmp_path / "upper.wasm").write_bytes(wasm.module())
    created = on_cluster("smartmodule", "create", "upper", "--wasm-file", "upper.wasm")
    assert (created.code, created.out) == (0, b'smartmodule "upper" created\n')
    (listed,) = json.loads(on_cluster("sm", "list", "-O", "json").out)
    size = listed.pop("size_bytes")
    assert size > 0
    assert listed == {"smartmodule": "upper", "package": None, "description": None, "params": []}
    table = on_cluster("sm", "list").lines
    assert table[0].split() == [b"SMARTMODULE", b"SIZE", b"BYTES", b"PACKAGE"]
    assert table[1].split() == [b"upper", str(size).encode(), b"-"]
    assert on_cluster("sm", "list", "--filter", "upp").lines == []
    assert len(on_cluster("sm", "list", "--filter", "upper", "--filter", "x").lines) == 2
    deleted = on_cluster("smartmodule", "delete", "upper")
    assert (deleted.code, deleted.out) == (0, b'smartmodule "upper" deleted\n')
    none = on_cluster("sm", "list")
    assert (none.code, none.out, none.err) == (0, b"", "no SmartModules yet\n")


def test_a_dry_run_checks_the_file_and_stores_nothing(on_cluster: Run, tmp_path: Path) -> None:
    (tmp_path / "m.wasm").write_bytes(wasm.module())
    checked = on_cluster("sm", "create", "checked", "--wasm-file", "m.wasm", "-d")
    assert checked.out == b'smartmodule "checked" can be created\n'
    assert on_cluster("sm", "list", "--filter", "checked").out == b""


def test_an_invalid_module_is_refused(on_cluster: Run, tmp_path: Path) -> None:
    (tmp_path / "text.wasm").write_bytes(b"hello")
    wrong = on_cluster("sm", "create", "m", "--wasm-file", "text.wasm")
    assert wrong.code == 2
    assert "error: the SmartModule is not a wasm binary: it begins with b'hell'" in wrong.err
    missing = on_cluster("sm", "create", "m", "--wasm-file", "none.wasm")
    assert (missing.code, missing.err) == (
        2,
        "error: cannot read the SmartModule none.wasm: No such file or directory\n",
    )
    name = on_cluster("sm", "create", "No_Good", "--wasm-file", "text.wasm")
    assert name.code == 2
    assert "'No_Good' is not a valid name for a SmartModule: it has 'N' at position 1" in name.err


def test_delete_continues_after_an_error_only_with_the_option(
    on_cluster: Run, tmp_path: Path
) -> None:
    (tmp_path / "m.wasm").write_bytes(wasm.module())
    for name in ("gone-a", "gone-b"):
        on_cluster("sm", "create", name, "--wasm-file", "m.wasm")
    stopped = on_cluster("sm", "delete", "gone-", "gone-a")
    assert (stopped.code, stopped.out) == (1, b"")
    assert "error: SmartModule not found: gone-\n  hint: did you mean 'gone-" in stopped.err
    continued = on_cluster("sm", "delete", "-c", "missing", "gone-a", "gone-b")
    assert continued.code == 1
    assert continued.out == b'smartmodule "gone-a" deleted\nsmartmodule "gone-b" deleted\n'
    assert "error: 1 of 3 SmartModules were not deleted" in continued.err


def test_watch_prints_the_list_after_each_change(
    on_cluster: Run, cluster: str, tmp_path: Path
) -> None:
    (tmp_path / "m.wasm").write_bytes(wasm.module())
    arguments = ("--cluster", cluster, "smartmodule", "watch", "-O", "yaml")
    with started(tmp_path, *arguments) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline() == b"[]\n"
        on_cluster("sm", "create", "seen", "--wasm-file", "m.wasm")
        assert watching.stdout.readline() == b"\n"
        assert watching.stdout.readline() == b'- smartmodule: "seen"\n'
        on_cluster("sm", "delete", "seen")
        while watching.stdout.readline() != b"[]\n":
            pass
        watching.send_signal(signal.SIGINT)
        assert watching.wait(WAIT_S) == 0
        assert watching.stderr is not None
        assert watching.stderr.read() == b""
