"""`recsys doctor`: is this machine ready for a night?"""

from __future__ import annotations

from rich.table import Table

from recsys_spark.commands.output import Env, attempt, show
from recsys_spark.config.load import load_settings
from recsys_spark.errors import ConfigError


def doctor(env: Env = "demo") -> None:
    """Check Python, Java, JARs, BLAS, memory, disk and the lake, and say what to type."""

    def action() -> None:
        from recsys_spark.commands.repair.machine import examine  # noqa: PLC0415

        findings = examine(load_settings(env))
        table = Table("", "check", "found", "what to type")
        for finding in findings:
            mark = "ok" if finding.is_ok else ("--" if finding.is_optional else "NO")
            table.add_row(mark, finding.name, finding.observed, "" if finding.is_ok else finding.advice)
        show(table)
        faults = [finding for finding in findings if not finding.is_ok and not finding.is_optional]
        if faults:
            # Again in one line each: a narrow table breaks what is to be typed.
            advice = [f"{fault.name}: {fault.advice}" if fault.advice else fault.name for fault in faults]
            raise ConfigError("\n".join(["not ready.", *advice]))

    attempt(action)
