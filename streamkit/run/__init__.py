"""One run of an app, from its options to its end report."""

from streamkit.run.graph import with_settings
from streamkit.run.in_loop import run_app_async
from streamkit.run.in_thread import RunningJob, start_app, start_app_async
from streamkit.run.options import Job, RunKeywords, RunOptions, options_of
from streamkit.run.run import Run
from streamkit.run.settings import RunSettings, settings_of
from streamkit.run.start import run_app

__all__ = [
    "Job",
    "Run",
    "RunKeywords",
    "RunOptions",
    "RunSettings",
    "RunningJob",
    "options_of",
    "run_app",
    "run_app_async",
    "settings_of",
    "start_app",
    "start_app_async",
    "with_settings",
]
