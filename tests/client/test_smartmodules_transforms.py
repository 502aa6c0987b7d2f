"""Fluvio's transforms, in YAML and in JSON, as chains of SmartModules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamkit.client import Lookback, SmartModule, load_transforms, parse_transforms
from streamkit.client.smartmodules.transforms import parse_transform_lines
from streamkit.errors import UsageError

# The format of Fluvio's files: docs/protocol/smartmodules.md, "Transforms in files".
FILE = """
meta:                      # of a connector; it is not looked at
  name: my-source
transforms:
  - uses: infinyon/jolt@0.4.1
    with:
      spec: '[{"operation":"shift"}]'
    lookback:
      last: 10
      age: 1h
  - uses: my-filter
"""


def test_a_transforms_file_is_parsed_as_a_chain(tmp_path: Path) -> None:
    path = tmp_path / "transforms.yaml"
    path.write_text(FILE)
    assert load_transforms(path) == [
        SmartModule(
            "infinyon/jolt@0.4.1",
            params={"spec": '[{"operation":"shift"}]'},
            lookback=Lookback(10, 3_600.0),
        ),
        SmartModule("my-filter"),
    ]


def param(text: str) -> str:
    (step,) = parse_transforms(f"transforms: [{{uses: m, with: {{p: {text}}}}}]")
    return step.params["p"]


@pytest.mark.parametrize(
    ("yaml", "text"),
    [
        ("[{operation: shift, n: 1.5, is: true, not: null}]", None),
        ("{b: 1, a: [x, y]}", '{"b":1,"a":["x","y"]}'),
        ("[é]", '["é"]'),
        ("[]", "[]"),
        ("'5'", "5"),
        ('"true"', "true"),
    ],
)
def test_lists_and_maps_are_passed_as_json_text(yaml: str, text: str | None) -> None:
    expected = '[{"operation":"shift","n":1.5,"is":true,"not":null}]' if text is None else text
    assert param(yaml) == expected


@pytest.mark.parametrize(
    "text", ["no", "on", "y", "2024-01-01", "1:30", "0b1", "1_000", "=", "a b"]
)
def test_text_in_yaml_1_2_stays_text(text: str) -> None:
    assert param(text) == text


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("5", "the number 5"),
        ("-1.5", "the number -1.5"),
        ("0x1f", "the number 31"),
        ("true", "the boolean true"),
        ("", "empty"),
        ("~", "empty"),
    ],
)
def test_bare_numbers_and_booleans_are_refused_with_a_hint(value: str, what: str) -> None:
    with pytest.raises(UsageError, match=f"step 1: the parameter 'p' is {what}") as caught:
        param(value)
    assert "in quotes" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "list of transforms is missing"),
        ("steps: []", "list of transforms is missing"),
        ("transforms: m", "not a list"),
        ("transforms: [m]", "step 1 is text"),
        ("transforms: [{uses: a}, {with: {}}]", "step 2 has no SmartModule name"),
        ("transforms: [{use: a}]", "step 1 has unknown keys: use"),
        ("transforms: [{uses: a, with: [x]}]", "`with` is a list"),
        ("transforms: [{uses: a, with: {1: x}}]", "is not text"),
        ("transforms: [{uses: a, lookback: 5}]", "`lookback` is the number 5"),
        ("transforms: [{uses: a, lookback: {first: 5}}]", "lookback has unknown keys: first"),
        ("transforms: [{uses: a, lookback: {last: -1}}]", "not a number of records"),
        ("transforms: [{uses: a, lookback: {age: soon}}]", "not a duration"),
        ("transforms: [{uses: a, lookback: {age: 5}}]", "not a duration"),
        ("transforms: [", "not valid YAML"),
        ("transforms: !!python/name:os.system x", "not valid YAML"),
    ],
)
def test_an_invalid_chain_is_refused_with_the_step(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_transforms(text)


@pytest.mark.parametrize(
    ("age", "seconds"), [("90s", 90.0), ("1h 30m", 5_400.0), ("2days", 172_800.0), ("5ms", 0.005)]
)
def test_ages_are_durations(age: str, seconds: float) -> None:
    (step,) = parse_transforms(f"transforms: [{{uses: m, lookback: {{age: {age}}}}}]")
    assert step.lookback == Lookback(0, seconds)


def test_an_error_in_a_file_has_its_path(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("transforms: [{use: a}]")
    with pytest.raises(UsageError, match=r"t\.yaml: step 1 has unknown keys: use"):
        load_transforms(path)
    with pytest.raises(UsageError, match=r"absent\.yaml"):
        load_transforms(tmp_path / "absent.yaml")


def test_steps_may_be_lines_of_json() -> None:
    lines = ['{"uses": "a", "with": {"k": "v"}}', '{"uses": "b", "lookback": {"last": 3}}']
    assert parse_transform_lines(lines) == [
        SmartModule("a", params={"k": "v"}),
        SmartModule("b", lookback=Lookback(3)),
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{uses: a}", "step 2 is not valid JSON"),
        ('{"uses": "a", "with": {"k": 1}}', "step 2: the parameter 'k' is the number 1"),
        ("[]", "step 2 is a list"),
    ],
)
def test_an_invalid_line_is_reported_with_its_number(line: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_transform_lines(['{"uses": "a"}', line])


def test_without_pyyaml_the_hint_has_the_install_command() -> None:
    program = (
        "import sys; sys.modules['yaml'] = None\n"
        "from streamkit.client import parse_transforms\n"
        "from streamkit.errors import ConfigError\n"
        "try:\n    parse_transforms('transforms: []')\n"
        "except ConfigError as error:\n    print(error, error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""
    assert "not installed" in done.stdout
    assert "fluvio-streamkit[cli]" in done.stdout


def test_the_client_does_not_import_yaml() -> None:
    program = "import sys, streamkit.client; print('yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n"
