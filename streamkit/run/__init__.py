"""One run of an app, from its options to its end report."""

from streamkit.run.options import Job, RunKeywords, RunOptions, options_of
from streamkit.run.run import Run, with_settings
from streamkit.run.settings import RunSettings, settings_of
from streamkit.run.start import run_app, run_app_async

__all__ = [
    "Job",
    "Run",
    "RunKeywords",
    "RunOptions",
    "RunSettings",
    "options_of",
    "run_app",
    "run_app_async",
    "settings_of",
    "with_settings",
]
