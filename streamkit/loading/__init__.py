"""Find the App of a file or module: each file is one module, and nothing runs meanwhile."""
