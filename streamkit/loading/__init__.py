"""Finds the App of a file or module. Each file becomes one module, and no job runs meanwhile."""
