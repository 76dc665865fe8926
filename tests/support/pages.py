"""A page of the documentation, played block by block as its reader would play it.

Blocks follow a few rules, which `docs/contributing.md` tells the writers of pages:

* a block whose first line is a comment with the name of a file, such as `# tasks.py`, is that file;
* other `python` and `pycon` blocks run one after the other in one interpreter;
* in a `console` block a line that begins with `$` is run, and what follows is its output, in which
  `...` stands for anything. Beats, workers and web servers run on in the background. A block
  without a command is output that one of them is waited for to write;
* a `redis` block is typed into `redis-cli`;
* what cannot run here (a manifest, a unit, an image) is parsed by its own kind.
"""

import configparser
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sybil import Document, Example, Sybil
from sybil.parsers.myst import CodeBlockParser

from support.ports import free_port
from support.programs import Program, environment
from support.terminals import run_on_a_terminal
from support.waiting import wait_until

ROOT = Path(__file__).parents[2]

#: Pages that show blocks, from the root of the project.
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    if "_build" not in page.parts
)

#: What pages say and tests replace: Redis and web servers have ports of their own in a test.
REDIS_ADDRESS = "localhost:6379"
WEB_PORT = 8000
WEB_ADDRESS = f"localhost:{WEB_PORT}"

#: The first line of a block that is a file.
FILE_NAME = re.compile(r"#\s*(?P<name>\w[\w./-]*\.(py|ya?ml|json|service|cfg|sh)|Dockerfile)\s*\n")

#: An opening or closing fence; what follows an opening one says what the block holds.
FENCE = re.compile(r"^ *(?P<ticks>`{3,}|~{3,}|:{3,})(?P<info>.*)$")

#: Commands that run until they are told to stop.
ENDLESS = re.compile(r"^(celery\b.* (beat|worker|--watch)\b|uvicorn\b|flask\b.* run\b)")

#: Commands that show how things are: they are asked again until it is as the page says.
LOOKS = re.compile(r"\bredbeat (status|check|list|show)\b|^curl -sS [^-]")

DISTANCE = r"(?:in \d+ \w+|\d+ \w+ ago|now)"
MOMENT = rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z0-9+-]+ \({DISTANCE}\)"

#: What is another at each run, in the output that a page shows.
VARYING = (
    r"─{3,}",
    rf"(?:{MOMENT}|(?<=  )(?:{DISTANCE}|-)(?=  ))",
    r"(?<=\s)\d+(?=\s+(?:waiting|paused|overdue)\b)",
    r"\d+(?:\.\d+)? (?:s|min|h) ago\b",
    r"\bpid \d+",
    r"\b\d+ runs\b",
    r"\bversion \d\S*,",
    r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
    r"\bworst delay(?: in \d+ minutes:)? \d+(?:\.\d+)? s\b",
)
#: What a page shows, and what a command may print in its place.
TOLERATED = ((r"\s*\.\.\.\s*", r"[\s\S]*?"), *((each, each) for each in VARYING))
TOLERABLE = re.compile("|".join(f"({shown})" for shown, _ in TOLERATED))

#: Colours and the like; and what a later text on the same line has written over.
CODES = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]|(?m:^.*\r(?!$))")

#: Of the terminal that commands see.
COLUMNS, LINES = 110, 40

#: What such a program writes once it is up, where the page shows nothing of it.
STARTED = {"beat": "beat: Starting...", "worker": " ready."}

SECONDS_TO_WAIT = 45
INTERPRETER = Path(__file__).with_name("interpreter.py")


class PageError(AssertionError):
    """A block of a page does not do what the page says."""


