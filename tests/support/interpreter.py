"""The interpreter of a page: runs the blocks that it is sent, one after the other.

A block comes as one line of JSON, `[kind, source]`, and is answered by another: what went wrong, or
`null`.
"""

import contextlib
import doctest
import io
import json
import sys
import traceback
from typing import Any


def run(source: str, namespace: dict[str, Any]) -> str | None:
    """Run statements; gives the traceback if they raise."""
    try:
        exec(compile(source, "<block>", "exec"), namespace)
    except Exception:
        return traceback.format_exc()
    return None


def session(source: str, namespace: dict[str, Any]) -> str | None:
    """Run an interactive session; gives the report of doctest if it shows something else."""
    test = doctest.DocTestParser().get_doctest(source, namespace, "session", None, 0)
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=report.write, clear_globs=False)
    namespace.update(test.globs)
    return report.getvalue() or None


KINDS = {"run": run, "session": session}


def main() -> None:
    """Answer blocks until there are no more."""
    namespace: dict[str, Any] = {"__name__": "__page__"}
    sys.path[0] = ""
    for line in sys.stdin:
        kind, source = json.loads(line)
        with contextlib.redirect_stdout(io.StringIO()):
            error = KINDS[kind](source, namespace)
        print(json.dumps(error), flush=True)


if __name__ == "__main__":
    main()
