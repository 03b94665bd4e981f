# SPDX-License-Identifier: Apache-2.0
"""The comparison of the schemas: its picture and its mistakes; whole runs are test_runs's."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ticklab import schemas

ROOT = Path(__file__).resolve().parents[1]


def result(payloads: tuple[int, ...]) -> dict:
    rows = []
    for payload in payloads:
        for number, schema in enumerate(schemas.SCHEMAS, 1):
            times = {"p50": 10.0 * number, "p90": 20.0 * number, "p99": 90.0 * number}
            row = {"schema": schema, "payload": payload, "run": "x", "balanced": True}
            rows.append(row | {"parse": times, "serialise": times, "size": payload + 10 * number})
    return {"schema": 1, "name": "here & there", "directory": "x", "rows": rows}


def test_picture_has_a_bar_for_each_figure_in_scale() -> None:
    drawn = ElementTree.fromstring(schemas.svg(result((8, 512))))
    space = "{http://www.w3.org/2000/svg}"
    bars = [each for each in drawn.iter(space + "rect") if "opacity" in each.attrib]
    widths = [float(each.get("width")) for each in bars if each.get("opacity") == "1"]
    assert len(widths) == 3 * 4 * 2
    parse = widths[:8]
    assert parse[:4] == parse[4:]
    assert parse[3] == pytest.approx(4 * parse[0], rel=0.01)
    texts = {each.text for each in drawn.iter(space + "text")}
    assert {"here & there: what a schema costs", "512 bytes", "v4 Cap'n Proto", "552"} <= texts


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    schemas.show(result((8,)))
    out = capsys.readouterr().out
    assert all(name in out for name in ("v1 text", "v3 protobuf", "parse p50", "on the wire"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--payloads", "8,x"], "--payloads 8,x: expected bytes up to 9,999"),
        (["--payloads", "10000"], "expected bytes up to 9,999"),
        (["--requests", "10"], "--requests 10: expected at least 1,000"),
    ],
)
def test_mistakes(arguments: list[str], said: str) -> None:
    command = [sys.executable, ROOT / "harness/schemas.py", ROOT / "configs/isolated.ini"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr
