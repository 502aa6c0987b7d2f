"""The class `App`: its decorators build a graph, and `run` runs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack

from streamkit.dataflow.app_stages import AppStages
from streamkit.dataflow.callers import caller_location, caller_module
from streamkit.dataflow.calling import called_step
from streamkit.dataflow.functions import (
    location_of,
)
from streamkit.dataflow.lifespans import NewLifespan, as_lifespan
from streamkit.dataflow.topology import NAME_BYTES_MAX, Topology, is_name
from streamkit.errors import TopologyError, UsageError

if TYPE_CHECKING:
    import msgspec

    from streamkit.run import RunKeywords, RunningJob, RunOptions
    from streamkit.settings import AppSettings
    from streamkit.testing.job import TestJob

    S = TypeVar("S", bound=msgspec.Struct)

X = TypeVar("X")
Y = TypeVar("Y")
Z = TypeVar("Z")
V = TypeVar("V")
R = TypeVar("R")
Q = TypeVar("Q")
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[[], Any])


class App(AppStages):
    """A job: a name, and a graph that decorators and stream methods build.

    The name is also the consumer id of the job, and the name of its state folder.

    Args:
        name: 1 to 63 of ``a-z 0-9 -``.
        include: Modules with more parts of the graph, imported when the app is run.
        version: Of the job, as dead letters show it.
    """

    def __init__(self, name: str, *, include: Sequence[str] = (), version: str = "") -> None:
        if not is_name(name):
            raise UsageError(f"{name!r} is not a valid app name", hint=_name_hint(name))
        self.name = name
        self.version = version
        self.new_lifespan: NewLifespan | None = None
        self.topology = Topology()
        self.location = caller_location()
        self.module = caller_module()
        self.own_settings: AppSettings[Any] | None = None
        self._include = tuple(include)

    # --- settings ------------------------------------------------------------------

    def settings(self, kind: type[S]) -> AppSettings[S]:
        """Declare the app's own settings: the fields of a `msgspec.Struct`.

        They are set with ``--set NAME=VALUE``, ``STREAMKIT_SETTINGS_NAME``,
        ``STREAMKIT_SETTINGS_NAME_FILE`` or ``[settings]`` in ``streamkit.toml``, and read with
        `AppSettings.get` while the job runs. A job does not start if one of them is not valid.

        Args:
            kind: The class. The fields without a default must be set.

        Raises:
            UsageError: The class is not a Struct, a field of it cannot be set, or the app has
                settings of another class.
        """
        from streamkit.settings import AppSettings

        if self.own_settings is None:
            self.own_settings = AppSettings(self.name, kind)
        elif self.own_settings.kind is not kind:
            raise UsageError(
                f"the app {self.name!r} has settings of the class "
                f"{self.own_settings.kind.__name__} already, not {kind!r:.80}",
                hint="declare one class, with a nested Struct for each part",
            )
        return self.own_settings

    # --- use -----------------------------------------------------------------------

    def lifespan(self, function: F) -> F:
        """Open something for the whole run, such as a client that stages share; a decorator.

        The function is an async generator that yields once, or returns an async context manager.
        It is entered in the job's event loop before any record is read, and left after the sinks
        are closed. Stages find what it yields in `Context.lifespan`.

        Raises:
            TopologyError: The function is not async, or the app has a lifespan already.
        """
        if self.new_lifespan is not None:
            raise TopologyError(
                f"the app {self.name!r} has a lifespan already",
                at=str(location_of(function)),
                hint="open both things in one function, and yield them together",
            )
        self.new_lifespan = as_lifespan(function)
        return function

    def load(self) -> None:
        """Import the included modules, which add their parts of the graph.

        Raises:
            TopologyError: A module does not exist or cannot be imported.
        """
        from streamkit.loading.imports import import_named, is_missing

        for module in self._include:
            if is_missing(module):
                raise TopologyError(f"the included module {module!r} does not exist")
            import_named(module, module)

    def check(self) -> None:
        """Refuse a graph that cannot run.

        Raises:
            TopologyError: The graph cannot run; the message shows the user's file and line.
        """
        self._check()

    def _check(self, *, allows_open_ends: bool = False) -> None:
        from streamkit.loading.second_import import refuse_second_import

        self.load()
        refuse_second_import(self)
        self.topology.check(allows_open_ends=allows_open_ends)
        self._check_processes()

    def _check_processes(self) -> None:
        """Refuse functions that other processes could not find."""
        for node in self.topology.nodes:
            called = called_step(node)
            if called is not None and called.spec.how == "process":
                from streamkit.runtime.function_references import reference_to

                reference_to(called.function, node.name)

    def test(self, *, isolated: bool = False, settings: msgspec.Struct | None = None) -> TestJob:
        """Run the graph in memory, without a broker.

        Use it in a ``with`` block: ``job.send(stream, *values)``, then ``job.output(stream)``.

        Args:
            isolated: Fail a stage that changes a value in place if other branches read it too.
                Otherwise their input depends on the order of the stages.
            settings: The app's own settings; by default the defaults of its class. Variables and
                files are not read.

        Raises:
            TopologyError: The graph cannot run; see `check`. A stage that nothing reads is
                allowed, because the test reads it.
            UsageError: The settings do not belong to the class of the app.
        """
        from streamkit.runtime.letters import JobFacts
        from streamkit.testing.job import TestJob
        from streamkit.testing.settings import TestSettings

        self._check(allows_open_ends=True)
        given = TestSettings(self.own_settings, settings)
        return TestJob(
            self.topology,
            given,
            isolated=isolated,
            job=JobFacts(self.name, self.version),
            lifespan=self.new_lifespan,
        )

    def run(self, **options: Unpack[RunKeywords]) -> int:
        """Run the job until it ends or receives a signal; return the exit code.

        The options are those of `streamkit run`. ``sys.argv`` is not read.

        Raises:
            StreamKitError: The job could not be started.
            UsageError: An option is not valid, or an event loop already runs in this thread.
        """
        from streamkit.run import run_app

        return run_app(self, self._run_options(options))

    async def run_async(self, **options: Unpack[RunKeywords]) -> int:
        """Run the job in the running event loop of asyncio; return the exit code.

        Use it if functions of the job need objects of this loop. The options are those of `run`.
        It does not handle signals: the program does. Cancelling this call stops the job in order:
        every sink is flushed and the positions are committed. Functions of the job that block also
        block the event loop; see `start_async`.

        Raises:
            StreamKitError: The job could not be started.
        """
        from streamkit.run import run_app_async

        return await run_app_async(self, self._run_options(options))

    def start(self, **options: Unpack[RunKeywords]) -> RunningJob:
        """Run the job in a thread of its own; return when its sources and sinks are open.

        Use the result in a ``with`` block, which stops the job in order, or call its ``stop``. If
        the program ends without that, the job is stopped in order too. The options are those of
        `run`. It does not handle signals.

        Raises:
            StreamKitError: The job could not be started.
        """
        from streamkit.run import start_app

        return start_app(self, self._run_options(options))

    def start_async(
        self, **options: Unpack[RunKeywords]
    ) -> AbstractAsyncContextManager[RunningJob]:
        """Run the job like `start`, in an ``async with`` block that does not block its event loop.

        The end of the block stops the job in order, also if the block is cancelled.

        Raises:
            StreamKitError: The job could not be started.
        """
        from streamkit.run import start_app_async

        return start_app_async(self, self._run_options(options))

    def _run_options(self, options: RunKeywords) -> RunOptions:
        """Check the options of a run; stop here if the file is only loaded, not run."""
        from streamkit.loading.imports import LoadingStopped, is_loading
        from streamkit.run import options_of

        if is_loading():
            raise LoadingStopped(self)
        return options_of(options)


def _name_hint(name: str) -> str:
    possible = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "my-job"
    return f"use 1 to {NAME_BYTES_MAX} characters: a-z, 0-9 and -, such as {possible!r}"
