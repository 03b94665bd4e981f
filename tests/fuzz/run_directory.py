# SPDX-License-Identifier: Apache-2.0
"""A run directory: manifest.json, a zero byte, counters.json, a zero byte, one of the tables."""

import target

with target.instrumented():
    from ticklab.run import Run, RunError

_folder = target.folder()
(_folder / "wire").mkdir()


def _look(run: Run) -> None:
    """What the summary asks of a run."""
    target.require(isinstance(run.name, str), "a name is text")
    target.require(isinstance(run.config("trace.keep", "all"), str), "a value is text")
    target.require(isinstance(run.tsc_hz + run.measured_from, (int, float)), "numbers are numbers")
    target.require(isinstance(run.serve and run.bounded, bool), "yes or no")
    run.measured("rx", "issued")
    run.at_end("to_tx", "*", "published")
    run.measured("outcomes", "rejected", "*")
    for end, mark in run.stages().values():
        target.require(isinstance(end, dict), "a stage's figures are an object")
        target.require(mark is None or isinstance(mark, dict), "and so are those at the mark")
    for table in (run.offered, run.expected, run.ingress, run.delivered):
        target.require(table is None or table.ndim == 1, "a table is a row of records")


def check(data: bytes) -> None:
    """Nothing but RunError."""
    manifest, counters, table = [*data.split(b"\0", 2), b"", b""][:3]
    (_folder / "manifest.json").write_bytes(manifest)
    (_folder / "counters.json").write_bytes(counters)
    (_folder / "wire" / "ingress.bin").write_bytes(table)
    try:
        _look(Run(_folder))
    except RunError as error:
        target.one_line(error)


target.run(check)