class Page:
    """A page and the place where its blocks are played.

    Args:
        name: The path of the page, from the root of the project.
        directory: An empty directory, in which the page's commands run.
        redis_port: The port of an empty Redis server.
    """

    def __init__(self, name: str, directory: Path, redis_port: int) -> None:
        self.name = name
        self.directory = directory
        self.programs: list[Program] = []
        self._logs = directory / ".logs"
        self._logs.mkdir()
        self._read_until: dict[Program, int] = {}
        self._interpreter: subprocess.Popen[str] | None = None
        web_port = free_port()
        self._addresses = {
            REDIS_ADDRESS: f"127.0.0.1:{redis_port}",
            WEB_ADDRESS: f"127.0.0.1:{web_port}",
            f"--port {WEB_PORT}": f"--port {web_port}",
            f"start_http_server({WEB_PORT})": f"start_http_server({web_port})",
        }
        self._environment = environment(
            PATH=f"{_wrappers(directory, redis_port)}:{Path(sys.executable).parent}:"
            + os.environ["PATH"],
            PYTHONUNBUFFERED="1",
            TERM="xterm",
            COLUMNS=str(COLUMNS),
            LINES=str(LINES),
        )

    def play(self) -> int:
        """Play all blocks; gives how many there were."""
        examples = list(document(self.name, self).examples())
        for example in examples:
            example.evaluate()
        ended = [program.log for program in self.programs if not program.is_running()]
        assert not ended, f"programs have ended:\n{ended}"
        return len(examples)

    def close(self) -> None:
        """End all that still runs."""
        for program in self.programs:
            program.kill()
        if self._interpreter is not None:
            self._interpreter.kill()
            self._interpreter.communicate()

    # Languages

    def play_python(self, source: str) -> None:
        """Write the file that the block is, or run it in the page's interpreter."""
        source = self._localized(source)
        if self._write_file(source):
            compile(source, self.name, "exec")
        else:
            self._ask_interpreter("run", source)

    def play_pycon(self, source: str) -> None:
        """Run an interactive session and compare what it shows."""
        self._ask_interpreter("session", self._localized(source))

    def play_console(self, source: str) -> None:
        """Run the commands of a session and compare what they print."""
        commands = _commands(self._localized(source))
        for command, output in commands:
            if output.strip() == "^C":
                self._stop_programs()
            elif not command:
                self._wait_for(output)
            elif command.startswith(tuple(FOREIGN)):
                self._look_at(command)
            elif ENDLESS.search(command):
                self._start(command, output)
            else:
                self._run(command, output)

    def play_redis(self, source: str) -> None:
        """Give the commands to `redis-cli`; a refusal is an error."""
        printed = subprocess.run(
            ["redis-cli"],
            cwd=self.directory,
            env=self._environment,
            input=f"PING\n{source}",
            stdout=subprocess.PIPE,
            text=True,
            timeout=SECONDS_TO_WAIT,
            check=True,
        ).stdout
        assert printed.startswith("PONG"), f"Redis does not answer: {printed}"
        refused = re.findall(r"(?m)^[A-Z]{3,} .*", printed)
        assert not refused, f"Redis answers: {refused}"

    def play_yaml(self, source: str) -> None:
        """Parse all documents of the block, each of which must say something."""
        assert all(yaml.safe_load_all(source)), "a document is empty"
        self._write_file(self._localized(source))

    def play_json(self, source: str) -> None:
        """Parse the block."""
        json.loads(source)

    def play_ini(self, source: str) -> None:
        """Parse the block; systemd itself looks at a unit, where it is installed."""
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read_string(source)
        assert parser.sections(), "there is no section"
        if "Service" in parser and shutil.which("systemd-analyze"):
            self._verify_unit(source)

    def play_dockerfile(self, source: str) -> None:
        """Look at the first word of each line."""
        known = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "CMD", "ENTRYPOINT", "ENV", "#"}
        words = [line.split()[0] for line in source.splitlines() if line.strip()]
        assert set(words) <= known, f"instructions that there are not: {set(words) - known}"
        self._write_file(source)

    # What they are made of

    def _localized(self, text: str) -> str:
        for told, real in self._addresses.items():
            text = text.replace(told, real)
        return text

    def _write_file(self, source: str) -> bool:
        found = FILE_NAME.match(source)
        if found is None:
            return False
        path = self.directory / found["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        return True

    def _verify_unit(self, source: str) -> None:
        """Let systemd read the unit, with programs and users that this machine has."""
        here = re.sub(r"(?m)^(User|Group)=.*\n", "", source)
        here = re.sub(r"(?m)^(Exec\w+)=\S+", rf"\1={sys.executable}", here)
        here = re.sub(r"(?m)^WorkingDirectory=.*", f"WorkingDirectory={self.directory}", here)
        unit = self.directory / "redbeat-page.service"
        unit.write_text(here)
        verified = subprocess.run(
            ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60
        )
        told = [line for line in verified.stderr.splitlines() if unit.name in line]
        assert not told, "\n".join(told)

    def _ask_interpreter(self, kind: str, source: str) -> None:
        if self._interpreter is None:
            self._interpreter = subprocess.Popen(
                [sys.executable, str(INTERPRETER)],
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._interpreter.stdin is not None
        assert self._interpreter.stdout is not None
        self._interpreter.stdin.write(json.dumps([kind, source]) + "\n")
        self._interpreter.stdin.flush()
        error = json.loads(self._interpreter.stdout.readline())
        if error:
            raise PageError(error)

    def _run(self, command: str, expected: str) -> None:
        program, *arguments = shlex.split(command, comments=True)
        if program == "cd":
            self.directory = (self.directory / arguments[0]).resolve(strict=True)
            return
        patience = SECONDS_TO_WAIT if LOOKS.search(command) else 0
        deadline = time.monotonic() + patience
        while wrong := self._try(command, expected):
            if time.monotonic() > deadline:
                raise PageError(f"$ {command}\n{wrong}")

    def _try(self, command: str, expected: str) -> str:
        """What is wrong with what a command does; empty if nothing is."""
        output, code = _on_a_terminal(["bash", "-c", command], self.directory, self._environment)
        if code:
            return f"ended with {code}:\n{output}"
        if expected and not _pattern(expected).fullmatch(output.strip()):
            return f"should print:\n{expected}\nand printed:\n{output}"
        return ""

    def _look_at(self, command: str) -> None:
        check = next(check for name, check in FOREIGN.items() if command.startswith(name))
        check(self, shlex.split(command))

    def _start(self, command: str, expected: str) -> None:
        log = self._logs / f"{len(list(self._logs.iterdir()))}.log"
        arguments = ["bash", "-c", f"exec {command}"]
        program = Program(arguments, self.directory, log, self._environment)
        self.programs.append(program)
        self._read_until[program] = 0
        started = next((text for word, text in STARTED.items() if f" {word}" in command), "")
        self._wait_for(expected or started, [program])

    def _stop_programs(self) -> None:
        """End what runs in the background, as Ctrl-C does."""
        for program in self.programs:
            program.terminate()
        self.programs.clear()

    def _wait_for(self, expected: str, programs: list[Program] | None = None) -> None:
        """Wait until one of the programs has written this, after what it was waited for before."""
        try:
            wait_until(lambda: self._has_written(expected, programs), SECONDS_TO_WAIT)
        except TimeoutError:
            logs = "\n".join(program.log for program in programs or self.programs)
            raise PageError(f"waited in vain for:\n{expected}\nin:\n{logs}") from None

    def _has_written(self, expected: str, programs: list[Program] | None) -> bool:
        pattern = _pattern(expected)
        for program in programs or self.programs:
            found = pattern.search(program.log, self._read_until[program])
            if found:
                self._read_until[program] = found.end()
                return True
            if not program.is_running():
                raise PageError(f"a program has ended:\n{program.log}")
        return False


#: How a block of each language is played.
LANGUAGES: dict[str, Callable[[Page, str], None]] = {
    "python": Page.play_python,
    "pycon": Page.play_pycon,
    "console": Page.play_console,
    "redis": Page.play_redis,
    "yaml": Page.play_yaml,
    "json": Page.play_json,
    "ini": Page.play_ini,
    "dockerfile": Page.play_dockerfile,
}

#: Directives of Sphinx; they hold no code that a reader would run.
DIRECTIVES = {
    "{eval-rst}",
    "{include}",
    "{mermaid}",
    "{redbeat-settings}",
    "{toctree}",
}


def fences(name: str) -> Iterator[tuple[int, str]]:
    """The line and the first word after the ticks of every block on a page."""
    opened = ""
    for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
        found = FENCE.match(line)
        if found is None:
            continue
        if not opened:
            opened = found["ticks"]
            yield number, (found["info"].split() or [""])[0]
        elif found["ticks"] == opened and not found["info"].strip():
            opened = ""


def document(name: str, page: Page | None) -> Document:
    """The page as Sybil reads it; without a `page` it is only read."""

    def parser(language: str, play: Callable[[Page, str], None]) -> CodeBlockParser:
        def evaluate(example: Example) -> None:
            assert page is not None
            try:
                play(page, str(example.parsed))
            except Exception as error:
                raise PageError(f"{name}, line {example.line}: {error}") from error

        return CodeBlockParser(language, evaluate)

    return Sybil([parser(language, play) for language, play in LANGUAGES.items()]).parse(
        ROOT / name
    )


def _on_a_terminal(
    command: list[str], directory: Path, environment: dict[str, str]
) -> tuple[str, int]:
    """Run a command on a terminal of its own, as a reader would; gives output and exit code."""
    size = os.terminal_size((COLUMNS, LINES))
    shown = run_on_a_terminal(command, directory, environment, size=size, timeout=SECONDS_TO_WAIT)
    return CODES.sub("", shown.text.replace("\r\n", "\n")), shown.code


def _wrappers(directory: Path, redis_port: int) -> Path:
    """A directory with a `redis-cli` that talks to this page's server."""
    wrappers = directory / ".bin"
    wrappers.mkdir()
    program = wrappers / "redis-cli"
    program.write_text(f'#!/bin/sh\nexec {shutil.which("redis-cli")} -p {redis_port} "$@"\n')
    program.chmod(0o755)
    return wrappers


def _commands(session: str) -> list[tuple[str, str]]:
    """The commands of a session, each with the output that follows it."""
    commands: list[tuple[str, list[str]]] = [("", [])]
    lines = iter(session.splitlines())
    for line in lines:
        if line.startswith("$ "):
            commands.append((_whole_command(line, lines), []))
        else:
            commands[-1][1].append(line)
    told = [(command, "\n".join(output).strip()) for command, output in commands]
    return [
        (command, f"{output}\n" if output else "") for command, output in told if command or output
    ]


def _whole_command(line: str, lines: Iterator[str]) -> str:
    """A command with the lines that it goes on to: after a backslash, or within quotes."""
    command = line.removeprefix("$ ")
    while not _is_complete(command):
        command += "\n" + next(lines)
    return command


def _is_complete(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:
        return False
    return not command.endswith("\\")


def _pattern(expected: str) -> re.Pattern[str]:
    """What finds the expected output: `...` is anything, and a blank as good as many."""
    text, pattern, end = expected.strip(), "", 0
    for found in TOLERABLE.finditer(text):
        assert found.lastindex is not None
        pattern += _literal(text[end : found.start()]) + TOLERATED[found.lastindex - 1][1]
        end = found.end()
    return re.compile(pattern + _literal(text[end:]))


def _literal(text: str) -> str:
    return r"\s+".join(map(re.escape, re.split(r"\s+", text)))


# Commands that only another machine could run, or a network


def _check_install(page: Page, arguments: list[str]) -> None:
    """Every distribution that readers are told to install is one that the tests run with."""
    known = {canonicalize_name(each.name) for each in importlib.metadata.distributions()}
    wanted = arguments[arguments.index("install") + 1 :]
    for requirement in (each for each in wanted if not each.startswith("-")):
        name = canonicalize_name(Requirement(requirement).name)
        assert name in known | {"tox"}, f"{name} is not known here"


def _check_tox(page: Page, arguments: list[str]) -> None:
    """The environments and labels that are named are there."""
    configuration = configparser.ConfigParser(interpolation=None)
    configuration.read(ROOT / "tox.ini")
    for label in arguments[arguments.index("-m") + 1 :][:1] if "-m" in arguments else []:
        assert re.search(rf"(?m)^{label} =", configuration["tox"]["labels"]), label
    names = arguments[arguments.index("-e") + 1].split(",") if "-e" in arguments else []
    known = {*configuration["tox"]["env_list"].split(", "), *configuration}
    for name in names:
        assert known & {name, f"testenv:{name}"} or re.fullmatch(r"py3\d+", name), name


def _check_files(page: Page, arguments: list[str]) -> None:
    """The files that are named have been shown."""
    for argument in arguments:
        if re.search(r"\.(ya?ml|py|json)$", argument):
            assert (page.directory / argument).exists(), f"{argument} was not shown before"


FOREIGN: dict[str, Callable[[Page, list[str]], None]] = {
    "pip install": _check_install,
    "python3 -m pip install": _check_install,
    "tox": _check_tox,
    "python3 -m venv": _check_files,
    ". .venv/bin/activate": _check_files,
    "docker": _check_files,
    "kubectl": _check_files,
    "sudo": _check_files,
    "journalctl": _check_files,
}
